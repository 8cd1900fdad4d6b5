// What a module has of Node.js.
declare const process: { env: Record<string, string | undefined> };

declare module 'fs' {
  export function readFileSync(path: string): Uint8Array;
  export function readFileSync(path: string, encoding: string | { encoding: string }): string;
}

declare module 'node:fs' {
  export * from 'fs';
}
