// What a function in C has to define, and what it may use.
#ifndef HANDLER_H
#define HANDLER_H

#include <stddef.h>

// Answers a request with what it writes to standard output. The body has a zero byte after its end. 0 is the status
// 200, anything else 500. What the request's variables say (Http_Method, Http_Path, Http_Query, Http_Content_Type, …)
// is to be had with getenv.
int handle(const char *body, size_t length);

#endif
