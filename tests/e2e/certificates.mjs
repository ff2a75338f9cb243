// SPDX-License-Identifier: MIT
//
// certificates: authorities and certificates for one run, made by the openssl command in a folder that goes
// when the process ends. Nothing that was ever valid lies in git, and nothing expires there.
//
//   const root = new Authority('Root');
//   const { pem, key, certFile, keyFile } = root.issue('server', { names: ['DNS:localhost'] });
//
// Keys are P-256, or RSA of 2048 bits when asked for: both kinds are met in the wild.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

// Why no certificate can be made here, or undefined.
export function whyNoCertificates() {
    try {
        execFileSync('openssl', ['version'], { stdio: 'ignore' });
        return undefined;
    } catch {
        return 'no openssl command';
    }
}

let folder = null;

// A new file's path. The names of files are made up here, since those of certificates hold stars.
let files = 0;
export function newFile(ending, text) {
    if (folder === null) {
        folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tokenring-certificates-'));
        process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
    }
    const file = path.join(folder, `${files++}.${ending}`);
    if (text !== undefined) fs.writeFileSync(file, text);
    return file;
}

function openssl(...args) {
    return execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });
}

function newKey(rsa) {
    const file = newFile('key');
    const kind = rsa ? ['RSA', '-pkeyopt', 'rsa_keygen_bits:2048'] : ['EC', '-pkeyopt', 'ec_paramgen_curve:P-256'];
    openssl('genpkey', '-algorithm', ...kind, '-out', file);
    return file;
}

// For OpenSSL's day: seconds from now, as YYYYMMDDHHMMSSZ.
function date(seconds) {
    return new Date(Date.now() + seconds * 1000).toISOString().replace(/[-:T]|\.\d+/g, '');
}
const DAY = 24 * 3600;

// Whoever signs: an authority, or a certificate that pretends to be one.
class Signer {
    constructor(name, keyFile, certFile, chain) {
        this.name = name;
        this.keyFile = keyFile;
        this.certFile = certFile;
        this.chain = chain; // what a server sends behind its own certificate, PEM
    }
    get pem() {
        return fs.readFileSync(this.certFile, 'latin1');
    }
    get key() {
        return fs.readFileSync(this.keyFile, 'latin1');
    }
    // A certificate that is good from `from` to `to` (seconds from now), for `names` ("DNS:...", "IP:...").
    issue(commonName, { names = [], rsa = false, from = -DAY, to = DAY, authority = false, use = null } = {}) {
        const keyFile = newKey(rsa);
        const certFile = newFile('pem');
        const request = newFile('csr');
        const extensions = [`basicConstraints=critical,CA:${authority ? 'TRUE' : 'FALSE'}`];
        extensions.push(`keyUsage=critical,${authority ? 'keyCertSign,cRLSign' : 'digitalSignature'}`);
        if (names.length) extensions.push(`subjectAltName=${names.join(',')}`);
        if (use) extensions.push(`extendedKeyUsage=${use}`);
        const config = newFile('cnf', `
[ca]
default_ca = this
[this]
database = ${newFile('db', '')}
serial = ${newFile('serial', `${String(4096 + files)}\n`)}
new_certs_dir = ${path.dirname(certFile)}
default_md = sha256
policy = any
unique_subject = no
x509_extensions = extensions
[any]
commonName = supplied
[extensions]
${extensions.join('\n')}
`);
        openssl('req', '-new', '-key', keyFile, '-subj', `/CN=${commonName}`, '-out', request);
        openssl('ca', '-batch', '-notext', '-config', config, '-cert', this.certFile, '-keyfile', this.keyFile,
            '-in', request, '-out', certFile, '-startdate', date(from), '-enddate', date(to));
        fs.appendFileSync(certFile, this.chain);
        return new Signer(commonName, keyFile, certFile, fs.readFileSync(certFile, 'latin1'));
    }
}

// A certificate that nobody vouches for but itself.
export class Authority extends Signer {
    constructor(name, { names = [] } = {}) {
        const keyFile = newKey(false);
        const certFile = newFile('pem');
        const more = names.length ? ['-addext', `subjectAltName=${names.join(',')}`] : [];
        openssl('req', '-x509', '-new', '-key', keyFile, '-subj', `/CN=${name}`, '-days', '2', '-out', certFile, ...more);
        super(name, keyFile, certFile, '');
    }
}
