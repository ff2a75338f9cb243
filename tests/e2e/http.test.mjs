// SPDX-License-Identifier: MIT
//
// HTTP/1.1 between raw sockets: what a client and a provider see of each other through the gateway, byte by
// byte. Messages, routing by model, credentials, and requests that are refused.
import assert from 'node:assert/strict';
import { barrier, run, test, within } from './runner.mjs';
import { LAST_CHUNK, chunk, request, response } from './wire.mjs';
import {
    CHAT, JSON_TYPE, answering, assertError, chat, get, moreToCome, ok, once, pair, post, startGateway,
    startProvider,
} from './gateway.mjs';

// ---------------------------------------------------------------- messages

test('a request and its answer pass unchanged', async (t) => {
    const answer = '{"id":"chatcmpl-1","choices":[]}\n';
    const { provider, gateway } = await pair(t, answering(() => response(200, { ...JSON_TYPE, 'X-Up': 'yes' }, answer)));
    const body = ' {"messages" : [ ] ,\r\n\t"model":"gpt-4o", "n": 1.50e+0 }';
    const got = await once(gateway, post({ 'X-Mine': 'also' }, body));
    assert.equal(got.status, 200);
    assert.equal(got.body.toString(), answer);
    assert.equal(got.head.get('x-up'), 'yes');
    assert.equal(got.head.get('content-type'), 'application/json');
    assert.ok(got.head.get('x-request-id'), 'every answer carries x-request-id');
    assert.match(got.head.get('x-tokenring-overhead-us') ?? '', /^\d+$/);
    assert.equal(got.head.get('x-tokenring-provider'), 'local');
    const seen = provider.requests[0];
    assert.equal(seen.head.startLine, 'POST /v1/chat/completions HTTP/1.1');
    assert.equal(seen.body.toString(), body);
    assert.equal(seen.head.get('x-mine'), 'also');
    assert.equal(seen.head.get('host'), new URL(provider.url()).host);
});

test('keep-alive: requests follow each other on one connection, and upstream too', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const wire = await gateway.connect();
    const ids = new Set();
    for (let i = 0; i < 5; i++) {
        await wire.send(post({}, chat()));
        const got = await wire.response();
        assert.equal(got.status, 200);
        ids.add(got.head.get('x-request-id'));
    }
    assert.equal(ids.size, 5, 'each request has an id of its own');
    assert.equal(provider.connections, 1, 'the upstream connection was used again');
});

test('pipelining: three requests in one write are answered in order', async (t) => {
    const { provider, gateway } = await pair(t, answering(({ body }) => response(200, JSON_TYPE, `"${JSON.parse(body).user}"`)));
    const wire = await gateway.connect();
    await wire.send(...['one', 'two', 'three'].map((user) => post({}, chat('m', { user }))));
    for (const user of ['one', 'two', 'three']) {
        assert.equal((await wire.response()).body.toString(), `"${user}"`);
    }
    assert.equal(provider.requests.length, 3);
});

test('a request that arrives byte by byte is understood', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const wire = await gateway.connect();
    const body = chat();
    for (const byte of post({}, body)) await wire.send(Buffer.from([byte]));
    assert.equal((await wire.response()).status, 200);
    assert.equal(provider.requests[0].body.toString(), body);
});

test('HEAD: the length of the answer, and no body', async (t) => {
    const head = 'HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-Kind: head\r\n\r\n';
    const script = answering((got) => (got.head.method === 'HEAD' ? head : ok()));
    const { provider, gateway } = await pair(t, script);
    const wire = await gateway.connect();
    await wire.send(request('HEAD /v1/files/abc'));
    const got = await wire.response({ to: 'HEAD' });
    assert.equal(got.status, 200);
    assert.equal(got.head.get('content-length'), '1234');
    await wire.send(post({}, chat()));
    assert.equal((await wire.response()).body.toString(), '{"id":"x"}', 'the connection is still in step');
    assert.equal(provider.requests[0].head.startLine, 'HEAD /v1/files/abc HTTP/1.1');
});

