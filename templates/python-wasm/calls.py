"""The two forms of a handler, as OpenFaaS's templates have them, which its number of parameters tells apart."""

import inspect
import json
import linecache
import os
from dataclasses import dataclass
from urllib.parse import parse_qsl


class Headers(dict):
    """Names are the same in upper and lower case; values of one name are joined (RFC 9110 §5.3)."""

    def __init__(self, pairs):
        super().__init__()
        for name, value in pairs:
            name = name.title()
            self[name] = f"{self[name]}, {value}" if name in self else value

    def __getitem__(self, name):
        return super().__getitem__(name.title())

    def __contains__(self, name):
        return super().__contains__(name.title())

    def get(self, name, default=None):
        return super().get(name.title(), default)


class Query(dict):
    """The first value of each name, and all of them with `getlist`."""

    def __init__(self, text):
        self.pairs = parse_qsl(text, keep_blank_values=True)
        super().__init__(reversed(self.pairs))

    def getlist(self, name):
        return [value for key, value in self.pairs if key == name]


class Event:
    def __init__(self, body, headers, method, query, path):
        self.body = body
        self.headers = Headers(headers)
        self.method = method
        self.query = Query(query)
        self.path = path


class Context:
    def __init__(self):
        self.hostname = os.getenv("HOSTNAME", "localhost")


@dataclass
class Answer:
    body: bytes
    status: int
    headers: list
    # Where no body is sent, the length of the one that is not (RFC 9110 §8.6).
    length: int


JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
# What the caller gets for an exception: why is for the function's log.
FAILED = Answer(b"Internal Server Error\n", 500, [("Content-Type", TEXT)], 22)


def form(handler):
    """What answers an event by means of the handler, or an error that names the file and the line."""
    handle = getattr(handler, "handle", None)
    if not callable(handle):
        raise SystemExit(f"{handler.__file__}:1: there is no handle: write handle(req) or handle(event, context)")
    kinds = inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction
    if any(kind(called) for kind in kinds for called in (handle, handle.__call__)):
        raise SystemExit(f"{place(handler)}: handle is async, or yields: write one that returns its answer")
    try:
        count = len(inspect.signature(handle).parameters)
    except (TypeError, ValueError):
        raise SystemExit(f"{place(handler)}: nobody knows the parameters of handle: write it with def") from None
    if count == 1:
        return lambda event: classic(handle, event)
    if count == 2:
        return lambda event: answer(handle(event, Context()), event.method)
    raise SystemExit(f"{place(handler)}: handle has {count} parameters: it takes req, or event and context")


def place(handler):
    """Where handle is written; for what is no function, where it gets its name."""
    code = getattr(inspect.unwrap(handler.handle), "__code__", None)
    if code:
        return f"{code.co_filename}:{code.co_firstlineno}"
    lines = enumerate(linecache.getlines(handler.__file__), 1)
    line = next((line for line, text in lines if text.startswith(("handle", "class handle"))), 1)
    return f"{handler.__file__}:{line}"


def classic(handle, event):
    """As python3 of the classic watchdog: text in and, unless None, printed text out, in the request's own type."""
    given = handle(event.body.decode())
    if given is None:
        body, kind = b"", TEXT
    elif isinstance(given, dict):
        body, kind = json.dumps(given).encode() + b"\n", JSON
    elif isinstance(given, bytes):
        body, kind = given, event.headers.get("Content-Type", BYTES)
    else:
        body = f"{given}\n".encode()
        looks_like_html = body[:64].lstrip().lower().startswith((b"<!doctype html", b"<html"))
        kind = event.headers.get("Content-Type", HTML if looks_like_html else TEXT)
    return Answer(body, 200, [("Content-Type", kind)], len(body))


def answer(given, method):
    """As python3-http: an object with statusCode, body and headers, or a body, alone or in a tuple with the others."""
    body, status, headers = given, 200, []
    if isinstance(given, dict):
        body, status, headers = given.get("body", ""), given.get("statusCode", 200), given.get("headers", [])
    elif isinstance(given, tuple):
        body, status, headers = (*given, *(200, [])[len(given) - 1 :])
    headers = headers.items() if isinstance(headers, dict) else headers
    # One header for each of several values: cookies cannot be joined (RFC 6265 §3).
    headers = [(name, str(one)) for name, value in headers for one in values(value)]
    if isinstance(body, (dict, list)):
        body, kind = json.dumps(body).encode(), JSON
    elif isinstance(body, (bytes, bytearray)):
        body, kind = bytes(body), BYTES
    else:
        body, kind = ("" if body is None else str(body)).encode(), HTML
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", kind))
    if not 200 <= int(status) <= 599:
        raise ValueError(f"handle answered with the status {status}, which is none of 200 to 599")
    for name, value in headers:
        if not (name + value).isprintable():
            raise ValueError(f"handle answered with the header {name!r}: {value!r}, which cannot be sent")
    return Answer(body, int(status), headers, length(headers, body, method == "HEAD" or int(status) == 304))


def values(value):
    return value if isinstance(value, (list, tuple)) else [value]


def length(headers, body, unsent):
    """How many bytes the head tells of: a Content-Length of the handler's own must be true unless no body is sent."""
    for name, value in headers:
        if name.lower() == "content-length" and value != str(len(body)):
            if unsent and value.isascii() and value.isdigit():
                return int(value)
            raise ValueError(f"handle answered with the Content-Length {value!r}, but with {len(body)} bytes")
    return len(body)
