// How many errors are told of one: its causes, theirs, and those that an AggregateError is made of.
const MOST = 20;

// An error, why it came about, and where in the function's own files each comes from, by the table that lines.mjs made
// of the bundle.
export function located(error, table) {
  const told = new Set();
  let left = 0;
  const tell = (one, how) => {
    if (told.has(one)) return [];
    if (told.size === MOST) {
      left += 1;
      return [];
    }
    told.add(one);
    if (!(one instanceof Error)) return [how + String(one)];
    return [
      `${how}${one.name}: ${one.message}`,
      ...framesOf(one, table),
      ...(one.cause === undefined ? [] : tell(one.cause, 'caused by ')),
      ...(Array.isArray(one.errors) ? one.errors : []).flatMap((part) => tell(part, 'made of ')),
    ];
  };
  const lines = tell(error, '');
  if (left > 0) lines.push(`and ${left} more`);
  return lines.join('\n');
}

function framesOf(error, { files, lines }) {
  const frames = [];
  for (const frame of (error.stack ?? '').split('\n')) {
    const [, name, line] = /^(.*)@.*:(\d+):\d+$/.exec(frame) ?? [];
    const [file, at] = lines[line - 1] || [];
    if (files[file]?.startsWith('function/')) frames.push(`    at ${name || 'anonymous'} (${files[file]}:${at})`);
  }
  return frames;
}
