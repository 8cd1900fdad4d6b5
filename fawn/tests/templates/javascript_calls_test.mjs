// How the templates for JavaScript and TypeScript call a handler, and tell of its errors, by tables.
// Run with `node --test fawn/tests/templates/*.mjs`.
import assert from 'node:assert';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, afterEach } from 'node:test';
import { pathToFileURL } from 'node:url';

// Bundlers take the template's files for modules; Node.js wants that said.
const folder = mkdtempSync(join(tmpdir(), 'calls-'));
after(() => rmSync(folder, { recursive: true }));
writeFileSync(join(folder, 'package.json'), '{"type": "module"}');
for (const file of ['bytes.js', 'calls.js', 'stack.js']) {
  copyFileSync(new URL(`../../../templates/javascript-wasm/${file}`, import.meta.url), join(folder, file));
}
const load = (file) => import(pathToFileURL(join(folder, file)));
const { Bytes } = await load('bytes.js');
const { form } = await load('calls.js');
const { located } = await load('stack.js');

afterEach(() => delete process.env.RAW_BODY);

const HTML = 'text/html; charset=utf-8';
const JSON_TYPE = 'application/json; charset=utf-8';

const post = (type, body) =>
  new Request('http://f/a%20b?x=1&y=2&x=3', { method: 'POST', body, headers: type ? { 'content-type': type } : {} });

// What a handler answers, and what was reported.
async function call(handler, request = post('text/plain', 'text')) {
  const reported = [];
  const response = await form({ default: handler })(request, (error) => reported.push(String(error)));
  return { response, reported };
}

const answers = {
  'what it returns': [async () => 'yes', 200, HTML, 'yes'],
  'a number': [() => 7, 200, HTML, '7'],
  'an object': [() => ({ a: 1 }), 200, JSON_TYPE, '{"a":1}'],
  nothing: [() => undefined, 200, null, ''],
  'null': [() => null, 200, null, ''],
  bytes: [() => new Uint8Array([104, 105]), 200, 'application/octet-stream', 'hi'],
  'an ArrayBuffer': [() => new Uint8Array([104, 105]).buffer, 200, 'application/octet-stream', 'hi'],
  'a Response': [() => new Response('mine', { status: 202 }), 202, 'text/plain;charset=UTF-8', 'mine'],
  'a Response given to succeed': [
    (event, context) => context.status(500).succeed(new Response('mine', { status: 202 })),
    202,
    'text/plain;charset=UTF-8',
    'mine',
  ],
  'what is given to succeed, not what is returned': [
    async (event, context) => {
      context.status(201).succeed('first');
      return 'second';
    },
    201,
    HTML,
    'first',
  ],
  'a type of its own': [
    (event, context) => context.headers({ 'Content-Type': 'text/x' }).succeed('x'),
    200,
    'text/x',
    'x',
  ],
  'its headers as a list': [
    (event, context) => context.headers([['content-type', 'text/x']]).succeed('x'),
    200,
    'text/x',
    'x',
  ],
  'its headers as Headers': [
    (event, context) => context.headers(new Headers({ 'content-type': 'text/x' })).succeed('x'),
    200,
    'text/x',
    'x',
  ],
  'a callback': [(event, context, done) => void done(null, 'called'), 200, HTML, 'called'],
  'a callback, later': [(event, context, done) => void setImmediate(done, undefined, 'late'), 200, HTML, 'late'],
  'what one with a callback returns': [async (event, context, done) => 'returned', 200, HTML, 'returned'],
  '204': [(event, context) => context.status(204).succeed('dropped'), 204, null, ''],
  '205': [(event, context) => context.status(205).succeed({}), 205, null, ''],
  '304': [(event, context) => context.status(304).succeed('dropped'), 304, null, ''],
};

for (const [name, [handler, status, type, body]] of Object.entries(answers)) {
  test(`answers with ${name}`, async () => {
    const { response, reported } = await call(handler);
    assert.deepStrictEqual(
      [response.status, response.headers.get('content-type'), await response.text(), reported],
      [status, type, body, []],
    );
  });
}

const INTERNAL = 'Internal Server Error\n';
const failures = {
  'fail(error)': [(event, context) => context.fail(new Error('no')), 500, 'Error: no', [/^Error: no$/]],
  'fail(text)': [(event, context) => context.fail('no'), 500, 'no', [/^no$/]],
  'fail()': [(event, context) => context.fail(), 500, 'failed', [/^failed$/]],
  'fail after status': [(event, context) => context.status(418).fail('tea'), 418, 'tea', [/^tea$/]],
  'a callback with an error': [(event, context, done) => void done('no'), 500, 'no', [/^no$/]],
  throw: [() => assert.fail('thrown'), 500, INTERNAL, [/^AssertionError.*: thrown$/]],
  rejection: [() => Promise.reject(new Error('rejected')), 500, INTERNAL, [/^Error: rejected$/]],
  'a status that is none': [
    (event, context) => context.status(7).succeed('x'),
    500,
    INTERNAL,
    [/^RangeError: /],
  ],
  'throw after succeed': [
    (event, context) => {
      context.succeed('done');
      throw new Error('later');
    },
    200,
    'done',
    [/^Error: later$/],
  ],
  'throw after fail': [
    (event, context) => {
      context.fail('no');
      throw new Error('later');
    },
    500,
    'no',
    [/^no$/, /^Error: later$/],
  ],
};

for (const [name, [handler, status, body, errors]] of Object.entries(failures)) {
  test(`reports ${name}`, async () => {
    const { response, reported } = await call(handler);
    assert.deepStrictEqual([response.status, await response.text(), reported.length], [status, body, errors.length]);
    for (const [at, wanted] of errors.entries()) assert.match(reported[at], wanted);
  });
}

