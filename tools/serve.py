"""Serves a model over HTTP: TensorFlow Serving's REST interface, and a page to drop photographs on.

  deeplab-tf serve --checkpoint=models/xception65
  deeplab-tf serve --checkpoint=shapes_resnet --port=9000
  curl -d '{"instances": [{"b64": "'$(base64 -w0 photo.jpg)'"}]}' http://127.0.0.1:8501/v1/models/deeplab:predict

It listens on this machine alone (with --host=0.0.0.0 on all its addresses, for everybody who can reach them: give
--token_file, --tls_certificate and --tls_key too). Ctrl-C and SIGTERM end it when all requests are answered, a second
Ctrl-C at once. /healthz, /readyz and /metrics are for those who look after it.
"""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from absl import flags

from deeplab_tf.config import ModelConfig, ServeConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import help_pages, options
from deeplab_tf.tools.ending import INTERRUPTED

# Of the engine's facts these are for the page alone; of the options these are printed.
_HIDDEN = ("classes", "examples", "max_body_bytes", "name", "needs_token")
_LIMITS = ("max_body_mb", "max_pixels", "max_images", "timeout_secs", "max_requests")


_BATCHED = ("max_batch_size", "batch_wait_ms")
_USES: tuple[options.Use[ServeConfig], ...] = (
    options.Use(
        _BATCHED, "another --runtime, auto, tf or tf_frozen", lambda c: c.runtime in ("auto", "tf", "tf_frozen")
    ),
)


_FIRST = ("checkpoint", "port", "host", "examples", "runtime", "token_file", "max_body_mb")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    options.define_path(values, "checkpoint", None, options.RUNNABLE_HELP)
    options.define_flags(values, ServeConfig)
    flags.DEFINE_alias("samples", "examples", flag_values=values)
    options.define_flags(values, ModelConfig)
    help_pages.put_first(values, _FIRST)


def _require_packages() -> None:
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise DeepLabError(f"serve needs {error.name}: pip install 'deeplab_tf[serve]'") from None


class _WithIdentity(logging.Formatter):
    """Writes a line of the server's log with the time and the id of the request."""

    def format(self, record: logging.LogRecord) -> str:
        from deeplab_tf.serving.guard import request_id

        record.identity = request_id.get()
        return super().format(record)


@contextlib.contextmanager
def _logged(requests: bool) -> Iterator[None]:
    """Writes the server's log to standard error for the duration of the context; `requests`: a line for each too."""
    log = logging.getLogger("deeplab_tf.serving")
    before = log.level, log.propagate
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_WithIdentity("%(asctime)s %(levelname)s %(identity)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if requests else logging.WARNING)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


def main(values: flags.FlagValues) -> int:
    """Serves the model until the process is interrupted."""
    options.require(values, "checkpoint")
    choice = ServeConfig(**options.given(values, ServeConfig))
    options.require_use(values, _USES, choice)
    changes = options.given(values, ModelConfig)
    _require_packages()
    options.start_tensorflow()
    options.tell_exactness(choice.tf32)
    from deeplab_tf.inference.exported import OpenedExport, open_runnable
    from deeplab_tf.inference.measured import Surroundings
    from deeplab_tf.serving.access import Access, exposure, tls_context
    from deeplab_tf.serving.engine import Engine
    from deeplab_tf.serving.server import serving

    Access(choice)  # mistakes in its files are told before the work
    tls_context(choice)
    loaded = open_runnable(values.checkpoint, changes)
    origin = loaded.export.checkpoint if isinstance(loaded, OpenedExport) else values.checkpoint
    engine = Engine(loaded.model, loaded.card, choice, Surroundings(tell=print), origin)
    with options.silenced():
        engine.prepare()
    rows = {name: value for name, value in engine.info().items() if name not in _HIDDEN}
    limits = {name: getattr(choice, name) for name in _LIMITS}
    print(f"Configuration\n{options.table({'checkpoint': values.checkpoint, **rows, **limits})}")
    for note in loaded.notes:
        print(f"Note: {note}")
    warning = exposure(choice)
    if warning is not None:
        print(f"Warning: {warning}", file=sys.stderr)
    ended = threading.Event()
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt  # whoever asks again does not wait for those who are still answered
        received.append(number)
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with _logged(choice.log_requests), serving(engine) as address:
        print(f"Page: {address}/\nREST: {address}/v1/models/{choice.model_name}:predict\nCtrl-C ends it.", flush=True)
        ended.wait()
        print("Stopped")
    return INTERRUPTED if signal.SIGINT in received else 0


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
