// SPDX-License-Identifier: MIT
//
// Too few receive buffers is a normal Tuesday: everything still arrives, exactly, and nothing spins.
import assert from 'node:assert/strict';
import { run, slowness, test } from './runner.mjs';
import { LAST_CHUNK, chunk, request } from './wire.mjs';
import { STREAM_HEAD, answering, get, pause, post, sanitized, startGateway, startProvider, streaming } from './gateway.mjs';

const EVENTS = 20;

// The events of stream `n`: different bytes for each stream, so that a mix-up cannot go unseen.
function eventOf(n, k) {
    return `data: {"stream":${n},"event":${k},"text":"${`${n}-${k}.`.repeat(150)}"}\n\n`;
}
function bodyOf(n) {
    return Array.from({ length: EVENTS }, (_, k) => eventOf(n, k)).join('') + 'data: [DONE]\n\n';
}

// Streams that advance together: event k of all streams is sent before event k+1 of any.
const interleaved = answering(async (got, wire) => {
    const n = JSON.parse(got.body).user;
    await wire.send(STREAM_HEAD);
    for (let k = 0; k < EVENTS; k++) {
        await wire.send(chunk(eventOf(n, k)));
        await new Promise(setImmediate);
    }
    await wire.send(chunk('data: [DONE]\n\n'), LAST_CHUNK);
});

async function oneStream(gateway, n) {
    const wire = await gateway.connect();
    await wire.send(streaming({ user: n }));
    const got = await wire.stream();
    wire.close();
    assert.equal(got.status, 200, got.head.text);
    assert.ok(got.clean, `stream ${n} ended in order`);
    assert.equal(got.body.toString(), bodyOf(n), `stream ${n}`);
}

async function assertIdle(t, gateway) {
    await pause(200 * slowness);
    const before = gateway.cpu();
    await pause(1000);
    const used = gateway.cpu() - before;
    t.note(`CPU used in an idle second: ${used.toFixed(2)} ms`);
    assert.ok(used < 50 * slowness, `${used} ms of CPU in an idle second: something spins`);
}

test('an idle gateway uses no CPU', async (t) => {
    const provider = await startProvider(t, interleaved);
    const gateway = await startGateway(t, { providers: [provider.flag()], args: ['--buffers', '16'] });
    await gateway.connect();
    await assertIdle(t, gateway);
});

test('200 streams over 16 buffers: every byte arrives, then quiet', { seconds: 60 }, async (t) => {
    const provider = await startProvider(t, interleaved);
    const args = ['--buffers', '16', '--upstream-connections', '256'];
    const gateway = await startGateway(t, { providers: [provider.flag()], args });
    for (let round = 0; round < 2; round++) {
        await Promise.all(Array.from({ length: 200 }, (_, n) => oneStream(gateway, round * 1000 + n)));
    }
    await assertIdle(t, gateway);
    assert.equal((await get(gateway.port, '/health')).status, 200);
});

test('200 uploads over 16 buffers: every byte arrives', { seconds: 60 }, async (t) => {
    const bodies = Array.from({ length: 200 }, (_, n) => Buffer.alloc(60000, `${n}.`));
    const provider = await startProvider(t, answering((got) => {
        const good = bodies[Number(got.head.get('x-n'))].equals(got.body);
        return `HTTP/1.1 ${good ? 200 : 500} X\r\nContent-Length: 0\r\n\r\n`;
    }));
    const args = ['--buffers', '16', '--upstream-connections', '256'];
    const gateway = await startGateway(t, { providers: [provider.flag()], args });
    await Promise.all(bodies.map(async (body, n) => {
        const wire = await gateway.connect();
        await wire.send(request('POST /v1/files', { 'X-N': n, 'Content-Type': 'application/octet-stream' }, body));
        assert.equal((await wire.response()).status, 200, `upload ${n}`);
        wire.close();
    }));
    await assertIdle(t, gateway);
});

test('a thousand idle clients hold no receive buffer', { seconds: 60 }, async (t) => {
    const provider = await startProvider(t, interleaved);
    const gateway = await startGateway(t, { providers: [provider.flag()], args: ['--buffers', '16'] });
    assert.equal((await get(gateway.port, '/health')).status, 200);
    const before = gateway.rss();
    for (let i = 0; i < 1000; i++) await gateway.connect();
    await oneStream(gateway, 7);
    const each = (gateway.rss() - before) / 1000;
    t.note(`memory for each idle client: ${Math.round(each)} bytes`);
    if (!sanitized) assert.ok(each < 16384, `${each} bytes for each idle client`);
    await assertIdle(t, gateway);
});

test('fewer upstream connections than streams: they wait their turn', { seconds: 60 }, async (t) => {
    const provider = await startProvider(t, interleaved);
    const args = ['--upstream-connections', '8', '-w', '1'];
    const gateway = await startGateway(t, { providers: [provider.flag()], args });
    await Promise.all(Array.from({ length: 64 }, (_, n) => oneStream(gateway, n)));
    assert.ok(provider.connections <= 8, `${provider.connections} upstream connections`);
});


// Clients that ask for megabytes and never read. Whoever does read must be served all the same.
for (const [slow, buffers] of [[3, 16], [100, 256]]) {
    test(`${slow} clients that do not read, ${buffers} buffers: the others are served`, { seconds: 60 }, async (t) => {
        const big = Buffer.alloc(8 * 1024 * 1024, 'x');
        const provider = await startProvider(t, answering(async (got, wire) => {
            const size = got.body.includes('"slow"') ? big.length : 10;
            await wire.send(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
            await wire.send(big.subarray(0, size)).catch(() => {}); // the slow ones may be cut
        }), { errorsAllowed: true });
        const args = ['--buffers', String(buffers), '--upstream-connections', '512'];
        const gateway = await startGateway(t, { providers: [provider.flag()], args });
        const sleepers = [];
        for (let i = 0; i < slow; i++) {
            const wire = await gateway.connect();
            wire.socket.pause();
            await wire.send(post({}, JSON.stringify({ model: 'm', user: 'slow' })));
            sleepers.push(wire);
        }
        for (let i = 0; i < 200; i++) {
            const wire = await gateway.connect();
            await wire.send(post({}, JSON.stringify({ model: 'm', user: 'fast' })));
            const got = await wire.response();
            assert.equal(got.status, 200, got.head.text);
            assert.equal(got.body.length, 10);
            wire.close();
        }
        for (const wire of sleepers) wire.close();
    });
}
await run();
