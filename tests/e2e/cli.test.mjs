// SPDX-License-Identifier: MIT
//
// The command line: what a person at a terminal, a service manager and a script are told.
import assert from 'node:assert/strict';
import net from 'node:net';
import { run, test } from './runner.mjs';
import { answering, freePort, get, runToEnd, startGateway, startProvider, temporaryFile } from './gateway.mjs';
import { request, response } from './wire.mjs';

const PROVIDER = ['-p', 'local=openai+http://127.0.0.1:9/v1'];
const tokenring = (t, args, how) => runToEnd(t, 'tokenring', args, how);

// A usage error: exit 2, one plain sentence on stderr that names what is wrong, and nothing on stdout.
async function assertUsageError(t, args, names, how) {
    const got = await tokenring(t, args, how);
    assert.equal(got.status, 2, `${args.join(' ')}: ${got.stderr}`);
    assert.match(got.stderr, names);
    assert.equal(got.stdout, '');
    assert.doesNotMatch(got.stderr, /\x1b\[/, 'no colour with NO_COLOR');
    return got;
}

test('--help lists every flag of the contract on stdout, exit 0', async (t) => {
    const got = await tokenring(t, ['--help']);
    assert.equal(got.status, 0);
    assert.equal(got.stderr, '');
    for (const flag of [
        '--config', '--listen', '--admin', '--provider', '--workers', '--cpus', '--ring-entries', '--buffers',
        '--buffer-size', '--max-connections', '--max-body', '--upstream-connections', '--timeout-connect',
        '--timeout-first-byte', '--timeout-idle', '--timeout-total', '--log-format', '--log-level', '--drain-timeout',
        '--provider-key', '--peek-bytes',
    ]) {
        assert.ok(got.stdout.includes(flag), `--help names ${flag}`);
    }
    for (const word of ['serve', 'check', 'version']) assert.match(got.stdout, new RegExp(`\\b${word}\\b`));
    for (const line of got.stdout.split('\n')) assert.ok(line.length <= 100, `over 100 columns: ${line}`);
});

test('--version is one line', async (t) => {
    const got = await tokenring(t, ['--version']);
    assert.equal(got.status, 0);
    assert.match(got.stdout, /^tokenring \d+\.\d+\.\d+[^\n]*\n$/);
});

test("version also lists the kernel's io_uring features", async (t) => {
    const got = await tokenring(t, ['version']);
    assert.equal(got.status, 0);
    assert.match(got.stdout, /io_uring/);
});

test('check prints the settings and the budget they imply, and touches no network', async (t) => {
    const got = await tokenring(t, ['check', ...PROVIDER, '-w', '2', '--buffers', '512']);
    assert.equal(got.status, 0, got.stderr);
    assert.match(got.stdout, /local/);
    assert.match(got.stdout, /512/);
    assert.match(got.stdout, /byte|[KMG]i?B\b/i, 'memory');
    assert.match(got.stdout, /\bfds?\b|descriptor/i, 'descriptors');
    assert.match(got.stdout, /ring|entries/i, 'ring entries');
});

test('check masks keys', async (t) => {
    const args = ['check', ...PROVIDER, '--provider-key', 'local=env:E2E_KEY'];
    const got = await tokenring(t, args, { env: { E2E_KEY: 'sk-very-secret' } });
    assert.equal(got.status, 0, got.stderr);
    assert.doesNotMatch(got.stdout + got.stderr, /sk-very-secret/);
});

test('flag beats environment beats file', async (t) => {
    const file = temporaryFile(t, 'c.yaml', 'buffers: 64\nring_entries: 256\nproviders:\n  - {name: a, kind: openai, base_url: "http://127.0.0.1:9/v1"}\n');
    const got = await tokenring(t, ['check', '-c', file, '--buffers', '256'], { env: { TOKENRING_BUFFERS: '128', TOKENRING_RING_ENTRIES: '512' } });
    assert.equal(got.status, 0, got.stderr);
    assert.match(got.stdout, /buffers: *256\b/);
    assert.match(got.stdout, /ring[_-]entries: *512\b/);
});

test('wrong flags: exit 2, and the flag is named', async (t) => {
    await assertUsageError(t, ['serve', '--no-such-flag'], /--no-such-flag/);
    await assertUsageError(t, ['serve', ...PROVIDER, '--buffers', 'many'], /--buffers/);
    await assertUsageError(t, ['serve', ...PROVIDER, '--timeout-idle', '5parsecs'], /--timeout-idle/);
    await assertUsageError(t, ['serve', ...PROVIDER, '--max-body'], /--max-body/);
    await assertUsageError(t, ['serve', ...PROVIDER, '-l', 'nonsense'], /listen|-l/);
    await assertUsageError(t, ['serve', '-p', 'nonsense'], /provider|-p/);
    await assertUsageError(t, ['serve', '-p', 'a=carrier-pigeon+http://127.0.0.1:9/'], /carrier-pigeon/);
    await assertUsageError(t, ['serve', ...PROVIDER, '--log-format', 'xml'], /--log-format/);
    await assertUsageError(t, ['no-such-command'], /no-such-command/);
});

test('no provider: exit 2, and the mend is told', async (t) => {
    await assertUsageError(t, ['serve', '-l', `127.0.0.1:${await freePort()}`], /provider/);
});

test('the admin port on a public address needs a token', async (t) => {
    await assertUsageError(t, ['check', ...PROVIDER, '--admin', '0.0.0.0:9464'], /admin-token/);
});

test('broken files: exit 2 with file and line', async (t) => {
    const broken = [
        ['unknown_key: 1\n', /:1\b.*unknown_key/s],
        ['buffers: 64\nprovidres: []\n', /:2\b.*providres/s],
        ['providers:\n  - {name: a, kind: openai}\n', /:2\b/],
        ['buffers: [1, 2]\n', /:1\b.*buffers/s],
        ['providers: [\n', /:\d+\b/],
        ['models:\n  - name: m\n    targets:\n      - {provider: nobody, model: x}\n', /:4\b.*nobody/s],
    ];
    for (const [text, names] of broken) {
        const file = temporaryFile(t, 'broken.yaml', text);
        const got = await assertUsageError(t, ['check', '-c', file], names);
        assert.ok(got.stderr.includes('broken.yaml:'), got.stderr);
    }
    await assertUsageError(t, ['check', '-c', '/no/such/file.yaml'], /\/no\/such\/file\.yaml/);
});

test('a variable the file needs and the environment lacks: exit 2 that names it', async (t) => {
    const file = temporaryFile(t, 'c.yaml', 'providers:\n  - {name: a, kind: openai, base_url: "http://127.0.0.1:9/v1", api_key: "${E2E_NOT_SET}"}\n');
    await assertUsageError(t, ['check', '-c', file], /E2E_NOT_SET/);
});

test('a port that is taken: exit 1, and the address is named', async (t) => {
    const port = await freePort();
    const taken = net.createServer();
    await new Promise((resolve) => taken.listen(port, '127.0.0.1', resolve));
    t.cleanup(() => new Promise((resolve) => taken.close(resolve)));
    const got = await tokenring(t, ['serve', ...PROVIDER, '-l', `127.0.0.1:${port}`, '--admin', `127.0.0.1:${await freePort()}`]);
    assert.equal(got.status, 1, got.stderr);
    assert.match(got.stderr, new RegExp(`127\\.0\\.0\\.1:${port}`));
});

test('serve is the default command, and several listeners serve alike, IPv6 and unix sockets too', async (t) => {
    const provider = await startProvider(t, answering(() => response(200)));
    const [second, third] = [await freePort(), await freePort()];
    const socket = temporaryFile(t, 'x.sock', '') + '2';
    const gateway = await startGateway(t, {
        providers: [provider.flag()],
        args: ['-l', `127.0.0.1:${second}`, '-l', `[::1]:${third}`, '-l', `unix:${socket}`],
    });
    assert.equal((await get(gateway.port, '/health')).status, 200);
    assert.equal((await get(second, '/health')).status, 200);
    const asked = (where) => new Promise((resolve, reject) => {
        const client = net.connect(where, () => client.write(request('GET /health', { Connection: 'close' })));
        let text = '';
        client.on('data', (part) => (text += part)).on('end', () => resolve(text)).on('error', reject);
    });
    assert.match(await asked({ path: socket }), /^HTTP\/1\.1 200/);
    assert.match(await asked({ host: '::1', port: third }), /^HTTP\/1\.1 200/);
});

test('tokenring-mock: --help and wrong flags', async (t) => {
    const help = await runToEnd(t, 'tokenring-mock', ['--help']);
    assert.equal(help.status, 0);
    assert.match(help.stdout, /--listen/);
    const wrong = await runToEnd(t, 'tokenring-mock', ['--no-such-flag']);
    assert.equal(wrong.status, 2);
    assert.match(wrong.stderr, /--no-such-flag/);
});

await run();
