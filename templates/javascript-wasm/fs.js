// Of Node.js's fs, what reads a function's secrets: readFileSync.
import { getDirectories } from 'wasi:filesystem/preopens@0.2.10';
import { Bytes } from './bytes.js';

export function readFileSync(path, options) {
  const encoding = typeof options === 'string' ? options : options?.encoding;
  const bytes = read(String(path));
  return encoding ? bytes.toString(encoding) : bytes;
}

function read(path) {
  for (const [directory, name] of getDirectories()) {
    const root = name.endsWith('/') ? name : `${name}/`;
    if (!path.startsWith(root)) continue;
    let file;
    try {
      file = directory.openAt({ symlinkFollow: true }, path.slice(root.length), {}, { read: true });
    } catch (error) {
      break;
    }
    const size = Number(file.stat().size);
    const [bytes] = file.read(BigInt(size), 0n);
    return new Bytes(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  const error = new Error(`ENOENT: no such file or directory, open '${path}'`);
  error.code = 'ENOENT';
  throw error;
}

export default { readFileSync };
