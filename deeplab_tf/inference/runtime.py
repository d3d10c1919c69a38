"""Which engine runs the network when images are predicted: TensorFlow, or LiteRT with XNNPACK, which is faster on CPUs.

LiteRT runs files for images of one size. The network is converted once, small; what depends on the size (the window of
the pooling over the whole image, the targets of resizes) is then set for each size in the file itself, so that a new
size costs a fraction of a second and not a conversion.
"""

import collections
import contextlib
import dataclasses
import importlib.util
import math
import threading
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import ExportConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.graph import Segmentation, as_function, build_graph_def, read_weights
from deeplab_tf.inference.predictor import Predictor, predictor_of
from deeplab_tf.inference.tflite import convert, file
from deeplab_tf.network.cost import model_cost
from deeplab_tf.network.model import as_network, config_of
from deeplab_tf.network.sizes import needs_fixed_size
from deeplab_tf.ops.resizing import scale_dimension
from deeplab_tf.ops.upsampling import upsampled_classes

_TEMPLATE_CELLS = 4  # the template is so many output strides wide, plus one pixel
_MOST_KEPT, _KEPT_BYTES = 16, 3 << 28  # files kept open: each has its own packed weights and its maps
# Seconds, measured as processor time with TensorFlow 2.21 and LiteRT on x86-64 for MobileNetV2 of both widths,
# Xception-41 and -65, ResNet-50 and -101 beta (0.7 to 46 million parameters): what a conversion takes, and what LiteRT
# is faster by, which is its depthwise convolutions; in plain ones TensorFlow is a little ahead. An idle machine then
# gave 29, 20 and 44 images of 513 x 513 for MobileNetV2 of width 0.5 and 1 and Xception-65, where these say 26, 20, 41.
_CONVERTING_A_LAYER, _CONVERTING_A_PARAMETER = 5e-3, 0.35e-6
_SAVED_BY_A_DEPTHWISE_MULTIPLY_ADD, _LOST_BY_ANOTHER = 0.6e-9, 1.5e-12
_TYPICAL_SIZE = (513, 513)
_OF_ANY_SIZE = (
    *("ADD", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "HARD_SWISH", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D"),
    *("MINIMUM", "MUL", "PAD", "RELU", "RELU6", "SUB"),
)
_LOGITS = ExportConfig(format="tflite", export_upsample="none").for_path("network.tflite")


class _NotScalable(Exception):
    """The file has an operation that depends on the size in a way that is not known here."""


def litert_is_here() -> bool:
    """Whether the package of LiteRT (the extra `litert`) is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def _on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


def _require_litert():
    if not litert_is_here():
        raise DeepLabError("--runtime=tflite needs LiteRT: pip install 'deeplab_tf[litert]', or choose --runtime=tf")


class _Template:
    """A .tflite of the network, ending in logits, that is set to the size of images without another conversion.

    What depends on the size are numbers in the file, of which arrays are kept that change them in place.
    """

    def __init__(self, content: bytes, stride: int):
        self._schema, self._stride, self._content = file.schema(), stride, bytearray(content)
        self._model = self._schema.Model.GetRootAs(self._content)
        self._graph = self._model.Subgraphs(0)
        self._old = tuple(map(int, self._sides(self._graph.Inputs(0))))
        changes = [self._change(self._graph.Operators(i)) for i in range(self._graph.OperatorsLength())]
        tensors = map(self._graph.Tensors, range(self._graph.TensorsLength()))
        shapes = [t.ShapeAsNumpy() for t in tensors if not self._model.Buffers(t.Buffer()).DataLength()]
        maps = [shape[1:3] for shape in shapes if len(shape) == 4 and tuple(shape[1:3]) != (1, 1)]
        # Each is a view of two numbers in the file, and the function that gives them for a size.
        self._places = [change for change in changes if change] + [(sides, self._scaling(sides)) for sides in maps]

    def _sides(self, tensor: int) -> np.ndarray:
        return self._graph.Tensors(tensor).ShapeAsNumpy()[1:3]

    def _change(self, operation) -> tuple[np.ndarray, Callable] | None:
        """Returns the numbers of an operation that depend on the size and their function, None where it has none."""
        kinds = self._schema.BuiltinOperator
        kind = self._model.OperatorCodes(operation.OpcodeIndex()).BuiltinCode()
        if kind == kinds.RESIZE_BILINEAR:
            target = self._model.Buffers(self._graph.Tensors(operation.Inputs(1)).Buffer())
            return target.DataAsNumpy().view("<i4"), self._scaling(self._sides(operation.Outputs(0)))
        if kind == kinds.AVERAGE_POOL_2D:
            window, whole = self._window(operation.BuiltinOptions()), self._sides(operation.Inputs(0))
            return (window, self._scaling(whole)) if tuple(window) == tuple(whole) else None
        if kind not in {getattr(kinds, name) for name in _OF_ANY_SIZE}:
            raise _NotScalable
        return None

    def _window(self, options) -> np.ndarray:
        """Returns a pooling's window, height and width, as the file has it: the fields 4 and 3 of Pool2DOptions."""
        height, width = (options.Pos + options.Offset(4 + 2 * field) for field in (4, 3))
        return np.ndarray((2,), "<i4", self._content, offset=height, strides=(width - height,))

    def _scaling(self, sides: np.ndarray) -> Callable[[tuple[int, int]], list[int]]:
        """Returns the function from the size of images to that of a map which has `sides` in the template."""
        sides = tuple(map(int, sides))
        strides = [(old - 1) // max(side - 1, 1) for old, side in zip(self._old, sides, strict=True)]
        if any((side - 1) * stride + 1 != old for old, side, stride in zip(self._old, sides, strides, strict=True)):
            raise _NotScalable
        return lambda size: [(new - 1) // stride + 1 for new, stride in zip(size, strides, strict=True)]

    def suits(self, size: tuple[int, int]) -> bool:
        """Whether images of this size have maps like the template's: of odd sides throughout."""
        return all(side > self._stride and (side - 1) % self._stride == 0 for side in size)

    def for_size(self, size: tuple[int, int]) -> bytes:
        """Returns the file for images [1, *size, 3]."""
        for place, scaled in self._places:
            place[:] = scaled(size)
        return bytes(self._content)


class LitePredictor(Predictor):
    """A predictor that runs the network in LiteRT, with the weights that the model has when it is first used.

    What LiteRT would need another conversion for (sizes that are no multiple of the stride plus one, as scaled inputs
    have; networks for one size; image pyramids) runs in TensorFlow, or with `everything` is converted size by size.
    """

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self.everything = False
        self._template: _Template | None = None
        self._tried = False  # to get it
        self._open: collections.OrderedDict[tuple, convert.LiteModel] = collections.OrderedDict()
        self._turn = threading.RLock()  # an open file serves one caller at a time

    def _network(self, size: tuple[int, int], scale: float = 1.0, pyramid: tuple[float, ...] | None = None):
        key = (size, scale, pyramid)
        with self._turn:
            run = self._opened(key)
        if run is None:
            return predictor_of(self._source())._network(*key)

        def logits(images):
            with self._turn:
                return np.concatenate([run(image[None])[0] for image in np.asarray(images)])

        return logits

    def _opened(self, key: tuple) -> convert.LiteModel | None:
        if key not in self._open:
            content = self._file(*key)
            if content is None:
                return None
            self._open[key] = convert.LiteModel(content)
            if len(self._open) > max(2, min(_MOST_KEPT, _KEPT_BYTES // len(content))):
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]

    def prepare(self):
        """Converts the network and runs it once, small, so that what libraries say on that occasion is over."""
        side = _TEMPLATE_CELLS * self.config.output_stride + 1
        if self._scalable():
            self._network((side, side))(np.zeros((1, side, side, 3), np.float32))

    def _scalable(self) -> _Template | None:
        """Returns the network to be set to sizes, converted when first asked for; None where that cannot be."""
        if not self._tried and not (needs_fixed_size(self.config) or self.config.image_pyramid):
            stride = self.config.output_stride
            side = _TEMPLATE_CELLS * stride + 1
            with contextlib.suppress(
                _NotScalable, DeepLabError
            ):  # asked for each size, the converter says what is amiss
                self._template = _Template(self._converted((side, side), 1.0, None), stride)
        self._tried = True
        return self._template

    def _file(self, size: tuple[int, int], scale: float, pyramid: tuple[float, ...] | None) -> bytes | None:
        """Returns the network for images of a size; None: TensorFlow is to run it."""
        template = None if pyramid else self._scalable()
        if template and template.suits(size):
            return template.for_size(size)
        return self._converted(size, scale, pyramid) if self.everything else None

    def _converted(self, size: tuple[int, int], scale: float, pyramid: tuple[float, ...] | None) -> bytes:
        pooling = self.config.image_pooling_crop_size
        config = dataclasses.replace(
            self.config,
            crop_size=size,
            image_pooling_crop_size=pooling and tuple(scale_dimension(side, scale) for side in pooling),
            image_pyramid=pyramid,
        )
        segmentation = Segmentation(config, read_weights(self._source()), _LOGITS, "tflite")
        graph = build_graph_def(segmentation, (1, *size, 3), tf.float32)
        return convert.convert(as_function(graph, _LOGITS.outputs).get_concrete_function())

    def _upsampled(self, logits: np.ndarray | tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        return upsampled_classes(np.asarray(logits), size)


# ---- the choice


def pays_from(layers: int, parameters: int, multiply_adds: float, depthwise: float) -> float:
    """Returns how many pixels LiteRT must see before it has saved what the conversion took; infinity where it is no
    faster than TensorFlow.

    Args:
      layers, parameters: of the network, which the time of its conversion grows with.
      multiply_adds: of its convolutions for each pixel of an image, those of `depthwise` ones included.
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
    pixels, whole = math.prod(size), model_cost(model, size=size)
    depthwise = model_cost(model, size=size, depthwise=True).multiply_adds
    return pays_from(len(model.layers), whole.parameters, whole.multiply_adds / pixels, depthwise / pixels)


@dataclasses.dataclass
class _Frozen:
    """What is known of a model: from how many pixels a conversion pays, its weights' mark, how many pixels they have
    been used for, and the LiteRT of them."""

    pays_from: float
    mark: tuple[int, ...] = ()
    pixels: float = 0
    predictor: LitePredictor | None = None


def _mark(model: keras.Model) -> tuple[int, ...]:
    """A number for each weight that changes when the weight does, quickly computed."""
    return tuple(int(np.asarray(weight).view(np.uint32).sum(dtype=np.uint64)) for weight in model.weights)


def runtime_predictor(model: keras.Model, runtime: str = "auto", *, pixels: float = 0) -> Predictor:
    """Returns the predictor of a model for the next so many `pixels`.

    Args:
      model: from `build_model` or `load`.
      runtime: tf; tflite: LiteRT, for whatever sizes; auto: LiteRT on a processor where it is installed and the number
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
    state = as_network(model).derived.get(_Frozen, lambda: _Frozen(_pays_from(model)))
    mark = _mark(model)
    if mark != state.mark:
        state.mark, state.pixels, state.predictor = mark, 0, None
    state.pixels += pixels
    if runtime == "auto" and state.predictor is None and state.pixels <= state.pays_from:
        return predictor_of(model)
    if state.predictor is None:
        state.predictor = LitePredictor(model)
    state.predictor.everything = runtime == "tflite"
    return state.predictor
