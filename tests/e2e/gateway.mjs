// SPDX-License-Identifier: MIT
//
// gateway: starts the real tokenring, scripted providers in this process, and tokenring-mock, each on free
// ports of 127.0.0.1, and takes them down again. Whatever a test starts here is stopped when the test ends;
// a gateway that does not leave with status 0 after SIGTERM fails its test (so a leak that a sanitizer
// reports at exit, or a crash, fails it too).
//
// Environment: TOKENRING_BIN_DIR (default build/tools), TOKENRING_WORKERS (default 1), TOKENRING_SLOWNESS.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { slowness, within } from './runner.mjs';
import { Wire, connect, request, response } from './wire.mjs';

const top = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..');
const programs = path.resolve(process.env.TOKENRING_BIN_DIR || path.join(top, 'build', 'tools'));
export const sanitized = /asan|tsan/.test(programs);
const workers = process.env.TOKENRING_WORKERS || '1';
const START_SECONDS = 10;
const STOP_SECONDS = 10;

export function program(name) {
    return path.join(programs, name);
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Ask until it is true: for states that only polling can see. Bounded; says what it waited for.
export async function eventually(what, condition, seconds = 5) {
    const deadline = performance.now() + seconds * slowness * 1000;
    for (;;) {
        const value = await condition();
        if (value) return value;
        if (performance.now() > deadline) throw new Error(`never came true: ${what}`);
        await pause(10);
    }
}

const given = new Set();

// A port that nobody listens on now, and that this process has not given out before.
export async function freePort() {
    for (;;) {
        const server = net.createServer();
        await new Promise((resolve, reject) => server.listen(0, '127.0.0.1', resolve).once('error', reject));
        const { port } = server.address();
        await new Promise((resolve) => server.close(resolve));
        if (!given.has(port)) {
            given.add(port);
            return port;
        }
    }
}

export function temporaryFile(t, name, text) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tokenring-e2e-'));
    t.cleanup(() => fs.rmSync(folder, { recursive: true, force: true }));
    const file = path.join(folder, name);
    fs.writeFileSync(file, text);
    return file;
}

// A child process whose output is kept. It dies with us, however we die (setpriv sets the parent-death signal).
class Child {
    // `wrapper` is a command that ends by becoming the program.
    constructor(t, name, args, env = {}, wrapper = [], binary = null) {
        const own = [...wrapper, binary ?? program(name), ...args];
        const command = fs.existsSync('/usr/bin/setpriv') ? ['/usr/bin/setpriv', '--pdeathsig', 'KILL', ...own] : own;
        this.name = name;
        this.stdout = '';
        this.stderr = '';
        this.status = undefined; // set when it has ended: a number, or a signal's name
        this.process = spawn(command[0], command.slice(1), {
            stdio: ['ignore', 'pipe', 'pipe'],
            env: { ...process.env, NO_COLOR: '1', ...env },
        });
        this.pid = this.process.pid;
        this.process.stdout.on('data', (text) => (this.stdout += text));
        this.process.stderr.on('data', (text) => (this.stderr += text));
        this.exited = new Promise((resolve) => {
            this.process.once('error', (error) => {
                this.stderr += error.message;
                resolve((this.status = 'not started'));
            });
            this.process.once('close', (code, signal) => resolve((this.status = code ?? signal)));
        });
        t.cleanup(async (failed) => {
            const wasUp = this.status === undefined;
            try {
                if (wasUp) await this.stop();
            } finally {
                if (failed) t.note(`${name}'s last words:\n${this.stderr.slice(-2000)}`);
            }
        });
    }
    signal(name) {
        this.process.kill(name);
    }
    // SIGTERM, and out within its time, with status 0.
    async stop() {
        if (this.status === undefined) this.signal('SIGTERM');
        try {
            await within(this.exited, STOP_SECONDS, `${this.name} after SIGTERM`);
        } catch (error) {
            this.signal('SIGKILL');
            await this.exited;
            throw error;
        }
        this.assertCleanExit();
    }
    assertCleanExit() {
        assert.equal(this.status, 0, `${this.name} should leave with status 0; stderr:\n${this.stderr.slice(-4000)}`);
        assert.doesNotMatch(this.stderr, /Sanitizer|runtime error:/, 'no sanitizer report');
    }
    // Bytes of memory that are in RAM.
    rss() {
        const status = fs.readFileSync(`/proc/${this.pid}/status`, 'latin1');
        return Number(/VmRSS:\s+(\d+) kB/.exec(status)[1]) * 1024;
    }
    // Milliseconds of CPU used so far, all threads.
    cpu() {
        let ns = 0;
        for (const task of fs.readdirSync(`/proc/${this.pid}/task`)) {
            ns += Number(fs.readFileSync(`/proc/${this.pid}/task/${task}/schedstat`, 'latin1').split(' ')[0]);
        }
        return ns / 1e6;
    }
    descriptors() {
        // Nobody but root may look into a process that cannot be debugged: then the count never changes.
        if (process.getuid() !== 0) return 0;
        return fs.readdirSync(`/proc/${this.pid}/fd`).length;
    }
    async ready(what, probe) {
        await eventually(`${this.name} ${what}`, async () => {
            if (this.status !== undefined) {
                throw new Error(`${this.name} ended with ${this.status} before it was ready:\n${this.stderr}`);
            }
            return probe();
        }, START_SECONDS);
    }
}

