// SPDX-License-Identifier: MIT
//
// TLS on both sides of the gateway: that nothing is lost or late by it, that nobody is trusted who should not
// be, and that peers who cheat, stop or vanish cost no more than they do in plaintext. Node's TLS (OpenSSL) is
// the other side; curl and the openssl command are, at the end.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import https from 'node:https';
import net from 'node:net';
import tls from 'node:tls';
import { barrier, run, slowness, test as plainTest, within } from './runner.mjs';
import { LAST_CHUNK, Wire, chunk, connect, request, response } from './wire.mjs';
import {
    JSON_TYPE, Provider, STREAM_HEAD, answering, assertError, chat, eventually, freePort, get, moreToCome,
    ok, pause, post, randomFrom, runToEnd, sanitized, startGateway, startProvider, streaming,
} from './gateway.mjs';
import { Authority, newFile, whyNoCertificates } from './certificates.mjs';

const MIB = 1024 * 1024;
const SECRET = 'sk-tls-e2e-5f2c9d81b7a04e63';

// ---------------------------------------------------------------- certificates

const skip = whyNoCertificates();
const LOCAL = { names: ['DNS:localhost', 'IP:127.0.0.1'] };
const certificates = skip ? {} : makeCertificates();

function makeCertificates() {
    const root = new Authority('Root of the tests');
    const stranger = new Authority('A stranger');
    return {
        root,
        stranger,
        local: root.issue('localhost', LOCAL),
        rsa: root.issue('localhost', { ...LOCAL, rsa: true }),
        client: root.issue('a client', { use: 'clientAuth' }),
    };
}

function test(name, options, body) {
    if (typeof options === 'function') [options, body] = [{}, options];
    plainTest(name, { ...options, skip: skip ?? options.skip }, body);
}

// What Node's TLS calls them.
const identity = (signer) => ({ cert: signer.pem, key: signer.key });
// What the gateway calls them.
const serving = (...signers) => [
    '--tls-cert', signers.map((s) => s.certFile).join(','), '--tls-key', signers.map((s) => s.keyFile).join(','),
];

// ---------------------------------------------------------------- both ends of a TLS connection

const handshakeOf = (socket) => ({
    version: socket.getProtocol(),
    alpn: socket.alpnProtocol,
    resumed: socket.isSessionReused(),
    name: socket.servername,
});

// A Wire whose handshake has yet to be made. `wire.raw` is the TCP connection below it; `wire.tickets` the
// sessions that came.
async function dial(t, port, options = {}) {
    const raw = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    await new Promise((resolve, reject) => raw.once('connect', resolve).once('error', reject));
    raw.setNoDelay(true);
    const socket = tls.connect({
        socket: raw, ca: certificates.root?.pem, servername: 'localhost', ALPNProtocols: ['http/1.1'], ...options,
    });
    const wire = new Wire(socket);
    wire.raw = raw;
    wire.tickets = [];
    socket.on('session', (session) => wire.tickets.push(session));
    wire.shaken = new Promise((resolve, reject) => {
        socket.once('secureConnect', resolve);
        socket.once('error', reject);
        socket.once('close', () => reject(wire.error ?? new Error('closed in the middle of the handshake')));
    });
    wire.shaken.catch(() => {});
    t.cleanup(() => {
        wire.close();
        raw.destroy();
    });
    return wire;
}

async function open(t, port, options = {}) {
    const wire = await dial(t, port, options);
    await within(wire.shaken, 10, 'the handshake');
    return wire;
}

// It must not come to an exchange: the error that says so.
async function refused(t, port, options = {}) {
    const wire = await dial(t, port, options);
    try {
        await within(wire.shaken, 10, 'the handshake');
    } catch (error) {
        return error;
    }
    // In TLS 1.3 a client is told only after its own handshake is over.
    await wire.offer(post());
    assert.equal((await wire.rest()).toString('latin1'), '', 'no answer to somebody who is refused');
    return wire.error ?? new Error('closed without an alert');
}

// A scripted provider behind TLS. `handshakes` tells of those that were made, `refusals` of those that failed.
class SecureProvider extends Provider {
    constructor(t, script, options) {
        super(t, script);
        const plain = this.server; // never listens: is handed connections when their handshake is over
        this.handshakes = [];
        this.refusals = [];
        this.tcp = new Set();
        this.server = tls.createServer({ allowHalfOpen: true, ...options }, (socket) => {
            this.handshakes.push({ ...handshakeOf(socket), authorized: socket.authorized, shown: socket.getPeerCertificate()?.subject?.CN });
            plain.emit('connection', socket);
        });
        this.server.on('connection', (socket) => {
            this.tcp.add(socket);
            socket.on('error', () => {});
        });
        this.server.on('tlsClientError', (error) => this.refusals.push(error));
    }
}

async function startSecureProvider(t, script, { errorsAllowed = false, ...options } = {}) {
    const provider = new SecureProvider(t, script, { ...identity(certificates.local), ALPNProtocols: ['http/1.1'], ...options });
    provider.errorsAllowed = errorsAllowed;
    await new Promise((resolve, reject) => provider.server.listen(0, '127.0.0.1', resolve).once('error', reject));
    provider.port = provider.server.address().port;
    t.cleanup(async (failed) => {
        const [error] = provider.errors;
        for (const wire of provider.wires) wire.close();
        for (const socket of provider.tcp) socket.destroy();
        await new Promise((resolve) => provider.server.close(resolve));
        if (error && failed) t.note(`the scripted provider failed too:\n${error.stack}`);
        else if (error && !errorsAllowed) throw new Error(`the scripted provider failed: ${error.stack}`);
    });
    return provider;
}

// The gateway's file for one https provider.
function configOf(port, { host = 'localhost', ca = certificates.root, own = null } = {}) {
    const more = own ? `, client_cert: "${own.certFile}", client_key: "${own.keyFile}"` : '';
    return `
providers:
  - {name: local, kind: openai, base_url: "https://${host}:${port}/v1", ca_file: "${ca.certFile}", api_key: "${SECRET}"${more}}
`;
}

const SIDES = ['clients', 'the provider', 'both sides'];

// A gateway in front of one scripted provider, with TLS on these sides. `gateway.open()` connects a client.
async function pairOver(t, side, script, { args = [], errorsAllowed = false, server = {}, config = {} } = {}) {
    const secure = { clients: side !== 'the provider', provider: side !== 'clients' };
    const provider = secure.provider
        ? await startSecureProvider(t, script, { errorsAllowed, ...server })
        : await startProvider(t, script, { errorsAllowed });
    const how = secure.provider ? { config: configOf(provider.port, config) } : { providers: [provider.flag()] };
    const flags = secure.clients ? [...serving(certificates.local), ...args] : args;
    const gateway = await startGateway(t, { ...how, args: flags });
    gateway.open = (options) => (secure.clients ? open(t, gateway.port, options) : gateway.connect());
    return { provider, gateway };
}

async function assertServes(gateway, options) {
    const wire = await gateway.open(options);
    await wire.send(post({ Connection: 'close' }));
    assert.equal((await wire.response()).status, 200);
    wire.close();
}

// ---------------------------------------------------------------- a relay that sees and touches ciphertext

// Between two TCP peers. `pass(bytes, way, link)` gives the pieces that go on ('up' is towards `port`); each is
// a write of its own. link.up and link.down hold what came. link.cut() ends both sides, with FIN or RST.
async function startRelay(t, port, pass = (bytes) => [bytes]) {
    const links = [];
    async function carry(from, to, link, way) {
        while (await moreToCome(from)) {
            const bytes = await from.some();
            link[way].push(bytes);
            for (const piece of pass(bytes, way, link)) {
                if (to.socket.destroyed) return;
                await to.offer(piece);
                await new Promise(setImmediate);
            }
        }
        if (from.error) to.close({ reset: true });
        else to.finish();
    }
    const server = net.createServer({ allowHalfOpen: true }, async (socket) => {
        const near = new Wire(socket);
        const far = await connect(port);
        const link = { near, far, up: [], down: [] };
        link.cut = (how) => {
            if (how?.reset) for (const wire of [near, far]) wire.close({ reset: true });
            else for (const wire of [near, far]) wire.finish();
        };
        links.push(link);
        carry(near, far, link, 'up').catch(() => link.cut({ reset: true }));
        carry(far, near, link, 'down').catch(() => link.cut({ reset: true }));
    });
    await new Promise((resolve, reject) => server.listen(0, '127.0.0.1', resolve).once('error', reject));
    t.cleanup(async () => {
        for (const { near, far } of links) {
            near.close();
            far.close();
        }
        await new Promise((resolve) => server.close(resolve));
    });
    return { port: server.address().port, links };
}

