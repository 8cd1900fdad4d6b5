// A program of a few small commands, named by its first argument: one WASI command.

function cat(): void {
  const buffer = new ArrayBuffer(16 * 1024);
  for (;;) {
    const count = process.stdin.read(buffer);
    if (count <= 0) return;
    process.stdout.write(buffer.slice(0, count));
  }
}

function env(): void {
  const names = process.env.keys();
  for (let i = 0; i < names.length; i++) {
    process.stdout.write(names[i] + "=" + process.env.get(names[i]) + "\n");
  }
}

// Says on both streams how it is about to end.
function exit(code: string): void {
  process.stdout.write("exiting with " + code + "\n");
  process.stderr.write("this went to stderr\n");
  process.exit(i32(parseInt(code)));
}

const command = process.argv.length > 1 ? process.argv[1] : "cat";
if (command == "cat") {
  cat();
} else if (command == "args") {
  process.stdout.write(process.argv.slice(2).join(" ") + "\n");
} else if (command == "env") {
  env();
} else if (command == "exit") {
  exit(process.argv[2]);
} else {
  process.stderr.write(command + ": no such command\n");
  process.exit(1);
}
