"""ServeConfig: how a model is served and which requests the server takes. Import it from deeplab_tf.config."""

import dataclasses
import re
from typing import Literal, get_args

from deeplab_tf.config.fields import option, path_option
from deeplab_tf.config.inference import LONGEST_SIDE, Exactness
from deeplab_tf.config.server import ServerConfig
from deeplab_tf.errors import unknown_name

Runtime = Literal["auto", "tf", "tf_frozen", "tflite", "onnx", "openvino"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


@dataclasses.dataclass(frozen=True)
class ServeConfig(Exactness, ServerConfig, group="what"):
    """How a model is served over HTTP, and the limits of a client's requests."""

    model_name: str = option("deeplab", "the model's name in /v1/models/<name>")
    runtime: Runtime = option(
        "auto",
        "what runs the network: tf, tf_frozen, tflite (LiteRT), onnx, openvino, or auto: the fastest",
        group="devices",
    )
    longest_side: int | None = option(
        None,
        "the page's photographs are shrunk or enlarged to this longest side first; unset: like predict, by the size of "
        f"the model's training pictures where it says that, else to {LONGEST_SIDE}",
    )
    max_pixels: int = option(
        25_000_000,
        "most pixels of a request's images, decoded and padded for the network; more get status 413",
        group="limits",
    )
    max_images: int = option(64, "most images of a request; more get status 413", group="limits")
    max_batch_size: int = option(
        8, "images of one size that run together where that is faster (in TensorFlow)", group="devices"
    )
    batch_wait_ms: float = option(
        2.0, "milliseconds that an image waits for others of its size to come", group="devices"
    )
    examples: str | None = path_option(
        None,
        "folder of photographs that the page offers, the first six; empty: none; unset: six of the pictures that the "
        "model's run is scored on, where only this machine can see the page (drawn shapes for a model of these)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runtime not in RUNTIMES:
            raise unknown_name("runtime", self.runtime, RUNTIMES)
        good = re.fullmatch(r"[A-Za-z0-9_.-]+", self.model_name) is not None
        self._require("model_name", good, "expected letters, digits, _, - and . only")
        self._require_at_least(1, "max_pixels", "max_images", "max_batch_size")
        self._require("longest_side", self.longest_side is None or self.longest_side >= 1, "expected 1 or more pixels")
        self._require("batch_wait_ms", self.batch_wait_ms >= 0, "expected 0 or more")
