"""The network in LiteRT with XNNPACK, which is faster than TensorFlow on CPUs.

LiteRT runs files for images of one size. The network is converted once, small; what depends on the size is then set for
each size in the file itself, so that a new size costs a fraction of a second and not a conversion.
"""

import collections
import contextlib
import threading
import weakref

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.graph import Segmentation, as_function, build_graph_def, read_weights
from deeplab_tf.inference.predictor import Backend
from deeplab_tf.inference.tflite import convert
from deeplab_tf.inference.tflite.resizable import NotResizable, ResizableFile
from deeplab_tf.network.model import config_of
from deeplab_tf.network.sizes import at_size, needs_fixed_size
from deeplab_tf.ops.upsampling import upsampled_classes

_CONVERTED_CELLS = 4  # the network is converted for images of this many output strides, plus one pixel
_MOST_KEPT, _KEPT_BYTES = 16, 3 << 28  # files kept open: each has its own packed weights and its maps
_LOGITS = ExportConfig(format="tflite", export_upsample="none").for_path("network.tflite")


class LiteNetwork:
    """The logits of a model by LiteRT, with the weights that the model has when it is first used.

    Args:
      model: from `build_model` or `load`. The caller keeps it, for conversions that are still to come.
    """

    def __init__(self, model: keras.Model):
        self.config = config_of(model)
        self._model = weakref.ref(model)
        self._resizable: ResizableFile | None = None
        self._tried = False  # to get it
        self._open: collections.OrderedDict[ModelConfig, convert.LiteModel] = collections.OrderedDict()
        self._turn = threading.RLock()  # an open file serves one caller at a time

    @property
    def open_files(self) -> int:
        """How many files are open, one for each size that was used lately."""
        return len(self._open)

    def logits(self, images: np.ndarray, config: ModelConfig, *, convert_anew: bool) -> np.ndarray | None:
        """Returns the logits of images, as `Backend.logits`; None where that needs a conversion and none is wanted."""
        with self._turn:
            run = self._opened(config, convert_anew=convert_anew)
            return None if run is None else np.concatenate([run(image[None])[0] for image in images])

    def prepare(self) -> None:
        """Converts the network and runs it once, small, so that what libraries say on that occasion is over."""
        side = self._converted_side
        if self.resizable():
            config = at_size(self.config, (side, side))
            self.logits(np.zeros((1, side, side, config.input_channels), np.float32), config, convert_anew=False)

    @property
    def _converted_side(self) -> int:
        return _CONVERTED_CELLS * self.config.output_stride + 1

    def resizable(self) -> ResizableFile | None:
        """Returns the file that is set to sizes, converted when first asked for; None where that cannot be."""
        if not self._tried and not (needs_fixed_size(self.config) or self.config.image_pyramid):
            side = self._converted_side
            # Where the conversion fails, the converter reports its error when a size is converted.
            with contextlib.suppress(NotResizable, DeepLabError):
                content = self._converted(at_size(self.config, (side, side)))
                self._resizable = ResizableFile(content, self.config.output_stride)
        self._tried = True
        return self._resizable

    def _opened(self, config: ModelConfig, *, convert_anew: bool) -> convert.LiteModel | None:
        if config not in self._open:
            content = self._file(config, convert_anew=convert_anew)
            if content is None:
                return None
            self._open[config] = convert.LiteModel(content)
            if len(self._open) > max(2, min(_MOST_KEPT, _KEPT_BYTES // len(content))):
                self._open.popitem(last=False)
        self._open.move_to_end(config)
        return self._open[config]

    def _file(self, config: ModelConfig, *, convert_anew: bool) -> bytes | None:
        resizable = None if config.image_pyramid else self.resizable()
        if resizable and config.crop_size and resizable.suits(config.crop_size):
            return resizable.for_size(config.crop_size)
        return self._converted(config) if convert_anew else None

    def _converted(self, config: ModelConfig) -> bytes:
        model = self._model()
        if model is None:
            raise DeepLabError("the model of this predictor is gone; expected the caller to keep it")
        assert config.crop_size is not None
        segmentation = Segmentation(config, read_weights(model), _LOGITS, "tflite")
        graph = build_graph_def(segmentation, (1, *config.crop_size, config.input_channels), tf.float32)
        return convert.convert(as_function(graph, ("logits",)).get_concrete_function())


class LiteBackend:
    """Runs the network in LiteRT: a `Backend`.

    Args:
      network: what is run.
      rest: runs what LiteRT would need another conversion for: sizes that are not a multiple of the stride plus one,
        as scaled inputs have, networks for one size, image pyramids. None: that is converted too, size by size.
    """

    name = "LiteRT"
    batches = False

    def __init__(self, network: LiteNetwork, rest: Backend | None):
        self._network, self._rest = network, rest

    def logits(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> np.ndarray | tf.Tensor:
        """Returns the logits of images; see `Backend`."""
        logits = self._network.logits(np.asarray(images), config, convert_anew=self._rest is None)
        if logits is None:
            assert self._rest is not None
            return self._rest.logits(images, config)
        return logits

    def upsampled_classes(self, logits: np.ndarray | tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Returns the classes of logits at `size`; see `Backend`."""
        return upsampled_classes(np.asarray(logits), size)

    def prepare(self) -> None:
        """Converts the network where one conversion serves all sizes."""
        self._network.prepare()
