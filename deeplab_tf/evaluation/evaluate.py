"""Scoring a model on a data set, every example once; and the checkpoints of a run, one after the other."""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import EvalConfig
from deeplab_tf.data.examples import named_errors
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.following import Opened, data_for, follow
from deeplab_tf.evaluation.summaries import Summaries
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tiles import segment_batch
from deeplab_tf.network.model import config_of
from deeplab_tf.ops.metrics import confusion_matrix, iou_per_class, mean_iou, pixel_accuracy

METRICS_FILE = "metrics.jsonl"
_STEP = re.compile(r"-\d+$")


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """One picture as it was scored, at its own size: image uint8 [h, w, 3], label and prediction integers [h, w]."""

    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    name: str = ""


def _examples(batch: Mapping, labels: np.ndarray, found: np.ndarray) -> Iterator[ScoredImage]:
    """Yields the pictures of a batch without its padding."""
    images = np.asarray(batch["original_image"] if "original_image" in batch else batch["image"])
    images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    sizes = np.asarray(batch["size"]) if "size" in batch else [labels.shape[1:]] * len(labels)
    names = np.asarray(batch["image_name"]) if "image_name" in batch else [b""] * len(labels)
    for image, label, prediction, (height, width), name in zip(images, labels, found, sizes, names, strict=True):
        parts = (values[:height, :width] for values in (image, label, prediction))
        yield ScoredImage(*parts, name.decode(errors="replace"))


def evaluate(
    model: keras.Model,
    dataset: Iterable[Mapping[str, object]],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    ignore_label: int = 255,
    large_images: str = "pad",
    crf: Mapping[str, float] | None = None,
    watch: Callable[[ScoredImage], None] | None = None,
) -> dict:
    """Returns the scores of `model` over all of `dataset`, in the release's convention (its eval.py).

    Args:
      model: from `build_model` or `load`.
      dataset: yields {"image": [b, h, w, 3] in 0..255, "label": [b, h, w] or [b, h, w, 1] integers}; batches may differ
        in size, the last may be smaller. With "size" [b, 2], each picture's own height and width, the score does not
        depend on how pictures of several sizes are put together; `make_dataset` gives it.
      scales, flip: as `predict.predict`. Unlike the release, `flip` also counts where the only scale is 1.
      ignore_label: pixels with this label count nowhere.
      large_images: pictures larger than the model's crop_size are run whole (pad) or in tiles of that size (tile).
      crf: refine each picture by `crf.densecrf` with these arguments; None: do not.
      watch: called with each picture once it is scored.

    Returns:
      "miou" (mean over the classes with a non-empty union), "iou_per_class" (float64 [classes], NaN for a class in
      neither labels nor predictions), "pixel_accuracy", "confusion_matrix" (int64, rows are the labels), "examples".

    Raises:
      DeepLabError: the data set is empty, a label is out of range, or the memory does not suffice.
    """
    predictor, classes = predictor_of(model), config_of(model).num_classes
    total, examples = np.zeros((classes, classes), np.int64), 0
    for batch in dataset:
        images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
        labels = labels[..., 0] if labels.ndim == 4 else labels
        sizes = np.asarray(batch["size"]) if "size" in batch else None
        how = {"scales": tuple(scales), "flip": flip, "large_images": large_images, "crf": crf}
        found = segment_batch(predictor, images, sizes, **how)
        try:
            total += confusion_matrix(labels, found, classes, ignore_label=ignore_label)
        except ValueError as error:
            raise DeepLabError(f"{error}: the model has {classes} classes; mend the labels or the model") from None
        examples += len(images)
        for example in _examples(batch, labels, found) if watch else ():
            watch(example)
    if not examples:
        raise DeepLabError("the data set is empty: nothing to score; check the split's name and the folder")
    return {
        "miou": mean_iou(total),
        "iou_per_class": iou_per_class(total),
        "pixel_accuracy": pixel_accuracy(total),
        "confusion_matrix": total,
        "examples": examples,
    }


