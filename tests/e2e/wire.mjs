// SPDX-License-Identifier: MIT
//
// wire: one TCP connection, read and written byte by byte, for both sides of a test. It knows just enough
// HTTP/1.1 to find the end of a message, and shows everything else as it came.
//
//   const wire = await connect(port);
//   wire.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
//   const { head, body } = await wire.response();
//
// Bytes are pulled from the socket only when somebody reads: a Wire that nobody reads is a slow peer, and
// the kernel's buffers fill as they would in the wild. Every read gives up after READ_SECONDS.
import assert from 'node:assert/strict';
import net from 'node:net';
import { within } from './runner.mjs';

const READ_SECONDS = 15;

// A head as it came: the start line, and the fields in order.
export class Head {
    constructor(text) {
        const lines = text.split('\r\n');
        this.text = text;
        this.startLine = lines[0];
        this.fields = lines
            .slice(1)
            .filter((line) => line !== '')
            .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]);
    }
    // All values of a field joined by ", ", or undefined.
    get(name) {
        const values = this.all(name);
        return values.length ? values.join(', ') : undefined;
    }
    all(name) {
        return this.fields.filter(([n]) => n.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
    }
    get status() {
        return Number(this.startLine.split(' ')[1]);
    }
    get method() {
        return this.startLine.split(' ')[0];
    }
    get target() {
        return this.startLine.split(' ')[1];
    }
    get chunked() {
        return /(^|,\s*)chunked$/i.test(this.get('transfer-encoding') ?? '');
    }
}

export class Wire {
    #held = Buffer.alloc(0); // read from the socket, not yet taken
    #ended = false; // end of file, an error, or closed
    #wake = null;
    constructor(socket) {
        this.socket = socket;
        this.error = null;
        socket.setNoDelay(true);
        socket.on('readable', () => {
            if (socket.readableLength === 0) socket.read(); // nothing but the end: let it be told
            this.#wake?.();
        });
        socket.on('end', () => this.#finish());
        socket.on('close', () => this.#finish());
        socket.on('error', (error) => {
            this.error = error;
            this.#finish();
        });
    }
    #finish() {
        this.#ended = true;
        this.#wake?.();
    }
    // Read whatever is there, waiting for at least one byte. False at the end of the connection.
    async #more(what) {
        const deadline = performance.now() + READ_SECONDS * 1000;
        for (;;) {
            const bytes = this.socket.read();
            if (bytes !== null) {
                this.#held = this.#held.length ? Buffer.concat([this.#held, bytes]) : bytes;
                return true;
            }
            if (this.#ended) return false;
            const woken = new Promise((resolve) => {
                this.#wake = resolve;
            });
            const left = Math.max((deadline - performance.now()) / 1000, 0);
            await within(woken, left, what).catch((error) => {
                const seen = this.#held.toString('latin1').slice(-300);
                throw new Error(`${error.message}; bytes not yet taken: ${JSON.stringify(seen)}`);
            });
            this.#wake = null;
        }
    }
    #take(length) {
        const bytes = this.#held.subarray(0, length);
        this.#held = this.#held.subarray(length);
        return bytes;
    }

