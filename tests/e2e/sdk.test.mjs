// SPDX-License-Identifier: MIT
//
// The official openai package, unchanged, with its base URL pointed at the gateway: what an SDK's user
// sees. tokenring-mock answers where any provider would do; a provider scripted here where bytes matter.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { File } from 'node:buffer';
import OpenAI, { toFile } from 'openai';
import { barrier, run, test, within } from './runner.mjs';
import { LAST_CHUNK, chunk, response } from './wire.mjs';
import { JSON_TYPE, STREAM_HEAD, answering, moreToCome, startGateway, startMock, startProvider } from './gateway.mjs';

globalThis.File ??= File; // Node 18 has it, but not as a global

const MESSAGES = [{ role: 'user', content: 'Tell me a story.' }];
const event = (data) => chunk(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);

function sdk(gateway, more = {}) {
    return new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'sk-anything', maxRetries: 0, timeout: 10000, ...more });
}

async function throughMock(t) {
    const mock = await startMock(t);
    const gateway = await startGateway(t, { providers: [`mock=openai+${mock.url}`] });
    return sdk(gateway);
}

async function throughScript(t, script, how = {}) {
    const provider = await startProvider(t, script, how);
    const gateway = await startGateway(t, { providers: [provider.flag()] });
    return { provider, gateway, client: sdk(gateway) };
}

test('a whole chat completion', async (t) => {
    const client = await throughMock(t);
    const { data, response: raw } = await client.chat.completions.create({ model: 'gpt-4o', messages: MESSAGES }).withResponse();
    assert.equal(data.object, 'chat.completion');
    assert.equal(data.choices[0].message.role, 'assistant');
    assert.ok(data.choices[0].message.content.length > 0);
    assert.ok(data.usage.total_tokens > 0);
    assert.ok(raw.headers.get('x-request-id'));
    assert.match(raw.headers.get('x-tokenring-overhead-us'), /^\d+$/);
});

test('a streamed chat completion, with usage in its last chunk', async (t) => {
    const client = await throughMock(t);
    const stream = await client.chat.completions.create({
        model: 'gpt-4o', messages: MESSAGES, stream: true, stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const part of stream) chunks.push(part);
    const text = chunks.map((part) => part.choices[0]?.delta?.content ?? '').join('');
    assert.ok(text.length > 0);
    assert.ok(chunks.length > 3, `${chunks.length} chunks`);
    assert.equal(new Set(chunks.map((part) => part.id)).size, 1);
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
    assert.ok(chunks.some((part) => part.choices[0]?.finish_reason === 'stop'));
});

test('twenty chats at once on one client', async (t) => {
    const client = await throughMock(t);
    const all = await Promise.all(Array.from({ length: 20 }, async (_, i) => {
        if (i % 2) return (await client.chat.completions.create({ model: 'gpt-4o', messages: MESSAGES })).choices[0].message.content;
        let text = '';
        const stream = await client.chat.completions.create({ model: 'gpt-4o', messages: MESSAGES, stream: true });
        for await (const part of stream) text += part.choices[0]?.delta?.content ?? '';
        return text;
    }));
    for (const text of all) assert.ok(text.length > 0);
});

const TOOLS = [{
    type: 'function',
    function: { name: 'weather', description: 'The weather "now".', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
}];
const CALL = { id: 'call_abc123xyz', type: 'function', function: { name: 'weather', arguments: '{"city":"K\u00f6ln"}' } };

test('a tool call, whole', async (t) => {
    const { provider, client } = await throughScript(t, answering(() => response(200, JSON_TYPE, JSON.stringify({
        id: 'chatcmpl-1', object: 'chat.completion', created: 1, model: 'gpt-4o',
        choices: [{ index: 0, message: { role: 'assistant', content: null, tool_calls: [CALL] }, finish_reason: 'tool_calls' }],
    }))));
    const got = await client.chat.completions.create({ model: 'gpt-4o', messages: MESSAGES, tools: TOOLS });
    assert.equal(got.choices[0].finish_reason, 'tool_calls');
    assert.deepEqual(got.choices[0].message.tool_calls[0], CALL);
    assert.deepEqual(JSON.parse(provider.requests[0].body).tools, TOOLS);
});

test('a tool call, streamed in pieces', async (t) => {
    const delta = (tool, finish = null) => ({
        id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'gpt-4o',
        choices: [{ index: 0, delta: tool ? { role: 'assistant', tool_calls: [{ index: 0, ...tool }] } : {}, finish_reason: finish }],
    });
    const { client } = await throughScript(t, answering(async (got, wire) => {
        await wire.send(STREAM_HEAD, event(delta({ id: CALL.id, type: 'function', function: { name: 'weather', arguments: '' } })));
        for (const piece of ['{"ci', 'ty":"K', '\u00f6ln', '"}']) await wire.send(event(delta({ function: { arguments: piece } })));
        await wire.send(event(delta(null, 'tool_calls')), event('[DONE]'), LAST_CHUNK);
    }));
    const runner = client.chat.completions.stream({ model: 'gpt-4o', messages: MESSAGES, tools: TOOLS });
    const final = await runner.finalChatCompletion();
    assert.equal(final.choices[0].finish_reason, 'tool_calls');
    const call = final.choices[0].message.tool_calls[0];
    assert.equal(call.id, CALL.id);
    assert.deepEqual(call.function.arguments, CALL.function.arguments);
});

test('abort in mid-stream: the provider sees its connection closed', async (t) => {
    const hungUp = barrier();
    const { client } = await throughScript(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        const one = { id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta: { content: 'one' } }] };
        await wire.send(STREAM_HEAD, event(one));
        await wire.rest();
        hungUp.open();
    });
    const stream = await client.chat.completions.create({ model: 'gpt-4o', messages: MESSAGES, stream: true });
    for await (const part of stream) {
        assert.equal(part.choices[0].delta.content, 'one');
        stream.controller.abort();
        break;
    }
    await within(hungUp.opened, 5, 'the upstream connection to close');
});