// Run a program to its end: { status, stdout, stderr }.
export async function runToEnd(t, name, args, { env = {}, seconds = 10, input = null } = {}) {
    const child = new Child(t, name, args, env);
    if (input !== null) throw new Error('input is not supported: use a file');
    await within(child.exited, seconds, `${name} ${args.join(' ')}`).catch(async (error) => {
        child.signal('SIGKILL');
        await child.exited;
        throw error;
    });
    return { status: child.status, stdout: child.stdout, stderr: child.stderr };
}

// A whole GET, on its own connection: { status, head, body (text) }; null if nobody listens.
export async function get(port, target, fields = {}) {
    let wire;
    try {
        wire = await connect(port);
    } catch {
        return null;
    }
    try {
        await wire.send(request(`GET ${target}`, { Connection: 'close', ...fields }));
        const answer = await wire.response({ to: 'GET' });
        return { ...answer, body: answer.body.toString() };
    } catch {
        return null;
    } finally {
        wire.close();
    }
}

// The gateway. `providers` are "NAME=KIND+URL"; or `config` is YAML text. `args` are further flags.
export async function startGateway(t, { providers = [], config = null, args = [], env = {}, listen = true, wrapper = [], ports = [], binary = null, workers: own = true } = {}) {
    const [port, admin] = ports.length ? ports : [await freePort(), await freePort()];
    const flags = ['serve', '--admin', `127.0.0.1:${admin}`];
    if (listen) flags.push('-l', `127.0.0.1:${port}`); // else the file says where, and the caller sets `port`
    if (own && !args.includes('-w')) flags.push('-w', workers);
    if (config !== null) flags.push('-c', temporaryFile(t, 'tokenring.yaml', config));
    for (const provider of providers) flags.push('-p', provider);
    const child = new Child(t, 'tokenring', [...flags, ...args], env, wrapper, binary);
    child.port = port;
    child.admin = admin;
    child.url = `http://127.0.0.1:${port}`;
    await child.ready('answers /healthz', async () => (await get(admin, '/healthz'))?.status === 200);
    // Client connections of a test end before the gateway is asked to stop, or it would drain them.
    child.connect = async () => {
        const wire = await connect(child.port);
        t.cleanup(() => wire.close());
        return wire;
    };
    return child;
}

// tokenring-mock, a scripted provider that a whole suite can share.
export async function startMock(t, args = []) {
    const port = await freePort();
    const child = new Child(t, 'tokenring-mock', ['--listen', `127.0.0.1:${port}`, ...args]);
    child.port = port;
    child.url = `http://127.0.0.1:${port}/v1`;
    await child.ready('accepts connections', async () => {
        const wire = await connect(port).catch(() => null);
        wire?.close();
        return wire !== null;
    });
    return child;
}

// A provider written in the test: `script(wire, n)` is run for connection number n (from 0) and owns it. It may
// throw when the gateway hangs up: that is recorded in `errors` and fails the test unless it says
// `errorsAllowed`. `connections` counts accepted connections; `requests` is for scripts to push to.
export class Provider {
    constructor(t, script) {
        this.script = script;
        this.connections = 0;
        this.requests = [];
        this.errors = [];
        this.errorsAllowed = false;
        this.wires = new Set();
        this.server = net.createServer({ allowHalfOpen: true }, (socket) => {
            const wire = new Wire(socket);
            this.wires.add(wire);
            Promise.resolve(this.script(wire, this.connections++)).catch((error) => {
                this.errors.push(error);
                wire.close();
                if (!this.errorsAllowed) t.stray?.(error);
            });
        });
    }
    url(basePath = '/v1') {
        return `http://127.0.0.1:${this.server.address().port}${basePath}`;
    }
    // As a -p flag's value.
    flag(name = 'local', kind = 'openai', basePath = '/v1') {
        return `${name}=${kind}+${this.url(basePath)}`;
    }
}

