"""The teacher of a run: the network of a checkpoint, opened for its crops, and known again when the run goes on."""

import contextlib
from collections.abc import Iterator

import keras

from deeplab_tf.catalog.image_facts import ImageFacts, require_same_bands
from deeplab_tf.config import Experiment
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.loading import open_model, weights_path
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.sources import open_source


@contextlib.contextmanager
def _named(teacher: str) -> Iterator[None]:
    """Has errors name the flag: another may name weights, too."""
    try:
        yield
    except DeepLabError as error:
        raise DeepLabError(f"--teacher={teacher}: {str(error).removeprefix(f'{teacher}: ')}") from None


def teacher_digest(teacher: str) -> str:
    """Returns a digest of a teacher's weights, which have to stay the same while a run goes on."""
    with _named(teacher), open_source(weights_path(teacher)) as source:
        return source.sha256[:32]


def opened_teacher(asked: Experiment, card: ModelCard) -> keras.Model | None:
    """Returns the network of `run.teacher` for the crops of a run; None where there is none.

    Args:
      asked: the run.
      card: of the network that learns.

    Raises:
      DeepLabError: there is no such network, it does not fit, or nothing would be learned from it.
    """
    path = asked.run.teacher
    if not path:
        return None
    if not asked.train.distillation_weight:
        raise DeepLabError(
            f"--distillation_weight=0: nothing is learned from --teacher={path} then; expected a number above 0, or no "
            "teacher"
        )
    with _named(path):
        loaded = open_model(path, {"crop_size": asked.model.crop_size})
        loaded.card.require_classes("learn from")
        _require_fit(loaded.card, card, asked.train.old_classes or card.config.num_classes)
    return loaded.model


def _require_fit(theirs: ModelCard, ours: ModelCard, classes: int) -> None:
    """Raises DeepLabError where a teacher has not the first `classes` classes, or reads other photographs."""
    if theirs.config.num_classes != classes:
        raise DeepLabError(f"has {theirs.config.num_classes} classes; expected {classes}, as those that are learned")
    for number, (one, other) in enumerate(zip(theirs.class_names, ours.class_names, strict=False)):
        if one.casefold() != other.casefold():
            raise DeepLabError(
                f"its class {number} is {one!r}, that of the data {other!r}; expected a network of the same classes in "
                "the same order"
            )
    require_same_bands(ours.image, theirs.image, name="the data set", expected_name="the teacher")
    theirs_whole, ours_whole = (_values(image) for image in (theirs.image, ours.image))
    if theirs_whole != ours_whole:
        raise DeepLabError(
            f"reads values of {theirs_whole}, the data set has {ours_whole}; expected a network of the same value range"
        )


def _values(image: ImageFacts | None) -> str:
    """Returns the range of a photograph's stored values, of all bands in one where they agree."""
    ranges = image.range if image else ((0.0, 255.0),)
    return ", ".join(dict.fromkeys(f"{low:g} to {high:g}" for low, high in ranges))
