'use strict';

const assert = require('node:assert');
const test = require('node:test');
const handler = require('./handler');

test('greets', async () => {
  const context = { status: () => context, headers: () => context, succeed: (value) => value };
  assert.strictEqual(await handler({ body: 'some text' }, context), 'Hello! You said: some text\n');
});