function* piecesOf(bytes, size) {
    for (let at = 0; at < bytes.length; ) {
        const length = size();
        yield bytes.subarray(at, at + length);
        at += length;
    }
}

// The types of the records in a stream of ciphertext, and how many bytes of the last one are missing.
const [ALERT, DATA] = [21, 23];
function recordsOf(bytes) {
    const types = [];
    let at = 0;
    for (; at + 5 <= bytes.length; at += 5 + bytes.readUInt16BE(at + 3)) types.push(bytes[at]);
    return { types, missing: at - bytes.length };
}

// ---------------------------------------------------------------- nothing is lost or late

function pattern(size) {
    const bytes = Buffer.allocUnsafe(size);
    for (let i = 0; i < size; i++) bytes[i] = 32 + ((i * 31 + (i >> 8)) % 90);
    return bytes;
}
const digest = (bytes) => createHash('sha256').update(bytes).digest('hex');

// A script that plays the same answer to each request of a connection.
function streamed(play) {
    return async (wire) => {
        while (await moreToCome(wire)) await play(wire, await wire.request());
        wire.finish();
    };
}

for (const side of SIDES) {
    test(`TLS with ${side}: whole answers, one connection for many requests`, async (t) => {
        const { gateway, provider } = await pairOver(t, side, answering((got, wire, n) => response(200, JSON_TYPE, `{"n":${n}}`)), { args: ['-w', '1'] });
        const wire = await gateway.open();
        for (let n = 0; n < 30; n++) {
            await wire.send(post());
            const got = await wire.response();
            assert.equal(got.status, 200);
            assert.equal(got.body.toString(), `{"n":${n}}`);
        }
        assert.equal(provider.connections, 1);
        if (side !== 'clients') assert.equal(provider.requests[0].head.get('authorization'), `Bearer ${SECRET}`);
        wire.close();
    });

    test(`TLS with ${side}: each event leaves as soon as it arrives`, async (t) => {
        const events = 60;
        const seen = Array.from({ length: events }, barrier);
        const { gateway } = await pairOver(t, side, streamed(async (wire) => {
            await wire.send(STREAM_HEAD);
            for (let k = 0; k < events; k++) {
                await wire.send(chunk(`data: {"k":${k}}\n\n`));
                await seen[k].opened;
            }
            await wire.send(chunk('data: [DONE]\n\n'), LAST_CHUNK);
        }));
        const wire = await gateway.open();
        await wire.send(streaming());
        await wire.head();
        for (let k = 0; k < events; k++) {
            await wire.until(`data: {"k":${k}}\n\n`);
            seen[k].open();
        }
        await wire.until('data: [DONE]\n\n');
        await wire.until(LAST_CHUNK);
    });

    test(`TLS with ${side}: 3 MB answers, by length, chunked and until close, byte for byte`, { seconds: 40 }, async (t) => {
        const body = pattern(3 * MIB + 17);
        const heads = {
            length: `HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nContent-Length: ${body.length}\r\n\r\n`,
            chunked: 'HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n',
            close: 'HTTP/1.1 200 OK\r\nContent-Type: x/y\r\n\r\n',
        };
        const random = randomFrom(77);
        const { gateway } = await pairOver(t, side, async (wire) => {
            while (await moreToCome(wire)) {
                const how = (await wire.request()).head.target.split('/').at(-2);
                await wire.send(heads[how]);
                const frame = how === 'chunked' ? chunk : (bytes) => bytes;
                for (const part of piecesOf(body, () => 1 + random(100000))) await wire.send(frame(part));
                if (how === 'chunked') await wire.send(LAST_CHUNK);
                if (how === 'close') break;
            }
            wire.finish();
        });
        for (const how of Object.keys(heads)) {
            const wire = await gateway.open();
            for (let i = 0; i < 3; i++) {
                await wire.send(request(`GET /v1/files/${how}/content`));
                const got = await wire.response({ to: 'GET' });
                assert.equal(got.status, 200, got.head.text);
                assert.equal(got.body.length, body.length);
                assert.equal(digest(got.body), digest(body), how);
            }
            wire.close();
        }
    });

    test(`TLS with ${side}: 3 MB uploads, by length and chunked, byte for byte`, { seconds: 40 }, async (t) => {
        const body = pattern(3 * MIB + 17);
        const { gateway } = await pairOver(t, side, answering((got) => response(200, JSON_TYPE, digest(got.body))));
        const wire = await gateway.open();
        const random = randomFrom(78);
        for (const fields of [{ 'Content-Length': body.length }, { 'Transfer-Encoding': 'chunked' }]) {
            const chunked = 'Transfer-Encoding' in fields;
            await wire.send(request('POST /v1/files', { 'Content-Type': 'x/y', ...fields }));
            for (const part of piecesOf(body, () => 1 + random(100000))) await wire.send(chunked ? chunk(part) : part);
            if (chunked) await wire.send(LAST_CHUNK);
            const got = await wire.response();
            assert.equal(got.status, 200, got.head.text);
            assert.equal(got.body.toString(), digest(body));
        }
        wire.close();
    });

    test(`TLS with ${side}: 60 streams at once over 16 buffers, every byte arrives`, { seconds: 60 }, async (t) => {
        const bodyOf = (n) => Array.from({ length: 20 }, (_, k) => `data: {"n":${n},"text":"${`${n}-${k}.`.repeat(150)}"}\n\n`);
        const { gateway } = await pairOver(t, side, answering(async (got, wire) => {
            await wire.send(STREAM_HEAD);
            for (const event of bodyOf(JSON.parse(got.body).user)) {
                await wire.send(chunk(event));
                await new Promise(setImmediate);
            }
            await wire.send(chunk('data: [DONE]\n\n'), LAST_CHUNK);
        }), { args: ['--buffers', '16'] });
        await Promise.all(Array.from({ length: 60 }, async (_, n) => {
            const wire = await gateway.open();
            await wire.send(streaming({ user: n }));
            const got = await wire.stream();
            assert.equal(got.status, 200, got.head.text + got.body);
            assert.ok(got.clean, `stream ${n} ended in order`);
            assert.equal(got.body.toString(), `${bodyOf(n).join('')}data: [DONE]\n\n`, `stream ${n}`);
            wire.close();
        }));
    });
}

// ---------------------------------------------------------------- clients

test('clients: TLS 1.2 and TLS 1.3, HTTP/1.1 by ALPN, on keys of both kinds; TLS 1.1 is refused', async (t) => {
    const provider = await startProvider(t, answering(ok));
    for (const own of [certificates.local, certificates.rsa]) {
        const gateway = await startGateway(t, { providers: [provider.flag()], args: serving(own) });
        gateway.open = (options) => open(t, gateway.port, options);
        for (const version of ['TLSv1.2', 'TLSv1.3']) {
            for (const [offered, agreed] of [[['http/1.1'], 'http/1.1'], [['h2', 'http/1.1'], 'http/1.1'], [[], false]]) {
                const wire = await gateway.open({ minVersion: version, maxVersion: version, ALPNProtocols: offered });
                const facts = handshakeOf(wire.socket);
                assert.deepEqual([facts.version, facts.alpn], [version, agreed]);
                await wire.send(post());
                assert.equal((await wire.response()).status, 200);
                wire.close();
            }
            const error = await refused(t, gateway.port, { minVersion: version, maxVersion: version, ALPNProtocols: ['h2'] });
            assert.match(String(error.code), /NO_APPLICATION_PROTOCOL/, error.message);
        }
        const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' };
        assert.match(String((await refused(t, gateway.port, old)).code), /PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/);
        await assertServes(gateway);
    }
});

