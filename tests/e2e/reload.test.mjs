// SPDX-License-Identifier: MIT
//
// A change of configuration, and of the program itself, while requests run: nobody may notice.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import tls from 'node:tls';
import { barrier, run, slowness, test, within } from './runner.mjs';
import { LAST_CHUNK, Wire, chunk, connect, request, response } from './wire.mjs';
import {
    JSON_TYPE, STREAM_HEAD, answering, chat, eventually, freePort, get, moreToCome, ok, once, pause, post,
    program, sanitized, startGateway, startProvider, temporaryFile,
} from './gateway.mjs';

const EVENTS = 12;
const workers = process.env.TOKENRING_WORKERS || '2';
const needsOpenssl = spawnSync('openssl', ['version']).status === 0 ? {} : { skip: 'no openssl to make certificates' };
const needsRoot = process.getuid() === 0 ? {} : { skip: 'only root can become somebody else' };

// A provider that says its name; streams take some 40 ms.
function named(name) {
    return answering(async (got, wire) => {
        if (!got.body.includes('"stream":true')) return response(200, JSON_TYPE, JSON.stringify({ by: name }));
        await wire.send(STREAM_HEAD);
        for (let n = 0; n < EVENTS; n++) {
            await wire.send(chunk(`data: {"by":"${name}","n":${n}}\n\n`));
            await pause(3);
        }
        return Buffer.concat([chunk('data: [DONE]\n\n'), Buffer.from(LAST_CHUNK)]);
    });
}

function yaml(providers, { models = [], more = '' } = {}) {
    const lines = providers.map(([name, provider, key]) =>
        `  - {name: ${name}, kind: openai, base_url: "${provider.url()}"${key ? `, api_key: "${key}"` : ''}}`);
    const targets = models.map(([name, provider]) => `  - {name: ${name}, targets: [{provider: ${provider}, model: ${name}}]}`);
    return `${more}\nproviders:\n${lines.join('\n')}\n${models.length ? `models:\n${targets.join('\n')}\n` : ''}`;
}

// A gateway whose file can be rewritten.
async function fromFile(t, text, { args = [], ...how } = {}) {
    const file = temporaryFile(t, 'tokenring.yaml', text);
    const gateway = await startGateway(t, { args: ['-c', file, '-w', workers, ...args], ...how });
    gateway.write = (next) => {
        fs.writeFileSync(`${file}.next`, next);
        fs.renameSync(`${file}.next`, file);
    };
    return gateway;
}

async function admin(gateway, target) {
    const wire = await connect(gateway.admin);
    try {
        await wire.send(request(`POST ${target}`, { Connection: 'close' }));
        const answer = await wire.response();
        return { status: answer.status, text: answer.body.toString() };
    } finally {
        wire.close();
    }
}
const reload = (gateway) => admin(gateway, '/admin/reload');

async function by(gateway, model = 'gpt-4o') {
    const answer = await once(gateway, post({ Connection: 'close' }, chat(model)));
    assert.equal(answer.status, 200, answer.body.toString());
    return JSON.parse(answer.body).by;
}

