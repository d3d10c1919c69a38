"""Which backend runs the network when images are predicted: TensorFlow, or LiteRT where its conversion pays."""

import importlib.util
import math
import threading

import keras
import tensorflow as tf

from deeplab_tf.config.inference import LONGEST_SIDE
from deeplab_tf.errors import OptionError
from deeplab_tf.inference.litert import LiteBackend, LiteNetwork
from deeplab_tf.inference.predictor import Predictor, predictor_of
from deeplab_tf.inference.weights_seen import WeightsSeen
from deeplab_tf.network.cost import model_cost
from deeplab_tf.network.model import as_network, config_of
from deeplab_tf.network.sizes import needs_fixed_size

# Seconds, measured as processor time with TensorFlow 2.21 and LiteRT on x86-64 for MobileNetV2 of both widths,
# Xception-41 and -65, ResNet-50 and -101 beta (0.7 to 46 million parameters): what a conversion takes, and what LiteRT
# is faster by, which is its depthwise convolutions; in plain ones TensorFlow is a little ahead. An idle machine then
# gave 29, 20 and 44 images of 513 x 513 for MobileNetV2 of width 0.5 and 1 and Xception-65, where these say 26, 20, 41.
_CONVERTING_A_LAYER, _CONVERTING_A_PARAMETER = 5e-3, 0.35e-6
_SAVED_BY_A_DEPTHWISE_MULTIPLY_ADD, _LOST_BY_ANOTHER = 0.6e-9, 1.5e-12
_TYPICAL_SIZE = (LONGEST_SIDE, LONGEST_SIDE)


def litert_is_here() -> bool:
    """Whether the package of LiteRT (the extra `litert`) is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def _on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


def _require_litert():
    if not litert_is_here():
        raise OptionError("--runtime=tflite needs LiteRT: pip install 'deeplab_tf[litert]', or choose --runtime=tf")


def pays_from(layers: int, parameters: int, multiply_adds: float, depthwise: float) -> float:
    """Returns how many pixels LiteRT must see before it has saved the time of the conversion.

    Args:
      layers: their number, which the time of the conversion grows with.
      parameters: their number, which it grows with too.
      multiply_adds: of the convolutions for each pixel of an image, depthwise ones included.
      depthwise: of the depthwise convolutions alone.

    Returns:
      A number of pixels; infinity where LiteRT is not faster than TensorFlow.
    """
    spent = layers * _CONVERTING_A_LAYER + parameters * _CONVERTING_A_PARAMETER
    saved = depthwise * _SAVED_BY_A_DEPTHWISE_MULTIPLY_ADD - (multiply_adds - depthwise) * _LOST_BY_ANOTHER
    return spent / saved if saved > 0 else math.inf


def _pays_from(model: keras.Model) -> float:
    """`pays_from` of a model; infinity where nothing would be run in LiteRT without being asked for by name."""
    config = config_of(model)
    if needs_fixed_size(config) or config.image_pyramid:
        return math.inf
    size = config.crop_size or _TYPICAL_SIZE
    pixels = math.prod(size)
    whole = model_cost(model, size=size)
    depthwise = model_cost(model, size=size, depthwise=True)
    assert whole.multiply_adds is not None and depthwise.multiply_adds is not None
    counts = (whole.multiply_adds / pixels, depthwise.multiply_adds / pixels)
    return pays_from(len(model.layers), whole.parameters, *counts)


class _LiteUse:
    """What `runtime_predictor` remembers of a model: its weights, how many pixels they were used for, LiteRT's copy."""

    def __init__(self, model: keras.Model):
        self.turn = threading.RLock()
        self.pays_from = _pays_from(model)
        self.pixels = 0.0
        self._weights: WeightsSeen | None = None
        self._network: LiteNetwork | None = None
        self._predictors: dict[bool, Predictor] = {}

    @property
    def converted(self) -> bool:
        """Whether LiteRT has been chosen for the weights as they are."""
        return self._network is not None

    def follow(self, model: keras.Model):
        """Begins anew where the model's weights have changed."""
        if self._weights is None:
            self._weights = WeightsSeen(model)
        elif self._weights.changed(model):
            self.pixels = 0.0
            self._network = None
            self._predictors = {}

    def predictor(self, model: keras.Model, *, everything: bool) -> Predictor:
        """Returns the predictor of the model in LiteRT; not `everything`: what needs conversions runs in TensorFlow."""
        if self._network is None:
            self._network = LiteNetwork(model)
        if everything not in self._predictors:
            backend = LiteBackend(self._network, None if everything else predictor_of(model).backend)
            self._predictors[everything] = Predictor(config_of(model), backend)
        return self._predictors[everything]


def runtime_predictor(model: keras.Model, runtime: str = "auto", *, pixels: float = 0) -> Predictor:
    """Returns the predictor of a model for the next `pixels` pixels.

    Args:
      model: from `build_model` or `load`.
      runtime: tf; tflite: LiteRT, for all sizes; auto: LiteRT on a processor where it is installed and the number
        of pixels since the weights last changed is worth the conversion by `pays_from`, for what it can be set to
        without another one; TensorFlow for the rest.
      pixels: how many are to come, of all images together.

    Raises:
      DeepLabError: tflite is asked for and LiteRT is not installed, or the network cannot be converted.
    """
    if runtime == "tflite":
        _require_litert()
    if runtime == "tf" or (runtime == "auto" and not (litert_is_here() and _on_cpu())):
        return predictor_of(model)
    use = as_network(model).derived.get(_LiteUse, lambda: _LiteUse(model))
    with use.turn:
        if runtime == "auto" and not use.converted and use.pays_from == math.inf:
            return predictor_of(model)
        use.follow(model)
        use.pixels += pixels
        if runtime == "auto" and not use.converted and use.pixels <= use.pays_from:
            return predictor_of(model)
        return use.predictor(model, everything=runtime == "tflite")
