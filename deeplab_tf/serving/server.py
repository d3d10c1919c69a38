"""The server: uvicorn, with time limits on clients that send or read too slowly, and an end that loses no request."""

import asyncio
import contextlib
import http
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from deeplab_tf.config.server import ServerConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.serving.access import Access, tls_context
from deeplab_tf.serving.app import build_app
from deeplab_tf.serving.guard import SECURITY, Application, error_body

_LARGEST_HEAD = 16384  # bytes of a request's head
_LEAST_READ = 65536  # bytes of an answer that a client must read within the time that it has to send a request
_LINGER = 1.0  # seconds in which a client may still send a request over a connection that it keeps, at the end
_GRACE = 10.0  # seconds at the end beyond those in which a request must arrive and be answered


def _plain_answer(status: int, reason: str) -> bytes:
    """Returns a whole answer for what is refused before there is a request, in the form and with the headers of all."""
    body = error_body(reason)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *SECURITY,
        (b"x-request-id", uuid.uuid4().hex[:16].encode()),
        *([(b"retry-after", b"1")] if status == 503 else []),
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, http.HTTPStatus(status).phrase.encode(), lines, body)


class _Limited(H11Protocol):
    """uvicorn's protocol with limits on the time of a client.

    They hold for the head of a request, for a body that the client goes on sending after the answer, and for reading
    each _LEAST_READ bytes of the answer. (The application limits the time of a body before the answer.) uvicorn's own
    settings limit bytes, connections and the time between requests, but neither a slow head nor a reader that stops.
    """

    _seconds: float
    _most: int  # connections at a time
    _timer: asyncio.TimerHandle | None = None
    _blocked: asyncio.TimerHandle | None = None

    def _awaits_client(self) -> bool:
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        return self.conn.their_state is h11.IDLE or (answered and self.conn.their_state is h11.SEND_BODY)

    def _update_timer(self) -> None:
        """Starts the timer if the client is to send something, and stops it otherwise."""
        if self._timer and not self._awaits_client():
            self._timer.cancel()
            self._timer = None
        elif not self._timer and self._awaits_client():
            self._timer = self.loop.call_later(self._seconds, self._close_slow)

    def _close_slow(self) -> None:
        if self.conn.our_state is h11.IDLE and not self.transport.is_closing():
            self.transport.write(_plain_answer(408, "the request did not arrive in time"))
        self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.write(_plain_answer(503, "too many connections; come back later"))
            transport.close()
            return
        self._update_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP; the library calls it while it handles the error that says why."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        if not self.transport.is_closing():
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self.transport.write(_plain_answer(status, "not a request of HTTP/1.1, or too large a head of one"))
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._timer:  # of the previous request
            self._timer.cancel()
            self._timer = None
        if not self.transport.is_closing() and self.conn.their_state is h11.SEND_BODY:
            self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in filter(None, (self._timer, self._blocked)):
            timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader(self.transport.get_write_buffer_size())

    def _await_reader(self, unread: int) -> None:
        self._blocked = self.loop.call_later(self._seconds, self._check_reader, unread)

    def _check_reader(self, before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if before - unread < _LEAST_READ:
            self.transport.abort()
        else:
            self._await_reader(unread)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._blocked:
            self._blocked.cancel()
            self._blocked = None


def _limited(options: ServerConfig) -> type[H11Protocol]:
    """Returns the protocol with its limits as class attributes, because uvicorn makes the instances."""
    limits = {"_seconds": options.read_timeout_secs, "_most": 4 * options.max_requests + 16}
    return type("Limited", (_Limited,), limits)


class Service(Protocol):
    """What is served: `draining` becomes true when the server is about to end and takes no new connections."""

    options: Any  # a ServerConfig, or one of its own below it
    draining: bool


class _Server(uvicorn.Server):
    """uvicorn's server with an end at which no request is lost.

    It answers who is connected, or was about to be, and tells them with each answer that the connection closes. uvicorn
    itself resets the connections that it has not accepted yet, and closes those on which a request is on its way.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends: takes no new connections, answers the requests of those there are, and closes them."""
        self._service.draining = True
        for listener in sockets or []:
            await self._accept_last(listener)
        end = time.monotonic() + _LINGER
        while self.server_state.connections and not self.force_exit and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _accept_last(self, listener: socket.socket) -> None:
        """Closes a listening socket after accepting all whom the system has already connected."""
        loop = asyncio.get_running_loop()
        accepted = []
        loop.remove_reader(listener.fileno())
        with contextlib.suppress(OSError):  # there are no more
            while True:
                accepted.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        listener.close()
        for connection in accepted:
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # it has gone
                await loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def build_server(service: Service, build: Callable[[Any, Access], Application] = build_app) -> uvicorn.Server:
    """Returns the server of an engine, or another `Service`, ready to run on the socket of `listening_socket`.

    Args:
      service: what answers.
      build: makes the application of it.

    Raises:
      DeepLabError: its tokens, or its certificate, cannot be read.
    """
    options = service.options
    context = tls_context(options)
    config = uvicorn.Config(
        build(service, Access(options)),
        host=options.host,
        port=options.port,
        http=_limited(options),
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(options.timeout_secs + options.read_timeout_secs + _GRACE),
        lifespan="on",
    )
    config.load()
    config.ssl = context
    return _Server(config, service)


def listening_socket(options: ServerConfig) -> socket.socket:
    """Returns a socket that listens on the host and port of `options`.

    Raises:
      DeepLabError: the address is taken or not allowed.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        where = f"--host={options.host} --port={options.port}"
        raise DeepLabError(f"{where}: cannot listen there ({error.strerror or error}); choose another") from None
    return listener


@contextlib.contextmanager
def serving(service: Service, build: Callable[[Any, Access], Application] = build_app) -> Iterator[str]:
    """Serves in a thread for the duration of the context, and yields the address, as http://127.0.0.1:8501.

    The arguments are those of `build_server`.

    Raises:
      DeepLabError: the address is taken or not allowed; tokens or certificate cannot be read.
    """
    server = build_server(service, build)
    listener = listening_socket(service.options)
    thread = threading.Thread(target=server.run, args=([listener],), name="server", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    host = service.options.host
    try:
        scheme = "http" if service.options.tls_certificate is None else "https"
        yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
