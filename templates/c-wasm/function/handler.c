#include "handler.h"

#include <stdio.h>

int handle(const char *body, size_t length) {
    return printf("Hello! You said: %.*s\n", (int)length, body) < 0;
}
