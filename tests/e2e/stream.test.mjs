// SPDX-License-Identifier: MIT
//
// Streams: promptness, exactness, backpressure and hang-ups. Both sides are in this process and wait for each
// other, so nothing here depends on how long a sleep is.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { barrier, run, slowness, test, within } from './runner.mjs';
import { LAST_CHUNK, chunk, request, response } from './wire.mjs';
import {
    JSON_TYPE, STREAM_HEAD, answering, eventually, get, moreToCome, once, pair, pause, post, randomFrom, sanitized, streaming,
} from './gateway.mjs';

const MIB = 1024 * 1024;

// A script that plays the same answer to each request of a connection.
function streamed(play) {
    return async (wire) => {
        while (await moreToCome(wire)) await play(wire, await wire.request());
        wire.finish();
    };
}

test('each event leaves as soon as it arrives: k+1 is sent only after the client has k', async (t) => {
    const events = 60;
    const seen = Array.from({ length: events }, barrier);
    const { gateway } = await pair(t, streamed(async (wire) => {
        await wire.send(STREAM_HEAD);
        for (let k = 0; k < events; k++) {
            await wire.send(chunk(`data: {"k":${k}}\n\n`));
            await seen[k].opened;
        }
        await wire.send(chunk('data: [DONE]\n\n'), LAST_CHUNK);
    }));
    const wire = await gateway.connect();
    await wire.send(streaming());
    await wire.head();
    for (let k = 0; k < events; k++) {
        await wire.until(`data: {"k":${k}}\n\n`);
        seen[k].open();
    }
    await wire.until('data: [DONE]\n\n');
    await wire.until(LAST_CHUNK);
});

test('a provider is not asked to compress a stream: compressed it would come in blocks (dstackai/dstack#4269)', async (t) => {
    let asked;
    const { gateway } = await pair(t, streamed(async (wire, got) => {
        asked = got.head.get('accept-encoding');
        await wire.send(STREAM_HEAD, chunk('data: [DONE]\n\n'), LAST_CHUNK);
    }));
    const body = JSON.stringify({ model: 'm', messages: [], stream: true });
    assert.equal((await once(gateway, post({ 'Accept-Encoding': 'gzip, deflate, br' }, body))).status, 200);
    assert.ok([undefined, 'identity'].includes(asked), asked);
});

test('the response head leaves before the first event', async (t) => {
    const headSeen = barrier();
    const { gateway } = await pair(t, streamed(async (wire) => {
        await wire.send(STREAM_HEAD);
        await headSeen.opened;
        await wire.send(chunk('data: [DONE]\n\n'), LAST_CHUNK);
    }));
    const wire = await gateway.connect();
    await wire.send(streaming());
    assert.equal((await wire.head()).status, 200);
    headSeen.open();
    await wire.until(LAST_CHUNK);
});

// A stream as careless providers send it: comments, CRLF, no space, a byte order mark, long and empty events.
function carelessBody(random) {
    const parts = ['\ufeff: OPENROUTER PROCESSING\n\n', 'data:{"no":"space"}\n\n', 'event: ping\r\ndata: {}\r\n\r\n'];
    for (let i = 0; i < 30; i++) {
        const text = ['token', ' \u00e9\u{1F680}', 'x'.repeat(random(3000)), '\\n\\n', ''][random(5)];
        parts.push(`data: {"choices":[{"delta":{"content":"${text}"}}]}\n\n`);
    }
    parts.push('data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12}}\n\n');
    return Buffer.from(parts.join('') + 'data: [DONE]\n\n');
}

function* split(bytes, random, most) {
    for (let at = 0; at < bytes.length; ) {
        const size = 1 + random(most);
        yield bytes.subarray(at, at + size);
        at += size;
    }
}

test('an event split at every possible byte gives the same bytes (vllm-project/aibrix#2653)', async (t) => {
    const body = Buffer.from('data: {"choices":[{"delta":{"content":"\u00e9"}}]}\n\ndata: [DONE]\n\n');
    let cut = 0;
    const { gateway } = await pair(t, answering(async (got, wire) => {
        await wire.send(STREAM_HEAD);
        await wire.send(chunk(body.subarray(0, cut)));
        await wire.send(chunk(body.subarray(cut)));
        await wire.send(LAST_CHUNK);
    }));
    const wire = await gateway.connect();
    for (cut = 1; cut < body.length; cut++) {
        await wire.send(streaming());
        assert.equal((await wire.response()).body.toString(), body.toString(), `cut at ${cut}`);
    }
});

for (const seed of [1, 2, 3]) {
    test(`random chunks in random writes give the same bytes (seed ${seed})`, { seconds: 40 }, async (t) => {
        const random = randomFrom(seed * 7919);
        let body;
        const { gateway } = await pair(t, answering(async (got, wire) => {
            const chunked = Buffer.concat([...split(body, random, 700)].map(chunk).concat(Buffer.from(LAST_CHUNK)));
            for (const part of split(Buffer.concat([Buffer.from(STREAM_HEAD), chunked]), random, 900)) await wire.send(part);
        }));
        const wire = await gateway.connect();
        for (let i = 0; i < 20; i++) {
            body = carelessBody(random);
            await wire.send(streaming());
            assert.ok((await wire.response()).body.equals(body), `round ${i}`);
        }
    });
}

