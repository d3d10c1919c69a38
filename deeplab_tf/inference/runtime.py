"""Which backend runs the network when images are predicted: the one that is asked for, or the fastest here."""

import threading

import keras
import tensorflow as tf

from deeplab_tf.inference.candidates import FROZEN, Candidates, Surroundings
from deeplab_tf.inference.exported import require_runtime
from deeplab_tf.inference.exported_predictor import ExportedPredictor
from deeplab_tf.inference.frozen import FrozenBackend
from deeplab_tf.inference.libraries import LIBRARIES
from deeplab_tf.inference.litert import LiteBackend, LiteFiles, LiteNetwork
from deeplab_tf.inference.measured import MeasuredBackend
from deeplab_tf.inference.predictor import Predictor, predictor_of
from deeplab_tf.inference.processor import processor
from deeplab_tf.inference.runtime_record import KeptConversions, RuntimeRecord, cache, versions
from deeplab_tf.inference.weights_seen import WeightsSeen
from deeplab_tf.network.sizes import needs_fixed_size
from deeplab_tf.network.wrapped import as_network, config_of

_QUIETLY = Surroundings()


def _on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


def _network_facts(model: keras.Model) -> dict[str, object]:
    """Returns what tells networks apart that take different times: not the weights, nor the size of the images."""
    config = {name: value for name, value in config_of(model).to_json().items() if name != "crop_size"}
    return {"config": config, "layers": len(model.layers), "parameters": model.count_params()}


class _Use:
    """What `runtime_predictor` remembers of a model while its weights stay the same."""

    def __init__(self, model: keras.Model):
        self.turn = threading.RLock()
        self._facts = {"processor": processor(), "versions": versions(), "network": _network_facts(model)}
        folder = cache()
        self._record = RuntimeRecord(folder and folder / "runtimes.json")
        self._kept = KeptConversions(folder / "converted") if folder else None
        self._weights: WeightsSeen | None = None
        self._begin(model)

    def _begin(self, model: keras.Model):
        self._files = LiteFiles(model, self._kept)
        self._forced: dict[str, Predictor] = {}
        self._auto: Predictor | None = None

    def follow(self, model: keras.Model):
        """Begins anew where the model's weights have changed."""
        if self._weights is None:
            self._weights = WeightsSeen(model)
        elif self._weights.changed(model):
            self._begin(model)

    def forced(self, model: keras.Model, runtime: str) -> Predictor:
        """Returns the predictor of the frozen graph or of a library, which runs images of all sizes."""
        if runtime == FROZEN and runtime not in self._forced:
            self._forced[runtime] = Predictor(config_of(model), FrozenBackend(model))
        elif runtime not in self._forced:
            network = LiteNetwork(self._files, LIBRARIES[runtime])
            self._forced[runtime] = Predictor(config_of(model), LiteBackend(network, None))
        return self._forced[runtime]

    def auto(self, model: keras.Model, pixels: float, surroundings: Surroundings) -> Predictor:
        """Returns the predictor of the fastest, to which `pixels` more are announced."""
        if self._auto is None:
            libraries = {name: library for name, library in LIBRARIES.items() if not library.missing}
            candidates = Candidates(predictor_of(model).backend, libraries, self._files, FrozenBackend(model))
            self._auto = Predictor(
                config_of(model), MeasuredBackend(candidates, self._record, self._facts, surroundings)
            )
        backend = self._auto.backend
        assert isinstance(backend, MeasuredBackend)
        backend.surroundings = surroundings
        backend.announce(pixels)
        return self._auto


def runtime_predictor(
    model: keras.Model | Predictor, runtime: str = "auto", *, pixels: float = 0, surroundings: Surroundings = _QUIETLY
) -> Predictor:
    """Returns the predictor of a model for the next `pixels` pixels.

    Args:
      model: from `build_model` or `load`; an exported file, which is its own predictor, by `exported.open_export`.
      runtime: tf; tf_frozen (TensorFlow with constant weights and folded batch norms), tflite (LiteRT), onnx (ONNX
        Runtime) or openvino, for all sizes; auto: on a processor the fastest of those installed, as measured on this
        machine and kept in its cache, for what needs no conversion of its own;
        TensorFlow for the rest, and as long as converting or measuring would take longer than it saves.
      pixels: how many are to come, of all images together.
      surroundings: where auto tells what it has measured.

    Raises:
      DeepLabError: a library is asked for and not installed. It cannot run the network: when the first image comes.
    """
    if isinstance(model, ExportedPredictor):
        require_runtime(model, runtime)
        return model
    if runtime in LIBRARIES:
        LIBRARIES[runtime].require(runtime)
    if runtime == "tf":
        return predictor_of(model)
    if runtime == "auto" and not _on_cpu():
        return predictor_of(model)
    if isinstance(model, Predictor):
        return model
    network = as_network(model)
    config = network.config
    if runtime == "auto" and (needs_fixed_size(config) or config.image_pyramid or not config.align_corners):
        return predictor_of(model)  # every size would need a conversion of its own
    use = network.derived.get(_Use, lambda: _Use(network))
    with use.turn:
        use.follow(network)
        if runtime == "auto":
            return use.auto(network, pixels, surroundings)
        return use.forced(network, runtime)