// Clients that never stop asking: whole requests on kept and on new connections, and streams. Each failure is
// kept with what happened. A client whose connection ends after an answer that did not say so has been failed.
class Load {
    constructor(gateway, { whole = 4, fresh = 2, streams = 4 } = {}) {
        this.gateway = gateway;
        this.failures = [];
        this.wholeDone = 0;
        this.streamsDone = 0;
        this.reconnected = 0;
        this.running = true;
        const clients = [
            ...Array.from({ length: whole }, () => this.client('kept', false, true)),
            ...Array.from({ length: fresh }, () => this.client('new', false, false)),
            ...Array.from({ length: streams }, (_, i) => this.client('stream', true, i % 2 === 0)),
        ];
        this.ended = Promise.all(clients);
    }
    async client(name, stream, keep) {
        let wire = null;
        while (this.running) {
            try {
                wire ??= await connect(this.gateway.port);
                wire = await this.ask(wire, stream, keep);
            } catch (error) {
                this.failures.push(`${name}: ${error.message}`);
                wire?.close();
                wire = null;
                await pause(10);
            }
        }
        wire?.close();
    }
    async ask(wire, stream, keep) {
        const fields = keep ? {} : { Connection: 'close' };
        await wire.send(post(fields, chat('gpt-4o', stream ? { stream: true } : {})));
        const answer = stream ? await wire.stream() : await wire.response();
        assert.equal(answer.status, 200, answer.body.toString());
        if (stream) {
            assert.ok(answer.clean, 'the stream was cut');
            assert.equal(answer.body.toString().match(/data: \{/g).length, EVENTS);
            assert.match(answer.body.toString(), /\[DONE\]\n\n$/);
            this.streamsDone++;
        } else {
            this.wholeDone++;
        }
        if (!/close/i.test(answer.head.get('connection') ?? '')) return wire;
        if (keep) this.reconnected++;
        wire.close();
        return null;
    }
    get done() {
        return this.wholeDone + this.streamsDone;
    }
    // Wait until `count` more requests were answered.
    async progress(count) {
        const goal = this.done + count;
        await eventually(`${count} more answers`, () => this.done >= goal, 10);
    }
    async stop(t) {
        this.running = false;
        await within(this.ended, 15, 'the clients to finish');
        t.note(`${this.wholeDone} whole and ${this.streamsDone} streamed requests, ${this.failures.length} failed, ` +
            `${this.reconnected} connections told to go`);
        assert.deepEqual(this.failures, []);
        assert.ok(this.wholeDone > 50 && this.streamsDone > 3, 'there was load');
    }
}

test('POST /admin/reload and SIGHUP put the file in force', async (t) => {
    const one = await startProvider(t, named('one'));
    const two = await startProvider(t, named('two'));
    const gateway = await fromFile(t, yaml([['main', one]]));
    assert.equal(await by(gateway), 'one');
    gateway.write(yaml([['main', two]]));
    assert.deepEqual(await reload(gateway), { status: 200, text: 'reloaded\n' });
    for (let i = 0; i < 4; i++) assert.equal(await by(gateway), 'two');
    gateway.write(yaml([['main', one]]));
    gateway.signal('SIGHUP');
    await eventually('the first provider again', async () => (await by(gateway)) === 'one');
    assert.match((await get(gateway.admin, '/admin/config')).body, new RegExp(`:${one.server.address().port}/`));
    assert.equal((await get(gateway.admin, '/admin/reload')).status, 405);
});

test('a broken file changes nothing, and the answer names the line', async (t) => {
    const one = await startProvider(t, named('one'));
    const gateway = await fromFile(t, yaml([['main', one]]));
    gateway.write(`${yaml([['main', one]])}nonsense: 1\n`);
    const answer = await reload(gateway);
    assert.equal(answer.status, 422);
    assert.match(answer.text, /tokenring\.yaml:\d+: .*nonsense/);
    await eventually('the log says it too', () => /not reloaded.*tokenring\.yaml:\d+: .*nonsense/.test(gateway.stderr));
    assert.equal(await by(gateway), 'one');
    gateway.write(yaml([['main', one]]));
    assert.equal((await reload(gateway)).status, 200);
});

test('an address that cannot be had changes nothing either', async (t) => {
    const one = await startProvider(t, named('one'));
    const two = await startProvider(t, named('two'));
    const [taken, extra] = [one.server.address().port, await freePort()];
    const port = await freePort();
    const own = await ownListeners(t, [port], yaml([['main', one]]));
    own.write(listenOn([port, extra, taken], yaml([['main', two]])));
    const answer = await reload(own);
    assert.equal(answer.status, 422);
    assert.match(answer.text, new RegExp(`127\\.0\\.0\\.1:${taken}`));
    assert.equal(await by(own), 'one');
    await assert.rejects(connect(extra), 'what was opened before the failure is closed again');
});

function listenOn(ports, text) {
    return `listen: [${ports.map((port) => `"127.0.0.1:${port}"`).join(', ')}]\n${text}`;
}

// A gateway whose listeners come from the file.
async function ownListeners(t, ports, text, how = {}) {
    const gateway = await fromFile(t, listenOn(ports, text), { listen: false, ...how });
    gateway.port = ports[0];
    return gateway;
}

test('listeners are added and removed; connections of a removed one go on', async (t) => {
    const one = await startProvider(t, named('one'));
    const text = yaml([['main', one]]);
    const [first, second] = [await freePort(), await freePort()];
    const gateway = await ownListeners(t, [first], text);
    const kept = await gateway.connect();
    gateway.write(listenOn([first, second], text));
    assert.equal((await reload(gateway)).status, 200);
    for (const port of [first, second]) assert.equal((await get(port, '/health')).status, 200);
    gateway.write(listenOn([second], text));
    assert.equal((await reload(gateway)).status, 200);
    assert.equal((await get(second, '/health')).status, 200);
    await eventually('the first is closed', async () => (await connect(first).catch(() => null)) === null);
    await kept.send(post());
    assert.equal((await kept.response()).status, 200);
    gateway.write(listenOn([first], text));
    assert.equal((await reload(gateway)).status, 200);
    assert.equal((await get(first, '/health')).status, 200);
});

test('a request that runs keeps its configuration; the next one has the new', { seconds: 30 }, async (t) => {
    const go = barrier();
    const old = await startProvider(t, answering(async (got, wire) => {
        await wire.send(STREAM_HEAD, chunk('data: {"n":1}\n\n'));
        await go.opened;
        return Buffer.concat([chunk('data: [DONE]\n\n'), Buffer.from(LAST_CHUNK)]);
    }));
    const fresh = await startProvider(t, named('new'));
    const gateway = await fromFile(t, yaml([['main', old]]));
    const wire = await gateway.connect();
    await wire.send(post({}, chat('m', { stream: true })));
    await wire.until('data: {"n":1}\n\n');
    for (let i = 0; i < 3; i++) {
        gateway.write(yaml([['main', fresh], [`other${i}`, fresh]], { models: [['m', 'main']] }));
        assert.equal((await reload(gateway)).status, 200);
        assert.equal(await by(gateway, 'm'), 'new');
    }
    go.open();
    await wire.until('data: [DONE]\n\n');
    await wire.until(LAST_CHUNK);
    // The connection itself goes on, and its next request is of the new configuration.
    await wire.send(post({}, chat('m')));
    assert.equal(JSON.parse((await wire.response()).body).by, 'new');
});

test("a provider's key changes: no request carries the old one on", async (t) => {
    const provider = await startProvider(t, answering(ok));
    const gateway = await fromFile(t, yaml([['main', provider, 'first-key']]));
    await once(gateway, post());
    gateway.write(yaml([['main', provider, 'second-key']]));
    assert.equal((await reload(gateway)).status, 200);
    for (let i = 0; i < 4; i++) await once(gateway, post());
    const keys = provider.requests.map((one) => one.head.get('authorization'));
    assert.deepEqual(keys, ['Bearer first-key', ...Array(4).fill('Bearer second-key')]);
});

test('GET /v1/models, metrics by provider and limits follow', async (t) => {
    const one = await startProvider(t, named('one'));
    const two = await startProvider(t, named('two'));
    const gateway = await fromFile(t, yaml([['a', one], ['b', two]], { models: [['m1', 'a'], ['m2', 'b']] }));
    const models = async () => JSON.parse((await get(gateway.port, '/v1/models')).body).data.map((model) => model.id);
    assert.deepEqual(await models(), ['m1', 'm2']);
    assert.equal(await by(gateway, 'm2'), 'two');
    const count = async (name) => {
        const line = new RegExp(`^tokenring_provider_requests_total\\{provider="${name}"\\} (\\d+)$`, 'm');
        return Number(line.exec((await get(gateway.admin, '/metrics')).body)?.[1]);
    };
    assert.equal(await count('b'), 1);
    // `a` goes, `b` moves to the front, `c` is new.
    gateway.write(yaml([['b', two], ['c', one]], { models: [['m3', 'b']], more: 'max_body: 100' }));
    assert.equal((await reload(gateway)).status, 200);
    assert.deepEqual(await models(), ['m3']);
    assert.equal(await by(gateway, 'm3'), 'two');
    assert.deepEqual([await count('b'), await count('c'), await count('a')], [2, 0, NaN]);
    const large = await once(gateway, post({ Connection: 'close' }, chat('m3', { user: 'x'.repeat(200) })));
    assert.equal(large.status, 413);
});

test('what cannot change at run time is named, and stays', async (t) => {
    const one = await startProvider(t, named('one'));
    const gateway = await fromFile(t, yaml([['main', one]], { more: 'buffers: 256' }));
    gateway.write(yaml([['main', one]], { more: 'buffers: 512\nring_entries: 256' }));
    const answer = await reload(gateway);
    assert.equal(answer.status, 200);
    assert.match(answer.text, /only a new process can change ring-entries, buffers\n/);
    assert.match((await get(gateway.admin, '/admin/config')).body, /^buffers: 256$/m);
    await eventually('the log names them', () => /can change ring-entries, buffers/.test(gateway.stderr));
});

test('--watch: a changed file is put in force by itself, a broken one is told of once', { seconds: 30 }, async (t) => {
    const one = await startProvider(t, named('one'));
    const two = await startProvider(t, named('two'));
    const gateway = await fromFile(t, yaml([['main', one]]), { args: ['--watch', 'on'] });
    gateway.write(yaml([['main', two]]));
    await eventually('the second provider', async () => (await by(gateway)) === 'two', 8);
    gateway.write('nonsense: 1\n');
    await eventually('the log names the mistake', () => /not reloaded.*nonsense/.test(gateway.stderr), 8);
    await pause(2500);
    assert.equal(gateway.stderr.match(/not reloaded/g).length, 1);
    assert.equal(await by(gateway), 'two');
});

// ---- certificates

function certificate(folder, name) {
    const [cert, key] = ['crt', 'key'].map((ending) => path.join(folder, `tls.${ending}`));
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
        '-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`, '-keyout', key, '-out', cert], { stdio: 'ignore' });
    return { cert, key };
}

async function tlsConnect(t, port) {
    const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
    t.cleanup(() => socket.destroy());
    await within(new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject)), 5, 'a handshake');
    return { wire: new Wire(socket), name: socket.getPeerCertificate().subject.CN };
}

