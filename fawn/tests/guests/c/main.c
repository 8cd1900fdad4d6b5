// A WASI command that copies stdin to stdout through a small buffer, so that what passes through it may
// be far larger than its memory. Its first argument makes it do something else.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static char buffer[16 * 1024];

static int cat(int input) {
    for (;;) {
        ssize_t count = read(input, buffer, sizeof buffer);
        if (count <= 0) {
            return count == 0 ? 0 : 1;
        }
        for (ssize_t done = 0; done < count;) {
            ssize_t written = write(STDOUT_FILENO, buffer + done, count - done);
            if (written <= 0) {
                return 1;
            }
            done += written;
        }
    }
}

// Seen by nobody, but the compiler cannot know: else it leaves the allocation out.
static char *volatile taken;

static int grow(size_t mebibytes) {
    for (size_t i = 0; i < mebibytes; i++) {
        char *block = malloc(1024 * 1024);
        if (block == NULL) {
            fprintf(stderr, "no memory after %zu MiB\n", i);
            return 1;
        }
        memset(block, 1, 1024 * 1024);
        taken = block;
    }
    printf("took %zu MiB\n", mebibytes);
    return 0;
}

static int trap(void) { __builtin_trap(); }

int main(int argc, char **argv) {
    const char *command = argc > 1 ? argv[1] : "cat";
    if (strcmp(command, "cat") == 0 && argc > 2) {
        int file = open(argv[2], O_RDONLY);
        if (file < 0) {
            perror(argv[2]);
            return 1;
        }
        return cat(file);
    }
    if (strcmp(command, "cat") == 0) {
        return cat(STDIN_FILENO);
    }
    if (strcmp(command, "env") == 0) {
        for (char **variable = environ; *variable != NULL; variable++) {
            puts(*variable);
        }
        return 0;
    }
    if (strcmp(command, "exit") == 0 && argc > 2) {
        printf("exiting with %s\n", argv[2]);
        fflush(stdout);
        fputs("this went to stderr\n", stderr);
        return atoi(argv[2]);
    }
    if (strcmp(command, "grow") == 0 && argc > 2) {
        return grow(strtoul(argv[2], NULL, 10));
    }
    if (strcmp(command, "spin") == 0) {
        for (volatile unsigned turn = 0;; turn++) {
        }
    }
    if (strcmp(command, "trap") == 0) {
        return trap();
    }
    fprintf(stderr, "%s: no such command\n", command);
    return 2;
}
