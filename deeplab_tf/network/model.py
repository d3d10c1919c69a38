"""The model: Network, which knows its configuration, and build_model, which assembles it (release: model.py)."""

import dataclasses
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import keras

from deeplab_tf.catalog.palettes import default_palette
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.backbone import backbone
from deeplab_tf.network.carrier import carried, carried_card, carry, carry_card
from deeplab_tf.network.graph import Graph, Maps
from deeplab_tf.network.head import head_logits
from deeplab_tf.network.layers import ResizeBilinear
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

    So does a clone by `keras.models.clone_model`. The arguments are those of `keras.Model`, and `config`.

    Attributes:
      derived: what other modules have worked out from this model; not saved.
      receipt: what became of every variable of the file that `deeplab_tf.load` read, a `weights.tf1.Receipt`; not
        saved, and None of other models.
    """

    # Keras saves the layers of a functional subclass, and clones it, only where its constructor takes *args, **kwargs,
    # under these names.
    def __init__(self, *args: Any, config: ModelConfig | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._config = config
        self.derived = Derived()
        self.receipt: Any = None

    @property
    def config(self) -> ModelConfig:
        """The configuration that `build_model` made this network from; DeepLabError where there is none."""
        if self._config is None:  # a clone: the layers carry it
            self._config = next(iter(carried(self.layers)), None)
        if self._config is None:
            raise _foreign(self)
        return self._config

    @property
    def card(self) -> dict[str, Any] | None:
        """What is known of the weights, a `weights.model_directory.ModelCard` as JSON; None: nothing is.

        It travels in Keras's files, clones and wrappers.
        """
        return carried_card(self.layers)

    @card.setter
    def card(self, card: Mapping[str, Any] | None) -> None:
        carry_card(self.layers, card)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by their index; () where nobody has said them. They can be set."""
        return tuple((self.card or {}).get("class_names", ()))

    @class_names.setter
    def class_names(self, names: Sequence[str]) -> None:
        count = self.config.num_classes
        if isinstance(names, str) or not all(isinstance(name, str) and name.strip() for name in names):
            raise DeepLabError(f"class_names={names!r}: expected {count} names")
        if len(names) != count:
            raise DeepLabError(f"class_names: {len(names)} names for a network of {count} classes; give one for each")
        # The data set that the weights are from has other classes, of other colours.
        own = {"class_names": list(names), "palette": [list(colour) for colour in default_palette(names)]}
        self.card = {**(self.card or {}), **own, "dataset": None, "train_split": None}

    def compute_loss(self, *args: Any, training: bool = True, **kwargs: Any) -> Any:
        """Returns the loss as `keras.Model.compute_loss` does; one that depends on the step follows the optimizer."""
        follow = getattr(self.loss, "follow", None)
        if follow is not None and self.optimizer is not None:
            follow(self.optimizer)
        return super().compute_loss(*args, training=training, **kwargs)

    def get_config(self) -> dict:
        """Returns Keras's description of the layers and, as "model_config", the configuration."""
        self._config = self._config or next(iter(carried(self.layers)), None)
        return {**super().get_config(), "model_config": self._config and self._config.to_json()}

    @classmethod
    def from_config(cls, config: Mapping, custom_objects: Mapping | None = None) -> "Network":
        """Returns a network of the same layers and configuration, with weights of its own."""
        layers = {key: value for key, value in config.items() if key != "model_config"}
        model = super().from_config(layers, custom_objects=custom_objects)
        if values := config.get("model_config"):
            model._config = ModelConfig.from_json(values, source=f"the saved model {model.name!r}")
            carry(model.layers, model._config)  # those of files from before they did
        return model


# A .h5 file has the bare name of a model's class, and looks it up among the registered names. The qualified name, which
# pickles and people see, stays.
Network.__name__ = "deeplab_tf>Network"


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
    return {layer.name: layer for layer in as_network(model).layers if layer.weights}


def _built(
    config: ModelConfig,
    shared: Mapping[str, keras.layers.Layer] | None,
    *,
    all_scales: bool = False,
    zeros: bool = False,
    upsampled: bool,
) -> Network:
    height, width = config.crop_size or (None, None)
    images = keras.Input((height, width, config.input_channels), name="images")
    rounding = {"quantized": config.quantized, "as_file": config.quantize_as_file}
    graph = Graph(shared=shared, zeros=zeros, aligned=config.align_corners, **rounding)
    outputs = build_outputs(graph, images, config)
    if upsampled:
        outputs = {name: graph.resize(maps, f"{name}/upsampled", like=images) for name, maps in outputs.items()}
    network = Network(images, outputs if all_scales else outputs[MERGED], name=config.model_variant, config=config)
    carry(network.layers, config)
    return network


