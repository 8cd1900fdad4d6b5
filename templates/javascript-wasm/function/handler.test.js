'use strict';

const assert = require('node:assert');
const test = require('node:test');
const handler = require('./handler');

test('greets', async () => {
  const context = { status: () => context, headers: () => context, succeed: (value) => (context.answer = value) };
  await handler({ query: { name: 'Ada' } }, context);
  assert.strictEqual(context.answer, 'Hello Ada!\n');
});
