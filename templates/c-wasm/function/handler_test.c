// Of the machine's own compiler: README.md tells how.
#include "handler.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    char answer[64] = "";
    assert(freopen("handler_test.out", "w+", stdout) != NULL);
    assert(handle("some text", 9) == 0);
    rewind(stdout);
    assert(fgets(answer, sizeof answer, stdout) != NULL);
    assert(strcmp(answer, "Hello! You said: some text\n") == 0);
    return remove("handler_test.out");
}
