"""Answers each request with what function/handler.py makes of it.

It runs twice: while the module is built, when everything is imported, and in a fresh instance for each call.
"""

import random
import sys
import traceback
from urllib.parse import unquote, urlsplit

from componentize_py_types import Err, Ok
from function import handler
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingBody,
    IncomingRequest,
    Method_Other,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

import calls
import imports  # noqa: F401 - it takes care of all later imports

ANSWER = calls.form(handler)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        # What was made when the module was built would give the same numbers in every call.
        random.seed()
        try:
            send(ANSWER(read(request)), response_out)
        except Exception:
            # The folder of the build is mounted as /0.
            sys.stderr.write(traceback.format_exc().replace('File "/0/', 'File "'))
            send(calls.FAILED, response_out)


def read(request: IncomingRequest) -> calls.Event:
    method = request.method()
    name = method.value if isinstance(method, Method_Other) else type(method).__name__.split("_")[1].upper()
    url = urlsplit(request.path_with_query() or "/")
    headers = [(name, value.decode("latin-1")) for name, value in request.headers().entries()]
    return calls.Event(read_all(request.consume()), headers, name, url.query, unquote(url.path))


def read_all(body: IncomingBody) -> bytes:
    pieces = []
    with body.stream() as stream:
        while True:
            try:
                pieces.append(stream.blocking_read(64 * 1024))
            except Err as error:
                if not isinstance(error.value, StreamError_Closed):
                    raise
                return b"".join(pieces)


def send(answer: calls.Answer, response_out: ResponseOutparam) -> None:
    response = OutgoingResponse(Fields.from_list([(name, value.encode("latin-1")) for name, value in answer.headers]))
    response.set_status_code(answer.status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        rest = memoryview(answer.body)
        while rest:
            with stream.subscribe() as ready:
                ready.block()
            room = stream.check_write()
            stream.write(bytes(rest[:room]))
            rest = rest[room:]
        stream.blocking_flush()
    OutgoingBody.finish(body, None)
