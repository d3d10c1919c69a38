"""DeepLab v1 to v3+ for TensorFlow 2 and Keras 3, faithful to Google's original release.

The public names are loaded when first used, so that importing the package is instant and does not import TensorFlow.
"""

import importlib
import pathlib
import sys
import types

from deeplab_tf.version import __version__

_PUBLIC = {
    "ModelConfig": "config",
    "DataConfig": "config",
    "TrainConfig": "config",
    "RunConfig": "config",
    "EvalConfig": "config",
    "ExportConfig": "config",
    "DeepLabError": "errors",
    "build_model": "model",
    "build_backbone": "backbone",
    "load": "loading",
    "load_tf1_checkpoint": "checkpoint",
    "save_tf1_checkpoint": "checkpoint",
    "predict": "predict",
    "evaluate": "evaluate",
    "export": "export",
    "make_train_step": "train_step",
    "make_dataset": "data.pipeline",
}
__all__ = ["__version__", *_PUBLIC]

# In a checkout, tools/, configs/ and checkpoints/ lie beside this folder; an installed package has them inside.
_checkout = pathlib.Path(__file__).parent.parent
if not (pathlib.Path(__file__).parent / "tools").is_dir() and (_checkout / "setup.cfg").is_file():
    __path__.append(str(_checkout))


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'deeplab_tf' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"deeplab_tf.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


class _Package(types.ModuleType):
    """Keeps `deeplab_tf.predict` the function when Python binds the module of the same name to the package."""

    def __setattr__(self, name, value):
        if isinstance(value, types.ModuleType) and _PUBLIC.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