test('clients: all cipher suites we speak work, one without forward secrecy does not', async (t) => {
    const provider = await startProvider(t, answering(ok));
    const gateway = await startGateway(t, { providers: [provider.flag()], args: serving(certificates.rsa) });
    gateway.open = (options) => open(t, gateway.port, options);
    for (const ciphers of ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256']) {
        await assertServes(gateway, { minVersion: 'TLSv1.3', ciphers });
    }
    for (const ciphers of ['ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES256-GCM-SHA384', 'ECDHE-RSA-CHACHA20-POLY1305']) {
        await assertServes(gateway, { maxVersion: 'TLSv1.2', ciphers });
    }
    for (const ecdhCurve of ['X25519', 'prime256v1', 'secp384r1']) await assertServes(gateway, { ecdhCurve });
    for (const ciphers of ['AES128-GCM-SHA256', 'ECDHE-RSA-AES128-SHA']) {
        assert.match(String((await refused(t, gateway.port, { maxVersion: 'TLSv1.2', ciphers })).code), /HANDSHAKE_FAILURE/);
    }
});

test('clients: pipelined requests are answered in order', async (t) => {
    const { gateway } = await pairOver(t, 'clients', answering((got) => response(200, JSON_TYPE, got.body)));
    const bodies = Array.from({ length: 25 }, (_, n) => chat('m', { user: `${n}`.padEnd(1 + ((n * 997) % 5000), 'x') }));
    const wire = await gateway.open();
    await wire.send(...bodies.map((body) => post({}, body)));
    for (const body of bodies) assert.equal((await wire.response()).body.toString(), body);
});

for (const version of ['TLSv1.2', 'TLSv1.3']) {
    test(`clients: ${version}, handshake and requests byte by byte, each its own packet`, { seconds: 40 }, async (t) => {
        const { gateway } = await pairOver(t, 'clients', answering(ok));
        const relay = await startRelay(t, gateway.port, (bytes) => piecesOf(bytes, () => 1));
        const wire = await open(t, relay.port, { minVersion: version, maxVersion: version });
        for (let i = 0; i < 3; i++) {
            await wire.send(post());
            assert.equal((await wire.response()).status, 200);
        }
        // And a request of which each byte is a record.
        for (const byte of post({ Connection: 'close' })) await wire.send(Buffer.of(byte));
        assert.equal((await wire.response()).status, 200);
        await wire.closed();
    });
}

test('clients: records cut into random pieces, on both sides (seed 31)', { seconds: 60 }, async (t) => {
    const random = randomFrom(31);
    const cut = (bytes) => piecesOf(bytes, () => 1 + random(random(2) ? 9000 : 60));
    const body = pattern(200000);
    const provider = await startSecureProvider(t, answering((got) => response(200, {}, got.body)));
    const behind = await startRelay(t, provider.port, cut);
    const gateway = await startGateway(t, { config: configOf(behind.port), args: serving(certificates.local) });
    const before = await startRelay(t, gateway.port, cut);
    const wire = await open(t, before.port);
    for (let i = 0; i < 3; i++) {
        await wire.send(request('POST /v1/files', {}, body));
        assert.equal(digest((await wire.response()).body), digest(body));
    }
});

test('clients: the name asked for picks the certificate: exact, then wildcard, then the first', async (t) => {
    const { root, local } = certificates;
    const wild = root.issue('wild', { names: ['DNS:*.names.test'] });
    const exact = root.issue('exact', { names: ['DNS:one.names.test', 'DNS:other.test'], rsa: true });
    const provider = await startProvider(t, answering(ok));
    const gateway = await startGateway(t, { providers: [provider.flag()], args: serving(local, wild, exact) });
    gateway.open = (options) => open(t, gateway.port, options);
    const shown = async (servername) => {
        const wire = await gateway.open({ servername, rejectUnauthorized: false });
        const { CN } = wire.socket.getPeerCertificate().subject;
        await wire.send(post());
        assert.equal((await wire.response()).status, 200);
        wire.close();
        return CN;
    };
    const wanted = {
        'one.names.test': 'exact', 'ONE.Names.test': 'exact', 'other.test': 'exact', 'two.names.test': 'wild',
        'a.b.names.test': 'localhost', 'names.test': 'localhost', 'nobody.test': 'localhost', '': 'localhost',
    };
    for (const [name, common] of Object.entries(wanted)) assert.equal(await shown(name), common, `asked for "${name}"`);
});

for (const version of ['TLSv1.2', 'TLSv1.3']) {
    test(`clients: ${version} sessions resume on whichever of two workers they meet`, { seconds: 40 }, async (t) => {
        const { gateway } = await pairOver(t, 'clients', answering(ok), { args: ['-w', '2'] });
        const how = { minVersion: version, maxVersion: version };
        const first = await gateway.open(how);
        await first.send(post());
        assert.equal((await first.response()).status, 200);
        assert.equal(handshakeOf(first.socket).resumed, false);
        const session = await eventually('a ticket', () => first.tickets.at(-1));
        // 24 connections that all meet the same one of two workers: once in eight million runs.
        for (let i = 0; i < 24; i++) {
            const wire = await gateway.open({ ...how, session });
            assert.equal(handshakeOf(wire.socket).resumed, true, `connection ${i}`);
            await wire.send(post());
            assert.equal((await wire.response()).status, 200);
            wire.close();
        }
        const other = await startGateway(t, { providers: ['x=openai+http://127.0.0.1:9/v1'], args: serving(certificates.local) });
        const wire = await open(t, other.port, { ...how, session });
        assert.equal(handshakeOf(wire.socket).resumed, false, 'another process has other ticket keys');
    });
}

for (const version of ['TLSv1.2', 'TLSv1.3']) {
    test(`clients: ${version}, who must show a certificate and shows none, or a wrong one, is refused`, { seconds: 40 }, async (t) => {
        const { root, stranger, client, local } = certificates;
        const { gateway, provider } = await pairOver(t, 'clients', answering(ok), { args: ['--tls-client-ca', root.certFile] });
        const how = { minVersion: version, maxVersion: version };
        const wrong = {
            none: {},
            'a stranger vouches': identity(stranger.issue('a client', { use: 'clientAuth' })),
            'the name of our authority, forged': identity(new Authority('Root of the tests').issue('a client')),
            'nobody vouches': identity(new Authority('alone')),
            expired: identity(root.issue('a client', { from: -3 * 86400, to: -86400 })),
            'signed by one who is no authority': identity(local.issue('a client')),
            'for servers only': identity(root.issue('a client', { use: 'serverAuth' })),
        };
        for (const [name, own] of Object.entries(wrong)) {
            const error = await refused(t, gateway.port, { ...how, ...own });
            assert.match(String(error.code), /ALERT/, `${name}: an alert says so: ${error.code} ${error.message}`);
        }
        assert.equal(provider.connections, 0, 'no request got through');
        const wire = await gateway.open({ ...how, ...identity(client) });
        await wire.send(post());
        assert.equal((await wire.response()).status, 200);
        const session = await eventually('a ticket', () => wire.tickets.at(-1));
        const again = await gateway.open({ ...how, ...identity(client), session });
        assert.equal(handshakeOf(again.socket).resumed, true, 'who was let in resumes');
        await again.send(post());
        assert.equal((await again.response()).status, 200);
    });
}

test('clients: Connection: close ends with close_notify, a broken answer of an HTTP/1.0 client without', async (t) => {
    const { gateway } = await pairOver(t, 'clients', async (wire) => {
        while (await moreToCome(wire)) {
            const got = await wire.request();
            if (got.head.target.includes('broken')) {
                await wire.send('HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n', chunk('half of it'));
                return wire.finish();
            }
            await wire.send(ok());
        }
    });
    const lastRecord = async (bytes) => {
        const relay = await startRelay(t, gateway.port);
        const wire = await open(t, relay.port, { maxVersion: 'TLSv1.2' }); // there the type of a record is in clear
        await wire.send(bytes);
        const got = (await wire.rest()).toString();
        return { got, ...recordsOf(Buffer.concat(relay.links[0].down)) };
    };
    const good = await lastRecord(post({ Connection: 'close' }));
    assert.match(good.got, /\{"id":"x"\}$/);
    assert.deepEqual([good.types.at(-1), good.missing], [ALERT, 0], 'close_notify comes last');
    const broken = await lastRecord('GET /v1/files/broken/content HTTP/1.0\r\nHost: x\r\n\r\n');
    if (/^HTTP\/1.[01] 200/.test(broken.got)) assert.notEqual(broken.types.at(-1), ALERT, 'nothing says that this was all');
    else assert.match(broken.got, /^HTTP\/1.[01] 502/);
});

