// Bytes that become text as those of Node.js do: a Uint8Array's own toString lists numbers.

const latin1 = (bytes) => {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
};
const utf8 = (bytes) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
const TEXTS = {
  __proto__: null,
  'utf-8': utf8,
  utf8,
  latin1,
  binary: latin1,
  base64: (bytes) => btoa(latin1(bytes)),
  hex: (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(''),
};

export class Bytes extends Uint8Array {
  toString(encoding = 'utf-8', start = 0, end = this.length) {
    const text = TEXTS[String(encoding).toLowerCase()];
    if (text === undefined) {
      const known = Object.keys(TEXTS).join(', ');
      throw new TypeError(`bytes do not become text by encoding '${encoding}', only by ${known}`);
    }
    return text(this.subarray(start, end));
  }
}
