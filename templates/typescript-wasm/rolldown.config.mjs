// Makes one file of the handler, its packages and what calls it.
import { fileURLToPath } from 'node:url';

const fs = fileURLToPath(new URL('fs.js', import.meta.url));

export default {
  input: 'main.js',
  external: /^wasi:/,
  platform: 'browser',
  // Like `minify`, it would move what may fail to other lines than those that an error is to name.
  treeshake: false,
  resolve: { alias: { fs, 'node:fs': fs } },
  transform: { define: { 'process.env.NODE_ENV': '"production"' } },
  output: { file: 'build/bundle.js', format: 'esm', minify: false, sourcemap: true, sourcemapExcludeSources: true },
  onLog(level, log, print) {
    // What cannot be resolved now would be missing in the module.
    print(log.code === 'UNRESOLVED_IMPORT' ? 'error' : level, log);
  },
};