test('the command line: what is wrong with a certificate is said, with the file, and nothing is served', { seconds: 40 }, async (t) => {
    const { local, rsa, client, root } = certificates;
    const garbage = newFile('pem', 'no certificate at all\n');
    const locked = newFile('key');
    execFileSync('openssl', ['pkey', '-in', local.keyFile, '-aes128', '-passout', 'pass:x', '-out', locked], { stdio: 'ignore' });
    const pairs = (cert, key, ...more) => ['--tls-cert', cert, '--tls-key', key, ...more];
    const cases = [
        [pairs('/nonexistent.pem', local.keyFile), /\/nonexistent\.pem/],
        [pairs(local.certFile, '/nonexistent.key'), /\/nonexistent\.key/],
        [pairs(garbage, local.keyFile), new RegExp(`${garbage}.*no certificate`)],
        [pairs(local.certFile, garbage), /key/],
        [pairs(local.certFile, locked), /not encrypted/],
        [pairs(local.certFile, client.keyFile), /does not belong/],
        [pairs(rsa.certFile, local.keyFile), /key/],
        [pairs(`${local.certFile},${rsa.certFile}`, local.keyFile), /equally many/],
        [pairs(local.certFile, local.keyFile, '--tls-client-ca', garbage), new RegExp(`${garbage}.*authority`)],
        [['--tls-cert', local.certFile], /tls-key/],
        [['--tls-client-ca', root.certFile], /tls-cert/],
    ];
    for (const [flags, what] of cases) {
        const got = await runToEnd(t, 'tokenring', ['serve', '-l', `127.0.0.1:${await freePort()}`, '--admin', `127.0.0.1:${await freePort()}`, '-p', 'x=openai+http://127.0.0.1:9/v1', ...flags]);
        assert.equal(got.status, 2, `${flags.join(' ')}: ${got.stderr}`);
        assert.match(got.stderr, what, flags.join(' '));
        assert.match(got.stderr, /^tokenring: [^\n]*\n$/, 'one line');
    }
});

// ---------------------------------------------------------------- providers

test('a provider is asked for by its name, and offered HTTP/1.1', async (t) => {
    const { gateway, provider } = await pairOver(t, 'the provider', answering(ok));
    await assertServes(gateway);
    assert.equal(provider.handshakes[0].name, 'localhost');
    assert.equal(provider.handshakes[0].alpn, 'http/1.1');
    assert.equal(provider.handshakes[0].version, 'TLSv1.3');
});

test("a provider by its address: the certificate must say so, and no name is asked for", async (t) => {
    const { gateway, provider } = await pairOver(t, 'the provider', answering(ok), { config: { host: '127.0.0.1' } });
    await assertServes(gateway);
    assert.equal(provider.handshakes[0].name, false, 'an address is no server name (RFC 6066, 3)');
});

for (const version of ['TLSv1.2', 'TLSv1.3']) {
    test(`a provider that speaks ${version} only, with either kind of key, with or without ALPN`, async (t) => {
        for (const own of [certificates.local, certificates.rsa]) {
            for (const ALPNProtocols of [['http/1.1'], undefined]) {
                const server = { ...identity(own), minVersion: version, maxVersion: version, ALPNProtocols };
                const { gateway, provider } = await pairOver(t, 'the provider', answering(ok), { server });
                await assertServes(gateway);
                assert.equal(provider.handshakes[0].version, version);
            }
        }
    });
}

