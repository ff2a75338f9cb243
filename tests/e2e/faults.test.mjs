// SPDX-License-Identifier: MIT
//
// Providers that refuse, fall silent, break off or talk nonsense: what the client is told, and that it is
// never told that a broken answer was a whole one.
import assert from 'node:assert/strict';
import { barrier, run, test, within } from './runner.mjs';
import { chunk, response } from './wire.mjs';
import {
    JSON_TYPE, STREAM_HEAD, answering, assertError, chat, freePort, moreToCome, ok, once, pair, post,
    startGateway, streaming,
} from './gateway.mjs';

const event = (n) => chunk(`data: {"choices":[{"index":0,"delta":{"content":"${n}"}}]}\n\n`);

// The client saw some events, then an error event, and no orderly end.
function assertBrokenStream(got, error) {
    const text = got.body.toString();
    assert.equal(got.status, 200);
    assert.match(text, /"content":"1"/, 'what came before the break was delivered');
    const last = text.split(/\r?\n\r?\n/).filter((e) => e.trim()).at(-1);
    assert.match(last, /data: .*"error"/, 'the stream ends with an error event');
    const data = JSON.parse(/^data: (.*)$/m.exec(last)[1]);
    assert.equal(typeof data.error.message, 'string');
    if (error) assert.match(last, new RegExp(error));
    assert.doesNotMatch(text, /\[DONE\]/, 'never a clean end');
    assert.equal(got.clean, false, 'the chunked coding is not ended in good order either');
}

// A stream that breaks by what `afterEvents` does, once the client has both events.
async function brokenStream(t, afterEvents, { args = [] } = {}) {
    const seen = barrier();
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send(STREAM_HEAD, event(1), event(2));
        await seen.opened;
        await afterEvents(wire);
    }, { args, errorsAllowed: true });
    const wire = await gateway.connect();
    await wire.send(streaming());
    return wire.stream((part) => part.includes('"content":"2"') && seen.open());
}

test('a provider that refuses the connection: 502', async (t) => {
    const gateway = await startGateway(t, { providers: [`gone=openai+http://127.0.0.1:${await freePort()}/v1`] });
    const wire = await gateway.connect();
    for (let i = 0; i < 2; i++) {
        await wire.send(post({}, chat()));
        assertError(await wire.response(), 502, 'upstream_connect_failed');
    }
});

test('a provider that hangs up before the first byte: 502', async (t) => {
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        wire.close({ reset: true });
    });
    const got = await once(gateway, post({}, chat()));
    assert.equal(got.status, 502);
    assert.match(got.head.get('x-tokenring-error'), /^upstream_/);
});

test('a provider that says nothing: 504 after --timeout-first-byte, and it is hung up on', async (t) => {
    const hungUp = barrier();
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.rest();
        hungUp.open();
        wire.close();
    }, { args: ['--timeout-first-byte', '300ms'] });
    assertError(await once(gateway, post({}, chat())), 504, 'timeout_first_byte');
    await within(hungUp.opened, 5, 'the upstream connection to close');
});

test('a provider that does not speak HTTP: 502', async (t) => {
    const answers = [
        'SSH-2.0-OpenSSH_9.2\r\n\r\n',
        'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456',
        'HTTP/1.1 200 OK\nContent-Length: 0\n\n',
        'HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n',
        'HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n',
    ];
    let turn = 0;
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.offer(answers[turn++]);
        await wire.rest();
    }, { errorsAllowed: true });
    for (const answer of answers) {
        const got = await once(gateway, post({}, chat()));
        assert.equal(got.status, 502, JSON.stringify(answer));
        assert.equal(got.head.get('x-tokenring-error'), 'upstream_protocol_error');
    }
});

test('a response head over 64 KB: 502', async (t) => {
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.offer(`HTTP/1.1 200 OK\r\n${`X-Big: ${'x'.repeat(1000)}\r\n`.repeat(70)}\r\n`);
        await wire.rest();
    }, { errorsAllowed: true });
    assertError(await once(gateway, post({}, chat())), 502, 'upstream_head_too_large');
});

test('a bad chunk in the middle of a stream: an error event, no clean end', async (t) => {
    assertBrokenStream(await brokenStream(t, (wire) => wire.offer('zz\r\noops\r\n')), 'upstream_protocol_error');
});

test('events that came in the same packet as the bad chunk are delivered', async (t) => {
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send(STREAM_HEAD, event(1), event(2), 'zz\r\noops\r\n');
        await wire.rest();
    });
    const wire = await gateway.connect();
    await wire.send(streaming());
    const got = await wire.stream();
    assertBrokenStream(got, 'upstream_protocol_error');
    assert.match(got.body.toString(), /"content":"2"/);
});

