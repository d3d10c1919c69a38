"""Experiment: a training run as a recipe says it and as `train` takes it. Import it from deeplab_tf.config."""

import dataclasses
import os

from deeplab_tf.catalog.datasets import DATASETS, Dataset
from deeplab_tf.config.data import DataConfig
from deeplab_tf.config.evaluation import EvalConfig
from deeplab_tf.config.model import ModelConfig
from deeplab_tf.config.run import RunConfig
from deeplab_tf.config.train import TrainConfig

# The fields that follow from another part of an experiment: what they are given does not count.
DERIVED: dict[type, tuple[str, ...]] = {
    # the data set's; the data's; those of the data set's photographs
    ModelConfig: ("num_classes", "crop_size", "input_channels", "extra_band_means"),
    TrainConfig: ("ignore_label",),  # the data set's
    DataConfig: ("model_variant",),  # the model's, whose mean pixel fills the padding
    RunConfig: (),
    EvalConfig: ("checkpoint_dir",),  # the run's folder
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A network, its update, its data, its folders and devices, and how it is scored.

    Each fact is written once. What follows from another part (`DERIVED`) is set here, and set anew by
    `dataclasses.replace`: the model has the crop size of the data, and the classes and the ignore label are those of
    the data set. Of a data set that is not in the catalogue, and of one that its records alone name, only `on` knows
    them.

    >>> from deeplab_tf.config import DataConfig, Experiment, ModelConfig
    >>> experiment = Experiment(ModelConfig(model_variant="xception_65"), data=DataConfig(dataset="cityscapes"))
    >>> experiment.model.num_classes, experiment.model.crop_size, experiment.data.model_variant
    (19, (513, 513), 'xception_65')

    Attributes:
      model: the network.
      train: losses, schedule and update.
      data: which records are read, and what becomes of them.
      run: folders, initial weights, log, checkpoints and devices.
      evaluation: what run.mode=train_and_eval scores.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    evaluation: EvalConfig = dataclasses.field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        facts = None if self.data.classes_of else DATASETS.get(self.data.dataset or "")
        classes = facts.num_classes if facts else self.model.num_classes
        ignored = facts.ignore_label if facts else self.train.ignore_label
        model = dataclasses.replace(self.model, num_classes=classes, crop_size=self.data.crop_size)
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "train", dataclasses.replace(self.train, ignore_label=ignored))
        object.__setattr__(self, "data", dataclasses.replace(self.data, model_variant=model.model_variant))

    def on(self, facts: Dataset) -> "Experiment":
        """Returns the experiment with the classes and the ignore label of a data set, that of `data`."""
        return dataclasses.replace(
            self,
            model=dataclasses.replace(self.model, num_classes=facts.num_classes).on_bands(facts.image),
            train=dataclasses.replace(self.train, ignore_label=facts.ignore_label),
        )

    @property
    def evaluation_of_run(self) -> EvalConfig:
        """What run.mode=eval and continuous_eval do: `evaluation` of the run's own checkpoints, the newest or each."""
        folder = self.run.train_logdir
        if not folder:
            return self.evaluation
        config = dataclasses.replace(
            self.evaluation,
            checkpoint_dir=folder,
            eval_logdir=self.evaluation.eval_logdir or os.path.join(folder, "eval"),
        )
        return dataclasses.replace(config, max_number_of_evaluations=1) if self.run.mode == "eval" else config