test('a renewed certificate is used for new connections; the old ones go on', { seconds: 30, ...needsOpenssl }, async (t) => {
    const one = await startProvider(t, named('one'));
    const folder = path.dirname(temporaryFile(t, 'x', ''));
    const { cert, key } = certificate(folder, 'first.test');
    const gateway = await fromFile(t, yaml([['main', one]], { more: `tls_cert: "${cert}"\ntls_key: "${key}"` }));
    const before = await tlsConnect(t, gateway.port);
    assert.equal(before.name, 'first.test');
    certificate(folder, 'second.test');
    assert.equal((await reload(gateway)).status, 200);
    assert.equal((await tlsConnect(t, gateway.port)).name, 'second.test');
    await before.wire.send(post());
    assert.equal((await before.wire.response()).status, 200);
    fs.writeFileSync(cert, 'no certificate');
    const answer = await reload(gateway);
    assert.equal(answer.status, 422);
    assert.ok(answer.text.includes(cert), answer.text);
    assert.equal((await tlsConnect(t, gateway.port)).name, 'second.test');
});

test('20 reloads under load: no request fails, no stream is cut', { seconds: 60 }, async (t) => {
    const one = await startProvider(t, named('one'));
    const two = await startProvider(t, named('two'));
    const ports = [await freePort(), await freePort()];
    const gateway = await ownListeners(t, [ports[0]], yaml([['main', one]]));
    const load = new Load(gateway);
    for (let i = 1; i <= 20; i++) {
        await load.progress(20);
        // The provider moves each time; another comes and goes; so does a listener; the limits change.
        const providers = i % 2 ? [['main', two]] : [['extra', two], ['main', one]];
        const text = `${yaml(providers, { more: `upstream_idle: ${i % 5}\nmax_connections: ${100 + i}` })}default_provider: main\n`;
        gateway.write(listenOn(ports.slice(0, 1 + (i % 2)), text));
        if (i % 4) assert.equal((await reload(gateway)).status, 200);
        else gateway.signal('SIGHUP');
    }
    await load.progress(50);
    await load.stop(t);
    assert.equal((gateway.stderr.match(/configuration reloaded/g) ?? []).length, 20);
    assert.ok(one.requests.length > 50 && two.requests.length > 50, 'both providers had work');
});

