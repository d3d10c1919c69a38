"""Deferred, by which Keras finds our classes in its files without their being imported, and `register_with_keras`."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_tf.registration.backend import require_tensorflow

PACKAGE = "deeplab_tf"  # of the names that Keras knows our classes by: deeplab_tf>Network
# The module of every class that Keras may find in a file. The decorators in these modules register the class itself.
CLASSES: Mapping[str, str] = {
    "Network": "network.model",
    "ScalePixels": "network.layers",
    "UnitPixels": "network.layers",
    "SubtractMean": "network.layers",
    "HardSwish": "network.layers",
    "QSigmoid": "network.layers",
    "Bound": "network.layers",
    "FusedBatchNorm": "network.layers",
    "Dropout": "network.layers",
    "DropPath": "network.layers",
    "ResizeBilinear": "network.layers",
    "StandardizedConv2D": "network.normalisation",
    "GroupNormalization": "network.normalisation",
    "FakeQuantize": "network.fake_quantization",
    "InputLevels": "network.lite_arithmetic",
    "HeldConv2D": "network.fake_quantization",
    "HeldDepthwiseConv2D": "network.fake_quantization",
    "LiteRound": "network.lite_arithmetic",
    "LiteRequantize": "network.lite_arithmetic",
    "LiteAdd": "network.lite_arithmetic",
    "LiteConcatenate": "network.lite_arithmetic",
    "LiteConv2D": "network.lite_arithmetic",
    "LiteDepthwiseConv2D": "network.lite_arithmetic",
    "SegmentationLoss": "training.keras_fit",
    "MeanIoU": "training.keras_fit",
    "PolyDecay": "training.keras_fit",
}


class Deferred:
    """Stands for a class of ours in Keras's registry until a file names it; then the class itself is imported.

    Args:
      name: of the class, one of CLASSES.
    """

    def __init__(self, name: str):
        self.name = name

    def from_config(self, config: Mapping[str, Any]) -> Any:
        """Returns what the class itself makes of its saved description; DeepLabError where Keras lacks TensorFlow."""
        require_tensorflow()
        module = importlib.import_module(f"{PACKAGE}.{CLASSES[self.name]}")
        return getattr(module, self.name).from_config(config)


def _register(keras: types.ModuleType) -> None:
    registry = keras.saving.get_custom_objects()
    for name in CLASSES:
        registry.setdefault(f"{PACKAGE}>{name}", Deferred(name))


class _KerasFinder(importlib.abc.MetaPathFinder):
    """Finds Keras as the other finders do, and has our classes registered when it has been imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec of Keras itself; None for any other module."""
        if fullname != "keras":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _then_register(spec.loader.exec_module)
        return spec


def _then_register(execute: Any) -> Any:
    def exec_module(module: types.ModuleType) -> None:
        execute(module)
        _register(module)

    return exec_module


def register_with_keras() -> None:
    """Has Keras find our classes in saved models: now where it is imported already, else as soon as it is.

    Keras looks a class up by the name that a decorator registers it under, and imports only its own packages by the
    module that a file names (keras/src/saving/serialization_lib.py, _retrieve_class_or_fn). Neither Keras nor
    TensorFlow is imported here.
    """
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "saving"):
        _register(keras)
    elif not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())
