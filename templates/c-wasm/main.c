// The program around handle. A function that has a main.c of its own is linked without it.
#include "handler.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    (void)argc;
    (void)argv;
    size_t length = 0, room = 4096;
    char *body = malloc(room);
    while (body != NULL) {
        length += fread(body + length, 1, room - length - 1, stdin);
        if (length < room - 1) {
            break;
        }
        room *= 2;
        char *larger = realloc(body, room);
        if (larger == NULL) {
            free(body);
        }
        body = larger;
    }
    if (body == NULL) {
        fputs("the request's body does not fit into the function's memory\n", stderr);
        return 1;
    }
    if (ferror(stdin)) {
        perror("reading the request's body");
        return 1;
    }
    body[length] = 0;
    int failed = handle(body, length) != 0;
    if (fflush(stdout) != 0) {
        perror("writing the answer");
        return 1;
    }
    return failed;
}