test('a stream that is cut: an error event, no clean end', async (t) => {
    assertBrokenStream(await brokenStream(t, async (wire) => wire.finish()), 'upstream_truncated');
});

test('a stream that is reset: an error event, no clean end', async (t) => {
    assertBrokenStream(await brokenStream(t, async (wire) => wire.close({ reset: true })));
});

test('a stream cut inside an event: the error event stands alone', async (t) => {
    const got = await brokenStream(t, async (wire) => {
        await wire.send(chunk('data: {"choices":[{"index":0,"del'));
        wire.finish();
    });
    assertBrokenStream(got, 'upstream_truncated');
});

test('a stream that falls silent: an error event after --timeout-idle, and the provider is hung up on', async (t) => {
    const hungUp = barrier();
    const got = await brokenStream(t, async (wire) => {
        await wire.rest();
        hungUp.open();
    }, { args: ['--timeout-idle', '400ms'] });
    assertBrokenStream(got, 'timeout_idle');
    await within(hungUp.opened, 5, 'the upstream connection to close');
});

test('a whole answer that is cut short is not passed off as complete', async (t) => {
    for (const head of ['Content-Length: 100\r\n', 'Transfer-Encoding: chunked\r\n']) {
        const body = head.startsWith('C') ? '{"half":' : '8\r\n{"half":\r\n';
        const { gateway } = await pair(t, async (wire) => {
            if (!(await moreToCome(wire))) return;
            await wire.request();
            await wire.send(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n${head}\r\n${body}`);
            wire.finish();
        });
        const wire = await gateway.connect();
        await wire.send(post({}, chat()));
        const text = (await wire.rest()).toString();
        if (/^HTTP\/1.1 502/.test(text)) assert.match(text, /x-tokenring-error: upstream_truncated/i);
        else assert.ok(!text.endsWith('0\r\n\r\n') && !/Content-Length: 8\r\n/i.test(text), text);
    }
});

test('a pooled connection that the provider closed costs nothing (defilantech/LLMKube#459)', async (t) => {
    const closed = barrier();
    const { provider, gateway } = await pair(t, async (wire, n) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send(ok());
        if (n > 0) return;
        wire.finish();
        await wire.rest();
        closed.open();
    });
    const wire = await gateway.connect();
    await wire.send(post({}, chat()));
    assert.equal((await wire.response()).status, 200);
    await within(closed.opened, 5, 'the gateway to give up the closed connection');
    await wire.send(post({}, chat()));
    assert.equal((await wire.response()).status, 200);
    assert.equal(provider.connections, 2);
});

test('a pooled connection reset under a request is tried again on a fresh one (defilantech/LLMKube#459)', async (t) => {
    let served = 0;
    const { provider, gateway } = await pair(t, async (wire, n) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        served++;
        await wire.send(ok());
        if (!(await moreToCome(wire))) return;
        if (n === 0) return wire.close({ reset: true });
        await wire.request();
        await wire.send(ok());
    });
    const wire = await gateway.connect();
    await wire.send(post({}, chat()));
    assert.equal((await wire.response()).status, 200);
    await wire.send(post({}, chat()));
    const got = await wire.response();
    assert.equal(got.status, 200, got.head.text);
    assert.deepEqual([provider.connections, served], [2, 2]);
});

test("a provider's own error passes unchanged, without our name on it", async (t) => {
    const body = '{"error":{"message":"slow down","type":"rate_limit","param":null,"code":"x"}}';
    const fields = { ...JSON_TYPE, 'Retry-After': '7', 'x-ratelimit-remaining-requests': '0' };
    const { gateway } = await pair(t, answering(() => response(429, fields, body)));
    const got = await once(gateway, post({}, chat()));
    assert.equal(got.status, 429);
    assert.equal(got.body.toString(), body);
    assert.equal(got.head.get('retry-after'), '7');
    assert.equal(got.head.get('x-ratelimit-remaining-requests'), '0');
    assert.equal(got.head.get('x-tokenring-error'), undefined);
});

test('bytes behind the end of an answer: it is delivered, the connection is not used again', async (t) => {
    const { provider, gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send(ok(), 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad');
        await wire.rest();
    }, { errorsAllowed: true });
    const wire = await gateway.connect();
    for (let i = 0; i < 2; i++) {
        await wire.send(post({}, chat()));
        assert.equal((await wire.response()).body.toString(), '{"id":"x"}');
    }
    assert.equal(provider.connections, 2);
});

await run();