test('a DELETE without a body passes', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    assert.equal((await once(gateway, request('DELETE /v1/files/abc?x=%20y'))).status, 200);
    assert.equal(provider.requests[0].head.startLine, 'DELETE /v1/files/abc?x=%20y HTTP/1.1');
});

test('Expect: 100-continue is answered before the body is sent', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const wire = await gateway.connect();
    const body = chat();
    await wire.send(post({ Expect: '100-continue', 'Content-Length': body.length }, ''));
    assert.equal((await wire.head()).status, 100);
    await wire.send(body);
    assert.equal((await wire.response()).status, 200);
    assert.equal(provider.requests[0].body.toString(), body);
});

test('Expect of anything else gets 417', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    assertError(await once(gateway, post({ Expect: 'miracles' }, chat())), 417, 'bad_expect');
    assert.equal(provider.connections, 0);
});

test('a chunked request body arrives whole', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const body = chat('gpt-4o', { user: 'x'.repeat(5000) });
    const wire = await gateway.connect();
    await wire.send(post({ 'Transfer-Encoding': 'chunked' }, ''));
    for (let at = 0; at < body.length; at += 777) await wire.send(chunk(body.slice(at, at + 777)));
    await wire.send('0;last=yes\r\nX-Trailer: dropped or kept\r\n\r\n');
    assert.equal((await wire.response()).status, 200);
    assert.equal(provider.requests[0].body.toString(), body);
    await wire.send(post({}, chat()));
    assert.equal((await wire.response()).status, 200, 'the connection is still in step');
});

test('a chunked response arrives whole; its trailer never turns into framing', async (t) => {
    const parts = ['{"a":', '1', ',"b":"', 'y'.repeat(40000), '"}'];
    const trailer = 'X-Checksum: abc\r\nContent-Length: 5\r\n';
    const head = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n';
    const script = answering(async (got, wire) => {
        await wire.send(head);
        for (const part of parts) await wire.send(chunk(part));
        await wire.send(`0\r\n${trailer}\r\n`);
    });
    const { provider, gateway } = await pair(t, script);
    const wire = await gateway.connect();
    for (let i = 0; i < 2; i++) {
        await wire.send(post({ TE: 'trailers' }, chat()));
        const got = await wire.response();
        assert.equal(got.body.toString(), parts.join(''));
        assert.equal(got.head.get('x-checksum'), undefined);
        assert.equal(got.trailer?.get('content-length'), undefined, 'framing fields have no place in a trailer');
        assert.ok([undefined, 'abc'].includes(got.trailer?.get('x-checksum')));
    }
    assert.equal(provider.connections, 1, 'the trailer was taken off the upstream connection');
});

test('hop-by-hop fields stay on their hop, in both directions', async (t) => {
    const answer = response(200, {
        ...JSON_TYPE, Connection: 'keep-alive, X-Secret', 'X-Secret': 'upstream', 'Keep-Alive': 'timeout=9',
        'Proxy-Authenticate': 'Basic', 'X-Open': 'upstream',
    }, '{}');
    const { provider, gateway } = await pair(t, answering(() => answer));
    const got = await once(gateway, post({
        Connection: 'keep-alive, x-private ,X-Other', 'X-Private': '1', 'x-other': '2', 'Keep-Alive': 'timeout=5',
        'Proxy-Connection': 'keep-alive', 'Proxy-Authorization': 'Basic Zm9v', TE: 'trailers', 'X-Public': '3',
    }, chat()));
    const seen = provider.requests[0].head;
    for (const name of ['x-private', 'x-other', 'keep-alive', 'proxy-connection', 'proxy-authorization']) {
        assert.equal(seen.get(name), undefined, `${name} is not forwarded`);
    }
    assert.doesNotMatch(seen.get('connection') ?? '', /x-private/i);
    assert.equal(seen.get('x-public'), '3');
    for (const name of ['x-secret', 'proxy-authenticate']) assert.equal(got.head.get(name), undefined, `${name} is not forwarded`);
    assert.notEqual(got.head.get('keep-alive'), 'timeout=9');
    assert.equal(got.head.get('x-open'), 'upstream');
});

