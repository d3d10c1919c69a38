"""The server's addresses: TensorFlow Serving's REST interface, health, and the page."""

import asyncio
import contextlib
import importlib.resources
import json
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deeplab_tf.config import ServeConfig
from deeplab_tf.serving import protocol
from deeplab_tf.serving.engine import Engine
from deeplab_tf.serving.refusal import Refused

_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_HEADERS = {"x-content-type-options": "nosniff", "content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
# curl says it sends a form where it is told nothing else, and TensorFlow Serving takes it.
_JSON = ("application/json", "application/x-www-form-urlencoded", "")
_PICTURE = ("image/", "application/octet-stream")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_LOCAL = ("127.0.0.1", "localhost", "::1")


def _told(status: int, reason: str) -> JSONResponse:
    """An error as TensorFlow Serving tells it."""
    headers = {**_HEADERS, **({"retry-after": "1"} if status == 503 else {})}
    return JSONResponse({"error": reason}, status, headers=headers)


def _require_type(request: Request, expected: tuple[str, ...]):
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not any(kind == name or (name.endswith("/") and kind.startswith(name)) for name in expected):
        raise Refused(415, f"content-type {kind[:80]!r}; expected {' or '.join(filter(None, expected))}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "content-encoding: expected none")


async def _body(request: Request, options: ServeConfig, hold: Callable[[int], None]) -> bytes:
    """Returns the body, telling `hold` of each part. `Refused` 413 where it is too large, 408 where it does not come
    in time."""
    most, parts, size = int(options.max_body_mb * 1e6), [], 0
    too_large = Refused(413, f"the body is too large; expected at most {options.max_body_mb:g} MB")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most:
        raise too_large

    async def read():
        nonlocal size
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise too_large
            hold(len(part))
            parts.append(part)

    try:
        await asyncio.wait_for(read(), options.read_timeout_secs)
    except asyncio.TimeoutError:
        raise Refused(408, f"the request did not arrive within {options.read_timeout_secs:g} s") from None
    if not size:
        raise Refused(400, "the body is empty")
    return b"".join(parts)


async def _departure(request: Request):
    """Returns when the client has gone away; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _finished(request: Request, work: Awaitable, seconds: float):
    """Returns what `work` returns. It is given up after so many seconds, and where nobody waits for it any more."""
    answer, departure = asyncio.ensure_future(work), asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait({answer, departure}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if departure.done():
            raise ClientDisconnect
        raise Refused(504, f"not answered within {seconds:g} s")
    finally:
        answer.cancel()
        departure.cancel()


class _Addresses:
    """The handlers of one engine."""

    def __init__(self, engine: Engine):
        self._engine, self._options = engine, engine.options
        folder = importlib.resources.files("deeplab_tf.serving") / "page"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _PAGE.items()}

    async def _answered(self, request: Request, kinds: tuple[str, ...], work: Callable[[bytes], Awaitable]):
        with self._engine.admitted() as hold:
            _require_type(request, kinds)
            body = await _body(request, self._options, hold)
            return await _finished(request, work(body), self._options.timeout_secs)

    def _require_model(self, request: Request):
        name = request.path_params["name"]
        if name != self._options.model_name:
            raise Refused(404, f"no model {name[:80]!r} here; expected {self._options.model_name!r}")

    async def predict(self, request: Request) -> Response:
        self._require_model(request)
        if request.path_params["verb"] != "predict":
            raise Refused(404, f"no :{request.path_params['verb'][:80]} here; expected :predict")
        if request.method != "POST":
            raise HTTPException(405, headers={"allow": "POST"})
        answer = await self._answered(request, _JSON, self._engine.predict)
        return Response(answer, media_type="application/json", headers=_HEADERS)

    async def segment(self, request: Request) -> Response:
        answer = await self._answered(request, _PICTURE, self._engine.segment)
        return Response(json.dumps(answer), media_type="application/json", headers=_HEADERS)

    async def status(self, request: Request) -> Response:
        self._require_model(request)
        return JSONResponse(protocol.status(), headers=_HEADERS)

    async def metadata(self, request: Request) -> Response:
        self._require_model(request)
        return JSONResponse(protocol.metadata(self._options.model_name), headers=_HEADERS)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def info(self, request: Request) -> Response:
        return JSONResponse(self._engine.info(), headers=_HEADERS)

    async def example(self, request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(self._engine.examples):
            raise Refused(404, "no such example")
        content = self._engine.examples[number][1]
        kind = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
        return Response(content, media_type=kind, headers=_HEADERS)

    async def file(self, request: Request) -> Response:
        content, kind = self._files[request.url.path]
        return Response(content, media_type=kind, headers={**_HEADERS, "cache-control": "no-cache"})

    def routes(self) -> list[Route]:
        models = ("/v1/models/{name}", "/v1/models/{name}/versions/1")
        return [
            *(Route(f"{model}:{{verb}}", self.predict, methods=_METHODS) for model in models),
            *(Route(f"{model}/metadata", self.metadata) for model in models),
            *(Route(model, self.status) for model in models),
            Route("/segment", self.segment, methods=["POST"]),
            Route("/health", self.health),
            Route("/info", self.info),
            Route("/examples/{number:int}", self.example),
            *(Route(path, self.file) for path in self._files),
        ]


async def _refused(request: Request, error: Refused) -> Response:
    return _told(error.status, error.reason)


async def _http_error(request: Request, error: HTTPException) -> Response:
    response = _told(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return _told(400, "the client went away")


async def _failed(request: Request, error: Exception) -> Response:
    return _told(500, "the server failed at this request; its log says why")


def build_app(engine: Engine) -> Starlette:
    """Returns the ASGI application. Bound to this machine alone it answers to its names alone, whatever name a page
    elsewhere makes point here."""

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with engine.running():
            yield

    local = engine.options.host in _LOCAL
    hosts = [*_LOCAL[:2], "[::1]"] if local else ["*"]
    return Starlette(
        routes=_Addresses(engine).routes(),
        lifespan=lifespan,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        exception_handlers={
            Refused: _refused,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
    )
