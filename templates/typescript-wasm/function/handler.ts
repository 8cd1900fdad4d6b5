import type { FunctionContext, FunctionEvent } from './event';

export default async (event: FunctionEvent, context: FunctionContext) =>
  context
    .status(200)
    .headers({ 'Content-Type': 'text/plain; charset=utf-8' })
    .succeed(`Hello! You said: ${event.body}\n`);