    // Send bytes or texts (latin1), all in one write. Resolves when the kernel has them.
    send(...parts) {
        const bytes = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part)));
        return new Promise((resolve, reject) => {
            this.socket.write(bytes, (error) => (error ? reject(error) : resolve()));
        });
    }
    // Send, and never mind if the peer has gone.
    offer(...parts) {
        return this.send(...parts).catch(() => {});
    }
    // No more bytes from us (FIN).
    finish() {
        this.socket.end();
    }
    // Gone without a word (RST if bytes are unread or `reset`).
    close({ reset = false } = {}) {
        if (reset && !this.socket.destroyed) this.socket.resetAndDestroy();
        else this.socket.destroy();
    }

    // Bytes up to and with `mark`.
    async until(mark) {
        let from = 0;
        for (;;) {
            const at = this.#held.indexOf(mark, from, 'latin1');
            if (at >= 0) return this.#take(at + mark.length);
            from = Math.max(this.#held.length - mark.length + 1, 0);
            if (!(await this.#more(`waiting for ${JSON.stringify(mark)}`))) {
                const seen = this.#held.toString('latin1').slice(0, 300);
                throw new Error(`the peer closed before ${JSON.stringify(mark)}, after ${JSON.stringify(seen)}`);
            }
        }
    }
    async exactly(length) {
        const parts = [];
        for (let left = length; left > 0; ) {
            if (!this.#held.length && !(await this.#more(`waiting for ${left} bytes`))) {
                throw new Error(`the peer closed ${left} bytes early`);
            }
            const part = this.#take(Math.min(left, this.#held.length));
            parts.push(part);
            left -= part.length;
        }
        return parts.length === 1 ? parts[0] : Buffer.concat(parts);
    }
    // The next bytes, whatever they are; null at the end.
    async some() {
        if (!this.#held.length && !(await this.#more('waiting for any byte'))) return null;
        return this.#take(this.#held.length);
    }
    // All bytes until the peer closes. A reset ends them too: see `error`.
    async rest() {
        const parts = [];
        for (let part = await this.some(); part; part = await this.some()) parts.push(part);
        return Buffer.concat(parts);
    }
    // The peer must close, and send nothing more before it.
    async closed(what = 'the connection') {
        const left = await this.rest();
        assert.equal(left.toString('latin1'), '', `${what} should close without another byte`);
    }
    // Bytes that came without being asked for, after a turn of the event loop.
    get pending() {
        return this.#held.length + this.socket.readableLength;
    }
    get ended() {
        return this.#ended;
    }

    async head() {
        return new Head((await this.until('\r\n\r\n')).toString('latin1'));
    }
    // A chunked body: its bytes, the raw sizes, and the trailer's head.
    async chunks(each = () => {}) {
        const parts = [];
        for (;;) {
            const size = parseInt((await this.until('\r\n')).toString('latin1'), 16);
            assert.ok(Number.isInteger(size), 'a chunk begins with its size');
            if (size === 0) break;
            const part = await this.exactly(size);
            parts.push(part);
            each(part);
            assert.equal((await this.exactly(2)).toString('latin1'), '\r\n', 'a chunk ends with CRLF');
        }
        let trailer = '';
        for (let line = ''; line !== '\r\n'; trailer += line) line = (await this.until('\r\n')).toString('latin1');
        return { body: Buffer.concat(parts), trailer: new Head('\r\n' + trailer), sizes: parts.map((p) => p.length) };
    }
    // The body that belongs to a request's head.
    async requestBody(head) {
        if (head.chunked) return (await this.chunks()).body;
        return this.exactly(Number(head.get('content-length') ?? 0));
    }
    async request() {
        const head = await this.head();
        return { head, body: await this.requestBody(head) };
    }
    // One response, interim ones kept in `interim`. `to` is the method it answers.
    async response({ to = 'POST' } = {}) {
        const interim = [];
        let head = await this.head();
        while (head.status >= 100 && head.status < 200) {
            interim.push(head);
            head = await this.head();
        }
        const answer = { head, status: head.status, interim, body: Buffer.alloc(0), trailer: null };
        if (to === 'HEAD' || head.status === 204 || head.status === 304) return answer;
        if (head.chunked) return { ...answer, ...(await this.chunks()) };
        if (head.get('content-length') !== undefined) {
            return { ...answer, body: await this.exactly(Number(head.get('content-length'))) };
        }
        return { ...answer, body: await this.rest() };
    }
    // A chunked response that may break off: { head, body, clean }. Clean means the last chunk came.
    async stream(each = () => {}) {
        const head = await this.head();
        const parts = [];
        let clean = true;
        try {
            assert.ok(head.chunked, `a streamed answer is chunked: ${head.text}`);
            await this.chunks((part) => {
                parts.push(part);
                each(part);
            });
        } catch (error) {
            if (error instanceof assert.AssertionError) throw error;
            if (!/the peer closed/.test(error.message)) throw error;
            clean = false;
        }
        return { head, status: head.status, body: Buffer.concat(parts), clean };
    }
}

export async function connect(port, host = '127.0.0.1') {
    const socket = net.connect({ port, host, allowHalfOpen: true });
    const wire = new Wire(socket);
    await within(
        new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject)),
        READ_SECONDS,
        `connecting to port ${port}`,
    );
    return wire;
}

// Text of one chunk of the chunked coding.
export function chunk(bytes) {
    const data = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    return Buffer.concat([Buffer.from(data.length.toString(16) + '\r\n'), data, Buffer.from('\r\n')]);
}
export const LAST_CHUNK = '0\r\n\r\n';

// A request's bytes: line, fields, Host and Content-Length unless given, body.
export function request(line, fields = {}, body = '') {
    const data = typeof body === 'string' ? Buffer.from(body) : body;
    const all = { Host: 'gateway.test', ...fields };
    const framed = Object.keys(all).some((name) => /^(content-length|transfer-encoding)$/i.test(name));
    if (!framed && data.length) all['Content-Length'] = data.length;
    return Buffer.concat([Buffer.from(`${line} HTTP/1.1\r\n${fieldLines(all)}\r\n`, 'latin1'), data]);
}

// A response's bytes, with Content-Length.
export function response(status, fields = {}, body = '') {
    const data = typeof body === 'string' ? Buffer.from(body) : body;
    const all = { 'Content-Length': data.length, ...fields };
    return Buffer.concat([Buffer.from(`HTTP/1.1 ${status} X\r\n${fieldLines(all)}\r\n`, 'latin1'), data]);
}

function fieldLines(fields) {
    return Object.entries(fields)
        .flatMap(([name, value]) => [value].flat().map((one) => `${name}: ${one}\r\n`))
        .join('');
}
