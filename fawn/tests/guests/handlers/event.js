'use strict';

const fs = require('fs');

module.exports = async (event, context) => {
  const nothing = undefined;
  switch (event.path) {
    case '/echo':
      return context.succeed(event.body);
    case '/fail': {
      const at = nothing.at; // Fails here.

      return at.all;
    }
    case '/fetch':
      return (await fetch('http://10.0.0.1/')).status;
    case '/random':
      return Math.random();
    case '/secret':
      return `${fs.readFileSync('/var/openfaas/secrets/token').toString().length} letters`;
    case '/status':
      return context.status(Number(event.query.status)).succeed();
  }
  return context
    .status(201)
    .headers({ 'X-Made-By': 'me' })
    .succeed({
      method: event.method,
      path: event.path,
      name: event.query.name,
      thing: event.headers['x-thing'],
      greeting: process.env.GREETING,
      body: event.body,
    });
};
