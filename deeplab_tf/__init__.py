"""DeepLab v1 to v3+ for TensorFlow 2 and Keras 3, faithful to Google's original release.

The public names are loaded when first used, so that importing the package is instant and does not import TensorFlow.
"""

import importlib as _importlib
import pathlib as _pathlib

from deeplab_tf.version import __version__

_PUBLIC = {
    "ModelConfig": "config",
    "DataConfig": "config",
    "TrainConfig": "config",
    "RunConfig": "config",
    "EvalConfig": "config",
    "ExportConfig": "config",
    "Experiment": "config",
    "DeepLabError": "errors",
    "build_model": "network.model",
    "build_backbone": "network.backbone",
    "load": "weights.loading",
    "load_tf1_checkpoint": "weights.tf1",
    "save_tf1_checkpoint": "weights.tf1",
    "predict": "inference.predict",
    "evaluate": "evaluation.evaluate",
    "export": "exporting.export",
    "make_train_step": "training.step",
    "make_dataset": "data.pipeline",
}
# Modules that are named without their package.
_PUBLIC_MODULES = {"crf": "ops.crf", "published": "zoo.published"}
__all__ = ["__version__", *_PUBLIC, *_PUBLIC_MODULES]

# In a checkout, tools/, configs/ and checkpoints/ lie beside this folder; an installed package has them inside.
_checkout = _pathlib.Path(__file__).parent.parent
if not (_pathlib.Path(__file__).parent / "tools").is_dir() and (_checkout / "setup.cfg").is_file():
    __path__.append(str(_checkout))


def __getattr__(name: str):
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