test('a stream that ends with the connection: complete if [DONE] came', async (t) => {
    const { gateway } = await pair(t, streamed(async (wire) => {
        await wire.send('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {"a":1}\n\ndata: [DONE]\n\n');
        wire.finish();
    }));
    const wire = await gateway.connect();
    await wire.send(streaming());
    const got = await wire.stream();
    assert.equal(got.body.toString(), 'data: {"a":1}\n\ndata: [DONE]\n\n');
    assert.equal(got.clean, true);
});

test('a stream that ends with the connection and without [DONE] is a failure (farion1231/cc-switch#4484)', async (t) => {
    const { gateway } = await pair(t, streamed(async (wire) => {
        await wire.send('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {"a":1}\n\n');
        wire.finish();
    }));
    const wire = await gateway.connect();
    await wire.send(streaming());
    const got = await wire.stream();
    assert.match(got.body.toString(), /^data: \{"a":1\}\n\n/);
    assert.match(got.body.toString(), /upstream_truncated|"error"/);
    assert.equal(got.clean, false);
});

// ---------------------------------------------------------------- backpressure

// Write `total` bytes of a repeatable pattern, minding the socket's own backpressure; `progress.sent` is what
// the kernel took.
function pattern(size) {
    const bytes = Buffer.allocUnsafe(size);
    for (let i = 0; i < size; i++) bytes[i] = 32 + ((i * 31 + (i >> 8)) % 90);
    return bytes;
}
async function pour(wire, total, progress, frame = (bytes) => bytes) {
    const block = pattern(65536);
    for (let left = total; left > 0; ) {
        const part = block.subarray(0, Math.min(left, block.length));
        await wire.send(frame(part));
        progress.hash.update(part);
        left -= part.length;
        progress.sent += part.length;
    }
}
const newProgress = () => ({ sent: 0, hash: createHash('sha256') });

// Resolves with the count when it has not moved for a while: the peer has stopped taking bytes.
async function stalled(progress, total) {
    for (let last = -1, same = 0; same < 5; ) {
        await pause(100 * slowness);
        same = progress.sent === last && progress.sent > 0 ? same + 1 : 0;
        last = progress.sent;
        assert.ok(progress.sent < total, `all ${total} bytes were taken from a peer whose reader sleeps`);
    }
    return progress.sent;
}

function assertMemoryBounded(t, gateway, before) {
    const grown = gateway.rss() - before;
    t.note(`memory grew by ${(grown / MIB).toFixed(1)} MiB while stalled`);
    if (!sanitized) assert.ok(grown < 16 * MIB, `memory grew by ${grown} bytes`);
}

test('a client that does not read: memory is bounded, the provider is held back, then every byte arrives', { seconds: 60 }, async (t) => {
    const total = 64 * MIB;
    const progress = newProgress();
    const { gateway } = await pair(t, streamed(async (wire) => {
        await wire.send('HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n');
        await pour(wire, total, progress, chunk);
        await wire.send(LAST_CHUNK);
    }));
    assert.equal((await get(gateway.port, '/health')).status, 200);
    const before = gateway.rss();
    const slow = await gateway.connect();
    await slow.send(request('GET /v1/files/big/content'));
    t.note(`the provider was stopped after ${((await stalled(progress, total)) / MIB).toFixed(1)} MiB`);
    assertMemoryBounded(t, gateway, before);
    assert.equal((await get(gateway.port, '/health')).status, 200, 'others are served meanwhile');

    const head = await slow.head();
    assert.equal(head.status, 200);
    const hash = createHash('sha256');
    let length = 0;
    for (;;) {
        const size = parseInt((await slow.until('\r\n')).toString('latin1'), 16);
        if (size === 0) break;
        hash.update(await slow.exactly(size));
        await slow.exactly(2);
        length += size;
    }
    assert.equal(length, total);
    assert.equal(hash.digest('hex'), progress.hash.digest('hex'));
});

test('a stream whose client does not read does not hold up another stream', async (t) => {
    const progress = newProgress();
    const { gateway } = await pair(t, streamed(async (wire, got) => {
        await wire.send(STREAM_HEAD);
        if (got.body.includes('"stall"')) {
            await pour(wire, 64 * MIB, progress, (part) => chunk(`data: ${part.toString('latin1')}\n\n`));
        }
        await wire.send(chunk('data: {"b":1}\n\ndata: [DONE]\n\n'), LAST_CHUNK);
    }), { args: ['-w', '1'], errorsAllowed: true });
    const slow = await gateway.connect();
    await slow.send(streaming({ user: 'stall' }));
    await stalled(progress, 64 * MIB);
    for (let i = 0; i < 20; i++) {
        const wire = await gateway.connect();
        await wire.send(streaming());
        assert.equal((await wire.stream()).body.toString(), 'data: {"b":1}\n\ndata: [DONE]\n\n');
        wire.close();
    }
    slow.close();
});

