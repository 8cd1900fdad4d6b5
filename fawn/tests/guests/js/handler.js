// A wasi:http handler of a few routes.
import { getEnvironment } from 'wasi:cli/environment@0.2.10';

let kept = null;

const routes = {
  '/echo': (request) =>
    new Response(request.body, { headers: { 'content-type': request.headers.get('content-type') ?? 'text/plain' } }),

  // ?count=3&pause=20: that many lines, each after a pause of so many milliseconds.
  '/pieces': (_request, query) => {
    const count = Number(query.get('count') ?? 3);
    const pause = Number(query.get('pause') ?? 0);
    let sent = 0;
    const pull = async (controller) => {
      if (sent === count) return controller.close();
      await new Promise((resolve) => setTimeout(resolve, pause));
      controller.enqueue(new TextEncoder().encode(`piece ${sent++}\n`));
    };
    return new Response(new ReadableStream({ pull }));
  },

  '/json': async (request) =>
    Response.json({ method: request.method, path: new URL(request.url).pathname, got: await request.json() }),

  // ?status=418&x-name=value: that status, and every other parameter as a header.
  '/answer': (_request, query) => {
    const { status, ...headers } = Object.fromEntries(query);
    return new Response('as asked\n', { status: Number(status), headers });
  },

  // ?name=GREETING: that variable.
  '/env': (_request, query) => new Response(new Map(getEnvironment()).get(query.get('name'))),

  '/sha256': async (request) => {
    const digest = await crypto.subtle.digest('SHA-256', await request.arrayBuffer());
    const hex = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0'));
    return new Response(hex.join(''));
  },

  // ?secret=…: keeps it wherever the next call of this instance could find it, and tells what it found there.
  '/keep': (_request, query) => {
    globalThis.calls = (globalThis.calls ?? 0) + 1;
    const found = { calls: globalThis.calls, kept, global: globalThis.kept ?? null, prototype: {}.kept ?? null };
    kept = query.get('secret');
    globalThis.kept = kept;
    Object.prototype.kept = kept;
    globalThis.heap = Array.from({ length: 2000 }, (_, at) => `${kept} ${at}`);
    return Response.json(found);
  },

  // ?url=…: what lies there, or why it could not be had.
  '/fetch': async (_request, query) => {
    try {
      const response = await fetch(query.get('url'));
      return new Response(`${response.status} ${await response.text()}`);
    } catch (error) {
      return new Response(`refused: ${error}`, { status: 502 });
    }
  },

  '/throw': () => {
    throw new Error('thrown on purpose');
  },

  '/': () => new Response('hello from JavaScript\n'),
};

addEventListener('fetch', (event) => {
  const url = new URL(event.request.url);
  const route = routes[url.pathname] ?? (() => new Response('no such route\n', { status: 404 }));
  if (url.pathname === '/throw') return route();
  event.respondWith(Promise.resolve(route(event.request, url.searchParams)));
});
