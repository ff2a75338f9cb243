// SPDX-License-Identifier: MIT
//
// Requests that two readers could understand differently, or that are no HTTP/1.1: each is refused, its
// connection closed, and the provider sees nothing.
import assert from 'node:assert/strict';
import { Context, run, test } from './runner.mjs';
import { CHAT, answering, assertError, chat, ok, once, pair, post } from './gateway.mjs';

const BODY = chat();
const hostile = {
    'Content-Length and Transfer-Encoding': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    'two different Content-Lengths': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456`,
    'two equal Content-Lengths': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n12345`,
    'a list of Content-Lengths': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n12345`,
    'a signed Content-Length': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n12345`,
    'a hexadecimal Content-Length': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n12345`,
    'an empty Content-Length': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n`,
    'a Content-Length over 63 bits': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n`,
    'chunked twice': `${CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    'chunked not last': `${CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`,
    'an unknown transfer coding': `${CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`,
    'a transfer coding behind a vertical tab': `${CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n`,
    'Transfer-Encoding in HTTP/1.0': `${CHAT} HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    'a space before the colon': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n12345`,
    'a folded line': `${CHAT} HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n Content-Length: 5\r\n\r\n12345`,
    'a bare LF after a field': `${CHAT} HTTP/1.1\r\nHost: x\nContent-Length: 5\r\n\r\n12345`,
    'a bare LF at the end of the head': `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\n`,
    'a bare CR in a field': `${CHAT} HTTP/1.1\r\nHost: x\r\nX-A: 1\rContent-Length: 5\r\n\r\n12345`,
    'a NUL in a field': `${CHAT} HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n`,
    'a NUL in the target': `POST /v1/chat\0/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`,
    'a field without a name': `${CHAT} HTTP/1.1\r\nHost: x\r\n: value\r\nContent-Length: 0\r\n\r\n`,
    'a field without a colon': `${CHAT} HTTP/1.1\r\nHost: x\r\nnonsense\r\nContent-Length: 0\r\n\r\n`,
    'no Host': `${CHAT} HTTP/1.1\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`,
    'two Hosts': `${CHAT} HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`,
    'a chunk size that is no number': `${CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{"\r\n0\r\n\r\n`,
    'a chunk size with a sign': `${CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{"\r\n0\r\n\r\n`,
    'a chunk size over 60 bits': `${CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{"\r\n0\r\n\r\n`,
    'a chunk longer than its size': `${CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{"ab\r\n0\r\n\r\n`,
    'a chunk size line that ends in LF': `${CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\n{"\r\n0\r\n\r\n`,
    'three words too many': 'POST /v1/chat/completions HTTP/1.1 again\r\nHost: x\r\n\r\n',
    'two spaces in the request line': 'POST  /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n',
    'a lower-case version': 'POST /v1/chat/completions http/1.1\r\nHost: x\r\n\r\n',
    'the preface of TLS': '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n',
};

// One gateway for all of them, which also shows that none of them harms the next.
const shared = new Context();
const { provider, gateway } = await pair(shared, answering(ok));

for (const [what, bytes] of Object.entries(hostile)) {
    test(`refused, closed, and nothing forwarded: ${what}`, async () => {
        const before = provider.connections;
        const wire = await gateway.connect();
        await wire.send(bytes);
        const got = await wire.response();
        assert.ok([400, 501, 505].includes(got.status), got.head.text);
        assert.ok(got.head.get('x-tokenring-error'), 'our errors are named');
        await wire.closed();
        assert.equal(provider.connections, before, 'the provider saw nothing');
        wire.close();
    });
}

test('after all these the gateway still serves, and stops in order', async () => {
    assert.equal((await once(gateway, post({ Connection: 'close' }, chat()))).status, 200);
    assert.equal(await shared.clean(), null);
});

test('what follows a refused request on the same connection is never read', async (t) => {
    const own = await pair(t, answering(ok));
    const wire = await own.gateway.connect();
    const smuggled = post({}, chat()).toString('latin1');
    await wire.send(`${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`);
    assertError(await wire.response(), 400, 'bad_request');
    await wire.closed();
    assert.equal(own.provider.connections, 0);
});

await run();