// ---- one process after another

// Alive, and not only waiting for somebody to ask how it ended.
function alive(pid) {
    try {
        return !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'latin1'));
    } catch {
        return false;
    }
}

const served = (gateway) => [...gateway.stderr.matchAll(/process (\d+) serves from now on/g)].map((found) => Number(found[1]));

// SIGUSR2, and the old process gone. `gateway.pid` is the new one's.
async function replace(t, gateway, { wait = true } = {}) {
    const before = served(gateway).length;
    const old = gateway.pid;
    process.kill(old, 'SIGUSR2');
    await eventually('a new process that serves', () => served(gateway).length > before, 10);
    gateway.pid = served(gateway).at(-1);
    const { pid } = gateway;
    t.cleanup(async () => {
        if (alive(pid)) process.kill(pid, 'SIGTERM');
        await eventually('the new process to leave', () => !alive(pid), 10).catch((error) => {
            process.kill(pid, 'SIGKILL');
            throw error;
        });
        assert.doesNotMatch(gateway.stderr, /Sanitizer|runtime error:/, `a sanitizer reports:\n${gateway.stderr.slice(-4000)}`);
    });
    if (wait) await eventually('the old process to leave', () => !alive(old), 15);
    return old;
}

for (const [how, flags] of [['', []], [', under the system-call filter', ['--seccomp', 'on']]]) {
    test(`5 replacements under load${how}: no request fails, no stream is cut`, { seconds: 90 }, async (t) => {
        const one = await startProvider(t, named('one'));
        const gateway = await fromFile(t, yaml([['main', one]]), { args: ['--drain-timeout', '6s', ...flags] });
        const load = new Load(gateway);
        for (let i = 0; i < 5; i++) {
            await load.progress(60);
            await replace(t, gateway);
            assert.equal((await get(gateway.admin, '/readyz')).status, 200);
        }
        await load.progress(100);
        await load.stop(t);
        assert.ok(load.reconnected >= 5, 'kept connections were told to go');
        assert.equal(new Set(served(gateway)).size, 5);
    });
}

