// SPDX-License-Identifier: MIT
//
// What an operator sees: health, metrics, the access log, and an orderly end.
import assert from 'node:assert/strict';
import { barrier, run, slowness, test, within } from './runner.mjs';
import { LAST_CHUNK, chunk, connect, request } from './wire.mjs';
import {
    STREAM_HEAD, answering, chat, eventually, get, moreToCome, ok, once, pair, post, startGateway, startProvider,
} from './gateway.mjs';

// One stream that the test holds open: send one event, then wait for `go`.
function held(go) {
    return async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send(STREAM_HEAD, chunk('data: {"n":1}\n\n'));
        await go.opened;
        await wire.send(chunk('data: [DONE]\n\n'), LAST_CHUNK);
        wire.finish();
    };
}

// Prometheus text, read strictly: Map of 'name{labels}' to number, and the names of each type.
function parseMetrics(text) {
    assert.ok(text.endsWith('\n'), 'the last line ends too');
    const samples = new Map();
    const types = new Map();
    const label = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
    const sample = new RegExp(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\\{(?:${label}(?:,${label})*,?)?\\})? (-?[0-9.e+-]+|[+-]Inf|NaN)( \\d+)?$`);
    for (const line of text.trimEnd().split('\n')) {
        if (line === '' || line.startsWith('# HELP ')) continue;
        const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line);
        if (type) {
            assert.ok(!types.has(type[1]), `one TYPE line for ${type[1]}`);
            types.set(type[1], type[2]);
            continue;
        }
        if (line.startsWith('#')) continue;
        const parts = sample.exec(line);
        assert.ok(parts, `not Prometheus text: ${line}`);
        const key = parts[1] + (parts[2] ?? '');
        assert.ok(!samples.has(key), `${key} appears twice`);
        samples.set(key, Number(parts[3].replace('Inf', 'Infinity')));
    }
    return { samples, types };
}

// Sum of all samples whose name and labels match.
function total(metrics, pattern) {
    const matching = [...metrics.samples].filter(([key]) => pattern.test(key));
    assert.ok(matching.length, `no metric matches ${pattern}; there are: ${[...metrics.samples.keys()].join(' ')}`);
    return matching.reduce((sum, [, value]) => sum + value, 0);
}

async function readMetrics(gateway) {
    const got = await get(gateway.admin, '/metrics');
    assert.equal(got.status, 200);
    assert.match(got.head.get('content-type'), /^text\/plain/);
    return parseMetrics(got.body);
}

test('/healthz and /readyz on the admin port, /health on the client port', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    assert.equal((await get(gateway.admin, '/healthz')).status, 200);
    assert.equal((await get(gateway.admin, '/readyz')).status, 200);
    assert.equal((await get(gateway.port, '/health')).status, 200);
    assert.equal((await get(gateway.admin, '/nowhere')).status, 404);
});

test('/metrics is Prometheus text and counts what happened', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    for (let i = 0; i < 3; i++) assert.equal((await once(gateway, post({ Connection: 'close' }))).status, 200);
    assert.equal((await once(gateway, post({ Connection: 'close' }, 'nope'))).status, 400);
    const metrics = await eventually('the requests to be counted', async () => {
        const now = await readMetrics(gateway);
        return total(now, /^tokenring_[a-z_]*requests[a-z_]*(\{|$)/) >= 4 && now;
    });
    assert.ok([...metrics.samples.keys()].every((key) => /^(tokenring|gen_ai|process)_/.test(key)), 'all names have our prefix');
    assert.ok(total(metrics, /error.*"not_json"/) >= 1, 'errors are counted by name');
    assert.ok(total(metrics, /_bucket\{.*le="\+Inf"/) >= 3, 'there are histograms');
    total(metrics, /stream/);
    total(metrics, /buffer/);
    total(metrics, /upstream|pool/);
    assert.equal(total(metrics, /cq.*overflow/), 0, 'the completion queue never overflowed');
});

test('histograms are cumulative and agree with their count', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    for (let i = 0; i < 5; i++) await once(gateway, post({ Connection: 'close' }));
    const { samples, types } = await readMetrics(gateway);
    const names = [...types].filter(([, type]) => type === 'histogram').map(([name]) => name);
    assert.ok(names.length > 0);
    for (const name of names) {
        const series = new Map();
        for (const [key, value] of samples) {
            if (!key.startsWith(`${name}_bucket{`)) continue;
            const le = /le="([^"]+)"/.exec(key)[1];
            const rest = key.replace(/le="[^"]+",?/, '').replace(',}', '}').replace('{}', '');
            series.set(rest, [...(series.get(rest) ?? []), [Number(le.replace('Inf', 'Infinity')), value]]);
        }
        for (const [rest, buckets] of series) {
            for (let i = 1; i < buckets.length; i++) {
                assert.ok(buckets[i][0] > buckets[i - 1][0], `${rest}: bounds rise`);
                assert.ok(buckets[i][1] >= buckets[i - 1][1], `${rest}: counts rise`);
            }
            assert.equal(buckets.at(-1)[0], Infinity, `${rest}: the last bucket is +Inf`);
            assert.equal(samples.get(rest.replace('_bucket', '_count')), buckets.at(-1)[1], `${rest}: agrees with _count`);
        }
    }
});

test('a running stream shows in the metrics, and leaves them when it ends', async (t) => {
    const go = barrier();
    const { gateway } = await pair(t, held(go));
    const active = async () => total(await readMetrics(gateway), /stream[a-z_]*active|active[a-z_]*stream|streams_open|in_flight/);
    assert.equal(await active(), 0);
    const wire = await gateway.connect();
    await wire.send(post({}, chat('m', { stream: true })));
    await wire.until('data: {"n":1}\n\n');
    assert.ok((await active()) >= 1);
    go.open();
    await wire.until(LAST_CHUNK);
    wire.close();
    await eventually('no stream is active', async () => (await active()) === 0);
});

test('/debug/metrics is JSON', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    await once(gateway, post());
    const got = await get(gateway.admin, '/debug/metrics');
    assert.equal(got.status, 200);
    assert.match(got.head.get('content-type'), /^application\/json/);
    assert.equal(typeof JSON.parse(got.body), 'object');
});

test('/admin/config shows what is in force, and no secret', async (t) => {
    const provider = await startProvider(t, answering(ok));
    const args = ['--provider-key', 'local=env:E2E_KEY'];
    const gateway = await startGateway(t, { providers: [provider.flag()], args, env: { E2E_KEY: 'sk-very-secret' } });
    const got = await get(gateway.admin, '/admin/config');
    assert.equal(got.status, 200);
    assert.match(got.body, /local/);
    assert.doesNotMatch(got.body, /sk-very-secret/);
});

test('bad HTTP on the admin port is refused there too', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    const wire = await connect(gateway.admin);
    t.cleanup(() => wire.close());
    await wire.send('GET /metrics HTTP/1.1\nHost: x\n\n');
    assert.equal((await wire.response({ to: 'GET' })).status, 400);
    await wire.closed();
});

test("x-request-id: the client's is kept, in the answer, upstream and in the log", async (t) => {
    const { provider, gateway } = await pair(t, answering(ok));
    const got = await once(gateway, post({ 'X-Request-Id': 'mine-0001', Connection: 'close' }));
    assert.equal(got.head.get('x-request-id'), 'mine-0001');
    assert.deepEqual(got.head.all('x-request-id'), ['mine-0001']);
    assert.equal(provider.requests[0].head.get('x-request-id'), 'mine-0001');
    const wrong = await once(gateway, post({ 'X-Request-Id': 'mine-0002', Connection: 'close' }, 'nope'));
    assert.equal(wrong.head.get('x-request-id'), 'mine-0002', 'our own errors carry it too');
});

for (const format of ['text', 'json']) {
    test(`access log (${format}): exactly one line for each request, also for those that failed`, async (t) => {
        const { gateway } = await pair(t, answering(ok), { args: ['--log-format', format] });
        const ids = [];
        for (let i = 0; i < 6; i++) {
            const id = `log-${format}-${i}`;
            ids.push(id);
            const got = await once(gateway, post({ 'X-Request-Id': id, Connection: 'close' }, i % 3 ? chat() : 'nope'));
            assert.equal(got.status, i % 3 ? 200 : 400);
        }
        const lines = () => gateway.stderr.split('\n').filter((line) => line.includes(`log-${format}-`));
        await eventually('six lines', () => lines().length >= 6);
        await gateway.stop();
        assert.equal(lines().length, 6, gateway.stderr);
        for (const [i, id] of ids.entries()) {
            const line = lines().find((one) => one.includes(id));
            assert.ok(line, `a line for ${id}`);
            if (format === 'json') {
                const record = JSON.parse(line);
                assert.ok(Object.values(record).includes(id), line);
                assert.ok(Object.values(record).includes(i % 3 ? 200 : 400), line);
            } else {
                assert.match(line, i % 3 ? /\b200\b/ : /\b400\b.*not_json|not_json.*\b400\b/);
            }
        }
        if (format === 'json') {
            for (const line of gateway.stderr.split('\n').filter(Boolean)) {
                assert.doesNotThrow(() => JSON.parse(line), `not JSON: ${line}`);
            }
        }
    });
}

test('a client cannot write a log line of its own', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    await once(gateway, request('GET /v1/files/%0aevil?x=\u001b[31m', {}), { to: 'GET' }).catch(() => {});
    await once(gateway, post({ 'X-Request-Id': 'a b"c\\d\u00e9', Connection: 'close' }));
    await gateway.stop();
    assert.doesNotMatch(gateway.stderr, /[\u0000-\u0008\u000b-\u001f]/, 'no control bytes');
    assert.doesNotMatch(gateway.stderr, /^evil/m);
});

// A new connection is refused, closed, or told 503; never served, and never left waiting.
async function assertNotServed(gateway) {
    const late = await connect(gateway.port).catch(() => null);
    if (!late) return;
    await late.offer(request('GET /v1/models'));
    const said = await within(late.rest(), 4, 'a late connection, which nobody serves or closes,');
    late.close();
    assert.match(said.toString(), /^$|^HTTP\/1\.1 503 /);
}

test('SIGTERM drains: the running stream ends in order, nobody new is served, exit 0', { seconds: 30 }, async (t) => {
    const go = barrier();
    const { gateway } = await pair(t, held(go));
    const wire = await gateway.connect();
    await wire.send(post({}, chat('m', { stream: true })));
    await wire.until('data: {"n":1}\n\n');
    const idle = await gateway.connect();
    gateway.signal('SIGTERM');
    await eventually('/readyz says 503', async () => (await get(gateway.admin, '/readyz'))?.status === 503);
    assert.equal((await get(gateway.admin, '/healthz'))?.status, 200, 'the process is still well');
    await idle.closed('an idle connection');
    await assertNotServed(gateway);
    go.open();
    await wire.until('data: [DONE]\n\n');
    await wire.until(LAST_CHUNK);
    await wire.closed('the connection of the drained stream');
    wire.close();
    await within(gateway.exited, 10, 'the gateway to leave after its last stream');
    gateway.assertCleanExit();
});

test('while one worker still drains, the listeners of the others are closed too', { seconds: 30 }, async (t) => {
    const go = barrier();
    const { gateway } = await pair(t, held(go), { args: ['-w', '4'] });
    const wire = await gateway.connect();
    await wire.send(post({}, chat('m', { stream: true })));
    await wire.until('data: {"n":1}\n\n');
    gateway.signal('SIGTERM');
    await eventually('/readyz says 503', async () => (await get(gateway.admin, '/readyz'))?.status === 503);
    await Promise.all(Array.from({ length: 16 }, () => assertNotServed(gateway)));
    go.open();
    await wire.until(LAST_CHUNK);
    wire.close();
});

test('SIGTERM with nothing running: out at once', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    await gateway.connect();
    const started = performance.now();
    await gateway.stop();
    assert.ok(performance.now() - started < 3000 * slowness);
});

test('a second SIGTERM does not wait for the streams', { seconds: 30 }, async (t) => {
    const { gateway } = await pair(t, held(barrier()), { errorsAllowed: true });
    const wire = await gateway.connect();
    await wire.send(post({}, chat('m', { stream: true })));
    await wire.until('data: {"n":1}\n\n');
    gateway.signal('SIGTERM');
    await eventually('/readyz says 503', async () => (await get(gateway.admin, '/readyz'))?.status === 503);
    gateway.signal('SIGTERM');
    await within(gateway.exited, 5, 'the gateway to stop at once');
    assert.ok([0, 1].includes(gateway.status), `status ${gateway.status}`);
    assert.doesNotMatch((await wire.rest()).toString(), /\[DONE\]/);
});

test('--drain-timeout bounds the drain; the stream that was cut does not end cleanly', { seconds: 30 }, async (t) => {
    const { gateway } = await pair(t, held(barrier()), { args: ['--drain-timeout', '500ms'], errorsAllowed: true });
    const wire = await gateway.connect();
    await wire.send(post({}, chat('m', { stream: true })));
    await wire.until('data: {"n":1}\n\n');
    gateway.signal('SIGTERM');
    const rest = (await wire.rest()).toString();
    assert.doesNotMatch(rest, /\[DONE\]|0\r\n\r\n$/);
    wire.close();
    await within(gateway.exited, 5, 'the gateway to leave');
});

test('SIGINT drains like SIGTERM', async (t) => {
    const { gateway } = await pair(t, answering(ok));
    gateway.signal('SIGINT');
    await within(gateway.exited, 5, 'the gateway to leave');
    gateway.assertCleanExit();
});

test('over --max-connections: 503 from ready-made bytes, and those inside are served on', async (t) => {
    const { gateway } = await pair(t, answering(ok), { args: ['--max-connections', '4', '-w', '1'] });
    const inside = [];
    for (let i = 0; i < 4; i++) {
        inside.push(await gateway.connect());
        await inside[i].send(post());
        assert.equal((await inside[i].response()).status, 200);
    }
    const outside = await gateway.connect();
    await outside.offer(post());
    const got = await outside.response();
    assert.equal(got.status, 503);
    assert.equal(got.head.get('x-tokenring-error'), 'overload_connections');
    assert.match(got.head.get('retry-after'), /^\d+$/);
    for (const wire of inside) {
        await wire.send(post());
        assert.equal((await wire.response()).status, 200);
        wire.close();
    }
    await eventually('a place is free again', async () => (await get(gateway.port, '/health'))?.status === 200);
});

await run();
