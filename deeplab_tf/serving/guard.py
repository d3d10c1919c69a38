"""`Guard`: what every request passes first and every answer last: who may ask, headers, id, log and figures."""

import contextvars
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from deeplab_tf.serving.access import Access
from deeplab_tf.serving.clients import Client
from deeplab_tf.serving.metrics import Metrics

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
Application: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_LOG = logging.getLogger(__name__)
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
)
CLIENT = "deeplab.client"  # the key of a request's Client in its scope
_OPEN = ("/health", "/healthz", "/readyz")  # what is asked without a token
_READS = ("GET", "HEAD", "OPTIONS")
_CHALLENGE = (b"www-authenticate", b'Bearer, Basic realm="deeplab", charset="UTF-8"')

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")


def error_body(reason: str) -> bytes:
    """Returns an error in the form of TensorFlow Serving."""
    return json.dumps({"error": reason}).encode()


def _headers_of(scope: _Message) -> dict[str, str]:
    """Returns the headers of a request; of one that is there twice the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _id_of(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else uuid.uuid4().hex[:16]


class _Refusal(Exception):
    """A request that is not let in."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class Guard:
    """An ASGI application around another.

    Args:
      inner: the application.
      access: who may send requests.
      metrics: counts them.
      is_draining: returns whether the server is about to end: then each answer closes its connection.
    """

    def __init__(self, inner: Application, access: Access, metrics: Metrics, is_draining: Callable[[], bool]) -> None:
        self._inner, self._access, self._metrics, self._is_draining = inner, access, metrics, is_draining

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        start = time.perf_counter()
        headers = _headers_of(scope)
        identity = _id_of(headers)
        token = request_id.set(identity)
        status = 0

        async def send_guarded(message: _Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *self._added(headers, identity)]}
            await send(message)

        try:
            await self._answer(scope, headers, receive, send_guarded)
        except Exception:
            _LOG.exception("a request failed")
            if not status:
                await _send_error(send_guarded, 500, "the server failed at this request; its log says why")
        finally:
            seconds = time.perf_counter() - start
            endpoint = getattr(scope.get("endpoint"), "__name__", "none")
            self._metrics.count(endpoint, status, seconds)
            host = scope.get("client") or ("-", 0)
            # A path may hold everything, escape codes and line breaks too.
            path = scope["path"][:200].encode("unicode_escape").decode()
            _LOG.info("%s %s %s %d %.1f ms", host[0], scope["method"], path, status, 1000 * seconds)
            request_id.reset(token)

    def _added(self, headers: Mapping[str, str], identity: str) -> list[tuple[bytes, bytes]]:
        """Returns the headers that an answer gets besides its own."""
        added = [*SECURITY, (b"x-request-id", identity.encode())]
        origin = headers.get("origin")
        if origin is not None and self._access.allows_origin(origin):
            added += [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]
            added += [(b"access-control-expose-headers", b"x-deeplab-notes, x-request-id, retry-after")]
        return added + ([(b"connection", b"close")] if self._is_draining() else [])

    async def _answer(self, scope: _Message, headers: Mapping[str, str], receive: _Receive, send: _Send) -> None:
        try:
            if self._is_preflight(scope, headers):
                await _send_preflight(send)
                return
            self._let_in(scope, headers)
        except _Refusal as refusal:
            await _send_error(send, refusal.status, refusal.reason, *refusal.headers)
            return
        await self._inner(scope, receive, send)

    def _is_preflight(self, scope: _Message, headers: Mapping[str, str]) -> bool:
        """Returns whether a browser asks if a page of an allowed origin may send a request. It brings no token."""
        asks = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        return asks and self._access.allows_origin(headers.get("origin", ""))

    def _let_in(self, scope: _Message, headers: Mapping[str, str]) -> None:
        """Raises _Refusal unless a request may be answered, and writes into its scope whose it is."""
        if not self._access.knows_host(headers):
            raise _Refusal(400, "the header host is of another machine; expected the address that the server told")
        if scope["method"] not in _READS and self._access.is_foreign(headers):
            raise _Refusal(403, "sent by a page of another origin; --allow_origin of the server allows it")
        try:
            token = self._access.token_of(headers) if scope["path"] not in _OPEN else None
        except PermissionError:
            raise _Refusal(
                401, "expected a token that the server knows: Authorization: Bearer ...", _CHALLENGE
            ) from None
        address, port = scope.get("client") or ("", 0)
        scope[CLIENT] = Client(address, token, port)


async def _send_error(send: _Send, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
    body = error_body(reason)
    kind = (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*kind, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _send_preflight(send: _Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"authorization, content-type, x-request-id"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
