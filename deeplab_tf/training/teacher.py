"""The teacher of a run: the network of a checkpoint, opened for its crops, and known again when the run goes on."""

import keras

from deeplab_tf.config import Experiment
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.loading import open_model, weights_path
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.sources import open_source


def teacher_digest(teacher: str) -> str:
    """Returns a digest of a teacher's weights, which have to stay the same while a run goes on."""
    with open_source(weights_path(teacher)) as source:
        return source.sha256[:32]


def opened_teacher(asked: Experiment, card: ModelCard) -> keras.Model | None:
    """Returns the network of `run.teacher` for the crops of a run; None where there is none.

    Args:
      asked: the run.
      card: of the network that learns.

    Raises:
      DeepLabError: there is no such network, or the classes that it tells apart are called otherwise.
    """
    path = asked.run.teacher
    if not path:
        return None
    loaded = open_model(path, {"crop_size": asked.model.crop_size})
    loaded.card.require_classes("learn from", path)
    theirs, ours = loaded.card.class_names, card.class_names[: asked.train.old_classes or None]
    if len(theirs) == len(ours):  # where it is not, the step says so
        for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            if one.casefold() != other.casefold():
                raise DeepLabError(
                    f"--teacher={path}: its class {number} is {one!r}, that of the data {other!r}; expected a network "
                    "of the same classes in the same order"
                )
    return loaded.model