test('a provider whose server is an HTTPS server of Node: whole and streamed', async (t) => {
    const server = https.createServer(identity(certificates.local), (got, answer) => {
        got.resume().on('end', () => {
            answer.setHeader('Content-Type', got.url.endsWith('completions') ? 'text/event-stream' : 'application/json');
            if (!got.url.endsWith('completions')) return answer.end(JSON.stringify({ url: got.url }));
            for (let k = 0; k < 20; k++) answer.write(`data: {"k":${k}}\n\n`);
            answer.end('data: [DONE]\n\n');
        });
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.cleanup(() => {
        server.closeAllConnections();
        return new Promise((resolve) => server.close(resolve));
    });
    const gateway = await startGateway(t, { config: configOf(server.address().port) });
    const wire = await gateway.connect();
    for (let i = 0; i < 5; i++) {
        await wire.send(request('GET /v1/models/m'));
        assert.equal((await wire.response({ to: 'GET' })).body.toString(), '{"url":"/v1/models/m"}');
        await wire.send(streaming());
        const got = await wire.stream();
        assert.ok(got.clean);
        assert.equal(got.body.toString(), `${Array.from({ length: 20 }, (_, k) => `data: {"k":${k}}\n\n`).join('')}data: [DONE]\n\n`);
    }
});

test('a provider with an authority between: the whole chain is good', async (t) => {
    const between = certificates.root.issue('Between', { authority: true });
    const { gateway } = await pairOver(t, 'the provider', answering(ok), { server: identity(between.issue('localhost', LOCAL)) });
    await assertServes(gateway);
});

test('the second connection to a provider resumes the session of the first', async (t) => {
    const asked = barrier();
    const go = barrier();
    const { gateway, provider } = await pairOver(t, 'the provider', answering(async (got) => {
        if (got.body.includes('"held"')) {
            asked.open();
            await go.opened;
        }
        return ok();
    }), { args: ['-w', '1'] });
    const [one, two] = [await gateway.connect(), await gateway.connect()];
    await one.send(post());
    assert.equal((await one.response()).status, 200);
    await one.send(post({}, chat('m', { user: 'held' }))); // keeps the first connection busy
    await asked.opened;
    await two.send(post());
    assert.equal((await two.response()).status, 200);
    go.open();
    assert.equal((await one.response()).status, 200);
    assert.deepEqual(provider.handshakes.map((h) => h.resumed), [false, true]);
});

test('a provider that forgot the session it gave: a full handshake, and nobody notices', async (t) => {
    const gone = barrier();
    const { gateway, provider } = await pairOver(t, 'the provider', async (wire, n) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send(ok());
        if (n > 0) return;
        provider.server.setTicketKeys(Buffer.alloc(48, 7));
        wire.finish();
        await wire.rest();
        gone.open();
    }, { args: ['-w', '1'] });
    const wire = await gateway.connect();
    await wire.send(post());
    assert.equal((await wire.response()).status, 200);
    await within(gone.opened, 5, 'the gateway to give up the closed connection');
    await wire.send(post());
    assert.equal((await wire.response()).status, 200);
    assert.deepEqual(provider.handshakes.map((h) => h.resumed), [false, false]);
});

for (const version of ['TLSv1.2', 'TLSv1.3']) {
    const server = () => ({ minVersion: version, maxVersion: version, requestCert: true, rejectUnauthorized: true, ca: certificates.root.pem });

    test(`a provider that demands a certificate (${version}) is shown ours`, async (t) => {
        const { gateway, provider } = await pairOver(t, 'the provider', answering(ok), { server: server(), config: { own: certificates.client } });
        await assertServes(gateway);
        assert.deepEqual([provider.handshakes[0].authorized, provider.handshakes[0].shown], [true, 'a client']);
    });
}

// Each of these might be somebody who sits between: nothing may reach them but a handshake.
const IMPOSTORS = {
    'a certificate for another host': [() => ({ ...identity(certificates.root.issue('other', { names: ['DNS:other.test'] })) }), /localhost is for other\.test/],
    "a certificate whose name is right only in the subject": [() => identity(certificates.root.issue('localhost', { names: ['DNS:other.test'] })), /localhost is for other\.test/],
    'a certificate for an address, asked for by name': [() => identity(certificates.root.issue('x', { names: ['IP:127.0.0.1'] })), /localhost is for 127\.0\.0\.1/],
    'a certificate for a name, asked for by address': [() => identity(certificates.root.issue('127.0.0.1', { names: ['DNS:localhost'] })), /127\.0\.0\.1 is for localhost/, { host: '127.0.0.1' }],
    'an unknown authority': [() => identity(certificates.stranger.issue('localhost', LOCAL)), /issued by "A stranger", which is not trusted/],
    'an authority that only has the name of ours': [() => identity(new Authority('Root of the tests').issue('localhost', LOCAL)), /certificate of localhost/],
    'a certificate without the authority between': [() => {
        const signer = certificates.root.issue('Between', { authority: true }).issue('localhost', LOCAL);
        return { key: signer.key, cert: signer.pem.slice(0, signer.pem.indexOf('-----END') + 25) };
    }, /issued by "Between", which is not trusted/],
    'an expired certificate': [() => identity(certificates.root.issue('localhost', { ...LOCAL, from: -3 * 86400, to: -86400 })), /not valid today/],
    'a certificate of tomorrow': [() => identity(certificates.root.issue('localhost', { ...LOCAL, from: 86400, to: 3 * 86400 })), /not valid today/],
    'a self-signed certificate': [() => identity(new Authority('localhost', LOCAL)), /self-signed/],
    'a certificate signed by one who is no authority': [() => identity(certificates.local.issue('localhost', LOCAL)), /certificate of localhost/],
    'a certificate for clients': [() => identity(certificates.root.issue('localhost', { ...LOCAL, use: 'clientAuth' })), /certificate of localhost/],
};
for (const [what, [own, cause, config]] of Object.entries(IMPOSTORS)) {
    for (const version of ['TLSv1.2', 'TLSv1.3']) {
        test(`a provider with ${what} (${version}): 502, and no byte of the request`, async (t) => {
            const provider = await startSecureProvider(t, answering(ok), { ...own(), minVersion: version, maxVersion: version });
            const relay = await startRelay(t, provider.port);
            const gateway = await startGateway(t, { config: configOf(relay.port, config) });
            const wire = await gateway.connect();
            for (let i = 0; i < 2; i++) {
                await wire.send(post());
                assertError(await wire.response(), 502, 'upstream_tls_failed');
            }
            assert.equal(provider.connections, 0, 'no handshake was completed');
            for (const link of relay.links) {
                const sent = Buffer.concat(link.up);
                assert.equal(sent.includes(SECRET), false);
                const { types, missing } = recordsOf(sent);
                assert.equal(missing, 0);
                // In TLS 1.3 the alert that says no is encrypted when keys are agreed, and looks like data.
                assert.ok(types.filter((type) => type === DATA).length <= 1 && sent.length < 2000, `records ${types}, ${sent.length} bytes`);
            }
            await eventually('a line in the log that names the cause', () => cause.test(gateway.stderr)).catch((error) => {
                throw new Error(`${error.message}: ${cause}\n${gateway.stderr}`);
            });
            assert.match(gateway.stderr, /provider local: /);
            assert.equal(gateway.stderr.includes(SECRET), false);
            assert.ok(provider.refusals.length > 0, 'the provider was told by an alert');
            assert.match(String(provider.refusals[0].code), /ALERT/, provider.refusals[0].message);
        });
    }
}

test('a provider that speaks plain HTTP where TLS is due: 502, no byte of the request, and the log says so', async (t) => {
    const got = [];
    const { gateway } = await (async () => {
        const provider = await startProvider(t, async (wire) => {
            if (!(await moreToCome(wire))) return;
            got.push(await wire.some());
            await wire.offer('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
            wire.finish();
            got.push(await wire.rest());
        }, { errorsAllowed: true });
        return { gateway: await startGateway(t, { config: configOf(provider.server.address().port) }) };
    })();
    const wire = await gateway.connect();
    await wire.send(post());
    assertError(await wire.response(), 502, 'upstream_tls_failed');
    const sent = Buffer.concat(got);
    assert.equal(sent[0], 22, 'a ClientHello');
    assert.equal(sent.includes(SECRET) || sent.includes('POST'), false);
    await eventually('the log', () => /provider local: .*plain HTTP/.test(gateway.stderr));
});

test('a provider that speaks TLS 1.1 only: 502', async (t) => {
    const server = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' };
    const { gateway } = await pairOver(t, 'the provider', answering(ok), { server });
    const wire = await gateway.connect();
    await wire.send(post());
    assertError(await wire.response(), 502, 'upstream_tls_failed');
});

test('a provider that never answers the handshake: 504 after --timeout-connect; its client gone: hung up on', async (t) => {
    const hungUp = [barrier(), barrier()];
    const said = barrier();
    const provider = await startProvider(t, async (wire, n) => {
        await moreToCome(wire);
        if (n === 1) said.open();
        await wire.rest();
        hungUp[n]?.open();
        wire.close();
    });
    const config = configOf(provider.server.address().port);
    const brief = await startGateway(t, { config, args: ['--timeout-connect', '300ms'] });
    const wire = await brief.connect();
    await wire.send(post());
    assertError(await wire.response(), 504, 'timeout_connect');
    await within(hungUp[0].opened, 5, 'the upstream connection to close');
    const patient = await startGateway(t, { config });
    const gone = await patient.connect();
    await gone.send(post());
    await within(said.opened, 5, 'the ClientHello');
    gone.close();
    await within(hungUp[1].opened, 5, 'the upstream connection to close');
});

for (const reset of [false, true]) {
    test(`a provider that hangs up in the middle of the handshake${reset ? ' (reset)' : ''}: 502`, async (t) => {
        const provider = await startSecureProvider(t, answering(ok));
        const relay = await startRelay(t, provider.port, (bytes, way, link) => {
            if (way === 'up') return [bytes];
            setImmediate(() => link.cut({ reset }));
            return [bytes.subarray(0, 100)];
        });
        const gateway = await startGateway(t, { config: configOf(relay.port) });
        const wire = await gateway.connect();
        await wire.send(post());
        const got = await wire.response();
        assert.equal(got.status, 502);
        assert.match(got.head.get('x-tokenring-error'), /^upstream_(tls|connect)_failed$/);
        assert.equal(provider.connections, 0);
    });
}

// ---------------------------------------------------------------- peers that cheat, stop or vanish

// A ClientHello as OpenSSL makes it.
async function someHello(t) {
    const server = await startProvider(t, async (wire) => {
        await moreToCome(wire);
        hello.open(await wire.some());
        wire.close();
    });
    const hello = barrier();
    await dial(t, server.server.address().port);
    return within(hello.opened, 5, 'a ClientHello');
}

test('garbage on the TLS port: closed, nothing is answered in clear (seed 5)', { seconds: 40 }, async (t) => {
    const random = randomFrom(5);
    const { gateway, provider } = await pairOver(t, 'clients', answering(ok));
    for (let i = 0; i < 60; i++) {
        const wire = await gateway.connect();
        const bytes = Buffer.from(Array.from({ length: 1 + random(3000) }, () => random(256)));
        if (i % 3 === 0) bytes.set([22, 3, 1 + random(4), random(80), random(256), 1].slice(0, bytes.length));
        await wire.offer(bytes);
        wire.finish();
        assert.doesNotMatch((await wire.rest()).toString('latin1'), /HTTP/);
        wire.close();
    }
    assert.equal(provider.connections, 0);
    await assertServes(gateway);
});

test('a ClientHello with a byte changed, or cut short and closed: never more than one connection is lost (seed 6)', { seconds: 60 }, async (t) => {
    const random = randomFrom(6);
    const hello = await someHello(t);
    const { gateway } = await pairOver(t, 'clients', answering(ok), { args: ['--timeout-head', '2s'] });
    for (let i = 0; i < 300; i++) {
        const wire = await gateway.connect();
        const bytes = Buffer.from(hello);
        if (i % 2) bytes[random(bytes.length)] = random(256);
        await wire.offer(i % 2 ? bytes : bytes.subarray(0, random(bytes.length)));
        wire.finish();
        assert.doesNotMatch((await wire.rest()).toString('latin1'), /HTTP/);
        wire.close();
    }
    await assertServes(gateway);
});

test('plain HTTP on the TLS port: no answer in clear, the provider is not asked', async (t) => {
    const { gateway, provider } = await pairOver(t, 'clients', answering(ok));
    for (const bytes of [post(), request('GET /health'), post().subarray(0, 3)]) {
        const wire = await gateway.connect();
        await wire.send(bytes);
        wire.finish();
        const got = await wire.rest();
        assert.ok(got.length === 0 || got[0] === ALERT, got.toString('latin1'));
    }
    assert.equal(provider.connections, 0);
    await assertServes(gateway);
});

test('TLS on the plain port: refused', async (t) => {
    const { gateway } = await pairOver(t, 'the provider', answering(ok));
    assert.match(String((await refused(t, gateway.port)).code), /WRONG_VERSION_NUMBER|ECONNRESET|PACKET_LENGTH/);
    await assertServes(gateway);
});

test('a client that stops in the middle of the handshake is hung up on after --timeout-head', { seconds: 40 }, async (t) => {
    const hello = await someHello(t);
    const { gateway } = await pairOver(t, 'clients', answering(ok), { args: ['--timeout-head', '500ms'] });
    for (const length of [0, 1, 5, 6, 100, hello.length - 1, hello.length]) {
        const wire = await gateway.connect();
        if (length) await wire.send(hello.subarray(0, length));
        await within(wire.rest(), 5, `the gateway to close after ${length} bytes`);
    }
    // Neither may it go on and on.
    const wire = await gateway.connect();
    const began = performance.now();
    for (const byte of hello) {
        if (wire.ended) break;
        await wire.offer(Buffer.of(byte));
        await pause(50);
        wire.pending;
    }
    assert.ok(wire.ended, 'a byte now and then does not keep it open');
    assert.ok(performance.now() - began < 10000 * slowness);
    await assertServes(gateway);
});

test('a client that shook hands and says no more is hung up on', async (t) => {
    const { gateway } = await pairOver(t, 'clients', answering(ok), { args: ['--timeout-head', '500ms', '--timeout-keepalive', '500ms'] });
    const silent = await gateway.open();
    const half = await gateway.open();
    await half.send(post().subarray(0, 30));
    await within(silent.rest(), 5, 'the silent one to be closed');
    await within(half.rest(), 5, 'the half request to be closed');
});

for (const reset of [false, true]) {
    test(`a client's record cut in the middle${reset ? ' (reset)' : ''}: the provider sees nothing of it`, async (t) => {
        const { gateway, provider } = await pairOver(t, 'clients', answering(ok));
        let cut = false;
        const relay = await startRelay(t, gateway.port, (bytes, way, link) => {
            if (way === 'down' || !cut) return [bytes];
            setImmediate(() => link.cut({ reset }));
            return [bytes.subarray(0, bytes.length - 1)];
        });
        const wire = await open(t, relay.port);
        await wire.send(post());
        assert.equal((await wire.response()).status, 200);
        cut = true;
        await wire.offer(post());
        assert.equal((await wire.rest()).length, 0);
        assert.equal(provider.requests.length, 1);
        await assertServes(gateway);
    });
}

test("a bit turned on the way to us: the provider sees nothing, the client is told by an alert", async (t) => {
    const { gateway, provider } = await pairOver(t, 'clients', answering(ok));
    let turn = false;
    const relay = await startRelay(t, gateway.port, (bytes, way) => {
        if (way === 'up' && turn) bytes[bytes.length >> 1] ^= 1;
        return [bytes];
    });
    const wire = await open(t, relay.port);
    await wire.send(post());
    assert.equal((await wire.response()).status, 200);
    turn = true;
    await wire.offer(post());
    assert.equal((await wire.rest()).length, 0);
    assert.equal(provider.requests.length, 1);
    assert.match(String(wire.error?.code), /BAD_RECORD_MAC/);
});

const UNTIL_CLOSE = 'HTTP/1.1 200 OK\r\nContent-Type: x/y\r\n\r\n';
const FRAMES = {
    'until close': [UNTIL_CLOSE, (bytes) => bytes],
    'by length': ['HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nContent-Length: 1000\r\n\r\n', (bytes) => bytes],
    chunked: ['HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n', chunk],
};

for (const [framing, [head, frame]] of Object.entries(FRAMES)) {
    for (const [how, what] of [['between two records', 0], ['inside a record', 1]]) {
        for (const reset of [false, true]) {
            test(`a provider cut ${how} without close_notify${reset ? ' (reset)' : ''}, body ${framing}: never a clean end`, async (t) => {
                const half = barrier();
                let cut = false;
                const provider = await startSecureProvider(t, async (wire) => {
                    if (!(await moreToCome(wire))) return;
                    await wire.request();
                    await wire.send(head, frame(Buffer.from('half of it')));
                    await half.opened;
                    cut = true;
                    await wire.offer(frame(Buffer.from('and more')));
                }, { errorsAllowed: true });
                const relay = await startRelay(t, provider.port, (bytes, way, link) => {
                    if (way === 'up' || !cut) return [bytes];
                    setImmediate(() => link.cut({ reset }));
                    return what ? [bytes.subarray(0, bytes.length - 1)] : [];
                });
                const gateway = await startGateway(t, { config: configOf(relay.port) });
                const wire = await gateway.connect();
                await wire.send(request('GET /v1/files/x/content'));
                const seen = await wire.until('half of it');
                half.open();
                const text = Buffer.concat([seen, await wire.rest()]).toString();
                assert.doesNotMatch(text, /and more/, 'a record that is not whole is not to be believed');
                assert.doesNotMatch(text, /\r\n0\r\n/, 'no last chunk');
                if (framing !== 'by length') assert.match(text, /Transfer-Encoding: chunked/i);
            });
        }
    }
}

test('a provider that ends a body with close_notify: whole, and the client keeps its connection', async (t) => {
    const { gateway } = await pairOver(t, 'the provider', streamed(async (wire) => {
        await wire.send(UNTIL_CLOSE, 'all of it');
        wire.finish();
    }));
    const wire = await gateway.connect();
    for (let i = 0; i < 3; i++) {
        await wire.send(request('GET /v1/files/x/content'));
        assert.equal((await wire.response({ to: 'GET' })).body.toString(), 'all of it');
    }
});

test('a stream cut without close_notify: an error event, no clean end', async (t) => {
    const seen = barrier();
    const provider = await startSecureProvider(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {"a":1}\n\n');
    }, { errorsAllowed: true });
    const relay = await startRelay(t, provider.port);
    const gateway = await startGateway(t, { config: configOf(relay.port), args: serving(certificates.local) });
    const wire = await open(t, gateway.port);
    await wire.send(streaming());
    seen.opened.then(() => relay.links[0].cut());
    const got = await wire.stream((part) => part.includes('"a":1') && seen.open());
    assert.match(got.body.toString(), /^data: \{"a":1\}\n\n[^]*"error"/);
    assert.equal(got.clean, false);
});

test("a pooled TLS connection that the provider closed costs nothing", async (t) => {
    const closed = barrier();
    const { gateway, provider } = await pairOver(t, 'both sides', async (wire, n) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send(ok());
        if (n > 0) return;
        wire.finish();
        await wire.rest();
        closed.open();
    }, { args: ['-w', '1'] });
    const wire = await gateway.open();
    await wire.send(post());
    assert.equal((await wire.response()).status, 200);
    await within(closed.opened, 5, 'the gateway to give up the closed connection');
    await wire.send(post());
    assert.equal((await wire.response()).status, 200);
    assert.deepEqual(provider.handshakes.map((h) => h.resumed), [false, true]);
});

