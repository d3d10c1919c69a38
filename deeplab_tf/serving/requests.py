"""What the handlers of a server share: the type and the body of a request, and errors in TensorFlow Serving's form."""

import asyncio
import re
from collections.abc import Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from deeplab_tf.config.server import ServerConfig
from deeplab_tf.serving.refusal import Refused


def _error_response(status: int, reason: str) -> JSONResponse:
    """Returns an error in the form of TensorFlow Serving."""
    headers = {"retry-after": "1"} if status == 503 else {}
    return JSONResponse({"error": reason}, status, headers=headers)


def require_type(request: Request, expected: tuple[str, ...]) -> None:
    """Raises Refused (415) unless a request's content is of an expected type, `image/` being all of them, and plain."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not any(kind == name or (name.endswith("/") and kind.startswith(name)) for name in expected):
        raise Refused(415, f"content-type {kind[:80]!r}; expected {' or '.join(filter(None, expected))}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "content-encoding: expected none")


async def read_body(request: Request, options: ServerConfig, reserve: Callable[[int], None]) -> bytes:
    """Returns the body of a request, after calling `reserve` with the size of each part.

    Raises:
      Refused: 413 if the body is too large, 408 if it does not arrive in time, 400 if it is empty.
    """
    most = int(options.max_body_mb * 1e6)
    parts = []
    size = 0
    too_large = Refused(413, f"the body is too large; expected at most {options.max_body_mb:g} MB")
    announced = request.headers.get("content-length", "0")
    if re.fullmatch("[0-9]+", announced) and (len(announced) > 18 or int(announced) > most):
        raise too_large

    async def read() -> None:
        nonlocal size
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise too_large
            reserve(len(part))
            parts.append(part)

    try:
        await asyncio.wait_for(read(), options.read_timeout_secs)
    except asyncio.TimeoutError:
        raise Refused(408, f"the request did not arrive within {options.read_timeout_secs:g} s") from None
    if not size:
        raise Refused(400, "the body is empty")
    return b"".join(parts)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _error_response(error.status, error.reason)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _error_response(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def _disconnected(request: Request, error: Exception) -> Response:
    return _error_response(400, "the client went away")


async def _failed(request: Request, error: Exception) -> Response:
    return _error_response(500, "the server failed at this request; its log says why")


ERROR_HANDLERS: Mapping = {
    Refused: _refused,
    HTTPException: _http_error,
    ClientDisconnect: _disconnected,
    Exception: _failed,
}