test('a stream that runs when the process is replaced ends in order, in the old process', { seconds: 30 }, async (t) => {
    const go = barrier();
    const provider = await startProvider(t, answering(async (got, wire) => {
        if (!got.body.includes('"stream":true')) return response(200, JSON_TYPE, '{"by":"it"}');
        await wire.send(STREAM_HEAD, chunk('data: {"n":1}\n\n'));
        await go.opened;
        return Buffer.concat([chunk('data: [DONE]\n\n'), Buffer.from(LAST_CHUNK)]);
    }));
    const gateway = await fromFile(t, yaml([['main', provider]]));
    const wire = await gateway.connect();
    await wire.send(post({}, chat('m', { stream: true })));
    await wire.until('data: {"n":1}\n\n');
    const idle = await gateway.connect();
    const old = await replace(t, gateway, { wait: false });
    assert.equal(await by(gateway), 'it');
    assert.ok(alive(old), 'the stream still runs');
    // An idle connection is not closed under the client's hands: its next answer says so.
    await idle.send(post());
    const last = await idle.response();
    assert.equal(last.status, 200);
    assert.match(last.head.get('connection'), /close/i);
    await idle.closed();
    go.open();
    await wire.until('data: [DONE]\n\n');
    await wire.until(LAST_CHUNK);
    await wire.send(post());
    assert.match((await wire.response()).head.get('connection'), /close/i);
    wire.close();
    await eventually('the old process to leave', () => !alive(old), 10);
});

