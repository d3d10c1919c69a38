"""The ASGI application and its routes: TensorFlow Serving's REST interface, health, figures, and the page."""

import asyncio
import contextlib
import importlib.resources
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deeplab_tf.serving import protocol
from deeplab_tf.serving.access import Access
from deeplab_tf.serving.clients import Client
from deeplab_tf.serving.engine import Engine
from deeplab_tf.serving.guard import CLIENT, Application, Guard
from deeplab_tf.serving.metrics import CONTENT_TYPE, Metrics
from deeplab_tf.serving.refusal import Refused
from deeplab_tf.serving.requests import ERROR_HANDLERS, read_body, require_type

T = TypeVar("T")

_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}": (name, "text/javascript") for name in ("page.js", "clip.js", "saving.js")},
}
# Without a header curl claims to send a form, and TensorFlow Serving accepts that.
_JSON = ("application/json", "application/x-www-form-urlencoded", "")
_PICTURE = ("image/", "application/octet-stream")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


async def _client_gone(request: Request) -> None:
    """Returns when the client has closed the connection. Call it after the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _finish(request: Request, work: Awaitable[T], seconds: float) -> T:
    """Returns the result of `work`, which is cancelled after `seconds` and when the client closes the connection.

    Raises:
      Refused: 504 after `seconds`.
      ClientDisconnect: the client has closed the connection.
    """
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_client_gone(request))
    try:
        await asyncio.wait({answer, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if gone.done():
            raise ClientDisconnect
        raise Refused(504, f"not answered within {seconds:g} s")
    finally:
        answer.cancel()
        gone.cancel()


class _Handlers:
    """The handlers of one engine's routes."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._options = engine.options
        folder = importlib.resources.files("deeplab_tf.serving") / "page"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _PAGE.items()}

    async def _answer(
        self, request: Request, types: tuple[str, ...], work: Callable[[bytes, Client], Awaitable[T]]
    ) -> T:
        client = request.scope[CLIENT]
        with self._engine.admitted(client) as reserve:
            require_type(request, types)
            body = await read_body(request, self._options, reserve)
            return await _finish(request, work(body, client), self._options.timeout_secs)

    def _require_model(self, request: Request) -> None:
        name = request.path_params["name"]
        if name != self._options.model_name:
            raise Refused(404, f"no model {name[:80]!r} here; expected {self._options.model_name!r}")

    async def predict(self, request: Request) -> Response:
        """Answers POST /v1/models/<name>:predict."""
        self._require_model(request)
        if request.path_params["verb"] != "predict":
            raise Refused(404, f"no :{request.path_params['verb'][:80]} here; expected :predict")
        if request.method != "POST":
            raise HTTPException(405, headers={"allow": "POST"})
        answer, notes = await self._answer(request, _JSON, self._engine.predict)
        return Response(answer, media_type="application/json", headers=protocol.notes_header(notes))

    async def segment(self, request: Request) -> Response:
        """Answers POST /segment, the page's request."""
        answer = await self._answer(request, _PICTURE, self._engine.segment)
        return Response(answer, media_type="application/json")

    async def status(self, request: Request) -> Response:
        """Answers GET /v1/models/<name>."""
        self._require_model(request)
        return JSONResponse(protocol.status())

    async def metadata(self, request: Request) -> Response:
        """Answers GET /v1/models/<name>/metadata."""
        self._require_model(request)
        return JSONResponse(protocol.metadata(self._options.model_name, self._engine.image))

    async def health(self, request: Request) -> Response:
        """Answers GET /healthz and /health: the process lives."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Answers GET /readyz: whether requests are answered."""
        if not self._engine.is_ready:
            raise Refused(503, "not ready: the server ends, or its network does not answer any more")
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """Answers GET /metrics, for Prometheus."""
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def info(self, request: Request) -> Response:
        """Answers GET /info: the facts that the page shows."""
        return JSONResponse(self._engine.info())

    async def example(self, request: Request) -> Response:
        """Answers GET /examples/<number>: an example picture."""
        # Not the router's int: of a number without end Python makes an error.
        text = request.path_params["number"]
        number = int(text) if re.fullmatch("[0-9]{1,4}", text) else len(self._engine.examples)
        if number >= len(self._engine.examples):
            raise Refused(404, "no such example")
        content = self._engine.examples[number][1]
        kind = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
        return Response(content, media_type=kind)

    async def file(self, request: Request) -> Response:
        """Answers GET of a file of the page."""
        content, kind = self._files[request.url.path]
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    def routes(self) -> list[Route]:
        """Returns the routes of all handlers."""
        models = ("/v1/models/{name}", "/v1/models/{name}/versions/1")
        return [
            *(Route(f"{model}:{{verb}}", self.predict, methods=_METHODS) for model in models),
            *(Route(f"{model}/metadata", self.metadata) for model in models),
            *(Route(model, self.status) for model in models),
            Route("/segment", self.segment, methods=["POST"]),
            *(Route(path, self.health) for path in ("/health", "/healthz")),
            Route("/readyz", self.ready),
            Route("/metrics", self.metrics),
            Route("/info", self.info),
            Route("/examples/{number}", self.example),
            *(Route(path, self.file) for path in self._files),
        ]


def build_app(engine: Engine, access: Access) -> Application:
    """Returns the ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with engine.running():
            yield

    metrics = Metrics(engine.figures)
    inner = Starlette(
        routes=_Handlers(engine, metrics).routes(),
        lifespan=lifespan,
        exception_handlers=ERROR_HANDLERS,
    )
    return Guard(inner, access, metrics, lambda: engine.draining)
