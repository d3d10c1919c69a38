"""The options that a run may go on with when they have changed, for --allow_change."""

import dataclasses
from collections.abc import Mapping

from deeplab_tf.config.data import DataConfig
from deeplab_tf.config.fields import Options
from deeplab_tf.config.train import TrainConfig

# Options of the run, beside those of update and data, that decide what comes of it.
IDENTITY = ("train_split", "initialize_last_layer", "unfold_batch_norm", "recalibrate_batch_norm", "deterministic")
# May change at any time: where files are, when the run ends, and what compiles its step. That the files hold the same
# records is compared.
FREE = ("dataset_dir", "classes_of", "decoded_cache", "training_number_of_steps", "jit_compile")
_FIXED = frozenset(
    {
        *("optimizer", "ema_decay", "mixed_precision"),  # the checkpoint holds their variables
        *("freeze", "freeze_steps"),  # so it does here
        *("ignore_label", "model_variant"),  # follow from the data set and the network
        *("dataset", "tfds_features"),  # the classes of the network; dataset_dir allows other records of them
    }
)


def _flags(part: type[Options]) -> dict[str, str]:
    fields = (field for field in dataclasses.fields(part) if field.name not in _FIXED)
    return {field.name: field.metadata["flag"] or field.name for field in fields}


def changeable() -> Mapping[str, str]:
    """Returns field -> flag of the options that --allow_change can name."""
    own = {name: name for name in ("recalibrate_batch_norm", "deterministic", "unlabelled_dir", "unlabelled_share")}
    return {**_flags(TrainConfig), **_flags(DataConfig), **own}


def flag_of(field: str) -> str:
    """Returns the flag of an option of a run."""
    names = {f.name: f.metadata["flag"] for part in (TrainConfig, DataConfig) for f in dataclasses.fields(part)}
    return names.get(field) or field