test('Via is added on both sides, X-Forwarded-For is appended to', async (t) => {
    const { provider, gateway } = await pair(t, answering(() => response(200, { ...JSON_TYPE, Via: '1.1 cache' }, '{}')));
    const got = await once(gateway, post({ 'X-Forwarded-For': '192.0.2.7', Via: '1.0 laptop' }, chat()));
    const seen = provider.requests[0].head;
    assert.equal(seen.get('via'), '1.0 laptop, 1.1 tokenring');
    assert.equal(got.head.get('via'), '1.1 cache, 1.1 tokenring');
    assert.equal(seen.get('x-forwarded-for'), '192.0.2.7, 127.0.0.1');
});

for (const [policy, expected] of [['set', '127.0.0.1'], ['off', undefined]]) {
    test(`--forwarded ${policy} drops what the client claimed`, async (t) => {
        const { provider, gateway } = await pair(t, answering(ok), { args: ['--forwarded', policy] });
        await once(gateway, post({ 'X-Forwarded-For': '192.0.2.7', Forwarded: 'for=192.0.2.7' }, chat()));
        assert.equal(provider.requests[0].head.get('x-forwarded-for'), expected);
        assert.equal(provider.requests[0].head.get('forwarded'), undefined);
    });
}

test('an interim 100 of the provider is dropped, a 103 is passed on', async (t) => {
    const interim = 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n';
    const { gateway } = await pair(t, answering(() => Buffer.concat([Buffer.from(interim), ok()])));
    const wire = await gateway.connect();
    for (let i = 0; i < 2; i++) {
        await wire.send(post({}, chat()));
        const got = await wire.response();
        assert.equal(got.status, 200);
        assert.deepEqual(got.interim.map((head) => head.status), [103]);
        assert.equal(got.interim[0].get('link'), '</x>; rel=preload');
    }
});

