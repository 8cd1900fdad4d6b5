// What a module has of Node.js.
declare const process: { env: Record<string, string | undefined> };

declare module 'fs' {
  export type Encoding = 'utf-8' | 'utf8' | 'latin1' | 'binary' | 'base64' | 'hex';
  export interface Bytes extends Uint8Array<ArrayBuffer> {
    toString(encoding?: Encoding, start?: number, end?: number): string;
  }
  export function readFileSync(path: string): Bytes;
  export function readFileSync(path: string, encoding: Encoding | { encoding: Encoding }): string;
}

declare module 'node:fs' {
  export * from 'fs';
}
