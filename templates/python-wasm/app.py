"""Answers each request with what function/handler.py makes of it.

It runs twice: while the module is built, when everything is imported, and in a fresh instance for each call.
"""

import random
import sys
import traceback
from urllib.parse import unquote

import outgoing  # before the handler, which may already make itself an opener
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
        outgoing.calling = True
        try:
            answer = ANSWER(read(request))
            response, body = begin(answer)
        except Exception:
            # The folder of the build is mounted as /0.
            sys.stderr.write(traceback.format_exc().replace('File "/0/', 'File "'))
            answer = calls.FAILED
            response, body = begin(answer)
        # From here on nothing else can be answered.
        ResponseOutparam.set(response_out, Ok(response))
        send(answer, body)


def read(request: IncomingRequest) -> calls.Event:
    method = request.method()
    name = method.value if isinstance(method, Method_Other) else type(method).__name__.split("_")[1].upper()
    # No urlsplit: what follows two slashes is no host here.
    path, _, query = (request.path_with_query() or "/").partition("?")
    headers = [(name, value.decode("latin-1")) for name, value in request.headers().entries()]
    return calls.Event(read_all(request.consume()), headers, name, query, unquote(path))


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


def begin(answer: calls.Answer) -> tuple[OutgoingResponse, OutgoingBody]:
    response = OutgoingResponse(Fields.from_list([(name, value.encode("latin-1")) for name, value in answer.headers]))
    response.set_status_code(answer.status)
    return response, response.body()


def send(answer: calls.Answer, body: OutgoingBody) -> None:
    """Writes as much as the head tells of. A body that is not sent is zeros: the host counts it, and drops it."""
    try:
        with body.write() as stream:
            sent = 0
            while sent < answer.length:
                with stream.subscribe() as ready:
                    ready.block()
                room = min(stream.check_write(), answer.length - sent)
                stream.write(answer.body[sent : sent + room].ljust(room, b"\0"))
                sent += room
            stream.blocking_flush()
    except Err as error:
        # The caller wants no more.
        if not isinstance(error.value, StreamError_Closed):
            raise
    OutgoingBody.finish(body, None)
