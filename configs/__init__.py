"""Recipes: one file per experiment, each with an EXPERIMENT; `read` finds one by its name.

A recipe with FOLLOWS_DATA = True leaves open what the data, the initial weights and the memory decide.
"""

import importlib
import pkgutil

from deeplab_tf.config import Experiment
from deeplab_tf.errors import DeepLabError, unknown_name


def names() -> list[str]:
    """Returns the names of the recipes."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def read(name: str) -> Experiment:
    """Returns the recipe called `name`.

    DeepLabError for an unknown name, and for a file that has no EXPERIMENT.
    """
    if name not in names():
        raise unknown_name("config", name, names())
    module = importlib.import_module(f"{__name__}.{name}")
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise DeepLabError(
            f"--config={name}: {module.__file__} has no EXPERIMENT; expected EXPERIMENT = Experiment(model=..., "
            "train=..., data=..., run=..., evaluation=...), in place of MODEL, TRAIN, DATA, RUN and EVAL"
        )
    return experiment


def follows_data(name: str) -> bool:
    """Returns whether the recipe called `name` leaves options open that the data decide; raises as `read` does."""
    read(name)
    module = importlib.import_module(f"{__name__}.{name}")
    return hasattr(module, "FOLLOWS_DATA") and module.FOLLOWS_DATA is True
