"""The server: uvicorn, with time limits on clients that send or read too slowly."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from deeplab_tf.config import ServeConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.serving.app import build_app
from deeplab_tf.serving.engine import Engine

_LARGEST_HEAD = 16384  # bytes of a request's head
_LEAST_READ = 65536  # bytes of an answer that a client must read within the time that it has to send a request
_SLOW = b'{"error": "the request did not arrive in time"}'
_SLOW_HEAD = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
)


class _Limited(H11Protocol):
    """uvicorn's protocol with limits on the time of a client.

    They hold for the head of a request, for a body that the client goes on sending after the answer, and for reading
    each _LEAST_READ bytes of the answer. (The application limits the time of a body before the answer.) uvicorn's own
    settings limit bytes, connections and the time between requests, but neither a slow head nor a reader that stops.
    """

    _seconds: float
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
            self.transport.write(_SLOW_HEAD % len(_SLOW) + _SLOW)
        self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._update_timer()

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


def _limited(seconds: float) -> type[H11Protocol]:
    """Returns the protocol with its limit as a class attribute, because uvicorn makes the instances."""
    return type("Limited", (_Limited,), {"_seconds": seconds})


def build_server(engine: Engine) -> uvicorn.Server:
    """Returns the server of an engine, ready to run on the socket of `listening_socket`."""
    options = engine.options
    config = uvicorn.Config(
        build_app(engine),
        host=options.host,
        port=options.port,
        http=_limited(options.read_timeout_secs),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        limit_concurrency=4 * options.max_requests + 16,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        lifespan="on",
    )
    return uvicorn.Server(config)


def listening_socket(options: ServeConfig) -> socket.socket:
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
def serving(engine: Engine) -> Iterator[str]:
    """Serves in a thread for the duration of the context, and yields the address, as http://127.0.0.1:8501.

    Raises:
      DeepLabError: the address is taken or not allowed.
    """
    listener = listening_socket(engine.options)
    server = build_server(engine)
    thread = threading.Thread(target=server.run, args=([listener],), name="server", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    host = engine.options.host
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
