// A wasi:http handler of a few routes.
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
