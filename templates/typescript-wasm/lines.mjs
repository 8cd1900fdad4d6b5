// lines.mjs BUNDLE: prints which file and line each line of the bundle comes from, of its source map, as
// {"files": ["function/handler.js", …], "lines": [[file, line], 0, …]}.
// lines.mjs BUNDLE LINE: prints that of one line, as function/handler.js:1.
import { readFileSync } from 'node:fs';
import { SourceMap } from 'node:module';

const [, , bundle, wanted] = process.argv;
const map = new SourceMap(JSON.parse(readFileSync(`${bundle}.map`, 'utf8')));
const files = [];
const lines = readFileSync(bundle, 'utf8').split('\n').map((text, at) => {
  const { generatedLine, originalSource, originalLine } = map.findEntry(at, text.length);
  if (generatedLine !== at) return 0;
  const file = originalSource.replace(/^(\.\.\/)+/, '');
  if (!files.includes(file)) files.push(file);
  return [files.indexOf(file), originalLine + 1];
});
const [file, line] = lines[wanted - 1] || [];
console.log(wanted ? `${files[file] ?? bundle}:${line ?? wanted}` : JSON.stringify({ files, lines }));
