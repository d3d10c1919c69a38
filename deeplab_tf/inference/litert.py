"""The network as a .tflite, run by LiteRT or another library that reads one, which is faster than TensorFlow on CPUs.

Such a file is for images of one size. The network is converted once, small; what depends on the size is then set for
each size in the file itself, so that a new size costs a fraction of a second and not a conversion.
"""

import collections
import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.class_upsampling import ClassUpsampling
from deeplab_tf.inference.folded_graph import read_weights
from deeplab_tf.inference.graph import Segmentation, build_graph
from deeplab_tf.inference.libraries import LITERT, Library, Run, told
from deeplab_tf.inference.predictor import Backend
from deeplab_tf.inference.tflite import convert
from deeplab_tf.inference.tflite.resizable import NotResizable, ResizableFile
from deeplab_tf.network.sizes import at_size, needs_fixed_size
from deeplab_tf.network.wrapped import config_of

_CONVERTED_CELLS = 4  # the network is converted for images of this many output strides, plus one pixel
_MOST_KEPT, _KEPT_BYTES = 16, 3 << 28  # files kept open: each has its own packed weights and its maps
_LOGITS = ExportConfig(format="tflite", export_upsample="none").for_path("network.tflite")


class Keeper(Protocol):
    """Keeps conversions for other processes."""

    def has(self, model: keras.Model) -> bool:
        """Returns whether the conversion of a model is kept."""
        ...

    def convert(self, model: keras.Model, convert: Callable[[], bytes]) -> bytes:
        """Returns the conversion that was kept, or what `convert` returns."""
        ...


class LiteFiles:
    """The .tflite files of a model's logits, with the weights that the model has when it is first converted.

    Args:
      model: from `build_model` or `load`. The caller keeps it, for conversions that are still to come.
      keeper: of the one conversion that serves all sizes; None: it is always made.
    """

    def __init__(self, model: keras.Model, keeper: Keeper | None = None):
        self.config = config_of(model)
        self._model = weakref.ref(model)
        self._keeper = keeper
        self._resizable: ResizableFile | None = None
        self._tried = False  # to get it
        self._at_hand: bool | None = None
        self._turn = threading.RLock()

    def is_at_hand(self) -> bool:
        """Returns whether the one conversion need not be made any more."""
        with self._turn:
            if self._at_hand is None:
                self._at_hand = self._keeper is not None and self._keeper.has(self._the_model())
            return self._at_hand

    @property
    def converted_side(self) -> int:
        """Height and width of the images that the one conversion is for."""
        return _CONVERTED_CELLS * self.config.output_stride + 1

    def resizable(self) -> ResizableFile | None:
        """Returns the file that is set to sizes, converted when first asked for; None where that cannot be."""
        with self._turn:
            if not self._tried and not (needs_fixed_size(self.config) or self.config.image_pyramid):
                # Where the conversion fails, the converter reports its error when a size is converted.
                with contextlib.suppress(NotResizable, DeepLabError):
                    self._resizable = ResizableFile(self._converted_small(), self.config.output_stride)
            self._tried = self._at_hand = True
            return self._resizable

    def file(self, config: ModelConfig, *, convert_anew: bool) -> bytes | None:
        """Returns the file for images of the crop_size of `config`; None where that needs another conversion."""
        with self._turn:
            resizable = None if config.image_pyramid else self.resizable()
            if resizable and config.crop_size and resizable.suits(config.crop_size):
                return resizable.for_size(config.crop_size)
            return self._converted(config) if convert_anew else None

    def _the_model(self) -> keras.Model:
        model = self._model()
        if model is None:
            raise DeepLabError("the model of this predictor is gone; expected the caller to keep it")
        return model

    def _converted_small(self) -> bytes:
        config = at_size(self.config, (self.converted_side, self.converted_side))
        if self._keeper is None:
            return self._converted(config)
        return self._keeper.convert(self._the_model(), lambda: self._converted(config))

    def _converted(self, config: ModelConfig) -> bytes:
        assert config.crop_size is not None
        segmentation = Segmentation(config, read_weights(self._the_model()), _LOGITS, "tflite")
        graph = build_graph(segmentation, (1, *config.crop_size, config.input_channels), tf.float32)
        return convert.convert_graph(graph, ("logits",))


class LiteNetwork:
    """The logits of a model by LiteRT, or by another library.

    Args:
      model: from `build_model` or `load`, as for `LiteFiles`; or the files of one, which several libraries may share.
      library: what runs them.
    """

    def __init__(self, model: keras.Model | LiteFiles, library: Library = LITERT):
        self.files = LiteFiles(model) if isinstance(model, keras.Model) else model
        self.library = library
        self._open: collections.OrderedDict[ModelConfig, Run] = collections.OrderedDict()
        self._turn = threading.RLock()  # an open file serves one caller at a time

    @property
    def open_files(self) -> int:
        """How many files are open, one for each size that was used lately."""
        return len(self._open)

    def logits(self, images: np.ndarray, config: ModelConfig, *, convert_anew: bool) -> np.ndarray | None:
        """Returns the logits of images, as `Backend.logits`; None where that needs a conversion and none is wanted.

        Raises:
          DeepLabError: the library cannot run the network.
        """
        with self._turn:
            run = self._opened(config, convert_anew=convert_anew)
            if run is None:
                return None
            with told(self.library.name):
                return np.concatenate([run(image[None])[0] for image in images])

    def prepare(self) -> None:
        """Converts the network and runs it once, small, so that what libraries say on that occasion is over."""
        side = self.files.converted_side
        if self.files.resizable():
            config = at_size(self.files.config, (side, side))
            self.logits(np.zeros((1, side, side, config.input_channels), np.float32), config, convert_anew=False)

    def opened(self, config: ModelConfig, *, convert_anew: bool) -> Run | None:
        """Returns the open file for images of the crop_size of `config`; see `logits`."""
        with self._turn:
            return self._opened(config, convert_anew=convert_anew)

    def _opened(self, config: ModelConfig, *, convert_anew: bool) -> Run | None:
        if config not in self._open:
            content = self.files.file(config, convert_anew=convert_anew)
            if content is None:
                return None
            with told(self.library.name):
                self._open[config] = self.library.open(content)
            if len(self._open) > max(2, min(_MOST_KEPT, _KEPT_BYTES // len(content))):
                self._open.popitem(last=False)
        self._open.move_to_end(config)
        return self._open[config]


class LiteBackend:
    """Runs the network in LiteRT, or in another library: a `Backend`.

    Args:
      network: what is run.
      rest: runs what would need another conversion: sizes that are not a multiple of the stride plus one, as scaled
        inputs have, networks for one size, image pyramids. None: that is converted too, size by size.
    """

    batches = False

    def __init__(self, network: LiteNetwork, rest: Backend | None):
        self._network, self._rest = network, rest
        self._upsampling = ClassUpsampling()

    @property
    def name(self) -> str:
        """The library."""
        return self._network.library.name

    def logits(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> np.ndarray | tf.Tensor:
        """Returns the logits of images; see `Backend`."""
        logits = self._network.logits(np.asarray(images), config, convert_anew=self._rest is None)
        if logits is None:
            assert self._rest is not None
            return self._rest.logits(images, config)
        return logits

    def upsampled_classes(self, logits: np.ndarray | tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Returns the classes of logits at `size`; see `Backend`."""
        return self._upsampling(np.asarray(logits), size)

    def prepare(self) -> None:
        """Converts the network where one conversion serves all sizes."""
        self._network.prepare()
