"""Serves a model over HTTP: TensorFlow Serving's REST interface, and a page to drop photographs on.

  deeplab-tf serve --checkpoint=models/xception65
  deeplab-tf serve --checkpoint=shapes_resnet --port=9000
  curl -d '{"instances": [{"b64": "'$(base64 -w0 photo.jpg)'"}]}' http://127.0.0.1:8501/v1/models/deeplab:predict

It listens on this machine alone (with --host=0.0.0.0 on all its addresses, for everybody who can reach them: give
--token_file, --tls_certificate and --tls_key too). Ctrl-C and SIGTERM end it when all requests are answered, a second
Ctrl-C at once. /healthz, /readyz and /metrics are for those who look after it.
"""

import sys
from collections.abc import Sequence

from absl import flags

from deeplab_tf.config import ModelConfig, ServeConfig
from deeplab_tf.tools import help_pages, listening, options

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


def main(values: flags.FlagValues) -> int:
    """Serves the model until the process is interrupted."""
    options.require(values, "checkpoint")
    choice = ServeConfig(**options.given(values, ServeConfig))
    options.require_use(values, _USES, choice)
    changes = options.given(values, ModelConfig)
    listening.require_packages("serve")
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
    wait = listening.end_of_signals()
    with listening.logged(choice.log_requests), serving(engine) as address:
        print(f"Page: {address}/\nREST: {address}/v1/models/{choice.model_name}:predict\nCtrl-C ends it.", flush=True)
        status = wait()
        print("Stopped")
    return status


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