test('abort before any answer: the provider sees its connection closed', async (t) => {
    const hungUp = barrier();
    const asked = barrier();
    const { client } = await throughScript(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        asked.open();
        await wire.rest();
        hungUp.open();
    });
    const controller = new AbortController();
    const call = client.chat.completions.create({ model: 'gpt-4o', messages: MESSAGES }, { signal: controller.signal });
    await within(Promise.race([asked.opened, call]), 5, 'the request to reach the provider');
    controller.abort();
    await assert.rejects(call, OpenAI.APIUserAbortError);
    await within(hungUp.opened, 5, 'the upstream connection to close');
});

test('a stream that breaks off reaches the SDK as an error, not as a short answer', async (t) => {
    const one = { id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta: { content: 'one' } }] };
    const { client } = await throughScript(t, async (wire) => {
        if (!(await moreToCome(wire))) return;
        await wire.request();
        await wire.send(STREAM_HEAD, event(one));
        wire.finish();
    });
    const stream = await client.chat.completions.create({ model: 'gpt-4o', messages: MESSAGES, stream: true });
    let text = '';
    await assert.rejects(async () => {
        for await (const part of stream) text += part.choices[0].delta.content;
    }, OpenAI.APIError);
    assert.equal(text, 'one');
});

test('embeddings, which the SDK asks for in base64', async (t) => {
    const vector = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i));
    const { provider, client } = await throughScript(t, answering(() => response(200, JSON_TYPE, JSON.stringify({
        object: 'list', model: 'e', usage: { prompt_tokens: 1, total_tokens: 1 },
        data: [{ object: 'embedding', index: 0, embedding: Buffer.from(vector.buffer).toString('base64') }],
    }))));
    const got = await client.embeddings.create({ model: 'text-embedding-3-small', input: ['a', 'b'] });
    assert.equal(JSON.parse(provider.requests[0].body).encoding_format, 'base64');
    assert.deepEqual(got.data[0].embedding, Array.from(vector));
});

test('embeddings from tokenring-mock', async (t) => {
    const client = await throughMock(t);
    const got = await client.embeddings.create({ model: 'text-embedding-3-small', input: 'a' });
    assert.equal(got.data[0].object, 'embedding');
    assert.ok(got.data[0].embedding.length > 0);
    assert.equal(typeof got.data[0].embedding[0], 'number');
});

test('models: list and retrieve', async (t) => {
    const client = await throughMock(t);
    const list = (await client.models.list()).data;
    assert.ok(list.length > 0);
    assert.equal(list[0].object, 'model');
    const one = await client.models.retrieve(list[0].id);
    assert.equal(one.id, list[0].id);
});

test('models: the configured ones are listed', async (t) => {
    const provider = await startProvider(t, answering(() => response(500)));
    const config = `
providers:
  - {name: one, kind: openai, base_url: "${provider.url()}"}
models:
  - {name: fast, targets: [{provider: one, model: "vendor/real"}]}
  - {name: smart, targets: [{provider: one, model: "vendor/other"}]}
`;
    const client = sdk(await startGateway(t, { config }));
    const ids = (await client.models.list()).data.map((model) => model.id);
    assert.ok(ids.includes('fast') && ids.includes('smart'), ids.join());
    assert.equal((await client.models.retrieve('fast')).id, 'fast');
});