test('a new process with more or fewer workers takes every listener over', { seconds: 60 }, async (t) => {
    const one = await startProvider(t, named('one'));
    const port = await freePort();
    const text = (count) => listenOn([port], yaml([['main', one]], { more: `workers: ${count}\ncpus: none` }));
    const file = temporaryFile(t, 'tokenring.yaml', text(2));
    const gateway = await startGateway(t, { args: ['-c', file, '--drain-timeout', '4s'], listen: false, workers: false, env: { TOKENRING_WORKERS: '' } });
    gateway.port = port;
    const load = new Load(gateway, { whole: 1, fresh: 4, streams: 1 });
    for (const count of [1, 3]) {
        fs.writeFileSync(file, text(count));
        await load.progress(40);
        await replace(t, gateway);
        assert.match((await get(gateway.admin, '/admin/config')).body, new RegExp(`^workers: ${count}$`, 'm'));
    }
    await load.progress(60);
    await load.stop(t);
});

test('a binary or a file that does not start leaves the old process serving', { seconds: 40 }, async (t) => {
    const one = await startProvider(t, named('one'));
    const folder = path.dirname(temporaryFile(t, 'x', ''));
    const binary = path.join(folder, 'tokenring');
    fs.copyFileSync(program('tokenring'), binary);
    const file = temporaryFile(t, 'tokenring.yaml', yaml([['main', one]]));
    const gateway = await startGateway(t, { args: ['-c', file, '-w', workers], binary });
    const complaints = () => (gateway.stderr.match(/not replaced/g) ?? []).length;
    const attempt = async (what) => {
        const before = complaints();
        process.kill(gateway.pid, 'SIGUSR2');
        await eventually(`a complaint about ${what}`, () => complaints() > before, 10);
        assert.equal(await by(gateway), 'one');
        assert.equal((await get(gateway.admin, '/readyz')).status, 200);
    };
    fs.writeFileSync(file, 'nonsense: 1\n');
    await attempt('a broken file');
    fs.writeFileSync(file, yaml([['main', one]]));
    // As a package manager does: a new file in the old one's place.
    const swap = (text) => {
        fs.writeFileSync(`${binary}.next`, text, { mode: 0o755 });
        fs.renameSync(`${binary}.next`, binary);
    };
    swap('#!/bin/sh\nexit 3\n');
    await attempt('a binary that ends at once');
    assert.match(gateway.stderr, /not replaced: the new process ended with status 3/);
    swap('not a program');
    await attempt('no binary at all');
    fs.copyFileSync(program('tokenring'), `${binary}.next`);
    fs.renameSync(`${binary}.next`, binary);
    await replace(t, gateway);
    assert.equal(await by(gateway), 'one');
});

// ---- the service manager

const python = ['/usr/bin/python3', '/usr/local/bin/python3'].find((one) => fs.existsSync(one)) ?? null;
const needsPython = python ? {} : { skip: 'no python3 for sockets that node lacks' };

