"""Scores of a model on a data set, every example once, and of the checkpoints of a run, one after the other."""

import dataclasses
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from deeplab_tf import files
from deeplab_tf.config import EvalConfig, Inference
from deeplab_tf.data.examples import named_batches
from deeplab_tf.documents.json_files import JSONError, parse_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.following import passes
from deeplab_tf.evaluation.passes import SILENT, Observer, Pass, ScoredImage
from deeplab_tf.evaluation.summaries import Summaries
from deeplab_tf.filesystems.remote_errors import os_errors
from deeplab_tf.inference.predictor import Predictor, predictor_of
from deeplab_tf.inference.tiles import segment_batch
from deeplab_tf.network.precision import is_rounded
from deeplab_tf.ops.metrics import confusion_matrix, iou_per_class, mean_iou, pixel_accuracy
from deeplab_tf.weights.hub import is_hub

METRICS_FILE = "metrics.jsonl"
_PLAIN = Inference()
_STEP = re.compile(r"-\d+$")

Batch = Mapping[str, Any]  # "image", "label" and the other entries of `make_dataset`
Scores = Mapping[str, Any]  # what `evaluate` returns


def _pictures(batch: Batch, labels: np.ndarray, predictions: np.ndarray) -> Iterator[ScoredImage]:
    """Yields the pictures of a batch without its padding."""
    images = np.asarray(batch["original_image"] if "original_image" in batch else batch["image"])
    images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    sizes = np.asarray(batch["size"]) if "size" in batch else [labels.shape[1:]] * len(labels)
    names = np.asarray(batch["image_name"]) if "image_name" in batch else [b""] * len(labels)
    for image, label, prediction, (height, width), name in zip(images, labels, predictions, sizes, names, strict=True):
        own = np.s_[:height, :width]
        yield ScoredImage(image[own], label[own], prediction[own], name.decode(errors="replace"))


