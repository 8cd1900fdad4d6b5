'use strict';

module.exports = async (event, context) =>
  context
    .status(200)
    .headers({ 'Content-Type': 'text/plain; charset=utf-8' })
    .succeed(`Hello! You said: ${event.body}\n`);
