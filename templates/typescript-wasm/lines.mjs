// lines.mjs BUNDLE: prints which file and line each line of the bundle comes from, of its source map, as
// {"files": ["function/handler.js", …], "lines": [[file, line], 0, …]}.
import { readFileSync } from 'node:fs';
import { SourceMap } from 'node:module';

const bundle = process.argv[2];
const map = new SourceMap(JSON.parse(readFileSync(`${bundle}.map`, 'utf8')));
const files = [];
const lines = readFileSync(bundle, 'utf8').split('\n').map((text, at) => {
  const { generatedLine, originalSource, originalLine } = map.findEntry(at, text.length);
  if (generatedLine !== at) return 0;
  const file = originalSource.replace(/^(\.\.\/)+/, '');
  if (!files.includes(file)) files.push(file);
  return [files.indexOf(file), originalLine + 1];
});
console.log(JSON.stringify({ files, lines }));
