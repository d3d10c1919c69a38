"""DeepLab v1 to v3+ for TensorFlow 2 and Keras 3, faithful to Google's original release.

The public names are loaded when first used, so that importing the package is instant and does not import TensorFlow.
Keras opens files of these models in any process that has imported the package.
"""

import importlib as _importlib
import pathlib as _pathlib
import typing as _typing

from deeplab_tf.registration.deferred import register_with_keras as _register_with_keras
from deeplab_tf.version import __version__

if _typing.TYPE_CHECKING:  # What type checkers and editors read; at run time `__getattr__` loads the same names.
    from deeplab_tf.config import DataConfig as DataConfig
    from deeplab_tf.config import EvalConfig as EvalConfig
    from deeplab_tf.config import Experiment as Experiment
    from deeplab_tf.config import ExportConfig as ExportConfig
    from deeplab_tf.config import ModelConfig as ModelConfig
    from deeplab_tf.config import RunConfig as RunConfig
    from deeplab_tf.config import TrainConfig as TrainConfig
    from deeplab_tf.data.pipeline import make_dataset as make_dataset
    from deeplab_tf.errors import DeepLabError as DeepLabError
    from deeplab_tf.evaluation.evaluate import evaluate as evaluate
    from deeplab_tf.exporting.export import export as export
    from deeplab_tf.inference.predict import predict as predict
    from deeplab_tf.inference.segmenter import Segmenter as Segmenter
    from deeplab_tf.network.backbone import build_backbone as build_backbone
    from deeplab_tf.network.build import build_model as build_model
    from deeplab_tf.ops import crf as crf
    from deeplab_tf.training.keras_fit import MeanIoU as MeanIoU
    from deeplab_tf.training.keras_fit import PolyDecay as PolyDecay
    from deeplab_tf.training.keras_fit import SegmentationLoss as SegmentationLoss
    from deeplab_tf.training.step import make_train_step as make_train_step
    from deeplab_tf.weights.load import load as load
    from deeplab_tf.weights.load import load_backbone as load_backbone
    from deeplab_tf.weights.repository import push as push
    from deeplab_tf.weights.tf1 import load_tf1_checkpoint as load_tf1_checkpoint
    from deeplab_tf.weights.tf1 import save_tf1_checkpoint as save_tf1_checkpoint
    from deeplab_tf.zoo import published as published

_PUBLIC = {
    "ModelConfig": "config",
    "DataConfig": "config",
    "TrainConfig": "config",
    "RunConfig": "config",
    "EvalConfig": "config",
    "ExportConfig": "config",
    "Experiment": "config",
    "DeepLabError": "errors",
    "build_model": "network.build",
    "build_backbone": "network.backbone",
    "load": "weights.load",
    "load_backbone": "weights.load",
    "push": "weights.repository",
    "load_tf1_checkpoint": "weights.tf1",
    "save_tf1_checkpoint": "weights.tf1",
    "predict": "inference.predict",
    "evaluate": "evaluation.evaluate",
    "export": "exporting.export",
    "make_train_step": "training.step",
    "make_dataset": "data.pipeline",
    "Segmenter": "inference.segmenter",
    "SegmentationLoss": "training.keras_fit",
    "MeanIoU": "training.keras_fit",
    "PolyDecay": "training.keras_fit",
}
# Public modules, which lie in packages.
_PUBLIC_MODULES = {"crf": "ops.crf", "published": "zoo.published"}
__all__ = ["__version__", *_PUBLIC, *_PUBLIC_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]

# In a checkout, tools/, configs/ and checkpoints/ lie beside this folder; in an installed package they are inside it.
_checkout = _pathlib.Path(__file__).parent.parent
if not (_pathlib.Path(__file__).parent / "tools").is_dir() and (_checkout / "setup.cfg").is_file():
    __path__.append(str(_checkout))

_register_with_keras()


def __getattr__(name: str) -> _typing.Any:
    if name in _PUBLIC_MODULES:
        value = _importlib.import_module(f"deeplab_tf.{_PUBLIC_MODULES[name]}")
    elif name in _PUBLIC:
        value = getattr(_importlib.import_module(f"deeplab_tf.{_PUBLIC[name]}"), name)
    else:
        raise AttributeError(f"module 'deeplab_tf' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