test('a client of HTTP/1.0 gets no interim response', async (t) => {
    const interim = 'HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n';
    const { gateway } = await pair(t, answering(() => Buffer.concat([Buffer.from(interim), ok()])));
    const body = chat();
    const got = await once(gateway, `${CHAT} HTTP/1.0\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    assert.equal(got.status, 200);
    assert.equal(got.interim.length, 0);
});

for (const status of [204, 304]) {
    test(`${status} has no body, whatever its fields say`, async (t) => {
        const bare = `HTTP/1.1 ${status} X\r\n${status === 304 ? 'Content-Length: 10\r\n' : ''}ETag: "v"\r\n\r\n`;
        const { provider, gateway } = await pair(t, answering((got) => (got.head.method === 'GET' ? bare : ok())));
        const wire = await gateway.connect();
        await wire.send(request('GET /v1/files/abc', { 'If-None-Match': '"v"' }));
        const got = await wire.response({ to: 'GET' });
        assert.equal(got.status, status);
        assert.equal(got.head.get('etag'), '"v"');
        await wire.send(post({}, chat()));
        assert.equal((await wire.response()).body.toString(), '{"id":"x"}', 'the connection is still in step');
        assert.equal(provider.connections, 1);
    });
}

test('Connection: close is honoured after the answer', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    const wire = await gateway.connect();
    await wire.send(post({ Connection: 'close' }, chat()));
    const got = await wire.response();
    assert.equal(got.status, 200);
    assert.match(got.head.get('connection') ?? '', /close/i);
    await wire.closed();
});

test("the provider's Connection: close ends its connection, not the client's", async (t) => {
    const { provider, gateway } = await pair(t, answering(() => response(200, { ...JSON_TYPE, Connection: 'close' }, '{}')));
    const wire = await gateway.connect();
    for (let i = 0; i < 2; i++) {
        await wire.send(post({}, chat()));
        const got = await wire.response();
        assert.equal(got.status, 200);
        assert.doesNotMatch(got.head.get('connection') ?? '', /close/i);
    }
    assert.equal(provider.connections, 2, 'a connection that said close is not used again');
});

test('an answer that ends with the connection is complete, and its end is not doubted', async (t) => {
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"until":"close"}');
        wire.finish();
    });
    const wire = await gateway.connect();
    for (let i = 0; i < 2; i++) {
        await wire.send(post({}, chat()));
        assert.equal((await wire.response()).body.toString(), '{"until":"close"}');
    }
});

test('a client of HTTP/1.0 gets a chunked answer without the chunks', async (t) => {
    const script = answering(async (got, wire) => {
        await wire.send('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n');
        await wire.send(chunk('data: {"a":1}\n\n'));
        await wire.send(chunk('data: [DONE]\n\n'));
        await wire.send(LAST_CHUNK);
    });
    const { gateway } = await pair(t, script);
    const wire = await gateway.connect();
    const body = chat('gpt-4o', { stream: true });
    await wire.send(`${CHAT} HTTP/1.0\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    const head = await wire.head();
    assert.equal(head.status, 200);
    assert.equal(head.get('transfer-encoding'), undefined);
    assert.equal((await wire.rest()).toString(), 'data: {"a":1}\n\ndata: [DONE]\n\n');
});

test('a large upload streams through before it is complete', async (t) => {
    const half = barrier();
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        const head = await wire.head();
        await wire.exactly(500000);
        half.open();
        await wire.exactly(Number(head.get('content-length')) - 500000);
        await wire.send(ok());
    });
    const wire = await gateway.connect();
    const bytes = Buffer.alloc(1000000, 'u');
    await wire.send(request('POST /v1/files', { 'Content-Type': 'application/octet-stream', 'Content-Length': 1000000 }));
    await wire.send(bytes.subarray(0, 500000));
    await within(half.opened, 5, 'the first half of the upload');
    await wire.send(bytes.subarray(500000));
    assert.equal((await wire.response()).status, 200);
});

test('an answer that comes before the upload is over reaches the client', async (t) => {
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.head();
        await wire.send(response(401, { ...JSON_TYPE, Connection: 'close' }, '{"error":{"message":"no"}}'));
        wire.finish();
        await wire.rest();
    }, { errorsAllowed: true });
    const wire = await gateway.connect();
    await wire.send(request('POST /v1/files', { 'Content-Type': 'application/octet-stream', 'Content-Length': 1000000 }));
    await wire.send(Buffer.alloc(300000, 'u'));
    const got = await wire.response();
    assert.equal(got.status, 401);
    assert.equal(got.body.toString(), '{"error":{"message":"no"}}');
    await wire.offer(Buffer.alloc(700000, 'u'));
    wire.close();
    assert.equal((await get(gateway.port, '/health')).status, 200, 'the gateway is well');
});

test('Upgrade is answered 426', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const got = await once(gateway, request('GET /v1/realtime', { Connection: 'Upgrade', Upgrade: 'websocket' }), { to: 'GET' });
    assertError(got, 426, 'upgrade_unsupported');
    assert.equal(provider.connections, 0);
});

test('a head of 60 KB passes', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const fields = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`X-Field-${i}`, String(i % 10).repeat(1000)]));
    assert.equal((await once(gateway, post(fields, chat()))).status, 200);
    for (const [name, value] of Object.entries(fields)) assert.equal(provider.requests[0].head.get(name), value);
});

