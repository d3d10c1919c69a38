"""The operations of a network as they are listed by the code that builds it, without a layer and without a size."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, cast

import keras

from deeplab_tf.arch.spec import Architecture
from deeplab_tf.arch.units import BatchNorm, Norm
from deeplab_tf.config import ModelConfig
from deeplab_tf.network.fake_quantization import FakeQuantize
from deeplab_tf.network.graph import Graph, Maps
from deeplab_tf.network.lite_arithmetic import InputLevels
from deeplab_tf.network.model import MERGED, build_outputs

Kind = Literal["images", "conv", "depthwise", "add", "mul", "concat", "pool", "max_pool", "other"]
_KINDS: dict[type, Kind] = {
    keras.layers.Conv2D: "conv",
    keras.layers.DepthwiseConv2D: "depthwise",
    keras.layers.Add: "add",
    keras.layers.Multiply: "mul",
    keras.layers.Concatenate: "concat",
    keras.layers.AveragePooling2D: "pool",
    keras.layers.GlobalAveragePooling2D: "pool",
    keras.layers.MaxPooling2D: "max_pool",
}


@dataclasses.dataclass(eq=False)
class Traced:
    """Maps of a network, and what makes them.

    Attributes:
      kind: "other" passes its first input on, changed by itself alone.
      channels: of the maps.
      inputs: what it reads.
      scope: of a convolution, a batch norm or a range.
      make: the layer.
      options: of the layer.
    """

    kind: Kind
    channels: int
    inputs: tuple["Traced", ...] = ()
    scope: str = ""
    make: type | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """As of a Keras tensor for images of any size."""
        return (None, None, None, self.channels)


class _Tracer(Graph):
    """Lists operations where Graph makes layers: those of a network that rounds where a file of eight bits does."""

    def __init__(self) -> None:
        super().__init__(quantized=True, as_file=True)
        self._calculates_as_file = False  # what rounds is listed apart from what calculates

    def _traced(self, make: type, scope: str, inputs: Any, options: dict[str, Any]) -> Maps:
        given = tuple(inputs) if isinstance(inputs, Sequence) else (inputs,)
        kind = _KINDS.get(make, "other")
        channels = given[0].channels
        if kind == "conv":
            channels = options["filters"]
        elif kind == "concat":
            channels = sum(maps.channels for maps in given)
        given = given[:1] if kind == "other" else given
        return cast(Maps, Traced(kind, channels, given, scope, make, options))

    def weighted(self, scope: str, make: type[keras.layers.Layer], inputs: Maps, **options: object) -> Maps:
        """Lists a layer with weights."""
        return self._traced(make, scope, inputs, dict(options))

    def op(self, make: type[keras.layers.Layer], scope: str, inputs: Maps | Sequence[Maps], **options: object) -> Maps:
        """Lists a layer without weights."""
        x = self._traced(make, scope, inputs, dict(options))
        return self.fake_quantised(x, f"{scope}_quant") if _KINDS.get(make) in ("concat", "mul") else x

    def norm(self, x: Maps, scope: str, constants: Norm) -> Maps:
        """Lists a batch norm."""
        return self._traced(BatchNorm, scope, x, {"epsilon": constants.epsilon})

    def preprocess(self, images: Maps, scope: str, architecture: Architecture) -> Maps:
        """Lists the range of the images alone."""
        del architecture
        return self.weighted(f"{scope}/preprocess_quant", InputLevels, images)


RANGES = (FakeQuantize, InputLevels)


def trace(config: ModelConfig) -> Traced:
    """Returns the logits of the network of a configuration, with the ranges that one of a file of eight bits has."""
    config = dataclasses.replace(config, crop_size=None, image_pyramid=None)
    graph = _Tracer()
    images = cast(Maps, Traced("images", config.input_channels))
    return cast(Traced, build_outputs(graph, images, config)[MERGED])
