"""The model: Network, which knows its configuration, and build_model, which assembles it (release: model.py)."""

import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import keras

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.backbone import backbone
from deeplab_tf.network.graph import Graph, Maps
from deeplab_tf.network.head import head_logits
from deeplab_tf.network.sizes import at_size, logits_stride
from deeplab_tf.ops.resizing import scale_dimension

MERGED = "merged_logits"
_Value = TypeVar("_Value")


class Derived:
    """What is worked out from a model once and kept with it, for instance its compiled predictors: one of each type.

    Keras neither tracks nor saves an object of this kind, so that copies and files of the model begin without.
    """

    def __init__(self) -> None:
        self._values: dict[type, Any] = {}
        self._turn = threading.RLock()  # predictions may come from several threads

    def get(self, kind: type[_Value], make: Callable[[], _Value]) -> _Value:
        """Returns the value of type `kind`, which `make` gives when it is first asked for."""
        with self._turn:
            if kind not in self._values:
                self._values[kind] = make()
            return self._values[kind]

    def clear(self) -> None:
        """Forgets all values."""
        with self._turn:
            self._values.clear()


@keras.saving.register_keras_serializable(package="deeplab_tf")
class Network(keras.Model):
    """A functional Keras model that knows the configuration it was built from; saved and loaded, it still does.

    The arguments are those of `keras.Model`, and `config`. Keras's `clone_model` makes one without a configuration;
    copy a model by `copy.deepcopy`, or `Network.from_config(model.get_config())` for other weights.

    Attributes:
      derived: what other modules have worked out from this model; not saved.
    """

    # Keras saves the layers of a functional subclass, and clones it, only where its constructor takes *args, **kwargs,
    # under these names.
    def __init__(self, *args: Any, config: ModelConfig | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._config = config
        self.derived = Derived()

    @property
    def config(self) -> ModelConfig:
        """The configuration that `build_model` made this network from; DeepLabError where there is none."""
        if self._config is None:
            raise DeepLabError(
                f"model {self.name!r}: has no configuration, as a clone by keras.models.clone_model; copy a model by "
                "copy.deepcopy, which keeps it"
            )
        return self._config

    def get_config(self) -> dict:
        """Returns Keras's description of the layers and, as "model_config", the configuration."""
        return {**super().get_config(), "model_config": self._config and self._config.to_json()}

    @classmethod
    def from_config(cls, config: Mapping, custom_objects: Mapping | None = None) -> "Network":
        """Returns a network of the same layers and configuration, with weights of its own."""
        layers = {key: value for key, value in config.items() if key != "model_config"}
        model = super().from_config(layers, custom_objects=custom_objects)
        if values := config.get("model_config"):
            model._config = ModelConfig.from_json(values, source=f"the saved model {model.name!r}")
        return model


def _scaled(config: ModelConfig, scale: float) -> ModelConfig:
    """Returns the configuration of one copy of the network, for images resized by `scale`."""
    crop = config.crop_size
    size = crop and (scale_dimension(crop[0], scale), scale_dimension(crop[1], scale))
    return at_size(config, size, scale=scale, pyramid=config.image_pyramid)


def build_outputs(graph: Graph, images: Maps, config: ModelConfig) -> dict[str, Maps]:
    """Returns "merged_logits" and, for an image pyramid of several scales, one "logits_%.2f" a scale.

    All have the size scale_dimension(input, max(1, largest scale) / stride of the logits).
    """
    scales = config.image_pyramid or (1.0,)
    canvas = max(1.0, *scales) / logits_stride(config)
    outputs = {}
    for number, scale in enumerate(scales):
        copy, scaled, inputs = graph.numbered(number), config, images
        if scale != 1.0:
            scaled = _scaled(config, scale)
            inputs = copy.resize(images, "image_pyramid", like=images, scale=scale)
        features, end_points = backbone(copy, inputs, scaled)
        logits = head_logits(copy, features, end_points, inputs, scaled)
        outputs[f"logits_{scale:.2f}"] = copy.resize(logits, "logits/canvas", like=images, scale=canvas)
    if len(scales) == 1:
        return {MERGED: next(iter(outputs.values()))}
    merge = keras.layers.Maximum if config.merge_method == "max" else keras.layers.Average
    return {**outputs, MERGED: graph.op(merge, MERGED, list(outputs.values()))}


# What two graphs that share weights may differ in. Strides, rates and padding are the layers' own.
_PER_GRAPH = (
    "crop_size",
    "image_pooling_crop_size",
    "image_pooling_stride",
    "image_pyramid",
    "merge_method",
    "prediction_with_upsampled_logits",
)


def _shared_layers(model: keras.Model, config: ModelConfig) -> dict[str, keras.layers.Layer]:
    theirs = config_of(model)
    same = dataclasses.replace(theirs, **{name: getattr(config, name) for name in _PER_GRAPH})
    if same != config:
        fields = [f.name for f in dataclasses.fields(config) if getattr(same, f.name) != getattr(config, f.name)]
        raise DeepLabError(
            f"share_with: the models differ in {', '.join(fields)}, which belongs to the layers; expected the same "
            "network for another input size (for another output stride build anew and load the weights)"
        )
    return {layer.name: layer for layer in model.layers if layer.weights}


def build_model(
    config: ModelConfig, *, share_with: keras.Model | None = None, all_scales: bool = False, zeros: bool = False
) -> Network:
    """Returns the network: images [b, h, w, 3], float32 RGB in 0..255 -> logits [b, h', w', num_classes].

    Where config.input_channels says so, images have that many bands.
    The logits are those before the last upsampling. With a crop_size the graph takes images of that size only (the
    pooling window of ASPP depends on it, as in the release); without one, any size. Layers are named by their TF1
    scopes with "." for "/".

    Args:
      config: the options.
      share_with: a model built here whose weights this one uses too (the same network for another input size).
      all_scales: return a dictionary of the logits of each scale of the image pyramid and "merged_logits" instead.
      zeros: start all kernels at 0 instead of drawing them, which takes most of the time: for counting, or loading.

    Raises:
      DeepLabError: options that cannot go together.

    Example:
    >>> config = deeplab_tf.ModelConfig(model_variant="tiny", num_classes=3, crop_size=(65, 97))
    >>> model = deeplab_tf.build_model(config)
    >>> model.input_shape, model.output_shape
    ((None, 65, 97, 3), (None, 5, 7, 3))
    >>> model.config.output_stride
    16
    """
    height, width = config.crop_size or (None, None)
    images = keras.Input((height, width, config.input_channels), name="images")
    shared = _shared_layers(share_with, config) if share_with else None
    outputs = build_outputs(Graph(shared=shared, zeros=zeros, quantized=config.quantized), images, config)
    return Network(images, outputs if all_scales else outputs[MERGED], name=config.model_variant, config=config)


def as_network(model: keras.Model) -> Network:
    """Returns `model` as what it is; DeepLabError where it was not made here."""
    if not isinstance(model, Network):
        raise DeepLabError(f"model {model.name!r}: expected one made by deeplab_tf.build_model or deeplab_tf.load")
    return model


def config_of(model: keras.Model) -> ModelConfig:
    """Returns the configuration that `build_model` made `model` from; DeepLabError where it has none."""
    return as_network(model).config
