"""Pictures of a model's predictions for the images of a split, those of the release's vis.py."""

import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

import numpy as np

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS, Dataset
from deeplab_tf.catalog.palettes import Colour, colour_map
from deeplab_tf.config import VisConfig
from deeplab_tf.config.evaluation import DATASET_COLOURS
from deeplab_tf.data.examples import named_batches
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.following import passes
from deeplab_tf.evaluation.passes import SILENT, Observer, Pass
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tiles import segment_batch
from deeplab_tf.ops.images import resize_labels, write_png
from deeplab_tf.ops.pictures import colour_mask

PICTURES = "segmentation_results"
RAW = "raw_segmentation_results"


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The pictures of one checkpoint: how many images were drawn, and into which folder."""

    checkpoint: str
    step: int
    images: int
    folder: str


class _Pictures:
    """Numbered pictures of images and predictions, and raw predictions under the images' own names."""

    def __init__(self, folder: str, config: VisConfig, facts: Dataset) -> None:
        self._palette: tuple[Colour, ...] = (
            facts.palette if config.colormap_type == DATASET_COLOURS else colour_map(config.colormap_type)
        )
        self._raw = config.also_save_raw_predictions
        if self._raw and facts.num_classes > 256:
            raise DeepLabError(
                f"--also_save_raw_predictions: {facts.num_classes} classes do not fit a PNG of 8 bits; leave it out"
            )
        self._ids = np.arange(256, dtype=np.uint8)
        self._ids[: len(facts.evaluation_ids or ())] = facts.evaluation_ids or ()
        self.folder = files.path(folder)
        self.count = 0
        self._names: set[str] = set()
        with self._writing():
            for name in (PICTURES, RAW) if self._raw else (PICTURES,):
                (self.folder / name).mkdir(parents=True, exist_ok=True)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return files.writing(self.folder, flag="--vis_logdir", cure="choose another folder")

    def _raw_name(self, stored: bytes) -> str:
        """Returns the stored name's last part, or where a record has none, its number; a name seen before gets -2."""
        name = base = os.path.basename(stored.decode(errors="replace")) or f"{self.count:06d}"
        number = 1
        while name in self._names:
            number += 1
            name = f"{base}-{number}"
        self._names.add(name)
        return name

    def add(self, image: np.ndarray, labels: np.ndarray, name: bytes) -> None:
        """Writes the pictures of one image (uint8 [h, w, 3]) and its class map (integers [h, w])."""
        with self._writing():
            write_png(image, self.folder / PICTURES / f"{self.count:06d}_image.png")
            write_png(colour_mask(labels, self._palette), self.folder / PICTURES / f"{self.count:06d}_prediction.png")
            if self._raw:
                write_png(self._ids[labels], self.folder / RAW / f"{self._raw_name(name)}.png")
        self.count += 1


def _own_maps(
    batch: Mapping[str, Any], predictions: np.ndarray, *, resized: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, bytes]]:
    """Yields picture, class map and name of each example, without padding; the map at the size that is stored."""
    for i, (height, width) in enumerate(batch["size"]):
        labels = predictions[i, :height, :width]
        if resized:
            labels = resize_labels(labels, int(batch["height"][i]), int(batch["width"][i]))
        yield batch["original_image"][i, :height, :width], labels, batch["image_name"][i]


def _folder(config: VisConfig) -> str:
    if not config.eval_logdir:
        raise DeepLabError("--vis_logdir is missing; expected the folder to write")
    return config.eval_logdir


def vis_pass(work: Pass, config: VisConfig, *, observer: Observer = SILENT) -> Drawn:
    """Draws one checkpoint's predictions for the images of its records; see `vis_checkpoints`.

    Args:
      work: the checkpoint and its records, from `following.passes`.
      config: scales, flips, colours; eval_logdir is the release's vis_logdir.
      observer: its `advance` is called with the number of images after each batch.

    Raises:
      DeepLabError: the errors of `make_dataset`; no folder is given or it cannot be written, a class has no colour, or
        the memory does not suffice.
    """
    predictor = predictor_of(work.opened.loaded.model)
    pictures = _Pictures(_folder(config), config, work.facts)
    resized = work.records.config.min_resize_value is not None
    batches = cast("Iterator[dict[str, np.ndarray]]", work.batches().as_numpy_iterator())
    for batch in named_batches(batches):
        found = segment_batch(predictor, batch["image"], batch["size"], config.inference)
        for image, labels, name in _own_maps(batch, found, resized=resized):
            pictures.add(image, labels, name)
        observer.advance(len(found))
    return Drawn(work.opened.path, work.opened.step, pictures.count, str(pictures.folder))


def vis_checkpoints(
    config: VisConfig,
    data: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    observer: Observer = SILENT,
    given: Collection[str] | None = None,
) -> Iterator[Drawn]:
    """Draws the predictions of the checkpoint that config.checkpoint_dir names, or of a training run's as they come.

    In config.eval_logdir (the release's vis_logdir): segmentation_results/000000_image.png, the picture as the network
    saw it (resized where min_resize_value says so), and 000000_prediction.png, in colours and at the picture's stored
    size; numbers follow the order of the records. With also_save_raw_predictions, raw_segmentation_results/<stored
    name>.png: class indices as grey levels, for Cityscapes the ids of its evaluation server. Each checkpoint of a run
    replaces the pictures of the one before; each file is complete or not there.

    Args:
      config: which checkpoints (see `following.follow`), which split, at which scales, in which colours.
      data: the DataConfig fields that the user gives; the checkpoint's description has the others.
      changes: the ModelConfig fields that the user gives, for `loading.open_model`.
      observer: told of the waiting, of each checkpoint and of each batch.
      given: as `evaluate.evaluate_checkpoints` takes it. Without a colormap_type among them a data set that is not in
        the catalogue is drawn in its own colours.

    Raises:
      DeepLabError: the errors of `following.passes` and `vis_pass`.
    """
    _folder(config)
    for work in passes(config, data, changes, observer=observer, given=given):
        observer.begin(work)
        chosen = cast(VisConfig, work.config)
        if given is not None and "colormap_type" not in given and work.facts.name not in DATASETS:
            chosen = dataclasses.replace(chosen, colormap_type=DATASET_COLOURS)
        yield vis_pass(work, chosen, observer=observer)