// Datagrams sent to a socket of this name, as they come.
async function manager(t) {
    const name = path.join(path.dirname(temporaryFile(t, 'x', '')), 'notify');
    const code = 'import os, socket, sys\n' +
        's = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\nprint("bound", flush=True)\n' +
        'while True:\n    print(repr(s.recv(4096).decode()), flush=True)\n';
    const listener = spawn(python, ['-c', code, name], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.cleanup(() => listener.kill());
    const got = { name, text: '' };
    listener.stdout.on('data', (text) => (got.text += text));
    await eventually('the manager listens', () => got.text.includes('bound'));
    return got;
}

test('a service manager is told: ready, reloading, alive, the new process, stopping', { seconds: 40, ...needsPython }, async (t) => {
    const told = await manager(t);
    const one = await startProvider(t, named('one'));
    const env = { NOTIFY_SOCKET: told.name, WATCHDOG_USEC: '400000' };
    const gateway = await fromFile(t, yaml([['main', one]]), { env });
    const hears = (what) => eventually(`the manager hears ${what}`, () => what.test(told.text), 5);
    await hears(/READY=1/);
    await hears(/(WATCHDOG=1[^]*){3}/);
    assert.equal((await reload(gateway)).status, 200);
    await hears(/RELOADING=1\\nMONOTONIC_USEC=\d+'\n'READY=1'/);
    await replace(t, gateway);
    await hears(new RegExp(`MAINPID=${gateway.pid}\\\\nREADY=1`));
    told.text = '';
    await hears(/(WATCHDOG=1[^]*){3}/);
    process.kill(gateway.pid, 'SIGTERM');
    await hears(/STOPPING=1/);
});

test('sockets opened by a service manager serve every worker, and are handed over', { seconds: 40, ...needsPython }, async (t) => {
    const code = 'import os, socket, sys\n' +
        'held = []\n' +
        'for n, address in enumerate(sys.argv[1].split(",")):\n' +
        '    s = socket.socket()\n    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n' +
        '    s.bind(("127.0.0.1", int(address)))\n    s.listen(64)\n    held.append(s)\n' +
        'for n, s in enumerate(held):\n    os.dup2(s.fileno(), 3 + n + 20)\n' +
        'for n in range(len(held)):\n    os.dup2(3 + n + 20, 3 + n, inheritable=True)\n' +
        'os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(held)))\n' +
        'os.execv(sys.argv[2], sys.argv[2:])\n';
    const one = await startProvider(t, named('one'));
    const ports = [await freePort(), await freePort()];
    const gateway = await startGateway(t, {
        providers: [one.flag()], args: ['-w', '2', '--drain-timeout', '4s'], ports, wrapper: [python, '-c', code, ports.join(',')],
    });
    for (let i = 0; i < 10; i++) assert.equal(await by(gateway), 'one');
    const load = new Load(gateway, { whole: 1, fresh: 4, streams: 1 });
    await load.progress(60);
    await replace(t, gateway);
    await load.progress(60);
    await load.stop(t);
});

// ---- rights

test('--user and --seccomp: nothing of root is left, and all works as before', { seconds: 30, ...needsRoot }, async (t) => {
    const one = await startProvider(t, named('one'));
    const gateway = await fromFile(t, yaml([['main', one]]), { args: ['--user', 'nobody', '--drain-timeout', '2s'] });
    const status = () => fs.readFileSync(`/proc/${gateway.pid}/status`, 'latin1');
    assert.match(status(), /^Uid:\t(\d+)\t\1\t\1\t\1$/m);
    assert.doesNotMatch(status(), /^Uid:\t0\t/m);
    assert.match(status(), /^CapPrm:\t0+$/m);
    if (!sanitized) assert.match(status(), /^NoNewPrivs:\t1\nSeccomp:\t2$/m);
    assert.equal(await by(gateway), 'one');
});

await run();