test('a head over 64 KB gets 431 and the connection is closed', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const wire = await gateway.connect();
    const fields = Object.fromEntries(Array.from({ length: 70 }, (_, i) => [`X-Field-${i}`, 'x'.repeat(1000)]));
    await wire.offer(post(fields, chat()));
    assertError(await wire.response(), 431, 'head_too_large');
    await wire.closed();
    assert.equal(provider.connections, 0);
});

test('the empty line that some clients send between requests is forgiven once', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    const wire = await gateway.connect();
    await wire.send(post({}, chat()), '\r\n', post({}, chat()));
    assert.equal((await wire.response()).status, 200);
    assert.equal((await wire.response()).status, 200);
});

test('the absolute form of the target is understood', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const got = await once(gateway, request('GET http://gateway.test/v1/files/abc?q=1', {}), { to: 'GET' });
    assert.equal(got.status, 200);
    assert.equal(provider.requests[0].head.target, '/v1/files/abc?q=1');
});

// ---------------------------------------------------------------- routing by model

const aliased = (provider) => `
providers:
  - {name: one, kind: openai, base_url: "${provider.url()}"}
models:
  - name: fast
    targets:
      - {provider: one, model: "vendor/real-model-2026"}
`;

test('the model is replaced in place; every other byte of the body stays', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok), { config: aliased });
    const bodies = [
        ['{ "stream" :false,\r\n "model"\t:  "', 'fast', '"  , "messages":[{"role":"user","content":"model \\"model\\":\\"fast\\""}], "x":1.0e+2}'],
        ['{"messages":[{"model":"fast"}],"metadata":{"model":"fast"},"model":"', 'fast', '"}\n\n'],
        ['{"model":"', 'f\\u0061st', '","user":"\u00e9\u{1F600}"}'],
    ];
    for (const [before, model, after] of bodies) {
        assert.equal((await once(gateway, post({}, before + model + after))).status, 200);
        const seen = provider.requests.at(-1);
        assert.equal(seen.body.toString(), `${before}vendor/real-model-2026${after}`);
    }
});

test('the model is replaced in a chunked body too', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok), { config: aliased });
    const wire = await gateway.connect();
    await wire.send(post({ 'Transfer-Encoding': 'chunked' }, ''));
    for (const part of ['{"messages":[],"mod', 'el":"fa', 'st","user":"x"', '}']) await wire.send(chunk(part));
    await wire.send(LAST_CHUNK);
    assert.equal((await wire.response()).status, 200);
    assert.equal(provider.requests[0].body.toString(), '{"messages":[],"model":"vendor/real-model-2026","user":"x"}');
});

test('a model in the last bytes of 200 KB is found', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok), { config: aliased });
    const before = `{"messages":[{"role":"user","content":"${'long '.repeat(40000)}"}],"model":"`;
    assert.equal((await once(gateway, post({}, `${before}fast"}`))).status, 200);
    assert.equal(provider.requests[0].body.toString(), `${before}vendor/real-model-2026"}`);
});

test('a body goes on streaming behind the peek window', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok), { config: aliased, args: ['--peek-bytes', '64K'] });
    const after = `","messages":[{"role":"user","content":"${'long '.repeat(400000)}"}]}`;
    assert.equal((await once(gateway, post({}, `{"model":"fast${after}`))).status, 200);
    assert.equal(provider.requests[0].body.toString(), `{"model":"vendor/real-model-2026${after}`);
});

test('a model beyond the peek window gets 400 that names --peek-bytes', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok), { config: aliased, args: ['--peek-bytes', '64K'] });
    const wire = await gateway.connect();
    await wire.offer(post({}, `{"messages":[{"role":"user","content":"${'long '.repeat(20000)}"}],"model":"fast"}`));
    assert.match(assertError(await wire.response(), 400, 'model_beyond_peek'), /--peek-bytes/);
    assert.equal(provider.connections, 0);
});

