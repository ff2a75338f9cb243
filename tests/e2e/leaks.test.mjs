// SPDX-License-Identifier: MIT
//
// Run against a build with LeakSanitizer: some of everything, then SIGTERM; a leak makes the exit status 23
// or 1 and leaves a report on stderr, and the harness fails the test for either.
import assert from 'node:assert/strict';
import { run, test } from './runner.mjs';
import { LAST_CHUNK, chunk } from './wire.mjs';
import {
    STREAM_HEAD, answering, chat, get, ok, once, post, runToEnd, startGateway, startProvider, temporaryFile,
} from './gateway.mjs';


const providerScript = answering(async (got, wire) => {
    if (!got.body.includes('"stream":true')) return ok();
    await wire.send(STREAM_HEAD);
    for (let k = 0; k < 10; k++) await wire.send(chunk(`data: {"k":${k}}\n\n`));
    return Buffer.concat([chunk('data: [DONE]\n\n'), Buffer.from(LAST_CHUNK)]);
});

test('nothing is leaked by whole, streamed, refused and abandoned requests', { seconds: 60 }, async (t) => {
    const provider = await startProvider(t, providerScript, { errorsAllowed: true });
    const config = `
providers:
  - {name: one, kind: openai, base_url: "${provider.url()}"}
models:
  - {name: fast, targets: [{provider: one, model: "vendor/real"}]}
`;
    const gateway = await startGateway(t, { config, env: { ASAN_OPTIONS: 'detect_leaks=1:exitcode=23' } });
    for (let i = 0; i < 20; i++) {
        assert.equal((await once(gateway, post({}, chat('fast')))).status, 200);
        assert.equal((await once(gateway, post({}, chat('fast', { stream: true })))).status, 200);
        assert.equal((await once(gateway, post({}, 'nope'))).status, 400);
        const gone = await gateway.connect();
        await gone.send(post({}, chat('fast', { stream: true })));
        gone.close({ reset: i % 2 === 0 });
        const half = await gateway.connect();
        await half.send(post({}, chat('fast')).subarray(0, 100));
        half.close();
    }
    await get(gateway.admin, '/metrics');
    await get(gateway.admin, '/admin/config');
    await gateway.stop();
});

test('nothing is leaked by the other commands, nor by a refused configuration', async (t) => {
    const env = { ASAN_OPTIONS: 'detect_leaks=1:exitcode=23' };
    const provider = ['-p', 'local=openai+http://127.0.0.1:9/v1'];
    const file = temporaryFile(t, 'c.yaml', 'buffers: 64\nproviders:\n  - {name: a, kind: openai, base_url: "http://127.0.0.1:9/v1"}\nnonsense: 1\n');
    for (const [args, status] of [
        [['--help'], 0], [['version'], 0], [['check', ...provider], 0], [['check', '-c', file], 2], [['serve', '--buffers', 'x'], 2],
    ]) {
        const got = await runToEnd(t, 'tokenring', args, { env });
        assert.equal(got.status, status, got.stderr);
        assert.doesNotMatch(got.stderr, /Sanitizer/);
    }
});

await run();