const HANGUPS = {
    'with close_notify': (wire) => wire.finish(),
    'with a FIN alone': (wire) => wire.raw.end(),
    'without a word': (wire) => wire.raw.destroy(),
    'with a reset': (wire) => wire.raw.resetAndDestroy(),
};
for (const [how, hangUp] of Object.entries(HANGUPS)) {
    test(`both sides TLS, client gone in mid-stream ${how}: upstream is cancelled`, async (t) => {
        const hungUp = barrier();
        const { gateway } = await pairOver(t, 'both sides', streamed(async (wire) => {
            await wire.send(STREAM_HEAD, chunk('data: {"a":1}\n\n'));
            await wire.rest();
            hungUp.open();
        }), { errorsAllowed: true });
        const wire = await gateway.open();
        await wire.send(streaming());
        await wire.until('data: {"a":1}\n\n');
        hangUp(wire);
        await within(hungUp.opened, 5, 'the upstream connection to close');
    });
}

test('both sides TLS, client gone while the provider keeps talking: upstream is cancelled', async (t) => {
    const hungUp = barrier();
    const block = pattern(65536);
    const { gateway } = await pairOver(t, 'both sides', streamed(async (wire) => {
        await wire.send(STREAM_HEAD);
        try {
            for (let i = 0; i < 4096; i++) await wire.send(chunk(block));
        } catch {
            hungUp.open();
        }
    }), { errorsAllowed: true });
    const wire = await gateway.open();
    await wire.send(streaming());
    await wire.some();
    wire.raw.destroy();
    await within(hungUp.opened, 10, 'the upstream connection to close');
});