const plain = (value) => (value instanceof Uint8Array ? [...value] : value);
const bodies = {
  text: ['text/csv; charset=utf-8', 'a,b', 'a,b'],
  json: ['application/json', '{"a":[1]}', { a: [1] }],
  'empty json': ['application/json', '', {}],
  form: [
    'application/x-www-form-urlencoded',
    'a=1&b=2&a=%33&__proto__=4',
    JSON.parse('{"a":["1","3"],"b":"2","__proto__":"4"}'),
  ],
  'other types': ['application/x', 'hi', [104, 105]],
};

for (const [name, [type, sent, wanted]] of Object.entries(bodies)) {
  test(`reads ${name}`, async () => {
    let event;
    await call((given) => void (event = given), post(type, sent));
    assert.deepStrictEqual(plain(event.body), wanted);
    assert.deepStrictEqual(
      [event.method, event.path, event.query, event.headers['content-type']],
      ['POST', '/a%20b', { x: ['1', '3'], y: '2' }, type],
    );
  });

  test(`reads ${name} as bytes with RAW_BODY`, async () => {
    process.env.RAW_BODY = 'true';
    const { response } = await call((event) => `${event.body instanceof Uint8Array} ${event.body}`, post(type, sent));
    assert.strictEqual(await response.text(), `true ${sent}`);
  });
}

test('answers 400 to what is no JSON, without the handler', async () => {
  const { response, reported } = await call(() => assert.fail('called'), post('application/json', '{'));
  assert.deepStrictEqual([response.status, reported], [400, []]);
  assert.match(await response.text(), /^the request's body is no JSON: /);
});

test('sends each of several values of a header', async () => {
  const { response } = await call((event, context) => {
    context.headers({ 'Set-Cookie': ['a=1', 'b=2'], 'X-One': 'c, d' }).succeed();
  });
  assert.deepStrictEqual(response.headers.getSetCookie(), ['a=1', 'b=2']);
  assert.strictEqual(response.headers.get('x-one'), 'c, d');
});

test('goes through the names of a form once', async (context) => {
  const all = context.mock.method(URLSearchParams.prototype, 'getAll');
  const form = Array.from({ length: 100_000 }, (_, at) => `n${at}=${at}`).join('&');
  let body;
  await call((event) => void (body = event.body), post('application/x-www-form-urlencoded', form));
  assert.deepStrictEqual([Object.keys(body).length, body.n0, body.n99999], [100_000, '0', '99999']);
  assert.strictEqual(all.mock.callCount(), 0);
});

test('takes an object with fetch, which answers with a Response', async () => {
  const answer = form({ default: { fetch: () => new Response('mine') } });
  assert.strictEqual(await (await answer(post())).text(), 'mine');
  await assert.rejects(form({ default: { fetch: () => 'text' } })(post()), /answered with no Response, but with text/);
  assert.throws(() => form({ default: {} }), /function\/handler exports no function/);
});

const texts = {
  'no encoding': [[], 'é!'],
  'utf-8': [['utf-8'], 'é!'],
  UTF8: [['UTF8'], 'é!'],
  latin1: [['latin1'], 'Ã©!'],
  base64: [['base64'], 'w6kh'],
  hex: [['hex'], 'c3a921'],
  'a part': [['utf8', 0, 2], 'é'],
};

for (const [name, [options, wanted]] of Object.entries(texts)) {
  test(`bytes become text as in Node.js: ${name}`, () => {
    const bytes = Buffer.from('é!');
    assert.strictEqual(new Bytes(bytes).toString(...options), wanted);
    assert.strictEqual(bytes.toString(...options), wanted);
  });
}

test('an encoding that is not had is told', () => {
  for (const encoding of ['utf-16', 'constructor', 10]) {
    assert.throws(() => new Bytes(1).toString(encoding), new RegExp(`by encoding '${encoding}', only by utf-8, `));
  }
});

const table = { files: ['function/handler.js', 'node_modules/x.js'], lines: [0, [0, 5], [1, 9]] };
const at = (error, stack) => Object.assign(error, { stack });

const errors = {
  'what is no error': ['text', ['text']],
  'its place': [
    at(new TypeError('no'), 'f@bundle.js:2:1\ng@bundle.js:3:1\n'),
    ['TypeError: no', '    at f (function/handler.js:5)'],
  ],
  causes: [
    at(new Error('a', { cause: at(new Error('b', { cause: 'c' }), '@bundle.js:2:1') }), ''),
    ['Error: a', 'caused by Error: b', '    at anonymous (function/handler.js:5)', 'caused by c'],
  ],
  'the errors of one': [
    new AggregateError([new Error('a', { cause: 0 }), 'b'], 'all', { cause: 'c' }),
    ['AggregateError: all', 'caused by c', 'made of Error: a', 'caused by 0', 'made of b'],
  ],
  'no more than twenty': [
    new AggregateError(Array.from({ length: 100 }, (_, n) => n), 'all'),
    ['AggregateError: all', ...Array.from({ length: 19 }, (_, n) => `made of ${n}`), 'and 81 more'],
  ],
};

for (const [name, [error, wanted]] of Object.entries(errors)) {
  test(`tells of an error ${name}`, () => assert.deepStrictEqual(located(error, table).split('\n'), wanted));
}

test('tells of an error that is its own cause', () => {
  const error = new Error('round');
  error.cause = error;
  assert.strictEqual(located(error, table), 'Error: round');
});
