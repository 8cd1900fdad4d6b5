import { readFileSync } from 'node:fs';

interface Nothing {
  at?: { all: string };
}

export default {
  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const nothing: Nothing = {};
    switch (url.pathname) {
      case '/echo':
        return new Response(request.body);
      case '/fail':
        return new Response(nothing.at!.all); // Fails here.
      case '/random':
        return new Response(String(Math.random()));
      case '/secret':
        return new Response(`${readFileSync('/var/openfaas/secrets/token').toString('utf8').length} letters`);
      case '/status':
        return new Response(null, { status: Number(url.searchParams.get('status')) });
    }
    return Response.json(
      {
        method: request.method,
        path: url.pathname,
        name: url.searchParams.get('name'),
        thing: request.headers.get('x-thing'),
        greeting: process.env.GREETING,
        body: await request.text(),
      },
      { status: 201, headers: { 'X-Made-By': 'me' } },
    );
  },
};