test('both sides TLS, client gone in the middle of its upload: never a whole request', async (t) => {
    const half = barrier();
    const hungUp = barrier();
    const { gateway } = await pairOver(t, 'both sides', async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.head();
        await wire.exactly(100000);
        half.open();
        hungUp.open((await wire.rest()).length);
    });
    const wire = await gateway.open();
    await wire.send(request('POST /v1/files', { 'Content-Type': 'x/y', 'Content-Length': 1000000 }));
    await wire.send(Buffer.alloc(100000, 'u'));
    await within(half.opened, 5, 'half the upload');
    wire.raw.destroy();
    assert.equal(await within(hungUp.opened, 5, 'the upstream connection to close'), 0);
});

test('both sides TLS: after a hundred hang-ups at random moments nothing is left open (seed 4243)', { seconds: 60 }, async (t) => {
    const random = randomFrom(4243);
    let alive = 0;
    const { gateway } = await pairOver(t, 'both sides', async (wire) => {
        alive++;
        try {
            while (await moreToCome(wire)) {
                await wire.request();
                await wire.send(STREAM_HEAD);
                for (let i = 0; i < 5; i++) await wire.send(chunk(`data: {"i":${i}}\n\n`));
                await wire.send(chunk('data: [DONE]\n\n'), LAST_CHUNK);
            }
        } finally {
            alive--;
            wire.close();
        }
    }, { errorsAllowed: true });
    const before = gateway.descriptors();
    for (let i = 0; i < 100; i++) {
        const wire = await dial(t, gateway.port);
        if (random(4)) await wire.shaken;
        const bytes = streaming();
        wire.offer(bytes.subarray(0, 1 + random(bytes.length * 2)));
        if (random(2)) await pause(random(8));
        if (random(2)) wire.raw.resetAndDestroy();
        else wire.raw.destroy();
    }
    await assertServes(gateway);
    await eventually('the gateway holds no descriptor but pooled connections', () => gateway.descriptors() <= before + alive);
});

// ---------------------------------------------------------------- backpressure

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

