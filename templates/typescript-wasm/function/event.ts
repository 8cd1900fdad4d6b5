// A request and its answer, as OpenFaaS's Node.js templates have them.

export interface FunctionEvent {
  // A string of text/*, what application/json means, the fields of a form, else a Uint8Array
  // whose toString('utf-8') decodes.
  body: unknown;
  headers: Record<string, string>;
  method: string;
  query: Record<string, string | string[]>;
  path: string;
}

export interface FunctionContext {
  status(): number;
  status(code: number): this;
  headers(): Record<string, string | string[]>;
  // A header with several values, such as Set-Cookie, has an array.
  headers(values: Record<string, string | string[]>): this;
  // An object is answered as JSON, and a Response as it is.
  succeed(value?: unknown): void;
  fail(error: unknown): void;
}
