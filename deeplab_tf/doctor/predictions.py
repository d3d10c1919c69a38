"""The doctor's look at what weights predict: where one class has nearly all pixels, which of five causes it is."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image

from deeplab_tf.doctor.checkpoint import has_fresh_head
from deeplab_tf.doctor.findings import ERROR, NOTE, Diagnosis, Finding
from deeplab_tf.doctor.run import default_split
from deeplab_tf.doctor.samples import Data, open_data
from deeplab_tf.doctor.split import Split
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.images import read_image, resize_longest
from deeplab_tf.training.batch_statistics import recalibrate_batch_norm
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.tf1 import variable_map
from deeplab_tf.zoo.lookup import CHECKPOINTS

ONE_CLASS = 0.995
_LONGEST = 513  # pixels; larger images are shrunk
_SQUARE = 257  # what batch norm's statistics are measured on
_COMMON = 0.9  # of the labels: a class that a network may well always answer
_DARK = 40  # grey level below which a picture looks black


@dataclasses.dataclass(frozen=True)
class _Seen:
    """Images uint8 [h, w, 3], and how many pixels of each value their labels and the predictions have."""

    images: Sequence[np.ndarray]
    labels: np.ndarray
    found: np.ndarray

    @property
    def share(self) -> float:
        """The share of the class that is predicted most."""
        return float(self.found.max() / self.found.sum())


def check_predictions(
    checkpoint: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    *,
    dataset: str | None = None,
    split: str | None = None,
    tfds_features: Sequence[str] | None = None,
    num_images: int = 8,
) -> Diagnosis:
    """Returns what weights predict for some images of a data set, and why where it is one class alone.

    Args:
      checkpoint: anything that `loading.open_model` opens.
      dataset_dir, dataset, tfds_features: as `dataset.check_dataset` takes them.
      split: whose images; None: the one that is usually scored, or the last.
      num_images: that many, spread over the split.

    Raises:
      DeepLabError: nothing to open, or not one image that can be read.
    """
    loaded = open_model(checkpoint)
    loaded.card.require_classes("predict with", checkpoint)
    data = open_data(dataset_dir, dataset=dataset, tfds_features=tfds_features)
    split = split or next(s for s in (default_split(data.facts.name), *reversed(data.splits)) if s in data.splits)
    if split not in data.splits:
        raise unknown_name(f"split of {dataset_dir}", split, data.splits)
    subject, classes = f"{checkpoint} on {dataset_dir} {split}", loaded.card.config.num_classes
    if classes != data.facts.num_classes:
        lines = (f"the weights have {classes} classes, {data.facts.name} has {data.facts.num_classes}",)
        return Diagnosis(subject, (Finding("another-data-set", ERROR, lines, "--dataset says what the labels mean"),))
    seen = _look(loaded, data, split, num_images)
    shares = {data.facts.class_names[i]: float(seen.found[i] / seen.found.sum()) for i in np.argsort(-seen.found)}
    findings = [_described(seen, shares)]
    if seen.share > ONE_CLASS:
        findings.append(_diagnosed(loaded, seen, data, str(checkpoint)))
    return Diagnosis(subject, tuple(findings), {"images": len(seen.images), "shares": shares})


def _look(loaded: Loaded, data: Data, split: str, num_images: int) -> _Seen:
    images, tally, found = [], Split(), np.zeros(loaded.card.config.num_classes, np.int64)
    step = max(1, data.splits[split] // num_images)
    for sample in itertools.islice(data.samples(split), 0, step * num_images, step):
        try:
            image = read_image(sample.image or b"", name=sample.place)
        except DeepLabError:
            continue  # check_dataset tells of it
        image = resize_longest(image, _LONGEST) if max(image.shape) > _LONGEST else image
        images.append(image)
        found += _predicted(loaded, image)
        tally.add(sample, data.facts, stored=data.stored)
    if not images:
        raise DeepLabError(f"{split}: not one of the images can be read; --dataset_dir alone says what is wrong")
    return _Seen(images, tally.counts, found)


def _predicted(loaded: Loaded, image: np.ndarray) -> np.ndarray:
    labels = predictor_of(loaded.model).labels(image[None])
    return np.bincount(labels.ravel(), minlength=loaded.card.config.num_classes)


def _described(seen: _Seen, shares: dict[str, float]) -> Finding:
    shown = ", ".join(f"{name} {share:.1%}" for name, share in itertools.islice(shares.items(), 5) if share)
    line = f"{len(seen.images)} images: {shown}"
    highest = int(np.flatnonzero(seen.found).max())
    dark = highest < _DARK and seen.share <= ONE_CLASS
    more = (f"raw PNGs of them look black, since grey levels go to {highest} only: look at the coloured ones",)
    return Finding("predictions", NOTE, (line, *(more if dark else ())))


# ---- one class alone


def _diagnosed(loaded: Loaded, seen: _Seen, data: Data, path: str) -> Finding:
    """Returns the finding of one class alone, with the verdict on each cause."""
    top = int(seen.found.argmax())
    causes = list(_causes(loaded, seen, data, top, path))
    guilty = [cure for holds, _, cure in causes if holds]
    lines = [f"{data.facts.class_names[top]} has {seen.share:.2%} of all pixels of {len(seen.images)} images"]
    lines += [f"[{'x' if holds else ' '}] {words}" for holds, words, _ in causes]
    cure = (
        "; ".join(guilty) or "none of the usual causes: look at the data (--dataset_dir) and the log (--train_logdir)"
    )
    return Finding("one-class-predictions", ERROR, tuple(lines), cure)


def _causes(loaded: Loaded, seen: _Seen, data: Data, top: int, path: str) -> Iterator[tuple[bool, str, str]]:
    """Yields (whether it holds, what was tested, cure) of the five usual causes."""
    values = set(map(int, np.flatnonzero(seen.labels)))
    binary = 255 in values and values <= {0, 255}
    found = f"values {sorted(values)[:6]}" if values else "no labels"
    yield binary, f"labels are masks of 0 and 255: {found}", "build the records with --label_map=255:1, train anew"

    counted = seen.labels.copy()
    counted[data.facts.ignore_label] = 0
    share = counted[top] / max(1, counted.sum())
    words = f"the class has nearly all labelled pixels: {share:.1%} here"
    yield share > _COMMON, words, "--label_weights as --dataset_dir prints them, --top_k_percent_pixels or --loss=focal"

    several = int(np.count_nonzero(seen.found > seen.found.sum() * (1 - ONE_CLASS) / len(seen.found)))
    words = f"the picture is right and only looks black: {several} classes have more than traces of the pixels"
    yield several > 1, words, "look at the coloured pictures of vis, not at raw indices"

    weights = {name: np.asarray(variable) for name, variable in variable_map(loaded.model).items()}
    fresh = has_fresh_head(weights)
    began = loaded.card.source_checkpoint or (path if path in CHECKPOINTS else "no weights that it names")
    words = (
        f"the weights were not loaded or not trained: logits {'as drawn' if fresh else 'trained'}, begun from {began}"
    )
    yield fresh, words, "check --tf_initial_checkpoint and the step of the checkpoint"

    before, after = seen.share, _with_batch_statistics(loaded, seen)
    words = f"batch norm's statistics are wrong: {before:.1%} becomes {after:.1%} with those of these images"
    yield (
        after < ONE_CLASS - 0.05,
        words,
        (
            "--recalibrate_batch_norm=40 measures them anew; train with a batch of 12 or more, or "
            "--fine_tune_batch_norm=false"
        ),
    )


def _with_batch_statistics(loaded: Loaded, seen: _Seen) -> float:
    """Returns the largest class's share once batch norm has the statistics of the images. Changes the model."""
    squares = [np.asarray(PIL.Image.fromarray(image).resize((_SQUARE, _SQUARE))) for image in seen.images]
    recalibrate_batch_norm(loaded.model, [np.stack(squares).astype(np.float32)])
    found = sum(_predicted(loaded, image) for image in seen.images)
    return float(found.max() / found.sum())
