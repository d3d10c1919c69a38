"""LabelConfig: what is labelled, by the help of which model, and where. Import it from deeplab_tf.config."""

import dataclasses

from deeplab_tf.config.fields import option, path_option, split_names
from deeplab_tf.config.inference import LONGEST_SIDE, Exactness
from deeplab_tf.config.serve import RUNTIMES, Runtime
from deeplab_tf.config.server import ServerConfig
from deeplab_tf.errors import unknown_name

LARGEST_SIDE = 2049  # pixels: all probabilities of a picture lie in memory at once


@dataclasses.dataclass(frozen=True)
class LabelConfig(Exactness, ServerConfig, group="what"):
    """How pictures are offered for labelling, and where the page listens."""

    images: str | None = path_option(None, "folder of photographs to label, those in folders below it too")
    suspects: str | None = path_option(
        None,
        "file that doctor --suspects has written: its pictures are opened with their own labels, in place of --images",
    )
    output: str | None = path_option(
        None,
        "folder to write: images, labels and dataset.json, as build-data --dataset=folder reads them (default: "
        "--images, or --suspects, with _labelled)",
    )
    add: tuple[str, ...] | None = option(
        None,
        "names of classes that are offered besides those of the model, as extend --add takes them",
        parse=split_names,
    )
    port: int = option(8502, "port to listen on; 0: any that is free")
    max_body_mb: float = option(
        128.0, "largest body of a request in megabytes; larger ones get status 413", group="limits"
    )
    longest_side: int | None = option(
        None,
        "photographs with a longer side than this are shrunk to it for the network; unset: that of the model's "
        f"training pictures where it says that, from {LONGEST_SIDE} to {LARGEST_SIDE}, else {LONGEST_SIDE}",
    )
    runtime: Runtime = option(
        "auto",
        "what runs the network: tf, tf_frozen, tflite (LiteRT), onnx, openvino, or auto: the fastest",
        group="devices",
    )

    def shrunk_side(self, training_side: int | None) -> int:
        """Returns the longest side that photographs are shrunk to, for a model with this side of training pictures."""
        return self.longest_side or max(LONGEST_SIDE, min(training_side or 0, LARGEST_SIDE))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runtime not in RUNTIMES:
            raise unknown_name("runtime", self.runtime, RUNTIMES)
        self._require("longest_side", self.longest_side is None or self.longest_side >= 1, "expected 1 or more pixels")
        self._require("suspects", not (self.suspects and self.images), "its pictures replace --images; leave one out")
