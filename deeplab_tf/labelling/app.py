"""The ASGI application of the labelling page: its files, the pictures, and their labels in and out."""

import asyncio
import contextlib
import importlib.resources
import json
import zlib
from collections.abc import AsyncIterator

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deeplab_tf.errors import DeepLabError
from deeplab_tf.labelling.labeller import Labeller, OpenedLabel
from deeplab_tf.labelling.pictures import LabelPicture
from deeplab_tf.labelling.store import ConflictError
from deeplab_tf.serving.access import Access
from deeplab_tf.serving.guard import Application, Guard
from deeplab_tf.serving.metrics import Metrics
from deeplab_tf.serving.refusal import Refused
from deeplab_tf.serving.requests import ERROR_HANDLERS, read_body, require_type

_SCRIPTS = tuple(f"{name}.js" for name in ("label", "shared", "drawing", "hands", "lists", "mask", "saving", "view"))
_PAGE = {
    "/": ("label.html", "text/html"),
    "/label.css": ("label.css", "text/css"),
    **{f"/{name}": (name, "text/javascript") for name in _SCRIPTS},
}
_UNREADABLE, _CONFLICT, _NO_ROOM = 422, 409, 507  # statuses of HTTP


class _Handlers:
    """The handlers of one labeller's routes."""

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller
        folder = importlib.resources.files("deeplab_tf.labelling") / "page"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _PAGE.items()}

    def _picture(self, request: Request) -> LabelPicture:
        picture = self._labeller.picture(request.path_params["identity"])
        if picture is None:
            raise Refused(404, "no such picture here; load the page again")
        return picture

    async def file(self, request: Request) -> Response:
        """Answers GET of a file of the page."""
        content, kind = self._files[request.url.path]
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    async def health(self, request: Request) -> Response:
        """Answers GET /healthz: the process lives."""
        return JSONResponse({"status": "ok"})

    async def state(self, request: Request) -> Response:
        """Answers GET /state: classes and pictures; 204 where nothing has changed since ?version=."""
        if request.query_params.get("version") == self._labeller.version:
            return Response(status_code=204)
        return JSONResponse(await asyncio.to_thread(self._labeller.state))

    async def photograph(self, request: Request) -> Response:
        """Answers GET /photographs/<picture>: a JPEG of the picture's size, upright."""
        picture = self._picture(request)
        try:
            content = await asyncio.to_thread(self._labeller.photograph, picture)
        except DeepLabError as error:
            raise Refused(_UNREADABLE, str(error)) from None
        return Response(content, media_type="image/jpeg", headers={"cache-control": "no-cache"})

    async def thumbnail(self, request: Request) -> Response:
        """Answers GET /thumbnails/<picture>: a small JPEG."""
        content = self._labeller.thumbnail(self._picture(request))
        if content is None:
            raise Refused(404, "not looked at yet")
        return Response(content, media_type="image/jpeg", headers={"cache-control": "max-age=600"})

    async def read(self, request: Request) -> Response:
        """Answers GET /masks/<picture>: the label, a byte a pixel; ?start: what it began as.

        The header x-label says in JSON what is known of it.
        """
        picture = self._picture(request)
        try:
            if "start" in request.query_params:
                values, start = await asyncio.to_thread(self._labeller.start, picture)
                label = OpenedLabel(values, self._labeller.store.saved(picture), start)
            else:
                label = await asyncio.to_thread(self._labeller.open, picture)
            height, width = label.values.shape
            places = await asyncio.to_thread(self._labeller.places, picture)
        except DeepLabError as error:
            raise Refused(_UNREADABLE, str(error)) from None
        facts = {
            "height": height,
            "width": width,
            "revision": label.saved.revision,
            "done": label.saved.done,
            "start": label.start,
            "places": [[*place.box, place.score, place.labelled, place.predicted] for place in places],
        }
        # Browsers undo this encoding by themselves; a label shrinks to a hundredth.
        content = await asyncio.to_thread(zlib.compress, np.ascontiguousarray(label.values).tobytes(), 1)
        headers = {"content-encoding": "deflate", "cache-control": "no-store", "x-label": json.dumps(facts)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def revision(self, request: Request) -> Response:
        """Answers GET /revisions/<picture>: what is known of the label on disk."""
        saved = self._labeller.store.saved(self._picture(request))
        return JSONResponse({"revision": saved.revision, "done": saved.done})

    async def save(self, request: Request) -> Response:
        """Answers POST /masks/<picture>?revision=<number>&done=<0 or 1>: saves a label, a byte a pixel, deflated.

        The answer comes when the disk has it. 409: it has been saved by somebody else since that revision.
        """
        picture = self._picture(request)
        require_type(request, ("application/octet-stream",))
        given = [request.query_params.get(name, "") for name in ("revision", "done")]
        if not (given[0].isdecimal() and given[0].isascii() and len(given[0]) < 12 and given[1] in ("0", "1")):
            raise Refused(400, "expected ?revision=<number>&done=<0 or 1>")
        body = await read_body(request, self._labeller.options, lambda count: None)
        try:
            revision = await asyncio.to_thread(self._saved, picture, body, int(given[0]), given[1] == "1")
        except ConflictError:
            now = self._labeller.store.saved(picture).revision
            raise Refused(_CONFLICT, f"saved elsewhere since revision {given[0]}, it is at {now} now") from None
        except DeepLabError as error:
            raise Refused(_NO_ROOM, str(error)) from None
        except ValueError as error:
            raise Refused(400, str(error)) from None
        return JSONResponse({"revision": revision, "version": self._labeller.version})

    def _saved(self, picture: LabelPicture, body: bytes, revision: int, done: bool) -> int:
        height, width = self._labeller.size(picture)
        unpacked = zlib.decompressobj()
        try:
            content = unpacked.decompress(body, height * width + 1)
        except zlib.error as error:
            raise ValueError(f"not a deflated label ({error})") from None
        if not unpacked.eof:
            raise ValueError(f"not a whole label of {height} x {width} bytes")
        label = np.frombuffer(content, np.uint8)
        return self._labeller.save(picture, label, revision=revision, done=done)

    def routes(self) -> list[Route]:
        """Returns the routes of all handlers."""
        return [
            *(Route(path, self.file) for path in self._files),
            Route("/healthz", self.health),
            Route("/state", self.state),
            Route("/photographs/{identity}", self.photograph),
            Route("/thumbnails/{identity}", self.thumbnail),
            Route("/revisions/{identity}", self.revision),
            Route("/masks/{identity}", self.read),
            Route("/masks/{identity}", self.save, methods=["POST"]),
        ]


def build_label_app(labeller: Labeller, access: Access) -> Application:
    """Returns the ASGI application of the labelling page; its labeller runs already."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield

    inner = Starlette(routes=_Handlers(labeller).routes(), lifespan=lifespan, exception_handlers=ERROR_HANDLERS)
    return Guard(inner, access, Metrics(dict), lambda: labeller.draining)
