// The two forms of a handler: the one of OpenFaaS's Node.js templates, and an object with fetch(request).
import { Bytes } from './bytes.js';

export const failed = () =>
  new Response('Internal Server Error\n', { status: 500, headers: { 'Content-Type': 'text/plain; charset=utf-8' } });

// form(MODULE): what answers a request by means of what function/handler exports.
export function form(module) {
  const handler = module.default ?? module;
  if (typeof handler.fetch === 'function') return async (request) => checked(await handler.fetch(request));
  if (typeof handler === 'function') return (request, report) => called(handler, request, report);
  throw new TypeError(
    'function/handler exports no function: write module.exports = async (event, context) => …, ' +
      'or export default { async fetch(request) { … } }',
  );
}

function checked(response) {
  if (response instanceof Response) return response;
  throw new TypeError(`fetch in function/handler answered with no Response, but with ${response}`);
}

class Context {
  constructor(done) {
    this.done = done;
    this.statusCode = 200;
    this.headerValues = {};
  }

  status(code) {
    if (code === undefined) return this.statusCode;
    this.statusCode = code;
    return this;
  }

  headers(values) {
    if (values === undefined) return this.headerValues;
    this.headerValues = values;
    return this;
  }

  succeed(value) {
    this.done(undefined, value);
  }

  fail(error) {
    if (this.statusCode === 200) this.statusCode = 500;
    this.done(error ?? 'failed');
  }
}

// The answer is what is given to succeed, fail or the callback, else what the handler returns. What goes wrong after
// that is of no use to the caller, but reported.
function called(handler, request, report) {
  return new Promise((resolve) => {
    const thrown = (error) => {
      report(error);
      resolve(failed());
    };
    let answered = false;
    const context = new Context((error, value) => {
      answered = true;
      try {
        if (error !== undefined && error !== null) {
          report(error);
          if (context.statusCode === 200) context.statusCode = 500;
          value = String(error);
        }
        resolve(response(value, context));
      } catch (unsendable) {
        thrown(unsendable);
      }
    });
    const answer = async () => {
      const event = await eventOf(request);
      if (event instanceof Response) return resolve(event);
      const value = await handler(event, context, context.done);
      // A handler that takes the callback may call it after it has returned.
      if (!answered && (handler.length < 3 || value !== undefined)) context.succeed(value);
    };
    answer().catch(thrown);
  });
}

async function eventOf(request) {
  const url = new URL(request.url);
  const body = await bodyOf(request);
  if (body instanceof Response) return body;
  return {
    body,
    headers: Object.fromEntries(request.headers),
    method: request.method,
    query: fields(url.searchParams),
    path: url.pathname,
  };
}

// By content type, as the Node.js templates have it; anything else, and all with RAW_BODY=true, is Bytes.
async function bodyOf(request) {
  const type = (request.headers.get('content-type') ?? 'text/plain').split(';')[0].trim().toLowerCase();
  if (process.env.RAW_BODY !== 'true') {
    if (type.startsWith('text/')) return await request.text();
    if (type === 'application/x-www-form-urlencoded') return fields(new URLSearchParams(await request.text()));
    if (type === 'application/json') {
      const text = await request.text();
      try {
        return text === '' ? {} : JSON.parse(text);
      } catch (error) {
        return new Response(`the request's body is no JSON: ${error.message}\n`, { status: 400 });
      }
    }
  }
  return new Bytes(await request.arrayBuffer());
}

// A name that comes more than once has an array.
function fields(params) {
  const found = new Map();
  for (const [name, value] of params) {
    if (found.has(name)) found.get(name).push(value);
    else found.set(name, [value]);
  }
  return Object.fromEntries([...found].map(([name, values]) => [name, values.length > 1 ? values : values[0]]));
}

// A header whose value is an array comes once for each element, as `Set-Cookie` has to.
function headersOf(values) {
  const headers = new Headers();
  for (const [name, value] of Symbol.iterator in values ? values : Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) headers.append(name, one);
  }
  return headers;
}

function response(value, context) {
  if (value instanceof Response) return value;
  const headers = headersOf(context.headerValues);
  let type = 'text/html; charset=utf-8';
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) {
    type = 'application/octet-stream';
  } else if (value !== null && typeof value === 'object') {
    type = 'application/json; charset=utf-8';
    value = JSON.stringify(value);
  } else if (value !== undefined && value !== null) {
    value = String(value);
  }
  // Answers that never have a body (RFC 9110 §6.4.1).
  if ([204, 205, 304].includes(context.statusCode)) value = null;
  if (!headers.has('content-type') && value !== undefined && value !== null) headers.set('content-type', type);
  return new Response(value, { status: context.statusCode, headers });
}
