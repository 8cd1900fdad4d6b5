// A request and its answer, as OpenFaaS's Node.js templates have them.

export interface FunctionEvent {
  // A string of text/*, what application/json means, the fields of a form, else a Uint8Array.
  body: unknown;
  headers: Record<string, string>;
  method: string;
  query: Record<string, string | string[]>;
  path: string;
}

export interface FunctionContext {
  status(): number;
  status(code: number): this;
  headers(): Record<string, string>;
  headers(values: Record<string, string>): this;
  succeed(value?: unknown): void;
  fail(error: unknown): void;
}