test('a provider that does not read: memory is bounded, the client is held back, then every byte arrives', { seconds: 60 }, async (t) => {
    const total = 64 * MIB;
    const go = barrier();
    const received = createHash('sha256');
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await go.opened;
        const head = await wire.head();
        assert.equal(Number(head.get('content-length')), total);
        for (let left = total; left > 0; ) {
            const part = await wire.some();
            received.update(part);
            left -= part.length;
        }
        await wire.send(response(200, JSON_TYPE, '{}'));
    });
    assert.equal((await get(gateway.port, '/health')).status, 200);
    const before = gateway.rss();
    const progress = newProgress();
    const client = await gateway.connect();
    await client.send(request('POST /v1/files', { 'Content-Type': 'application/octet-stream', 'Content-Length': total }));
    const poured = pour(client, total, progress);
    t.note(`the client was stopped after ${((await stalled(progress, total)) / MIB).toFixed(1)} MiB`);
    assertMemoryBounded(t, gateway, before);
    go.open();
    await poured;
    assert.equal((await client.response()).status, 200);
    assert.equal(received.digest('hex'), progress.hash.digest('hex'));
});

// ---------------------------------------------------------------- hang-ups

for (const [kind, bytes] of [['streamed', streaming], ['whole', post]]) {
    for (const reset of [false, true]) {
        test(`client gone before the first byte of a ${kind} answer${reset ? ' (reset)' : ''}: upstream is cancelled (BerriAI/litellm#17364)`, async (t) => {
            const asked = barrier();
            const hungUp = barrier();
            const { gateway } = await pair(t, streamed(async (wire) => {
                asked.open();
                await wire.rest();
                hungUp.open();
            }));
            const wire = await gateway.connect();
            await wire.send(bytes());
            await within(asked.opened, 5, 'the request to reach the provider');
            wire.close({ reset });
            await within(hungUp.opened, 5, 'the upstream connection to close');
        });
    }
}

test('client gone in mid-stream: upstream is cancelled', async (t) => {
    const hungUp = barrier();
    const { gateway } = await pair(t, streamed(async (wire) => {
        await wire.send(STREAM_HEAD, chunk('data: {"a":1}\n\n'));
        await wire.rest();
        hungUp.open();
    }));
    const wire = await gateway.connect();
    await wire.send(streaming());
    await wire.until('data: {"a":1}\n\n');
    wire.close();
    await within(hungUp.opened, 5, 'the upstream connection to close');
});

test('client gone in the middle of a provider that keeps talking: upstream is cancelled', async (t) => {
    const hungUp = barrier();
    const { gateway } = await pair(t, streamed(async (wire) => {
        await wire.send(STREAM_HEAD);
        try {
            await pour(wire, 256 * MIB, newProgress(), chunk);
        } catch {
            hungUp.open();
        }
    }));
    const wire = await gateway.connect();
    await wire.send(streaming());
    await wire.some();
    wire.close();
    await within(hungUp.opened, 10, 'the upstream connection to close');
});

test('client gone in the middle of its upload: the provider sees a broken request, never a whole one', async (t) => {
    const half = barrier();
    const hungUp = barrier();
    const { gateway } = await pair(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.head();
        await wire.exactly(100000);
        half.open();
        hungUp.open((await wire.rest()).length);
    });
    const wire = await gateway.connect();
    await wire.send(request('POST /v1/files', { 'Content-Type': 'application/octet-stream', 'Content-Length': 1000000 }));
    await wire.send(Buffer.alloc(100000, 'u'));
    await within(half.opened, 5, 'half the upload');
    wire.close();
    assert.equal(await within(hungUp.opened, 5, 'the upstream connection to close'), 0);
});

test('after a hundred hang-ups at random moments nothing is left open', { seconds: 40 }, async (t) => {
    const random = randomFrom(4242);
    let open = 0;
    const { gateway } = await pair(t, async (wire) => {
        open++;
        try {
            while (await moreToCome(wire)) {
                await wire.request();
                await wire.send(STREAM_HEAD);
                for (let i = 0; i < 5; i++) await wire.send(chunk(`data: {"i":${i}}\n\n`));
                await wire.send(chunk('data: [DONE]\n\n'), LAST_CHUNK);
            }
        } finally {
            open--;
            wire.close();
        }
    }, { errorsAllowed: true });
    const before = gateway.descriptors();
    for (let i = 0; i < 100; i++) {
        const wire = await gateway.connect();
        const bytes = streaming();
        await wire.offer(bytes.subarray(0, 1 + random(bytes.length * 2)));
        if (random(2)) await pause(random(4));
        wire.close({ reset: random(2) === 0 });
    }
    assert.equal((await once(gateway, post({ Connection: 'close' }))).status, 200);
    await eventually('the gateway holds no descriptor but pooled connections', () => gateway.descriptors() <= before + open);
});

await run();
