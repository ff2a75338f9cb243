// SPDX-License-Identifier: MIT
//
// runner: runs a suite's tests one after another and prints TAP.
//
//   test('what it proves', async (t) => { ... });             // 20 s unless { seconds } says otherwise
//   test('needs X', { skip: 'no X here' }, async (t) => {});  // counted, and the reason is printed
//   await run();
//
// t.cleanup(fn) runs when the test is over, last one first, also after a failure or a time-out. t.skip(why)
// ends a test as skipped. t.note(text) is printed as a comment. Every test is bounded in time: a gateway
// that hangs fails its test and never the whole run. Give a regular expression as the first argument to run
// only the tests whose names match: `node http.test.mjs pipelining`.
//
// TOKENRING_SLOWNESS=3 multiplies every limit; for sanitizers and busy machines.

export const slowness = Number(process.env.TOKENRING_SLOWNESS || 1);
const SECONDS_DEFAULT = 20;

const tests = [];
let running = null;

class Skipped extends Error {}

export function test(name, options, body) {
    if (typeof options === 'function') [options, body] = [{}, options];
    tests.push({ name, body, seconds: options.seconds ?? SECONDS_DEFAULT, skip: options.skip });
}

// What a test is given. A suite that shares a gateway between tests makes one of its own and cleans it last.
export class Context {
    failed = false;
    cleanups = [];
    notes = [];
    cleanup(fn) {
        this.cleanups.push(fn);
    }
    note(text) {
        this.notes.push(text);
    }
    skip(why) {
        throw new Skipped(why);
    }
    async clean() {
        let failure = null;
        for (const fn of this.cleanups.reverse()) {
            try {
                await within(fn(this.failed), 20, 'a cleanup');
            } catch (error) {
                failure ??= error;
            }
        }
        this.cleanups = [];
        return failure;
    }
}

// The promise's value, or a failure after that many seconds (times the slowness).
export function within(promise, seconds, what) {
    let timer;
    const late = new Promise((_, reject) => {
        const error = new Error(`${what} took more than ${seconds * slowness} s`);
        timer = setTimeout(() => reject(error), seconds * slowness * 1000);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// A promise and its two ends, for barriers between the two sides of a test.
export function barrier() {
    let open, fail;
    const opened = new Promise((resolve, reject) => {
        [open, fail] = [resolve, reject];
    });
    opened.catch(() => {}); // whoever awaits it sees the failure; nobody else needs to
    return { opened, open, fail };
}

function comment(text) {
    return String(text)
        .split('\n')
        .map((line) => `#   ${line}`)
        .join('\n');
}

async function runOne(entry) {
    const t = new Context();
    running = t;
    let failure = null;
    try {
        const stray = new Promise((_, reject) => {
            t.stray = reject;
        });
        await within(Promise.race([entry.body(t), stray]), entry.seconds, 'the test');
    } catch (error) {
        failure = error;
    }
    t.failed = failure !== null && !(failure instanceof Skipped);
    const untidy = await t.clean();
    running = null;
    return { failure: failure ?? untidy, notes: t.notes };
}

export async function run() {
    const wanted = process.argv[2] ? new RegExp(process.argv[2], 'i') : null;
    const chosen = tests.filter((entry) => !wanted || wanted.test(entry.name));
    let failures = 0;
    console.log(`1..${chosen.length}`);
    for (const [index, entry] of chosen.entries()) {
        const label = `${index + 1} - ${entry.name}`;
        if (entry.skip) {
            console.log(`ok ${label} # SKIP ${entry.skip}`);
            continue;
        }
        const started = performance.now();
        const { failure, notes } = await runOne(entry);
        const took = ((performance.now() - started) / 1000).toFixed(2);
        if (failure instanceof Skipped) {
            console.log(`ok ${label} # SKIP ${failure.message}`);
        } else if (failure) {
            failures++;
            console.log(`not ok ${label} (${took} s)`);
            console.log(comment(failure.stack ?? failure));
        } else {
            console.log(`ok ${label} (${took} s)`);
        }
        for (const note of notes) console.log(comment(note));
    }
    process.exit(failures ? 1 : 0);
}

// An error nobody awaited belongs to the test that is running.
process.on('unhandledRejection', (error) => running?.stray?.(error));
process.on('uncaughtException', (error) => {
    if (running?.stray) return running.stray(error);
    console.log(`Bail out! ${error.stack}`);
    process.exit(1);
});

// Told to stop: children first.
for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, async () => {
        if (running) {
            running.failed = true;
            await running.clean();
        }
        console.log(`Bail out! stopped by ${signal}`);
        process.exit(1);
    });
}
