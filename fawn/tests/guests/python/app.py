"""A wasi:http handler of a few routes."""

import asyncio
import json
import os
from hashlib import sha256
from urllib.parse import parse_qsl, urlsplit

from componentize_py_types import Ok
from poll_loop import PollLoop, Sink, Stream
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    Method_Get,
    OutgoingResponse,
    ResponseOutparam,
)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        loop = PollLoop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(handle(request, response_out))


async def handle(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    url = urlsplit(request.path_with_query() or "/")
    query = dict(parse_qsl(url.query))
    if url.path == "/echo":
        sink = begin(response_out, 200)
        async for chunk in chunks(request):
            await sink.send(chunk)
        sink.close()
        return

    status, headers, body = 200, {}, ""
    if url.path == "/":
        body = "hello from Python\n"
    elif url.path == "/answer":
        status, headers, body = int(query.pop("status")), query, "as asked\n"
    elif url.path == "/env":
        body = os.environ[query["name"]]
    elif url.path == "/json":
        got = json.loads(await read(request))
        method = "GET" if isinstance(request.method(), Method_Get) else "POST"
        body = json.dumps({"method": method, "path": url.path, "got": got})
    elif url.path == "/sha256":
        body = sha256(await read(request)).hexdigest()
    elif url.path == "/throw":
        raise RuntimeError("thrown on purpose")
    else:
        status, body = 404, "no such route\n"
    sink = begin(response_out, status, headers)
    await sink.send(body.encode())
    sink.close()


def begin(response_out: ResponseOutparam, status: int, headers: dict[str, str] = {}) -> Sink:
    """Sends the head of the answer, and gives where its body is to be written."""
    fields = [(name, value.encode()) for name, value in headers.items()]
    response = OutgoingResponse(Fields.from_list(fields))
    response.set_status_code(status)
    sink = Sink(response.body())
    ResponseOutparam.set(response_out, Ok(response))
    return sink


async def chunks(request: IncomingRequest):
    stream = Stream(request.consume())
    while (chunk := await stream.next()) is not None:
        yield chunk


async def read(request: IncomingRequest) -> bytes:
    return b"".join([chunk async for chunk in chunks(request)])
