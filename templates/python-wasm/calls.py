"""The two forms of a handler, as OpenFaaS's templates have them, which its number of parameters tells apart."""

import inspect
import json
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


# What the caller gets for an exception: why is for the function's log.
FAILED = Answer(b"Internal Server Error\n", 500, [("Content-Type", "text/plain; charset=utf-8")])
JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"
BYTES = "application/octet-stream"


def form(handler):
    """What answers an event by means of the handler, or an error that names the file and the line."""
    if not callable(getattr(handler, "handle", None)):
        raise SystemExit(f"{handler.__file__}:1: there is no handle: write handle(req) or handle(event, context)")
    count = len(inspect.signature(handler.handle).parameters)
    if count == 1:
        return lambda event: classic(handler.handle, event)
    if count == 2:
        return lambda event: answer(handler.handle(event, Context()))
    line = handler.handle.__code__.co_firstlineno
    raise SystemExit(f"{handler.__file__}:{line}: handle has {count} parameters: it takes req, or event and context")


def classic(handle, event):
    """As python3 of the classic watchdog: text in and, unless it is None, printed text out, in the request's own type."""
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
    return Answer(body, 200, [("Content-Type", kind)])


def answer(given):
    """As python3-http: an object with statusCode, body and headers, or a body, alone or in a tuple with the others."""
    body, status, headers = given, 200, []
    if isinstance(given, dict):
        body, status, headers = given.get("body", ""), given.get("statusCode", 200), given.get("headers", [])
    elif isinstance(given, tuple):
        body, status, headers = (*given, *(200, [])[len(given) - 1 :])
    headers = list(headers.items()) if isinstance(headers, dict) else list(headers)
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
    headers = [(name, str(value)) for name, value in headers]
    for name, value in headers:
        if not (name + value).isprintable():
            raise ValueError(f"handle answered with the header {name!r}: {value!r}, which cannot be sent")
    return Answer(body, int(status), headers)
