// An error and where in the function's own files it comes from, by the table that lines.mjs made of the bundle.
export function located(error, { files, lines }) {
  if (!(error instanceof Error)) return String(error);
  const frames = [];
  for (const frame of (error.stack ?? '').split('\n')) {
    const [, name, line] = /^(.*)@.*:(\d+):\d+$/.exec(frame) ?? [];
    const [file, at] = lines[line - 1] || [];
    if (files[file]?.startsWith('function/')) frames.push(`    at ${name || 'anonymous'} (${files[file]}:${at})`);
  }
  return [`${error.name}: ${error.message}`, ...frames].join('\n');
}