test('a model nobody serves gets 404', async (t) => {
    const two = (provider) => aliased(provider).replace('models:', `  - {name: two, kind: openai, base_url: "${provider.url()}"}\nmodels:`);
    const { provider, gateway } = await pair(t, answering(ok), { config: two });
    assert.match(assertError(await once(gateway, post({}, chat('who'))), 404, 'model_not_found'), /who/);
    assert.equal(provider.connections, 0);
});

test('/NAME/... goes straight to that provider, bytes untouched', async (t) => {
    const provider = await startProvider(t, answering(ok));
    const gateway = await startGateway(t, { providers: [provider.flag('local', 'openai', '')] });
    const got = await once(gateway, request('PUT /local/any/where?q=a%2Fb', { 'Content-Type': 'text/plain' }, 'not json {'));
    assert.equal(got.status, 200);
    assert.equal(provider.requests[0].head.startLine, 'PUT /any/where?q=a%2Fb HTTP/1.1');
    assert.equal(provider.requests[0].body.toString(), 'not json {');
});

// ---------------------------------------------------------------- credentials

const secrets = {
    Authorization: 'Bearer sk-client', 'X-Api-Key': 'client', 'Api-Key': 'client', 'X-Goog-Api-Key': 'client',
    Cookie: 'session=client',
};

test("the client's credentials are never forwarded; the provider's key is", async (t) => {
    const config = (provider) => `
providers:
  - {name: one, kind: openai, base_url: "${provider.url()}", api_key: "\${E2E_KEY}"}
`;
    const provider = await startProvider(t, answering(ok));
    const gateway = await startGateway(t, { config: config(provider), env: { E2E_KEY: 'sk-provider' } });
    assert.equal((await once(gateway, post(secrets, chat()))).status, 200);
    const seen = provider.requests[0].head;
    assert.deepEqual(seen.all('authorization'), ['Bearer sk-provider']);
    assert.doesNotMatch(seen.text, /client/);
    assert.doesNotMatch(gateway.stderr, /sk-provider|sk-client/, 'no key is logged');
});

test('without a key nothing is injected, and nothing is let through', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    assert.equal((await once(gateway, post(secrets, chat()))).status, 200);
    assert.equal(provider.requests[0].head.get('authorization'), undefined);
    assert.doesNotMatch(provider.requests[0].head.text, /client/);
});

test('--provider-key NAME=env:VAR gives the key', async (t) => {
    const provider = await startProvider(t, answering(ok));
    const args = ['--provider-key', 'local=env:E2E_KEY'];
    const gateway = await startGateway(t, { providers: [provider.flag()], args, env: { E2E_KEY: 'sk-flag' } });
    assert.equal((await once(gateway, post({}, chat()))).status, 200);
    assert.equal(provider.requests[0].head.get('authorization'), 'Bearer sk-flag');
});

test('auth: passthrough forwards what the client sent', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok), {
        config: (p) => `providers:\n  - {name: one, kind: openai, base_url: "${p.url()}", auth: passthrough}\n`,
    });
    assert.equal((await once(gateway, post(secrets, chat()))).status, 200);
    for (const [name, value] of Object.entries(secrets)) assert.equal(provider.requests[0].head.get(name), value);
});

test('the kind of a provider decides which header carries the key', async (t) => {
    const config = (p) => `providers:\n  - {name: one, kind: anthropic, base_url: "${p.url('')}", api_key: "\${E2E_KEY}"}\n`;
    const provider = await startProvider(t, answering(ok));
    const gateway = await startGateway(t, { config: config(provider), env: { E2E_KEY: 'sk-ant' } });
    const body = JSON.stringify({ model: 'claude', max_tokens: 5, messages: [] });
    const fields = { ...JSON_TYPE, ...secrets, 'anthropic-version': '2023-06-01', 'anthropic-beta': 'a,b' };
    assert.equal((await once(gateway, request('POST /v1/messages?beta=true', fields, body))).status, 200);
    const seen = provider.requests[0].head;
    assert.deepEqual(seen.all('x-api-key'), ['sk-ant']);
    assert.equal(seen.get('authorization'), undefined);
    assert.equal(seen.get('anthropic-version'), '2023-06-01');
    assert.equal(seen.get('anthropic-beta'), 'a,b');
    assert.equal(seen.target, '/v1/messages?beta=true');
});

