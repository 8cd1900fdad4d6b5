"""Has urllib.request send its requests through wasi:http, for there are no sockets.

Imported once, it takes care of urlopen and of all openers: redirects, cookies, errors and the rest stay urllib's.
"""

import http.client
import io
import re
import socket
import urllib.request
from urllib.error import URLError

from componentize_py_types import Err
from wit_world.imports import outgoing_handler, types
from wit_world.imports.streams import StreamError_Closed

# The host sets these itself, or refuses them (wasi:http 0.2).
HOST_S_OWN = {"Connection", "Host", "Transfer-Encoding"}
METHODS = {
    name.upper(): getattr(types, f"Method_{name}")
    for name in ("Get", "Head", "Post", "Put", "Delete", "Connect", "Options", "Trace", "Patch")
}
# At most this is written at once (wasi:io 0.2).
PIECE = 4096
DENIED = "the function may not reach it; the annotation dev.fawn.egress lists what it may"
TIMED_OUT = types.ErrorCode_DnsTimeout, types.ErrorCode_ConnectionTimeout, types.ErrorCode_HttpResponseTimeout


class HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, request):
        try:
            return send(request)
        except Err as error:
            raise URLError(reason(error.value)) from error

    https_open = http_open
    https_request = urllib.request.HTTPHandler.http_request


def send(request):
    if request.has_proxy() or request._tunnel_host:
        raise URLError("requests go through no proxy: unset http_proxy and https_proxy")
    outgoing = types.OutgoingRequest(fields(request))
    method = request.get_method()
    outgoing.set_method(METHODS[method]() if method in METHODS else types.Method_Other(method))
    outgoing.set_scheme(types.Scheme_Https() if request.type == "https" else types.Scheme_Http())
    outgoing.set_authority(request.host)
    outgoing.set_path_with_query(request.selector)
    body = outgoing.body()
    future = outgoing_handler.handle(outgoing, options(request.timeout))
    upload(body, request.data)
    with future.subscribe() as answered:
        answered.block()
    answer = future.get().value
    if isinstance(answer, Err):
        raise answer
    response = http.client.HTTPResponse(Wire(answer.value), method=method)
    response.begin()
    # As urllib's own handler leaves it.
    response.url, response.msg = request.full_url, response.reason
    return response


def fields(request):
    fields = types.Fields()
    for name, value in (request.headers | request.unredirected_hdrs).items():
        if name.title() == "Host" and value != request.host:
            raise URLError(f"the header Host is {request.host}, and no other: {value} cannot be sent")
        if name.title() not in HOST_S_OWN:
            try:
                fields.append(name, value.encode("latin-1"))
            except Err as error:
                raise URLError(f"the header {name} cannot be sent") from error
    return fields


def options(timeout):
    if timeout is socket._GLOBAL_DEFAULT_TIMEOUT:
        timeout = socket.getdefaulttimeout()
    if timeout is None:
        return None
    options = types.RequestOptions()
    for set_timeout in (options.set_connect_timeout, options.set_first_byte_timeout):
        set_timeout(int(timeout * 1e9))
    return options


def upload(body, data):
    try:
        with body.write() as stream:
            for piece in pieces(data):
                for start in range(0, len(piece), PIECE):
                    stream.blocking_write_and_flush(bytes(piece[start : start + PIECE]))
    except Err:
        # The other side wants no more of it: the answer, or the want of one, tells why.
        return
    types.OutgoingBody.finish(body, None)


def pieces(data):
    """Bytes, a file or something that yields bytes, as http.client takes them."""
    if data is None:
        return []
    if hasattr(data, "read"):
        return iter(lambda: data.read(16 * PIECE), b"")
    try:
        return [memoryview(data).cast("B")]
    except TypeError:
        return data


class Wire(io.RawIOBase):
    """A response as HTTPResponse reads it from a socket."""

    def __init__(self, response):
        head = [f"HTTP/1.1 {(status := response.status())} {http.client.responses.get(status, '')}".encode()]
        with response.headers() as fields:
            # The pieces of a body come without their frames.
            entries = [(name, value) for name, value in fields.entries() if name != "transfer-encoding"]
        head += [name.encode() + b": " + value for name, value in entries]
        self.head = b"\r\n".join([*head, b"", b""])
        self.body = response.consume()
        self.stream = self.body.stream()

    def makefile(self, mode):
        return io.BufferedReader(self, 16 * PIECE)

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.head:
            data, self.head = self.head[: len(buffer)], self.head[len(buffer) :]
        else:
            try:
                data = self.stream.blocking_read(len(buffer))
            except Err as error:
                if not isinstance(error.value, StreamError_Closed):
                    raise ConnectionResetError("the answer broke off") from error
                data = b""
        buffer[: len(data)] = data
        return len(data)

    def close(self):
        if not self.closed:
            # In this order: the one lies in the other.
            self.stream.__exit__(None, None, None)
            self.body.__exit__(None, None, None)
        super().close()


def reason(code):
    if isinstance(code, types.ErrorCode_HttpRequestDenied):
        return PermissionError(DENIED)
    if isinstance(code, TIMED_OUT):
        return TimeoutError("timed out")
    if isinstance(code, types.ErrorCode_ConnectionRefused):
        return ConnectionRefusedError("connection refused")
    if code is None:
        return OSError("no such method, host or path can be asked for")
    if isinstance(code, types.ErrorCode_DnsError):
        return OSError("the host's name cannot be looked up")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(code).__name__.partition("_")[2])
    return OSError(f"{words}: {code.value}" if hasattr(code, "value") else words)


urllib.request.HTTPHandler = HTTPHandler
