#include "handler.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

int handle(const char *body, size_t length) {
    assert(length < 10); // Fails here.
    puts(getenv("Http_Path"));
    return body[0] == 'x';
}
