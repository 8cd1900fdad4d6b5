import assert from 'node:assert';
import test from 'node:test';
import type { FunctionContext } from './event';
import handler from './handler';

test('greets', async () => {
  let answer: unknown;
  const context = {
    status: () => context,
    headers: () => context,
    succeed: (value: unknown) => (answer = value),
  } as unknown as FunctionContext;
  const event = { body: 'some text', headers: {}, method: 'POST', query: {}, path: '/' };
  await handler(event, context);
  assert.strictEqual(answer, 'Hello! You said: some text\n');
});
