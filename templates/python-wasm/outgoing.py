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
from wit_world.imports import monotonic_clock, outgoing_handler, poll, types
from wit_world.imports.streams import StreamError_Closed, StreamError_LastOperationFailed

# The host sets these itself (wasi:http 0.2).
HOST_S_OWN = {"Connection", "Host", "Transfer-Encoding"}
METHODS = {
    name.upper(): getattr(types, f"Method_{name}")
    for name in ("Get", "Head", "Post", "Put", "Delete", "Connect", "Options", "Trace", "Patch")
}
PIECE = 64 * 1024
# The host takes no larger heads, where each header counts for somewhat more than its text.
MOST_HEAD, EACH_HEADER = 16 * 1024, 64
# A body must outlive its stream, and the collector would drop the two in any order: only Wire.close lets go of them.
OPEN = set()
# Whether this is a call, and not the build of the module.
calling = False
DENIED = "the function may not reach it; the annotation dev.fawn.egress lists what it may"


class HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, request):
        try:
            return send(request)
        except Err as error:
            raise failure(error.value) from error

    https_open = http_open
    https_request = urllib.request.HTTPHandler.http_request


def send(request):
    if not calling:
        raise URLError("no request can be sent while the module is built: send it inside of handle")
    timeout = seconds(request.timeout)
    if request.has_proxy() or request._tunnel_host:
        raise URLError("requests go through no proxy: unset http_proxy and https_proxy")
    outgoing = types.OutgoingRequest(fields(request))
    method = request.get_method()
    outgoing.set_method(METHODS[method]() if method in METHODS else types.Method_Other(method))
    outgoing.set_scheme(types.Scheme_Https() if request.type == "https" else types.Scheme_Http())
    outgoing.set_authority(request.host)
    outgoing.set_path_with_query(request.selector)
    body = outgoing.body()
    future = outgoing_handler.handle(outgoing, options(timeout))
    upload(body, request.data, timeout)
    with future.subscribe() as answered:
        answered.block()
    answer = future.get().value
    if isinstance(answer, Err):
        raise answer
    response = http.client.HTTPResponse(Wire(answer.value, timeout), method=method)
    response.begin()
    # As urllib's own handler leaves it.
    response.url, response.msg = request.full_url, response.reason
    return response


def fields(request):
    fields = types.Fields()
    # As urllib merges them, and http.client writes them.
    given = request.unredirected_hdrs | request.headers | request.unredirected_hdrs
    given = {"Accept-Encoding": "identity"} | {name.title(): value for name, value in given.items()}
    size = 0
    for name, value in given.items():
        value = value if isinstance(value, bytes) else str(value).encode("latin-1")
        if name == "Host" and value != request.host.encode():
            raise URLError(f"the header Host is {request.host}, and no other can be sent")
        if name in HOST_S_OWN:
            continue
        size += len(name) + len(value) + EACH_HEADER
        if size > MOST_HEAD:
            raise URLError(f"the headers have more than {MOST_HEAD} bytes")
        try:
            fields.append(name, value)
        except Err as error:
            raise URLError(f"the header {name} cannot be sent") from error
    return fields


def seconds(timeout):
    if timeout is socket._GLOBAL_DEFAULT_TIMEOUT:
        timeout = socket.getdefaulttimeout()
    if timeout is not None and not 0 <= timeout < 2**33:
        raise ValueError("Timeout value out of range")
    return timeout


def options(timeout):
    if timeout is None:
        return None
    options = types.RequestOptions()
    for set_timeout in (options.set_connect_timeout, options.set_first_byte_timeout):
        set_timeout(int(timeout * 1e9))
    return options


def wait(pollable, timeout):
    with pollable:
        if timeout is None:
            return pollable.block()
        with monotonic_clock.subscribe_duration(int(timeout * 1e9)) as late:
            if 0 not in poll.poll([pollable, late]):
                raise TimeoutError("timed out")


def upload(body, data, timeout):
    try:
        with body.write() as stream:
            for piece in pieces(data):
                piece = memoryview(piece).cast("B")
                while piece:
                    wait(stream.subscribe(), timeout)
                    room = stream.check_write()
                    stream.write(bytes(piece[:room]))
                    piece = piece[room:]
            stream.flush()
            wait(stream.subscribe(), timeout)
    except Err as error:
        if not isinstance(error.value, StreamError_Closed):
            raise
        # The other side wants no more of it: the answer, or the want of one, tells why.
        return
    except TimeoutError as error:
        raise URLError(error) from error
    types.OutgoingBody.finish(body, None)


def pieces(data):
    """Bytes, a file or something that yields bytes, as http.client takes them."""
    if data is None:
        return []
    if hasattr(data, "read"):
        return iter(lambda: data.read(PIECE), b"")
    try:
        return [memoryview(data).cast("B")]
    except TypeError:
        return data


class Wire(io.RawIOBase):
    """A response as HTTPResponse reads it from a socket."""

    def __init__(self, response, timeout):
        head = [f"HTTP/1.1 {(status := response.status())} {http.client.responses.get(status, '')}".encode()]
        with response.headers() as fields:
            head += [name.encode() + b": " + value for name, value in fields.entries()]
        self.head = b"\r\n".join([*head, b"", b""])
        self.timeout = timeout
        self.body = response.consume()
        self.stream = self.body.stream()
        OPEN.update((self.stream, self.body))

    def makefile(self, mode):
        return io.BufferedReader(self, PIECE)

    def readable(self):
        return True

    def readinto(self, buffer):
        data, self.head = self.head[: len(buffer)], self.head[len(buffer) :]
        try:
            while not data:
                wait(self.stream.subscribe(), self.timeout)
                data = self.stream.read(len(buffer))
        except Err as error:
            if not isinstance(error.value, StreamError_Closed):
                raise http.client.IncompleteRead(b"") from error
        buffer[: len(data)] = data
        return len(data)

    def close(self):
        if not self.closed:
            # In this order: the one lies in the other.
            self.stream.__exit__(None, None, None)
            self.body.__exit__(None, None, None)
            OPEN.difference_update((self.stream, self.body))
        super().close()


def failure(code):
    """What urllib raises where a request fails thus over a socket."""
    if isinstance(code, types.ErrorCode_HttpResponseTimeout):
        return TimeoutError("timed out")
    if isinstance(code, types.ErrorCode_HttpProtocolError):
        return http.client.RemoteDisconnected("there was no answer, or none of HTTP")
    if isinstance(code, types.ErrorCode_HttpRequestDenied):
        return URLError(PermissionError(DENIED))
    if isinstance(code, (types.ErrorCode_DnsTimeout, types.ErrorCode_ConnectionTimeout)):
        return URLError(TimeoutError("timed out"))
    if isinstance(code, types.ErrorCode_ConnectionRefused):
        return URLError(ConnectionRefusedError("connection refused"))
    if isinstance(code, types.ErrorCode_DnsError):
        return URLError(OSError("the host's name cannot be looked up"))
    if code is None:
        return URLError(OSError("no such method, host or path can be asked for"))
    if isinstance(code, StreamError_LastOperationFailed):
        return URLError(OSError(code.value.to_debug_string()))
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(code).__name__.partition("_")[2])
    return URLError(OSError(f"{words}: {code.value}" if hasattr(code, "value") else words))


def no_socket(*_, **__):
    raise OSError("a function has no sockets: it sends requests with urllib.request")


urllib.request.HTTPHandler = HTTPHandler
# One that is made while the module is built would be a dead handle in each call, which ends it.
socket.socket.__init__ = socket.getaddrinfo = no_socket
