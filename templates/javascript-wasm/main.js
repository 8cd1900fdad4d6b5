// Answers each request with what function/handler.js makes of it.
//
// It runs twice: while the module is built, when the handler is loaded, and in a fresh instance for each call.
import { getEnvironment } from 'wasi:cli/environment@0.2.10';
import { form, failed } from './calls.js';
import { located } from './stack.js';

globalThis.process ??= {};
process.env ??= {};

// The engine says neither what was asked for nor why that failed.
const { fetch } = globalThis;
globalThis.fetch = (...request) =>
  fetch(...request).catch((error) => {
    // One that the function has aborted, say, is told as it is.
    if (!(error instanceof TypeError)) throw error;
    const { origin } = new URL(request[0]?.url ?? request[0]);
    const reach = 'where a function may reach is said by its annotation dev.fawn.egress';
    throw new TypeError(`${origin} cannot be fetched: ${error.message}; ${reach}`, { cause: error });
  });

// Called by the last line of the bundle, which build.sh adds, with the table of lines.mjs.
globalThis.load = (lines) => {
  const report = (error) => console.error(located(error, lines));
  let answer;
  try {
    answer = form(require('./function/handler'));
  } catch (error) {
    report(error);
    throw error;
  }
  const call = async (request) => {
    process.env = Object.fromEntries(getEnvironment());
    try {
      return await answer(request, report);
    } catch (error) {
      report(error);
      return failed();
    }
  };
  addEventListener('fetch', (event) => event.respondWith(call(event.request)));
};
