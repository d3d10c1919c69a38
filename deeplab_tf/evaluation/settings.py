"""The settings by which a run scores itself, as its run.json keeps them for those who score its checkpoints later."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from deeplab_tf import files
from deeplab_tf.config import DataConfig, EvalConfig
from deeplab_tf.config.crf import CrfConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.hub import is_hub
from deeplab_tf.weights.run_directory import BEST
from deeplab_tf.weights.run_options import EVALUATION, RUN_FILE, plain, read_run
from deeplab_tf.weights.sources import index_of, strip_checkpoint_suffix

# What decides a score: of EvalConfig and of DataConfig, whose fields run.json holds among the options of the run.
_OF_SCORES = ("eval_split", "eval_crop_size", "eval_batch_size", "eval_scales", "add_flipped_images", "large_images")
_OF_SCORES += tuple(field.name for field in dataclasses.fields(CrfConfig))
_OF_DATA = ("min_resize_value", "max_resize_value", "resize_factor", "label_policy", "label_map")

_Config = TypeVar("_Config", bound=EvalConfig)


def settings_of(config: EvalConfig) -> dict[str, Any]:
    """Returns what run.json keeps of the evaluation of a run."""
    return plain({name: getattr(config, name) for name in _OF_SCORES})


def settled(config: _Config, given: Collection[str] | None) -> _Config:
    """Returns `config` with the run's own settings for everything that is not `given`.

    So the scores of a run in training and those of its checkpoints afterwards are the same numbers.

    Args:
      config: the options; the run is that of its checkpoint_dir.
      given: the names of the fields that the user gives; None: all of them.

    Raises:
      DeepLabError: the run's options are damaged.
    """
    if given is None:
        return config
    folder = _run_of(config.checkpoint_dir)
    found = read_run(folder).get(EVALUATION) if folder else None
    if not isinstance(found, dict):
        return config
    own = {name: found[name] for name in _OF_SCORES if name in found and name not in given}
    try:
        return dataclasses.replace(config, **own)
    except (DeepLabError, TypeError, AttributeError) as error:
        raise DeepLabError(f"{folder}/{RUN_FILE}: {EVALUATION}: {error}; give the flag") from None


def settled_data(data: Mapping[str, Any], checkpoint_dir: str | None) -> dict[str, Any]:
    """Returns the fields of DataConfig that the user gives, and below them those that decide a run's own scores.

    Raises:
      DeepLabError: the run's options are damaged.
    """
    folder = _run_of(checkpoint_dir)
    run = read_run(folder) if folder else {}
    # Runs of before these were kept scored their checkpoints without them.
    own = {name: run[name] for name in _OF_DATA if name in run} if EVALUATION in run else {}
    try:
        DataConfig(**own)
    except (DeepLabError, TypeError, AttributeError) as error:
        raise DeepLabError(f"{folder}/{RUN_FILE}: {error}; give the flags") from None
    return {**own, **data}


def _run_of(checkpoint_dir: str | None) -> files.AnyPath | None:
    """Returns the folder of the run that a folder is, whose best weights it holds, or that a checkpoint lies in."""
    if is_hub(checkpoint_dir or ""):
        return None
    place = files.path(checkpoint_dir or "")
    if not place.is_dir():
        prefix = strip_checkpoint_suffix(place)
        if not index_of(prefix).is_file():
            return None
        place = prefix.parent
    folders = [place, place.resolve().parent] if place.resolve().name == BEST else [place]
    return next((folder for folder in folders if checkpoint_dir and (folder / RUN_FILE).is_file()), None)
