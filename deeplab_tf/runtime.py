"""Which engine runs the network when images are predicted: TensorFlow, or LiteRT with XNNPACK, which is faster on CPUs.

LiteRT runs files for images of one size. The network is converted once, small; what depends on the size (the window of
the pooling over the whole image, the targets of resizes) is then set for each size in the file itself, so that a new
size costs a fraction of a second and not a conversion.
"""

import collections
import contextlib
import dataclasses
import importlib.util
import threading
import weakref
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import tflite
from deeplab_tf.artefacts import as_function
from deeplab_tf.config import ExportConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference_graph import Segmentation, build_graph_def, read_weights
from deeplab_tf.layers import scale_dimension
from deeplab_tf.predictor import Predictor, needs_fixed_size, predictor_of
from deeplab_tf.upsampling import upsampled_classes

_TEMPLATE_CELLS = 4  # the template is so many output strides wide, plus one pixel
_MOST_KEPT, _KEPT_BYTES = 16, 3 << 28  # files kept open: each has its own packed weights and its maps
_PAYS_FROM = 6_500_000  # pixels: after about 25 images of 513 x 513 a conversion has paid for itself
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
    """A .tflite of the network, ending in logits, that is set to the size of images without another conversion."""

    def __init__(self, content: bytes, stride: int):
        from tensorflow.lite.python import schema_py_generated as schema

        self._schema, self._stride, self._bytes = schema, stride, len(content)
        self._model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
        (self._graph,) = self._model.subgraphs
        self._old = self._sides(self._graph.inputs[0])
        changes = [self._change(operation) for operation in self._graph.operators]
        self._changes = [change for change in changes if change]
        activations = [tensor for tensor in self._graph.tensors if self._model.buffers[tensor.buffer].data is None]
        maps = [tensor for tensor in activations if tuple(tensor.shape[1:3]) != (1, 1)]
        self._maps = [(tensor, self._scaling(tuple(map(int, tensor.shape[1:3])))) for tensor in maps]

    def _sides(self, tensor: int) -> tuple[int, int]:
        return tuple(map(int, self._graph.tensors[tensor].shape[1:3]))

    def _change(self, operation) -> Callable[[tuple[int, int]], None] | None:
        """Returns what sets an operation for images of a size, or None where it suits any."""
        kinds = self._schema.BuiltinOperator
        kind, options = self._model.operatorCodes[operation.opcodeIndex].builtinCode, operation.builtinOptions
        if kind == kinds.RESIZE_BILINEAR:
            scaled = self._scaling(self._sides(operation.outputs[0]))
            target = self._model.buffers[self._graph.tensors[operation.inputs[1]].buffer]

            def resize(size):
                target.data = np.frombuffer(np.array(scaled(size), "<i4").tobytes(), np.uint8)

            return resize
        if kind == kinds.AVERAGE_POOL_2D:
            window = self._sides(operation.inputs[0])
            if (options.filterHeight, options.filterWidth) != window:
                return None
            scaled = self._scaling(window)

            def pool(size):
                options.filterHeight, options.filterWidth = scaled(size)

            return pool
        if kind not in {getattr(kinds, name) for name in _OF_ANY_SIZE}:
            raise _NotScalable
        return None

    def _scaling(self, sides: tuple[int, int]) -> Callable[[tuple[int, int]], list[int]]:
        """Returns the function from the size of images to that of a map which has `sides` in the template."""
        strides = [(old - 1) // max(side - 1, 1) for old, side in zip(self._old, sides, strict=True)]
        if any((side - 1) * stride + 1 != old for old, side, stride in zip(self._old, sides, strides, strict=True)):
            raise _NotScalable
        return lambda size: [(new - 1) // stride + 1 for new, stride in zip(size, strides, strict=True)]

    def suits(self, size: tuple[int, int]) -> bool:
        """Whether images of this size have maps like the template's: of odd sides throughout."""
        return all(side > self._stride and (side - 1) % self._stride == 0 for side in size)

    def for_size(self, size: tuple[int, int]) -> bytes:
        """Returns the file for images [1, *size, 3]."""
        import flatbuffers

        for change in self._changes:
            change(size)
        for tensor, scaled in self._maps:
            tensor.shape = np.array([1, *scaled(size), tensor.shape[3]], np.int32)
        builder = flatbuffers.Builder(self._bytes + 4096)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


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
        self._open: collections.OrderedDict[tuple, tflite.LiteModel] = collections.OrderedDict()
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

    def _opened(self, key: tuple) -> tflite.LiteModel | None:
        if key not in self._open:
            content = self._file(*key)
            if content is None:
                return None
            self._open[key] = tflite.LiteModel(content)
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
        return tflite.convert(as_function(graph, _LOGITS.outputs).get_concrete_function())

    def _upsampled(self, logits, size: tuple[int, int]) -> np.ndarray:
        return upsampled_classes(np.asarray(logits), size)


# ---- the choice


@dataclasses.dataclass
class _Frozen:
    """What is known of a model: its weights' mark, how many pixels they have been used for, and the LiteRT of them."""

    mark: tuple[int, ...] = ()
    pixels: float = 0
    predictor: LitePredictor | None = None


_FROZEN: "weakref.WeakKeyDictionary[keras.Model, _Frozen]" = weakref.WeakKeyDictionary()


def _mark(model: keras.Model) -> tuple[int, ...]:
    """A number for each weight that changes when the weight does, quickly computed."""
    return tuple(int(np.asarray(weight).view(np.uint32).sum(dtype=np.uint64)) for weight in model.weights)


def runtime_predictor(model: keras.Model, runtime: str = "auto", *, pixels: float = 0) -> Predictor:
    """Returns the predictor of a model for the next so many `pixels`.

    Args:
      model: from `build_model` or `load`.
      runtime: tf; tflite: LiteRT, for whatever sizes; auto: LiteRT on a processor where it is installed and the number
        of pixels since the weights last changed is worth the conversion (about 25 images of 513 x 513), for what it
        can be set to without another one; TensorFlow for the rest.
      pixels: how many are to come, of all images together.

    Raises:
      DeepLabError: tflite is asked for and LiteRT is not installed, or the network cannot be converted.
    """
    if runtime == "tflite":
        _require_litert()
    if runtime == "tf" or (runtime == "auto" and not (litert_is_here() and _on_cpu())):
        return predictor_of(model)
    state, mark = _FROZEN.setdefault(model, _Frozen()), _mark(model)
    if mark != state.mark:
        state.mark, state.pixels, state.predictor = mark, 0, None
    state.pixels += pixels
    if runtime == "auto" and state.predictor is None and state.pixels < _PAYS_FROM:
        return predictor_of(model)
    if state.predictor is None:
        state.predictor = LitePredictor(model)
    state.predictor.everything = runtime == "tflite"
    return state.predictor