def evaluate(
    model: keras.Model,
    dataset: Iterable[Batch],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    ignore_label: int = 255,
    crf: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Returns the scores of `model` over all of `dataset`, in the convention of the release's eval.py.

    Args:
      model: from `build_model` or `load`, or one that holds such a network, as for `predict`.
      dataset: yields {"image": [b, h, w, 3] in 0..255, "label": [b, h, w] or [b, h, w, 1] integers}; batches may differ
        in size, and the last may be smaller. With "size" [b, 2], the height and width of each picture, the score does
        not depend on which pictures share a batch; `make_dataset` gives it.
      scales: of the input, over which probabilities are averaged.
      flip: also average over the mirrored images. Unlike the release, it also counts where the only scale is 1.
      ignore_label: the label whose pixels do not count.
      crf: the arguments of `crf.densecrf`, which then refines each picture; None: no CRF.

    Returns:
      "miou" (mean over the classes with a non-empty union), "iou_per_class" (float64 [classes], NaN for a class in
      neither labels nor predictions), "pixel_accuracy", "confusion_matrix" (int64, rows are the labels), "examples".

    Raises:
      DeepLabError: the data set is empty, a record is damaged, a label is out of range, or the memory does not suffice.

    >>> import deeplab_tf, numpy as np
    >>> from deeplab_tf.data.shapes import shapes_example
    >>> _, model = deeplab_tf.load("shapes_resnet")
    >>> image, label = shapes_example(0, index=0, height=97, width=129)
    >>> scores = deeplab_tf.evaluate(model, [{"image": image[None], "label": label[None]}])
    >>> scores["examples"], scores["confusion_matrix"].shape, 0.5 < scores["miou"] <= 1
    (1, (9, 9), True)
    """
    return score(model, dataset, Inference(tuple(scales), flip, crf=crf), ignore_label=ignore_label)


def score(
    model: keras.Model | Predictor,
    batches: Iterable[Batch],
    inference: Inference,
    *,
    ignore_label: int,
    observer: Observer = SILENT,
) -> dict[str, Any]:
    """Returns the scores of `evaluate`, for any way from images to classes; `observer` is told of every batch.

    `model` may also be the predictor of an exported file.
    """
    predictor = predictor_of(model)
    classes = predictor.config.num_classes
    total = np.zeros((classes, classes), np.int64)
    examples = 0
    for batch in named_batches(batches):
        images = np.asarray(batch["image"])
        labels = np.asarray(batch["label"])
        labels = labels[..., 0] if labels.ndim == 4 else labels
        sizes = np.asarray(batch["size"]) if "size" in batch else None
        found = segment_batch(predictor, images, sizes, inference)
        try:
            total += confusion_matrix(labels, found, classes, ignore_label=ignore_label)
        except ValueError as error:
            raise DeepLabError(f"{error}: the model has {classes} classes; mend the labels or the model") from None
        examples += len(images)
        observer.scored(_pictures(batch, labels, found))
        observer.advance(len(images))
    if not examples:
        raise DeepLabError("the data set is empty: nothing to score; check the split's name and the folder")
    return {
        "miou": mean_iou(total),
        "iou_per_class": iou_per_class(total),
        "pixel_accuracy": pixel_accuracy(total),
        "confusion_matrix": total,
        "examples": examples,
    }


def tagged_scores(scores: Scores, inference: Inference = _PLAIN) -> dict[str, float]:
    """Returns the scores of `evaluate` under the release's names: eval/miou_1.0_overall, eval/miou_1.0_class_7 etc.

    As in the release, a class without a pixel in the labels is NaN here, while its wrong predictions count as 0 in the
    overall mean.

    Args:
      scores: from `evaluate`.
      inference: of the evaluation, whose scales and flip the names tell.
    """
    scales = "_".join(str(float(scale)) for scale in inference.scales)
    name = f"eval/miou_{scales}_flipped" if inference.flip else f"eval/miou_{scales}"
    labelled = scores["confusion_matrix"].sum(axis=1) > 0
    classes = np.where(labelled, scores["iou_per_class"], np.nan)
    return {f"{name}_overall": scores["miou"], **{f"{name}_class_{c}": float(v) for c, v in enumerate(classes)}}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of one checkpoint.

    Attributes:
      checkpoint: its path.
      step: its number of updates.
      scores: from `evaluate`.
      tagged: the same under the release's names, from `tagged_scores`.
      class_names: the names of the classes.
      contaminated: why the weights have seen the images that they are scored on; None where nothing says so.
      rounded: whether a GPU or TPU rounded float32 to TensorFloat-32 or bfloat16.
    """

    checkpoint: str
    step: int
    scores: Scores
    tagged: Mapping[str, float]
    class_names: tuple[str, ...] = ()
    contaminated: str | None = None
    rounded: bool = False


class ScoreLog:
    """The scores of checkpoints in a folder: TensorBoard scalars at the checkpoint's step, and lines of metrics.jsonl.

    NaN is null in metrics.jsonl.
    """

    def __init__(self, folder: str) -> None:
        self._folder = files.path(folder)
        self._summaries: Summaries | None = None

    def stale(self, checkpoint: str) -> str | None:
        """Returns a warning if the folder holds scores of other weights than the checkpoint's run has, else None."""
        try:
            lines = (self._folder / METRICS_FILE).read_bytes().splitlines()
            before = {str(parse_json(line, dict[str, Any])["checkpoint"]) for line in lines}
        except (OSError, JSONError, KeyError):
            return None
        others = sorted(path for path in before if _STEP.sub("", path) != _STEP.sub("", checkpoint))
        if not others:
            return None
        return f"{self._folder} holds scores of {others[-1]} too: TensorBoard draws them as one curve; use a new folder"

    def write(self, evaluation: Evaluation) -> None:
        """Adds the scores of one checkpoint. DeepLabError where the folder cannot be written."""
        line: dict[str, Any] = {"step": evaluation.step, "checkpoint": evaluation.checkpoint}
        line |= {name: evaluation.scores[name] for name in ("examples", "pixel_accuracy")}
        line |= {"precision": "float32", "tf32": evaluation.rounded}
        line |= {name: None if math.isnan(value) else value for name, value in evaluation.tagged.items()}
        line |= {"contaminated": evaluation.contaminated} if evaluation.contaminated else {}
        with files.writing(self._folder, cure="choose another folder"), os_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._summaries = self._summaries or Summaries(self._folder)
            self._summaries.scalars(evaluation.step, evaluation.tagged)
            _append(self._folder / METRICS_FILE, json.dumps(line))


def _append(file: files.AnyPath, line: str) -> None:
    """Adds a line, after the end of one that was cut off when a process was killed."""
    whole = not file.exists() or file.read_bytes()[-1:] in (b"", b"\n")
    with file.open("ab") as stream:
        stream.write(f"{'' if whole else chr(10)}{line}\n".encode())


def evaluate_pass(work: Pass, config: EvalConfig, *, observer: Observer = SILENT) -> Evaluation:
    """Returns the scores of one checkpoint over its records.

    Args:
      work: the checkpoint and its records, from `following.passes`.
      config: scales, flips, large images and CRF.
      observer: told of every batch.

    Raises:
      DeepLabError: the errors of `make_dataset` and `evaluate`; or no pixel of the split counts.
    """
    opened = work.opened
    scores = score(
        opened.loaded.model,
        work.batches(),
        config.inference,
        ignore_label=work.facts.ignore_label,
        observer=observer,
    )
    if not scores["confusion_matrix"].any():
        raise DeepLabError(
            f"--eval_split={work.records.split}: every pixel of its {scores['examples']} examples is ignored, there is "
            "nothing to score; is it a split without labels? vis draws the predictions"
        )
    tagged = tagged_scores(scores, config.inference)
    names, rounded = work.facts.class_names, is_rounded(config.tf32)
    return Evaluation(opened.path, opened.step, scores, tagged, names, work.contaminated, rounded)


def evaluate_checkpoints(
    config: EvalConfig,
    data: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    observer: Observer = SILENT,
    given: Collection[str] | None = None,
) -> Iterator[Evaluation]:
    """Scores the checkpoint that config.checkpoint_dir names, or those of a training run as they come.

    Each is scored once on every example of config.eval_split, written to config.eval_logdir (`ScoreLog`) where that is
    set, and yielded.

    Args:
      config: which checkpoints (see `following.follow`), which split, at which scales.
      data: the DataConfig fields that the user gives; the checkpoint's description has the others.
      changes: the ModelConfig fields that the user gives, for `loading.open_model`.
      observer: told of the waiting, of each checkpoint and of each batch.
      given: the names of the fields of `config` that the user gives; the others are the run's own, so that its score is
        that of train_and_eval. None: all.

    Raises:
      DeepLabError: nothing to open or to read, something damaged or in contradiction, a folder that cannot be written.
    """
    places = [
        files.path(place).resolve()
        for place in (config.eval_logdir, config.checkpoint_dir)
        if place and not is_hub(place)
    ]
    if len(places) == 2 and places[0] == places[1]:
        raise DeepLabError(
            f"--eval_logdir={config.eval_logdir} is the folder of the checkpoints, which may hold a {METRICS_FILE} of "
            f"its training; name another, for instance {config.eval_logdir}/eval"
        )
    log = ScoreLog(config.eval_logdir) if config.eval_logdir else None
    told = None
    for work in passes(config, data, changes, observer=observer, given=given):
        observer.begin(work)
        warning = log.stale(work.opened.path) if log else None
        if warning and warning != told:
            observer.tell(f"Note: --eval_logdir: {warning}")
        told = warning
        evaluation = evaluate_pass(work, config if given is None else work.config, observer=observer)
        if log:
            log.write(evaluation)
        yield evaluation