def tagged_scores(scores: Mapping, *, scales: Sequence[float] = (1.0,), flip: bool = False) -> dict[str, float]:
    """Returns what `evaluate` gave under the release's names, such as eval/miou_1.0_overall, eval/miou_1.0_class_7.

    As in the release, a class without a pixel in the labels is NaN here, while its wrong predictions count as 0 in the
    overall mean.
    """
    name = "eval/miou_" + "_".join(str(float(scale)) for scale in scales) + ("_flipped" if flip else "")
    labelled = scores["confusion_matrix"].sum(axis=1) > 0
    classes = np.where(labelled, scores["iou_per_class"], np.nan)
    return {f"{name}_overall": scores["miou"], **{f"{name}_class_{c}": float(v) for c, v in enumerate(classes)}}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of one checkpoint: what `evaluate` returned, and the same under the release's names.

    `contaminated` says why the weights have seen the images that they are scored on, if anything says so.
    """

    checkpoint: str
    step: int
    scores: Mapping
    tagged: Mapping[str, float]
    class_names: tuple[str, ...] = ()
    contaminated: str | None = None


class ScoreLog:
    """The scores of checkpoints in a folder: TensorBoard scalars at the checkpoint's step, and a line of metrics.jsonl
    each (NaN is null there)."""

    def __init__(self, folder: str):
        self._folder = pathlib.Path(folder)
        self._summaries: Summaries | None = None

    def stale(self, checkpoint: str) -> str | None:
        """Returns in words that the folder holds scores of other weights than `checkpoint` or another step of its run;
        None where it does not."""
        try:
            lines = map(json.loads, (self._folder / METRICS_FILE).read_text(encoding="utf-8").splitlines())
            before = {str(line["checkpoint"]) for line in lines}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        others = sorted(path for path in before if _STEP.sub("", path) != _STEP.sub("", checkpoint))
        if not others:
            return None
        return (
            f"{self._folder} holds scores of {others[-1]} too: TensorBoard draws all as one curve; better a new folder"
        )

    def write(self, evaluation: Evaluation):
        """Adds the scores of one checkpoint. DeepLabError where the folder cannot be written."""
        line = {"step": evaluation.step, "checkpoint": evaluation.checkpoint}
        line |= {name: evaluation.scores[name] for name in ("examples", "pixel_accuracy")}
        line |= {name: None if math.isnan(value) else value for name, value in evaluation.tagged.items()}
        line |= {"contaminated": evaluation.contaminated} if evaluation.contaminated else {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._summaries = self._summaries or Summaries(self._folder)
            self._summaries.scalars(evaluation.step, evaluation.tagged)
            _append(self._folder / METRICS_FILE, json.dumps(line))
        except (OSError, tf.errors.OpError) as error:
            raise DeepLabError(f"{self._folder}: cannot be written ({error}); choose another folder") from None


def _append(file: pathlib.Path, line: str):
    """Adds a line, after the end of one that was cut off when a process was killed."""
    with file.open("a+b") as stream:
        stream.seek(max(0, stream.seek(0, 2) - 1))
        whole = stream.read(1) in (b"", b"\n")
        stream.write(f"{'' if whole else chr(10)}{line}\n".encode())


def counted(batches: Iterable[Mapping], advance: Callable[[int], None]) -> Iterator[Mapping]:
    """Yields batches, calling `advance` with the number of images after each."""
    for batch in batches:
        yield batch
        advance(len(batch["label"]))


def evaluate_checkpoint(
    opened: Opened,
    config: EvalConfig,
    data: Mapping,
    *,
    advance: Callable[[int], None] = lambda count: None,
    watch: Callable[[ScoredImage], None] | None = None,
) -> Evaluation:
    """Returns the scores of one checkpoint over config.eval_split.

    Args:
      opened: from `following.follow`.
      config: split, crop, batch, scales, flips.
      data: explicit DataConfig fields; dataset_dir is needed.
      advance: called with the number of examples after each batch.
      watch: called with each picture once it is scored.

    Raises:
      DeepLabError: as `make_dataset` and `evaluate`; or no pixel of the split counts.
    """
    options, facts = data_for(opened, config, data)
    how = {"scales": config.eval_scales, "flip": config.add_flipped_images}
    with named_errors():
        batches = make_dataset(options, split=config.eval_split, training=False)
        scores = evaluate(
            opened.loaded.model,
            counted(batches, advance),
            **how,
            ignore_label=facts.ignore_label,
            large_images=config.large_images,
            crf=config.crf_parameters,
            watch=watch,
        )
    if not scores["confusion_matrix"].any():
        raise DeepLabError(
            f"--eval_split={config.eval_split}: every pixel of its {scores['examples']} examples is ignored, there is "
            "nothing to score; is it a split without labels? vis draws the predictions"
        )
    contaminated = opened.loaded.card.seen(facts.name, config.eval_split)
    tagged = tagged_scores(scores, **how)
    return Evaluation(opened.path, opened.step, scores, tagged, facts.class_names, contaminated)


def evaluate_checkpoints(
    config: EvalConfig,
    data: Mapping,
    changes: Mapping | None = None,
    *,
    tell: Callable[[str], None] = lambda line: None,
    begin: Callable[[Opened], None] = lambda opened: None,
    advance: Callable[[int], None] = lambda count: None,
    watch: Callable[[ScoredImage], None] | None = None,
) -> Iterator[Evaluation]:
    """Scores the checkpoint that config.checkpoint_dir names, or those of a training run as they come.

    Each is scored on every example of config.eval_split once, written to config.eval_logdir (`ScoreLog`) where that is
    set, and yielded.

    Args:
      config: which checkpoints (see `following.follow`), which split, how.
      data: explicit DataConfig fields; what they do not say, the model's description does.
      changes: explicit ModelConfig fields, as `loading.open_model` takes them.
      tell: called with a line when there is something to wait for.
      begin: called with each checkpoint that was read, before it is scored.
      advance: called with the number of examples after each batch.
      watch: called with each picture once it is scored.

    Raises:
      DeepLabError: nothing to open or to read, something damaged or in contradiction, a folder that cannot be written.
    """
    if config.eval_logdir and os.path.realpath(config.eval_logdir) == os.path.realpath(config.checkpoint_dir or ""):
        raise DeepLabError(
            f"--eval_logdir={config.eval_logdir} is the folder of the checkpoints, which may hold a {METRICS_FILE} of "
            f"its training; name another, for instance {os.path.join(config.eval_logdir, 'eval')}"
        )
    log = ScoreLog(config.eval_logdir) if config.eval_logdir else None
    told = None
    for opened in follow(config, data, changes, tell=tell):
        begin(opened)
        words = log and log.stale(opened.path)
        if words and words != told:
            tell(f"Note: --eval_logdir: {words}")
        told = words
        evaluation = evaluate_checkpoint(opened, config, data, advance=advance, watch=watch)
        if log:
            log.write(evaluation)
        yield evaluation