// ---------------------------------------------------------------- bad requests

test('a declared body over --max-body gets 413 before it is read', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok), { args: ['--max-body', '64K'] });
    for (const fields of [{}, { Expect: '100-continue' }]) {
        const wire = await gateway.connect();
        await wire.send(post({ ...fields, 'Content-Length': 65537 }, ''));
        assertError(await wire.response(), 413, 'body_too_large');
    }
    assert.equal(provider.connections, 0);
    assert.equal((await once(gateway, post({}, chat()))).status, 200);
});

test('a chunked body that grows over --max-body gets 413', async (t) => {
    const { gateway } = await pair(t, answering(ok), { args: ['--max-body', '64K'], errorsAllowed: true });
    const wire = await gateway.connect();
    await wire.send(post({ 'Transfer-Encoding': 'chunked' }, ''));
    await wire.offer(chunk('{"model":"m","user":"'));
    for (let i = 0; i < 8; i++) await wire.offer(chunk('x'.repeat(10000)));
    assertError(await wire.response(), 413, 'body_too_large');
});

test('a body that is not JSON gets 400 with the offset', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const wrong = [['{"model":"m", x}', 14], ['{"model":"m"}}', 13], ['nope', 1], ['{"model":"m","a":[1,]}', 20]];
    for (const [body, offset] of wrong) {
        const message = assertError(await once(gateway, post({}, body)), 400, 'not_json');
        assert.match(message, new RegExp(`\\b${offset}\\b`), `${body}: ${message}`);
    }
    assertError(await once(gateway, post({}, '{"model":"m"')), 400, 'not_json');
    assert.equal(provider.connections, 0);
});

test('nesting over 64 gets 400; 64 is fine', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const nested = (depth) => `{"model":"m","x":${'['.repeat(depth)}${']'.repeat(depth)}}`;
    assert.equal((await once(gateway, post({}, nested(63)))).status, 200);
    assertError(await once(gateway, post({}, nested(64))), 400, 'json_too_deep');
    assert.equal(provider.requests.length, 1);
});

test('no model, an odd model, two models: 400 that names the field', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    assert.match(assertError(await once(gateway, post({}, '{"messages":[]}')), 400, 'no_model'), /model/);
    for (const model of ['5', 'null', '""', `"${'m'.repeat(300)}"`, '"a","model":"b"']) {
        assert.match(assertError(await once(gateway, post({}, `{"model":${model}}`)), 400, 'model_invalid'), /model/);
    }
    assertError(await once(gateway, post({}, '[1]')), 400, null);
    assert.equal(provider.connections, 0);
});

test('wrong path 404, wrong method 405 with Allow', async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    assertError(await once(gateway, request('GET /nowhere'), { to: 'GET' }), 404, 'path_not_found');
    const got = await once(gateway, request('GET /v1/chat/completions'), { to: 'GET' });
    assertError(got, 405, 'method_not_allowed');
    assert.match(got.head.get('allow'), /POST/);
    assert.equal(provider.connections, 0);
});

test("errors wear the client's dialect", async (t) => {
    const { gateway } = await pair(t, answering(ok));
    for (const [path, dialect] of [
        ['/v1/chat/completions', 'openai'], ['/v1/messages', 'anthropic'],
        ['/v1beta/models/g:generateContent', 'gemini'], ['/api/chat', 'ollama'],
    ]) {
        assertError(await once(gateway, request(`POST ${path}`, JSON_TYPE, 'nope')), 400, null, dialect);
    }
});

await run();