for (const side of ['clients', 'both sides']) {
    test(`TLS with ${side}, a client that does not read: memory is bounded, then every byte arrives`, { seconds: 60 }, async (t) => {
        const total = 48 * MIB;
        const progress = newProgress();
        const { gateway } = await pairOver(t, side, streamed(async (wire, got) => {
            if (got.body.length) return wire.send(ok());
            await wire.send('HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n');
            await pour(wire, total, progress, chunk);
            await wire.send(LAST_CHUNK);
        }));
        await assertServes(gateway);
        const before = gateway.rss();
        const slow = await gateway.open();
        await slow.send(request('GET /v1/files/big/content'));
        t.note(`the provider was stopped after ${((await stalled(progress, total)) / MIB).toFixed(1)} MiB`);
        assertMemoryBounded(t, gateway, before);
        await assertServes(gateway);
        assert.equal((await slow.head()).status, 200);
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
}

test('both sides TLS, a provider that does not read: memory is bounded, then every byte arrives', { seconds: 60 }, async (t) => {
    const total = 48 * MIB;
    const go = barrier();
    const received = createHash('sha256');
    const { gateway } = await pairOver(t, 'both sides', async (wire) => {
        if (!(await moreToCome(wire))) return;
        await go.opened;
        const head = await wire.head();
        for (let left = Number(head.get('content-length')); left > 0; ) {
            const part = await wire.some();
            received.update(part);
            left -= part.length;
        }
        await wire.send(response(200, JSON_TYPE, '{}'));
    });
    assert.equal((await get(gateway.admin, '/healthz')).status, 200);
    const client = await gateway.open();
    const before = gateway.rss();
    const progress = newProgress();
    await client.send(request('POST /v1/files', { 'Content-Type': 'x/y', 'Content-Length': total }));
    const poured = pour(client, total, progress);
    t.note(`the client was stopped after ${((await stalled(progress, total)) / MIB).toFixed(1)} MiB`);
    assertMemoryBounded(t, gateway, before);
    go.open();
    await poured;
    assert.equal((await client.response()).status, 200);
    assert.equal(received.digest('hex'), progress.hash.digest('hex'));
});

for (const [slow, buffers] of [[3, 16], [40, 64]]) {
    test(`TLS with both sides, ${slow} clients that do not read, ${buffers} buffers: the others are served`, { seconds: 60 }, async (t) => {
        const big = Buffer.alloc(8 * MIB, 'x');
        const { gateway } = await pairOver(t, 'both sides', answering(async (got, wire) => {
            const size = got.body.includes('"slow"') ? big.length : 10;
            await wire.send(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
            await wire.offer(big.subarray(0, size)); // the slow ones may be cut
        }), { args: ['--buffers', String(buffers), '--upstream-connections', '512'], errorsAllowed: true });
        for (let i = 0; i < slow; i++) {
            const wire = await gateway.open();
            wire.socket.pause();
            await wire.send(post({}, JSON.stringify({ model: 'm', user: 'slow' })));
        }
        for (let i = 0; i < 100; i++) {
            const wire = await gateway.open();
            await wire.send(post({}, JSON.stringify({ model: 'm', user: 'fast' })));
            const got = await wire.response();
            assert.equal(got.status, 200, got.head.text + got.body);
            assert.equal(got.body.length, 10);
            wire.close();
        }
    });
}

test('idle TLS connections on both sides hold no receive buffer and use no CPU', { seconds: 40 }, async (t) => {
    const { gateway } = await pairOver(t, 'both sides', answering(ok), { args: ['--buffers', '16'] });
    await assertServes(gateway);
    const before = gateway.rss();
    for (let i = 0; i < 200; i++) {
        const wire = await gateway.open();
        if (i % 2) continue; // half of them never say a word
        await wire.send(post());
        assert.equal((await wire.response()).status, 200);
    }
    t.note(`memory for each idle client: ${Math.round((gateway.rss() - before) / 200)} bytes`);
    const used = gateway.cpu();
    await pause(1000);
    t.note(`CPU used in an idle second: ${(gateway.cpu() - used).toFixed(2)} ms`);
    assert.ok(gateway.cpu() - used < 50 * slowness, 'something spins');
    await assertServes(gateway);
});

test('told to stop: an idle TLS client hears close_notify, a stream runs to its end', async (t) => {
    const stopping = barrier();
    const { gateway } = await pairOver(t, 'both sides', streamed(async (wire) => {
        await wire.send(STREAM_HEAD, chunk('data: {"a":1}\n\n'));
        await stopping.opened;
        await wire.send(chunk('data: [DONE]\n\n'), LAST_CHUNK);
    }));
    const relay = await startRelay(t, gateway.port);
    const idle = await open(t, relay.port, { maxVersion: 'TLSv1.2' });
    const busy = await gateway.open();
    await busy.send(streaming());
    await busy.until('data: {"a":1}\n\n');
    gateway.signal('SIGTERM');
    await idle.closed('the idle connection');
    assert.equal(recordsOf(Buffer.concat(relay.links[0].down)).types.at(-1), ALERT);
    stopping.open();
    await busy.until('data: [DONE]\n\n');
    await busy.until(LAST_CHUNK);
    await busy.closed('the connection whose stream is over');
    await within(gateway.exited, 10, 'the gateway');
    gateway.assertCleanExit();
});

// ---------------------------------------------------------------- curl and the openssl command

function whyNo(command, ...args) {
    try {
        execFileSync(command, args, { stdio: 'ignore' });
        return undefined;
    } catch {
        return `no ${command} command`;
    }
}

// A command that runs beside the test. `exited` gives its status.
function beside(t, command, args) {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    child.text = '';
    child.stdin.on('error', () => {});
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => (child.text += bytes.toString('latin1')));
    child.exited = new Promise((resolve) => {
        child.once('error', (error) => resolve(error.message));
        child.once('close', (code, signal) => resolve(code ?? signal));
    });
    child.saw = (pattern) => eventually(`${command} to show ${pattern}; it showed:\n${child.text.slice(-1500)}`, () => pattern.test(child.text));
    t.cleanup(async () => {
        child.kill('SIGKILL');
        await child.exited;
    });
    return child;
}
async function toEnd(child, input = null) {
    if (input !== null) child.stdin.write(input);
    const status = await within(child.exited, 15, `${child.spawnfile}, which showed:\n${child.text.slice(-1500)}`);
    return { status, text: child.text };
}

test('curl: whole, streamed, and an upload', { skip: whyNo('curl', '--version'), seconds: 40 }, async (t) => {
    const body = pattern(MIB);
    const upload = newFile('bin', body);
    const seen = Array.from({ length: 10 }, barrier);
    const { gateway } = await pairOver(t, 'both sides', answering(async (got, wire) => {
        if (got.head.target.endsWith('/files')) return response(200, {}, digest(got.body));
        if (!got.body.includes('"stream":true')) return ok();
        await wire.send(STREAM_HEAD);
        for (const [k, one] of seen.entries()) {
            await wire.send(chunk(`data: {"k":${k}}\n\n`));
            await one.opened;
        }
        return Buffer.concat([chunk('data: [DONE]\n\n'), Buffer.from(LAST_CHUNK)]);
    }));
    const curl = (target, ...args) => beside(t, 'curl', [
        '-sS', '-N', '--http1.1', '--max-time', '15', '--cacert', certificates.root.certFile, ...args, `https://localhost:${gateway.port}${target}`,
    ]);
    const json = ['-H', 'Content-Type: application/json', '-d'];
    for (const version of [['--tlsv1.2', '--tls-max', '1.2'], ['--tlsv1.3']]) {
        assert.deepEqual(await toEnd(curl('/v1/chat/completions', ...version, ...json, chat())), { status: 0, text: '{"id":"x"}' });
    }
    assert.deepEqual(await toEnd(curl('/v1/files', '-H', 'Content-Type: x/y', '--data-binary', `@${upload}`)), { status: 0, text: digest(body) });
    const stream = curl('/v1/chat/completions', ...json, chat('m', { stream: true }));
    for (const [k, one] of seen.entries()) {
        await stream.saw(new RegExp(`"k":${k}\\}`));
        one.open();
    }
    const { status, text } = await toEnd(stream);
    assert.equal(status, 0);
    assert.match(text, /"k":9\}\n\ndata: \[DONE\]\n\n$/);
    const strange = await toEnd(beside(t, 'curl', ['-sS', '--max-time', '10', `https://localhost:${gateway.port}/v1/models`]));
    assert.equal(strange.status, 60, `curl trusts nobody by default: ${strange.text}`);
});

test('curl with a client certificate: let in; without: not', { skip: whyNo('curl', '--version') }, async (t) => {
    const { root, client } = certificates;
    const { gateway } = await pairOver(t, 'clients', answering(ok), { args: ['--tls-client-ca', root.certFile] });
    const curl = (...args) => toEnd(beside(t, 'curl', ['-sS', '--max-time', '10', '--cacert', root.certFile, ...args, '-H', 'Content-Type: application/json', '-d', chat(), `https://localhost:${gateway.port}/v1/chat/completions`]));
    assert.deepEqual(await curl('--cert', client.certFile, '--key', client.keyFile), { status: 0, text: '{"id":"x"}' });
    assert.match(String((await curl()).status), /^(35|56)$/, 'an alert');
});

const sClient = (t, port, ...args) => beside(t, 'openssl', [
    's_client', '-connect', `127.0.0.1:${port}`, '-servername', 'localhost', '-CAfile', certificates.root.certFile,
    '-verify_return_error', '-verify_hostname', 'localhost', ...args,
]);

for (const version of ['1_2', '1_3']) {
    test(`openssl s_client -tls${version}: an exchange, and -sess_in resumes`, { seconds: 40 }, async (t) => {
        const { gateway } = await pairOver(t, 'clients', answering(ok), { args: ['-w', '2'] });
        const session = newFile('session');
        const first = await toEnd(sClient(t, gateway.port, `-tls${version}`, '-ign_eof', '-sess_out', session), post({ Connection: 'close' }).toString());
        assert.match(first.text, new RegExp(`New, TLSv${version.replace('_', '.')}`));
        assert.match(first.text, /Verify return code: 0 \(ok\)/);
        assert.match(first.text, /HTTP\/1.1 200 [^]*\{"id":"x"\}/);
        assert.ok(fs.existsSync(session), 'a session was kept');
        for (let i = 0; i < 6; i++) {
            const again = await toEnd(sClient(t, gateway.port, `-tls${version}`, '-ign_eof', '-sess_in', session), post({ Connection: 'close' }).toString());
            assert.match(again.text, new RegExp(`Reused, TLSv${version.replace('_', '.')}`));
            assert.match(again.text, /HTTP\/1.1 200 [^]*\{"id":"x"\}/);
        }
    });
}

test('openssl s_client -reconnect: five times, all resumed', async (t) => {
    const { gateway } = await pairOver(t, 'clients', answering(ok), { args: ['-w', '2'] });
    const { text } = await toEnd(sClient(t, gateway.port, '-tls1_2', '-reconnect', '-ign_eof'), post({ Connection: 'close' }).toString());
    assert.equal(text.match(/^New, TLSv1.2/gm)?.length, 1, text);
    assert.equal(text.match(/^Reused, TLSv1.2/gm)?.length, 5, text);
    assert.match(text, /HTTP\/1.1 200 /);
});

test('openssl s_client: a key update in the middle of a connection goes unnoticed; a renegotiation is not had', { seconds: 40 }, async (t) => {
    const { gateway } = await pairOver(t, 'clients', answering(ok));
    // A line that begins with K: new keys, and the peer is asked for the same. With R: shake hands again.
    const updated = sClient(t, gateway.port, '-tls1_3');
    await updated.saw(/Verify return code: 0[^]*---\n/);
    for (let i = 0; i < 3; i++) {
        const before = updated.text.match(/\{"id":"x"\}/g)?.length ?? 0;
        updated.stdin.write('K\n');
        await updated.saw(new RegExp(`(KEYUPDATE[^]*){${i + 1}}`));
        updated.stdin.write(post().toString());
        await eventually('an answer behind the key update', () => (updated.text.match(/\{"id":"x"\}/g)?.length ?? 0) > before);
    }
    const again = sClient(t, gateway.port, '-tls1_2');
    await again.saw(/Verify return code: 0[^]*---\n/);
    again.stdin.write('R\n');
    await again.saw(/RENEGOTIATING/);
    again.stdin.write(post().toString());
    await within(again.exited, 10, 's_client, whose renegotiation is refused').catch(() => {});
    assert.doesNotMatch(again.text, /RENEGOTIATING[^]*HTTP\/1.1 200/, 'nothing is served after it');
    await assertServes(gateway);
});

// An HTTP server for GET that is not Node's. It answers with what was agreed, and ends with the connection.
async function startOpensslServer(t, ...args) {
    const { certFile, keyFile } = certificates.local;
    const port = await freePort();
    const server = beside(t, 'openssl', ['s_server', '-accept', `127.0.0.1:${port}`, '-cert', certFile, '-key', keyFile, '-www', ...args]);
    await server.saw(/ACCEPT/);
    return port;
}

for (const version of ['1_2', '1_3']) {
    test(`openssl s_server -www -tls${version} as a provider: a GET passes through`, async (t) => {
        const gateway = await startGateway(t, { config: configOf(await startOpensslServer(t, `-tls${version}`)) });
        for (let i = 0; i < 3; i++) {
            const wire = await gateway.connect();
            await wire.send(request('GET /v1/models/m'));
            const got = await wire.response({ to: 'GET' });
            assert.equal(got.status, 200, got.head.text + got.body);
            assert.match(got.body.toString(), new RegExp(`TLSv${version.replace('_', '.')}[^]*</pre></BODY></HTML>`, 'i'));
            wire.close();
        }
    });

    // By openssl: Node's server accepts any certificate at first, and hangs up without an alert.
    test(`a provider that demands a certificate (TLS ${version}) and gets none, or a wrong one: 502, and the log says why`, async (t) => {
        const wrong = certificates.stranger.issue('a client', { use: 'clientAuth' });
        for (const own of [null, wrong, certificates.client]) {
            const port = await startOpensslServer(t, `-tls${version}`, '-Verify', '1', '-verify_return_error', '-CAfile', certificates.root.certFile);
            const gateway = await startGateway(t, { config: configOf(port, { own }) });
            const wire = await gateway.connect();
            await wire.send(request('GET /v1/models/m'));
            const got = await wire.response({ to: 'GET' });
            if (own === certificates.client) {
                assert.equal(got.status, 200, `${got.head.text}${got.body}`);
                continue;
            }
            assertError(got, 502, 'upstream_tls_failed');
            await eventually('the alert in the log', () => /provider local: .*alert [a-z_]+ \(\d+\)/.test(gateway.stderr));
        }
    });
}

await run();