def build_model(
    config: ModelConfig,
    *,
    share_with: keras.Model | None = None,
    all_scales: bool = False,
    zeros: bool = False,
    upsample_logits: bool = False,
) -> Network:
    """Returns the network: images [b, h, w, 3], float32 RGB in 0..255 -> logits [b, h', w', num_classes].

    Where config.input_channels says so, images have that many bands.
    The logits are those before the last upsampling, unless `upsample_logits`. With a crop_size the graph takes images
    of that size only (the pooling window of ASPP depends on it, as in the release); without one, any size. Layers are
    named by their TF1 scopes with "." for "/".

    Args:
      config: the options.
      share_with: a model built here whose weights this one uses too (the same network for another input size).
      all_scales: return a dictionary of the logits of each scale of the image pyramid and "merged_logits" instead.
      zeros: start all kernels at 0 instead of drawing them, which takes most of the time: for counting, or loading.
      upsample_logits: give the logits at the size of the images, [b, h, w, num_classes], bilinearly with aligned
        corners as in evaluation, so that Keras's own losses and metrics fit. The release aligns pixels and logits where
        h and w are k * stride + 1; `predict` pads to that.

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
    shared = _shared_layers(share_with, config) if share_with else None
    return _built(config, shared, all_scales=all_scales, zeros=zeros, upsampled=upsample_logits)


# What may follow a network inside another model without changing which class a pixel has: `predict` upsamples the
# logits itself.
_AFTER = (keras.layers.Softmax, keras.layers.Resizing, keras.layers.UpSampling2D, keras.layers.Identity, ResizeBilinear)
_KEEPING_ORDER = ("softmax", "linear")
# The network of each model that has its layers without being one.
_UNWRAPPED: weakref.WeakKeyDictionary[keras.Model, Network] = weakref.WeakKeyDictionary()


def _foreign(model: keras.Model) -> DeepLabError:
    return DeepLabError(
        f"model {model.name!r}: expected one made by deeplab_tf.build_model or deeplab_tf.load, or one that wraps it"
    )


def _keeps_classes(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Activation):
        return getattr(operation.activation, "__name__", "") in _KEEPING_ORDER
    return isinstance(operation, _AFTER)


def _require_alone(model: keras.Model, before: list[Any], after: list[Any]) -> None:
    """Raises DeepLabError where a model does more to pixels or classes than the network in it."""
    first = next((operation for operation in before if not isinstance(operation, keras.layers.InputLayer)), None)
    other = first or next((operation for operation in after if not _keeps_classes(operation)), None)
    if other is not None:
        raise DeepLabError(
            f"model {model.name!r}: its {type(other).__name__} {other.name!r} changes what the network in it reads or "
            "gives, and would be left out; expected the network itself, or with softmax and upsampling alone after it"
        )


def _has_own_call(model: keras.Model) -> bool:
    """Returns whether what runs is code of a class that is neither Keras's nor ours."""
    module = getattr(type(model).call, "__module__", None) or ""
    return module.partition(".")[0] not in ("keras", "deeplab_tf")


def _holds_network(model: keras.Model) -> bool:
    inner = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return bool(carried(model.layers)) or any(_holds_network(layer) for layer in inner)


def _own_call(model: keras.Model) -> DeepLabError:
    """Returns the error for a model whose class has a call of its own; it names the network in it, if there is one."""
    if not _holds_network(model):
        return _foreign(model)
    held = (name for name, value in vars(model).items() if isinstance(value, keras.Model) and _holds_network(value))
    attribute = next(held, None)
    cure = f"give that one, model.{attribute}" if attribute else "give one from deeplab_tf.build_model or load"
    return DeepLabError(
        f"model {model.name!r}: its class {type(model).__name__} has a call of its own, which may do more than the "
        f"network in it; {cure}"
    )


def _operations(model: keras.Model) -> list[Any]:
    """Returns the operations of a functional or sequential model in their order; [] of another."""
    if isinstance(model, keras.Sequential):
        return list(model.layers)
    return list(getattr(model, "operations", ()))


def _unwrapped(model: keras.Model) -> Network:
    """Returns the network that is one of the layers of a model, or whose layers the model has."""
    operations = _operations(model)
    inner = [place for place, operation in enumerate(operations) if isinstance(operation, keras.Model)]
    if len(inner) == 1:
        (place,) = inner
        network = as_network(operations[place])
        _require_alone(model, operations[:place], operations[place + 1 :])
        return network
    configs = carried(operation for operation in operations if isinstance(operation, keras.layers.Layer))
    if inner or len(configs) != 1:
        raise _foreign(model)
    (config,) = configs
    layers = {layer.name: layer for layer in model.layers}
    network = _built(config, {name: layer for name, layer in layers.items() if layer.weights}, upsampled=False)
    missing = [layer.name for layer in network.layers if layer.weights and layers.get(layer.name) is not layer]
    if missing:
        raise DeepLabError(
            f"model {model.name!r}: lacks {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''} of its "
            f"{config.model_variant} network; expected all of its layers"
        )
    network.card = carried_card(model.layers)
    names = {layer.name for layer in network.layers}
    _require_alone(model, [], [operation for operation in operations if operation.name not in names])
    return network


def as_network(model: keras.Model) -> Network:
    """Returns the network that a model is, as built, loaded, copied or cloned, or that it wraps.

    A wrapper may be a functional or sequential model of Keras that has the network for a layer, or shares its layers,
    and adds softmax and upsampling at most: what runs is the network. One whose class has a call of its own is refused.

    Raises:
      DeepLabError: the model was not made here, or does more to pixels or classes than its network.
    """
    if _has_own_call(model):
        raise _own_call(model)
    if isinstance(model, Network):
        _ = model.config
        return model
    if model not in _UNWRAPPED:
        _UNWRAPPED[model] = _unwrapped(model)
    return _UNWRAPPED[model]


def config_of(model: keras.Model) -> ModelConfig:
    """Returns the configuration that `build_model` made `model`, or the network in it, from; DeepLabError: none did."""
    return as_network(model).config