export async function startProvider(t, script, { errorsAllowed = false } = {}) {
    const provider = new Provider(t, script);
    provider.errorsAllowed = errorsAllowed;
    await new Promise((resolve, reject) => provider.server.listen(0, '127.0.0.1', resolve).once('error', reject));
    given.add(provider.server.address().port);
    t.cleanup(async (failed) => {
        const errors = [...provider.errors];
        for (const wire of provider.wires) wire.close();
        await new Promise((resolve) => provider.server.close(resolve));
        if (errors.length && (failed || !provider.errorsAllowed)) {
            if (failed) t.note(`the scripted provider failed too:\n${errors[0].stack}`);
            else throw new Error(`the scripted provider failed: ${errors[0].stack}`);
        }
    });
    return provider;
}

// A script that answers each request on a connection by `answer(request, wire)`, until the gateway hangs up.
// `answer` returns the response's bytes, or nothing if it has sent them itself.
export function answering(answer) {
    return async function serve(wire) {
        while (await moreToCome(wire)) {
            const got = await wire.request();
            this.requests.push(got);
            const bytes = await answer(got, wire, this.requests.length - 1);
            if (bytes) await wire.send(bytes);
        }
        wire.finish();
    };
}

// Waits, without a time limit of its own, until the peer sends a byte or closes; true if there is one.
export async function moreToCome(wire) {
    while (!wire.pending && !wire.ended) {
        await new Promise((resolve) => {
            const done = () => {
                for (const event of ['readable', 'end', 'close', 'error']) wire.socket.off(event, done);
                resolve();
            };
            for (const event of ['readable', 'end', 'close', 'error']) wire.socket.on(event, done);
        });
    }
    return wire.pending > 0;
}

// A gateway in front of one scripted provider. `config` makes the file's text from the provider.
export async function pair(t, script, { args = [], config, errorsAllowed = false } = {}) {
    const provider = await startProvider(t, script, { errorsAllowed });
    const how = config ? { config: config(provider) } : { providers: [provider.flag()] };
    const gateway = await startGateway(t, { ...how, args });
    return { provider, gateway };
}

// ---- what clients and providers say, in the usual case

// A small chat request's body.
export function chat(model = 'gpt-4o', more = {}) {
    return JSON.stringify({ model, messages: [{ role: 'user', content: 'Say hi.' }], ...more });
}
export const JSON_TYPE = { 'Content-Type': 'application/json' };
export const STREAM_HEAD = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n';
export const CHAT = 'POST /v1/chat/completions';

// A chat request, and one that asks for a stream.
export function post(fields = {}, body = chat()) {
    return request(CHAT, { ...JSON_TYPE, ...fields }, body);
}
export function streaming(more = {}) {
    return post({}, chat('gpt-4o', { stream: true, ...more }));
}
// The plainest answer.
export function ok() {
    return response(200, JSON_TYPE, '{"id":"x"}');
}

// One request on one connection of its own.
export async function once(gateway, bytes, how = {}) {
    const wire = await gateway.connect();
    await wire.send(bytes);
    return wire.response(how);
}

// Assert one of our own errors: status, x-tokenring-error, and the client's dialect. Returns its message.
export function assertError(answer, status, name, dialect = 'openai') {
    const said = `${answer.head.text}${answer.body}`;
    assert.equal(answer.status, status, said);
    if (name !== null) assert.equal(answer.head.get('x-tokenring-error'), name, said);
    const body = JSON.parse(answer.body.toString());
    if (dialect === 'ollama') {
        assert.equal(typeof body.error, 'string', said);
        return body.error;
    }
    assert.equal(typeof body.error.message, 'string', said);
    if (dialect === 'openai') assert.ok('type' in body.error && 'param' in body.error && 'code' in body.error, said);
    if (dialect === 'anthropic') assert.ok(body.type === 'error' && typeof body.error.type === 'string', said);
    if (dialect === 'gemini') assert.ok(body.error.code === status && /^[A-Z_]+$/.test(body.error.status), said);
    return body.error.message;
}

// A generator of repeatable random numbers (xorshift32): the seed is in the test's name or notes.
export function randomFrom(seed) {
    let state = seed || 1;
    return (below) => {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        return (state >>> 0) % below;
    };
}
