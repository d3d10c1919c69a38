"""A network that learns more classes from pictures labelled for these alone: its start, its options, its scores."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.arch import head
from deeplab_tf.catalog.datasets import DATASET_FILE, Dataset, dataset_json
from deeplab_tf.config import DataConfig, Experiment, Inference, RunConfig, TrainConfig
from deeplab_tf.data.examples import open_records
from deeplab_tf.data.find import find_dataset
from deeplab_tf.data.pipeline import evaluation_batches
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.evaluation.evaluate import score
from deeplab_tf.inference.predictor import Predictor, padding_to
from deeplab_tf.network.build import build_model
from deeplab_tf.ops.metrics import iou_per_class
from deeplab_tf.weights.growing import grown_classes, grown_network
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.sources import MODEL_FILE
from deeplab_tf.weights.tf1 import variable_map

_BACKGROUND = "background"
# What a recipe may say of another start and another loss; the flags are refused.
_OF_A_START = ("initialize_last_layer", "initialize_extra_bands", "unfold_batch_norm")
_OF_A_LOSS = ("label_weights", "top_k_percent_pixels", "focal_gamma")
START = "grown"  # the folder of the network that training starts from, in that of the run


@dataclasses.dataclass(frozen=True)
class Extension:
    """A network and the classes that it gets.

    Attributes:
      old: the network before.
      classes: the old classes, then the new ones.
      background: the label of the old class that all pixels of the new ones belonged to.
    """

    old: Loaded
    classes: Dataset
    background: int

    @classmethod
    def of(cls, checkpoint: str, added: Sequence[str], background: str | None = None) -> "Extension":
        """Returns the extension of a checkpoint by the classes called `added`.

        Args:
          checkpoint: as `open_model` takes it.
          added: the names of the new classes.
          background: the name of the old class that their pixels belonged to; None: background.

        Raises:
          DeepLabError: there is no such checkpoint or class, or the names are not new.
        """
        old = open_model(checkpoint)
        old.card.require_classes("extend", checkpoint)
        classes = grown_classes(old.card, added)
        names = old.card.class_names
        if (background or _BACKGROUND) not in names:
            error = unknown_name("class", background or _BACKGROUND, names)
            raise DeepLabError(
                f"--background: {error}; expected the class that the model gives to pixels of the new ones"
            )
        return cls(old, classes, names.index(background or _BACKGROUND))

    @property
    def old_classes(self) -> int:
        """The number of classes before."""
        return self.old.card.config.num_classes

    def labels_of(self, dataset_dir: str, *, flag: str, old_alone: bool = False) -> DataConfig:
        """Returns how records are read with the labels of the extended network, found by the names of their classes.

        A name that is not one of the network is background: pictures labelled for new classes alone call it what they
        like.

        Args:
          dataset_dir: the folder of the records, with their dataset.json.
          flag: that names it.
          old_alone: whether the new classes are background.
        """
        facts = find_dataset(None, dataset_dir)
        limit = self.old_classes if old_alone else self.classes.num_classes
        numbers = {name: number for number, name in enumerate(self.classes.class_names[:limit])}
        table = {label: numbers.get(name, self.background) for label, name in enumerate(facts.class_names)}
        table[facts.ignore_label] = self.classes.ignore_label
        missing = [name for name in self.classes.class_names[self.old_classes :] if name not in facts.class_names]
        if missing and not old_alone:
            raise DeepLabError(
                f"{flag}={dataset_dir}: has no class {missing[0]!r} of --add; its classes are "
                f"{', '.join(facts.class_names[:8])}"
            )
        return DataConfig(
            dataset_dir=dataset_dir,
            label_policy="map",
            label_map=tuple(f"{label}:{number}" for label, number in sorted(table.items())),
            crop_size=None,
            batch_size=1,
        )

    def begin(self, folder: str) -> files.AnyPath:
        """Writes the grown network, unless it is there, and its dataset.json; returns their folder, in that of the run.

        Raises:
          DeepLabError: that of another extension is there, or it cannot be written.
        """
        target = files.path(folder) / START
        if (target / MODEL_FILE).exists():
            names = ModelCard.read(target).class_names
            if names != self.classes.class_names:
                raise DeepLabError(
                    f"--train_logdir={folder}: extends to other classes ({', '.join(names[self.old_classes :])}); "
                    "choose another folder"
                )
            return target
        new = self.classes.num_classes - self.old_classes
        card = self.old.card
        model = grown_network(self.old.model, card, new, background=self.background)
        card = dataclasses.replace(
            card,
            config=dataclasses.replace(card.config, num_classes=self.classes.num_classes),
            dataset=self.classes.name,
            class_names=self.classes.class_names,
            palette=self.classes.palette,
            ignore_label=self.classes.ignore_label,
            averages=False,
        )
        with files.writing(target, flag="--train_logdir", cure="choose another folder"):
            target.mkdir(parents=True, exist_ok=True)
            (target / DATASET_FILE).write_text(dataset_json(self.classes), encoding="utf-8")
        save_model(target, model, self.old.receipt, card=card)
        return target

    def followed(self, asked: Experiment) -> Experiment:
        """Returns the experiment as an extension trains it: it starts from all weights, whatever its recipe says.

        DeepLabError: the recipe's network is not that of the checkpoint.
        """
        ours, theirs = (
            {name: tuple(v.shape) for name, v in variable_map(model).items() if not name.startswith(head.LOGITS)}
            for model in (build_model(asked.model, zeros=True), self.old.model)
        )
        differing = sorted({name for name, _ in ours.items() ^ theirs.items()})
        if differing:
            raise DeepLabError(
                f"--config: the recipe's network differs from that of --checkpoint in {len(differing)} variables, as "
                f"{differing[0]}; choose --config=extend, whose network is that of the checkpoint"
            )
        run = {name: getattr(RunConfig(), name) for name in _OF_A_START}
        train = {name: getattr(TrainConfig(), name) for name in _OF_A_LOSS}
        return dataclasses.replace(
            asked, run=dataclasses.replace(asked.run, **run), train=dataclasses.replace(asked.train, **train)
        )

    def _scored(self, model: Predictor, data: DataConfig, split: str, *, classes_of: str) -> np.ndarray:
        """Returns the confusion matrix of records, over the classes of the model."""
        source = open_records(dataclasses.replace(data, classes_of=classes_of), split)
        batches = evaluation_batches(source)
        return score(model, batches, Inference(), ignore_label=self.classes.ignore_label)["confusion_matrix"]

    def scores(self, asked: Experiment, checkpoint: str | None, old_dir: str | None) -> dict[str, dict[str, float]]:
        """Returns group -> class -> IoU of the validation splits.

        Of the old classes, on the records of `old_dir`, a new class counts as background, as it does in their labels.
        Of the new ones, on those that were trained on, every old class does.

        Args:
          asked: the training, whose data the new classes are scored on.
          checkpoint: of the extended network; None: the old network, which has no new classes.
          old_dir: records that are labelled for the old classes; None: these are not scored.
        """
        opened = open_model(checkpoint).model if checkpoint else self.old.model
        model = padding_to(opened, asked.evaluation.eval_crop_size)
        classes_of, split = str(asked.data.classes_of), asked.evaluation.eval_split
        names, old = self.classes.class_names, self.old_classes
        found: dict[str, dict[str, float]] = {}
        if old_dir:
            data = self.labels_of(old_dir, flag="--old_dataset_dir", old_alone=True)
            matrix = self._scored(model, data, split, classes_of=classes_of)
            matrix = merged(matrix, self.background, range(old, len(matrix)))
            found["old"] = dict(zip(names[:old], iou_per_class(matrix)[:old], strict=True))
        if checkpoint:
            data = self.labels_of(str(asked.data.dataset_dir), flag="--dataset_dir")
            matrix = self._scored(model, data, split, classes_of=classes_of)
            matrix = merged(matrix, self.background, [i for i in range(old) if i != self.background])
            found["new"] = dict(zip(names[old:], iou_per_class(matrix)[old:], strict=True))
        return found


def merged(matrix: np.ndarray, into: int, classes: Sequence[int]) -> np.ndarray:
    """Returns a confusion matrix, int64 [n, n], in which all pixels of `classes` are ones of the class `into`."""
    matrix = matrix.copy()
    for number in classes:
        for view in (matrix, matrix.T):
            view[into] += view[number]
            view[number] = 0
    return matrix


def options(extension: Extension, dataset_dir: str, folder: str, checkpoint: str) -> Mapping[str, Any]:
    """Returns field -> value of the options of `train` that follow from an extension.

    Args:
      extension: the network and its new classes.
      dataset_dir: records that are labelled for the new classes.
      folder: of the run.
      checkpoint: the network before, which teaches.

    Raises:
      DeepLabError: the records lack a new class, or the network cannot be written.
    """
    data = extension.labels_of(dataset_dir, flag="--dataset_dir")
    start = str(extension.begin(folder))
    return {
        "tf_initial_checkpoint": start,
        "teacher": checkpoint,
        "classes_of": start,
        "label_policy": data.label_policy,
        "label_map": list(data.label_map or ()),
        "loss": "unbiased",
        "old_classes": extension.old_classes,
        "background_class": extension.background,
    }
