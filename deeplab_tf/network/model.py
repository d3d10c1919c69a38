"""Network, a Keras model that knows its configuration, and how its parts are assembled (release: model.py)."""

import threading
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


def foreign(model: keras.Model) -> DeepLabError:
    """Returns the error for a model that does not say how it was built."""
    return DeepLabError(
        f"model {model.name!r}: expected one made by deeplab_tf.build_model or deeplab_tf.load, or one that wraps it"
    )


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
            raise foreign(self)
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
            inputs = copy.resize(images, "image_pyramid", like=images, scale=scale, rounded=False)
        features, end_points = backbone(copy, inputs, scaled)
        logits = head_logits(copy, features, end_points, inputs, scaled)
        outputs[f"logits_{scale:.2f}"] = copy.resize(logits, "logits/canvas", like=images, scale=canvas)
    if len(scales) == 1:
        return {MERGED: next(iter(outputs.values()))}
    merge = keras.layers.Maximum if config.merge_method == "max" else keras.layers.Average
    return {**outputs, MERGED: graph.op(merge, MERGED, list(outputs.values()))}


def assembled(
    config: ModelConfig,
    shared: Mapping[str, keras.layers.Layer] | None,
    *,
    all_scales: bool = False,
    zeros: bool = False,
    upsampled: bool,
) -> Network:
    """Returns the network of `config`, whose layers are those of `shared` where it has them; see `build_model`."""
    height, width = config.crop_size or (None, None)
    images = keras.Input((height, width, config.input_channels), name="images")
    rounding = {"quantized": config.quantized, "as_file": config.quantize_as_file}
    graph = Graph(shared=shared, zeros=zeros, aligned=config.align_corners, **rounding)
    outputs = build_outputs(graph, images, config)
    if upsampled:
        outputs = {
            name: graph.resize(maps, f"{name}/upsampled", like=images, rounded=False) for name, maps in outputs.items()
        }
    network = Network(images, outputs if all_scales else outputs[MERGED], name=config.model_variant, config=config)
    carry(network.layers, config)
    return network
