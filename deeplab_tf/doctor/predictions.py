"""The check of what weights predict: if one class has nearly all pixels, which of five causes it has."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image

from deeplab_tf.catalog.image_facts import RGB, require_same_bands
from deeplab_tf.config.inference import LONGEST_SIDE
from deeplab_tf.data.masks import LabelRules
from deeplab_tf.data.packing import PackingRules
from deeplab_tf.data.photographs import PhotographRules
from deeplab_tf.doctor.checkpoint import has_fresh_head
from deeplab_tf.doctor.findings import ERROR, NOTE, Diagnosis, Finding
from deeplab_tf.doctor.run import default_split
from deeplab_tf.doctor.samples import DatasetOnDisk, UnusableData, open_data
from deeplab_tf.doctor.split import SplitTally
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.network_pictures import Picture, read_photograph
from deeplab_tf.training.batch_statistics import recalibrate_batch_norm
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.tf1 import variable_map
from deeplab_tf.zoo.lookup import CHECKPOINTS

ONE_CLASS = 0.995
_SQUARE = 257  # side of the images on which batch norm's statistics are measured, where the network takes any size
_COMMON = 0.9  # the share of a class in the labels above which a network may learn to predict nothing else
_DARK = 40  # the grey level below which a picture looks black


@dataclasses.dataclass(frozen=True)
class _Predictions:
    """Images, and the pixels of each value in their labels and in their predictions."""

    images: Sequence[np.ndarray]  # [h, w, channels] in 0..255: uint8 for 8-bit RGB, else float32
    labels: np.ndarray  # int64 [256]
    predicted: np.ndarray  # int64 [classes]

    @property
    def share(self) -> float:
        """The share of the class that is predicted most."""
        return float(self.predicted.max() / self.predicted.sum())


def check_predictions(
    checkpoint: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    *,
    dataset: str | None = None,
    split: str | None = None,
    tfds_features: Sequence[str] | None = None,
    num_images: int = 8,
) -> Diagnosis:
    """Returns the classes that weights predict for some images of a data set, and the likely cause if it is one class.

    Args:
      checkpoint: anything that `weights.loading.open_model` opens.
      dataset_dir: folder of the data set.
      dataset: what its labels mean, as `doctor.dataset.check_dataset` takes it.
      split: the split of the images; None: the one that is usually scored, or the last.
      tfds_features: as `doctor.dataset.check_dataset` takes them.
      num_images: the number of images, spread over the split.

    Raises:
      DeepLabError: checkpoint or data set cannot be opened, or no image can be read.
    """
    loaded = open_model(checkpoint)
    loaded.card.require_classes("predict with", checkpoint)
    try:
        data = open_data(dataset_dir, dataset=dataset, tfds_features=tfds_features)
    except UnusableData as error:
        return Diagnosis(f"{checkpoint} on {dataset_dir}", (Finding(error.code, ERROR, (str(error),)),))
    split = split or next(s for s in (default_split(data.facts.name), *reversed(list(data.splits))) if s in data.splits)
    if split not in data.splits:
        raise unknown_name(f"split of {dataset_dir}", split, data.splits)
    subject = f"{checkpoint} on {dataset_dir} {split}"
    classes = loaded.card.config.num_classes
    if classes != data.facts.num_classes:
        lines = (f"the weights have {classes} classes, {data.facts.name} has {data.facts.num_classes}",)
        return Diagnosis(subject, (Finding("another-data-set", ERROR, lines, "--dataset says what the labels mean"),))
    if data.in_records:
        try:
            name = str(dataset_dir)
            require_same_bands(data.facts.image, loaded.card.image, name=name, expected_name=str(checkpoint))
        except DeepLabError as error:
            return Diagnosis(subject, (Finding("another-data-set", ERROR, (str(error),)),))
    predictions = _predict(loaded, data, split, num_images)
    counts = predictions.predicted
    shares = {data.facts.class_names[i]: float(counts[i] / counts.sum()) for i in np.argsort(-counts)}
    findings = [_describe(predictions, shares)]
    if predictions.share > ONE_CLASS:
        findings.append(_one_class(loaded, predictions, data, str(checkpoint)))
    return Diagnosis(subject, tuple(findings), {"images": len(predictions.images), "shares": shares})


def _predict(loaded: Loaded, data: DatasetOnDisk, split: str, num_images: int) -> _Predictions:
    images = []
    tally = SplitTally()
    predicted = np.zeros(loaded.card.config.num_classes, np.int64)
    step = max(1, data.splits[split] // num_images)
    facts = data.facts
    exif = "ignore" if data.in_records else data.exif
    labels = LabelRules(facts.num_classes, facts.ignore_label, facts.palette)
    rules = PackingRules(labels, PhotographRules(loaded.card.image, exif))
    for example in itertools.islice(data.examples(split), 0, step * num_images, step):
        try:
            picture = read_photograph(example.photograph(), loaded.card.image, name=example.name)
        except DeepLabError:
            continue  # check_dataset reports it
        image = _at_most(picture, LONGEST_SIDE)
        images.append(image)
        predicted += _predicted_pixels(loaded, image)
        tally.add(example, facts, rules, labelled=split not in data.unlabelled)
    if not images:
        raise DeepLabError(f"{split}: not one of the images can be read; --dataset_dir alone says what is wrong")
    return _Predictions(images, tally.counts, predicted)


def _at_most(picture: Picture, longest: int) -> np.ndarray:
    """Returns the pixels of a picture whose sides are at most `longest`."""
    height, width = picture.pixels.shape[:2]
    ratio = longest / max(height, width)
    size = (max(1, int(ratio * height)), max(1, int(ratio * width)))
    return picture.pixels if ratio >= 1 else _resized(picture.pixels, size, PIL.Image.Resampling.LANCZOS)


def _resized(image: np.ndarray, size: tuple[int, int], filter_: PIL.Image.Resampling) -> np.ndarray:
    """Returns an image [h, w, channels] of any number of channels at another size, (height, width)."""
    height, width = size
    if image.dtype == np.uint8 and image.shape[-1] == RGB:
        return np.asarray(PIL.Image.fromarray(image).resize((width, height), filter_))
    bands = [PIL.Image.fromarray(band.astype(np.float32)) for band in np.moveaxis(image, -1, 0)]
    return np.clip(np.stack([np.asarray(band.resize((width, height), filter_)) for band in bands], axis=-1), 0, 255)


def _predicted_pixels(loaded: Loaded, image: np.ndarray) -> np.ndarray:
    """Returns the pixels of each class in the prediction for an image, int64 [classes]."""
    labels = predictor_of(loaded.model).labels(image[None])
    return np.bincount(labels.ravel(), minlength=loaded.card.config.num_classes)


def _describe(predictions: _Predictions, shares: dict[str, float]) -> Finding:
    """Returns the note on the predicted classes."""
    shown = ", ".join(f"{name} {share:.1%}" for name, share in itertools.islice(shares.items(), 5) if share)
    lines = [f"{len(predictions.images)} images: {shown}"]
    highest = int(np.flatnonzero(predictions.predicted).max())
    if highest < _DARK and predictions.share <= ONE_CLASS:
        lines.append(f"raw PNGs of them look black, since grey levels go to {highest} only: look at the coloured ones")
    return Finding("predictions", NOTE, tuple(lines))


# ---- one class alone


@dataclasses.dataclass(frozen=True)
class _Cause:
    """A usual cause of one class alone: whether it holds, what was tested, and its cure."""

    holds: bool
    tested: str
    cure: str


def _one_class(loaded: Loaded, predictions: _Predictions, data: DatasetOnDisk, path: str) -> Finding:
    """Returns the finding of one class alone, with the result of the test of each cause."""
    top = int(predictions.predicted.argmax())
    causes = list(_causes(loaded, predictions, data, top, path))
    share = f"{predictions.share:.2%} of all pixels of {len(predictions.images)} images"
    lines = [f"{data.facts.class_names[top]} has {share}"]
    lines += [f"[{'x' if cause.holds else ' '}] {cause.tested}" for cause in causes]
    cure = "; ".join(cause.cure for cause in causes if cause.holds)
    cure = cure or "none of the usual causes: look at the data (--dataset_dir) and the log (--train_logdir)"
    return Finding("one-class-predictions", ERROR, tuple(lines), cure)


def _causes(loaded: Loaded, predictions: _Predictions, data: DatasetOnDisk, top: int, path: str) -> Iterator[_Cause]:
    """Yields the five usual causes of the class `top` alone. The last test changes the model."""
    values = set(map(int, np.flatnonzero(predictions.labels)))
    binary = 255 in values and values <= {0, 255}
    shown = f"values {sorted(values)[:6]}" if values else "no labels"
    cure = "build the records with --label_map=255:1, train anew"
    yield _Cause(binary, f"labels are masks of 0 and 255: {shown}", cure)

    labelled = predictions.labels.copy()
    labelled[data.facts.ignore_label] = 0
    share = labelled[top] / max(1, labelled.sum())
    tested = f"the class has nearly all labelled pixels: {share:.1%} here"
    cure = "--label_weights as --dataset_dir prints them, --top_k_percent_pixels or --loss=focal"
    yield _Cause(share > _COMMON, tested, cure)

    predicted = predictions.predicted
    several = int(np.count_nonzero(predicted > predicted.sum() * (1 - ONE_CLASS) / len(predicted)))
    tested = f"the picture is right and only looks black: {several} classes have more than traces of the pixels"
    yield _Cause(several > 1, tested, "look at the coloured pictures of vis, not at raw indices")

    weights = {name: np.asarray(variable) for name, variable in variable_map(loaded.model).items()}
    fresh = has_fresh_head(weights)
    began = loaded.card.source_checkpoint or (path if path in CHECKPOINTS else "no weights that it names")
    state = "as drawn" if fresh else "trained"
    tested = f"the weights were not loaded or not trained: logits {state}, begun from {began}"
    yield _Cause(fresh, tested, "check --tf_initial_checkpoint and the step of the checkpoint")

    before = predictions.share
    after = _share_with_batch_statistics(loaded, predictions.images)
    tested = f"batch norm's statistics are wrong: {before:.1%} becomes {after:.1%} with those of these images"
    cure = (
        "--recalibrate_batch_norm=40 measures them anew; train with a batch of 12 or more, or "
        "--fine_tune_batch_norm=false"
    )
    yield _Cause(after < ONE_CLASS - 0.05, tested, cure)


def _share_with_batch_statistics(loaded: Loaded, images: Sequence[np.ndarray]) -> float:
    """Gives the model's batch norm the statistics of the images, and returns the share of the largest class."""
    # A network with a fixed crop takes images of that size alone.
    height, width = (side or _SQUARE for side in loaded.model.input_shape[1:3])
    squares = [_resized(image, (height, width), PIL.Image.Resampling.BICUBIC) for image in images]
    recalibrate_batch_norm(loaded.model, [np.stack(squares).astype(np.float32)])
    predicted = np.sum([_predicted_pixels(loaded, image) for image in images], axis=0)
    return float(predicted.max() / predicted.sum())