test('a file upload is streamed through, byte for byte', { seconds: 40 }, async (t) => {
    const content = Buffer.alloc(3 * 1024 * 1024);
    for (let i = 0; i < content.length; i++) content[i] = (i * 7 + (i >> 9)) & 255;
    const { provider, client } = await throughScript(t, answering(() => response(200, JSON_TYPE, JSON.stringify({
        id: 'file-1', object: 'file', bytes: content.length, filename: 'b.bin', purpose: 'batch', created_at: 1,
    }))));
    const file = await client.files.create({ file: await toFile(content, 'b.bin'), purpose: 'batch' });
    assert.equal(file.id, 'file-1');
    const { head, body } = provider.requests[0];
    assert.equal(head.startLine, 'POST /v1/files HTTP/1.1');
    const boundary = /boundary=(\S+)/.exec(head.get('content-type'))[1];
    assert.ok(body.subarray(-boundary.length - 8).includes(`--${boundary}--`), 'the last boundary arrived');
    const at = body.indexOf('\r\n\r\n', body.indexOf('filename="b.bin"')) + 4;
    const hash = (bytes) => createHash('sha256').update(bytes).digest('hex');
    assert.equal(hash(body.subarray(at, at + content.length)), hash(content));
});

test('a model nobody serves: NotFoundError with our code', async (t) => {
    const provider = await startProvider(t, answering(() => response(200, JSON_TYPE, '{}')));
    const config = `
providers:
  - {name: one, kind: openai, base_url: "${provider.url()}"}
  - {name: two, kind: openai, base_url: "${provider.url()}"}
models:
  - {name: known, targets: [{provider: one, model: known}]}
`;
    const client = sdk(await startGateway(t, { config }));
    await assert.rejects(client.chat.completions.create({ model: 'unknown', messages: MESSAGES }), (error) => {
        assert.ok(error instanceof OpenAI.NotFoundError, error.constructor.name);
        assert.equal(error.headers.get('x-tokenring-error'), 'model_not_found');
        assert.ok(error.type && error.message.includes('unknown'));
        return true;
    });
    await client.chat.completions.create({ model: 'known', messages: MESSAGES });
});

test('a wrong path: NotFoundError; a wrong method: APIError 405 with Allow', async (t) => {
    const { client, gateway } = await throughScript(t, answering(() => response(200, JSON_TYPE, '{}')));
    const lost = sdk(gateway, { baseURL: `${gateway.url}/wrong` });
    await assert.rejects(lost.chat.completions.create({ model: 'm', messages: MESSAGES }), OpenAI.NotFoundError);
    await assert.rejects(client.get('/chat/completions'), (error) => {
        assert.ok(error instanceof OpenAI.APIError);
        assert.equal(error.status, 405);
        assert.match(error.headers.get('allow'), /POST/);
        return true;
    });
});

test("a provider's errors keep their class", async (t) => {
    let status;
    const body = '{"error":{"message":"as the provider said","type":"t","param":"p","code":"c"}}';
    const { client } = await throughScript(t, answering(() => response(status, { ...JSON_TYPE, 'Retry-After': '1' }, body)));
    for (const [code, kind] of [
        [400, OpenAI.BadRequestError], [401, OpenAI.AuthenticationError], [403, OpenAI.PermissionDeniedError],
        [409, OpenAI.ConflictError], [422, OpenAI.UnprocessableEntityError], [429, OpenAI.RateLimitError],
        [500, OpenAI.InternalServerError],
    ]) {
        status = code;
        await assert.rejects(client.chat.completions.create({ model: 'm', messages: MESSAGES }), (error) => {
            assert.ok(error instanceof kind, `${code}: ${error.constructor.name}`);
            assert.equal(error.code, 'c');
            assert.match(error.message, /as the provider said/);
            return true;
        });
    }
});

test('a provider that is not there: InternalServerError 502', async (t) => {
    const gateway = await startGateway(t, { providers: ['gone=openai+http://127.0.0.1:1/v1'] });
    await assert.rejects(sdk(gateway).chat.completions.create({ model: 'm', messages: MESSAGES }), (error) => {
        assert.ok(error instanceof OpenAI.InternalServerError);
        assert.equal(error.status, 502);
        assert.equal(error.headers.get('x-tokenring-error'), 'upstream_connect_failed');
        return true;
    });
});

await run();
