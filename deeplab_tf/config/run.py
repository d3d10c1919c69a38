"""RunConfig: where a training run reads and writes, how often, on which devices. Import it from deeplab_tf.config."""

import dataclasses
from typing import Literal, get_args

from deeplab_tf.config.fields import WEIGHTS, Options, auto_or_count, option, path_option, split_names
from deeplab_tf.config.resuming import changeable
from deeplab_tf.errors import DeepLabError, unknown_name

ExtraBands = Literal["mean", "zero"]
Strategy = Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"]
Resume = Literal["newest_whole", "strict"]
Mode = Literal["train", "train_and_eval", "eval", "continuous_eval"]
EXTRA_BANDS: tuple[ExtraBands, ...] = get_args(ExtraBands)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
MODES: tuple[Mode, ...] = get_args(Mode)
RESUMES: tuple[Resume, ...] = get_args(Resume)
TRACKERS = ("wandb", "mlflow")


@dataclasses.dataclass(frozen=True)
class RunConfig(Options, group="what"):
    """The surroundings of the update: the release's train flags for folders, initial weights, log and devices.

    >>> config = deeplab_tf.RunConfig(train_logdir="runs/voc", tf_initial_checkpoint="xception_65_imagenet_coco")
    >>> config.train_split, config.initialize_last_layer, config.num_clones
    ('train', True, 1)
    """

    train_logdir: str | None = path_option(
        None, "folder of the run: checkpoints, logs and the description of the model"
    )
    train_split: str = option("train", "split to train on", group="data")
    tf_initial_checkpoint: str | None = path_option(None, f"weights to start from: {WEIGHTS}", group="weights")
    teacher: str | None = path_option(
        None,
        "network whose probabilities are learned too, of the same classes or, with loss=unbiased, of the old ones: "
        f"{WEIGHTS}",
        group="loss",
    )
    unlabelled_dir: str | None = path_option(
        None,
        "pictures without labels, on which the teacher's probabilities are learned too: a folder of pictures, or of "
        "records, whose labels are not read",
        group="data",
    )
    unlabelled_split: str | None = option(None, "split of the records in unlabelled_dir; unset: train", group="data")
    unlabelled_share: float = option(0.5, "share of each batch that is of unlabelled_dir", group="data")
    initialize_last_layer: bool = option(True, "also start the head from these weights", group="weights")
    initialize_extra_bands: ExtraBands = option(
        "mean",
        "weights of bands that the initial weights do not read: mean: those of the others, all scaled so that the "
        "response keeps its size; zero",
        group="weights",
    )
    unfold_batch_norm: int = option(
        0,
        "batches that statistics of folded initial weights are measured on; the network stays the same function",
        group="weights",
    )
    recalibrate_batch_norm: int = option(
        0, "batches that batch norm's statistics are measured on again after the last step", group="learning"
    )
    resume: Resume = option(
        "newest_whole",
        "where the newest checkpoint is damaged: newest_whole takes the one before, strict refuses",
        group="checkpoints",
    )
    allow_change: tuple[str, ...] | None = option(
        None,
        "options in which a run may differ from how it began, as in train_batch_size,base_learning_rate,dataset_dir "
        "(other records of the same classes); run.json records each change with its step",
        parse=split_names,
        group="checkpoints",
    )
    steps_per_loop: str | int = option(
        "auto",
        "steps that the host starts at a time, as a loop on the devices, or auto: 1 on CPUs, about a second of steps "
        "on GPUs and TPUs, at most log_steps; the results are the same",
        parse=auto_or_count,
        group="devices",
    )
    log_steps: int = option(10, "steps between two lines of the log", group="logging")
    save_interval_secs: int = option(1200, "seconds between two checkpoints", group="checkpoints")
    keep_checkpoints: int = option(5, "number of the newest checkpoints that are kept", group="checkpoints")
    save_summaries_secs: int = option(
        600, "seconds between two sets of TensorBoard histograms, and images", group="logging"
    )
    save_summaries_images: bool = option(
        False, "show TensorBoard images, labels and predictions of a batch", group="logging"
    )
    log_to: tuple[str, ...] | None = option(
        None,
        "trackers that get the options, the log and the scores too, by their own libraries: wandb (Weights & Biases), "
        "mlflow, or wandb,mlflow",
        parse=split_names,
        group="logging",
    )
    profile_logdir: str | None = path_option(
        None, "folder for a TensorBoard profile of steps 10 to 20 after the start", group="logging"
    )
    deterministic: bool = option(
        False, "use deterministic operations only: equal runs give equal bits", group="devices"
    )
    tf32: bool = option(
        True,
        "let GPUs and TPUs round float32 to TensorFloat-32 or bfloat16 in updates; scores are computed without",
        group="devices",
    )
    strategy: Strategy = option(
        "auto", "devices: auto, one_device, mirrored, multi_worker (TF_CONFIG) or tpu", group="devices"
    )
    num_clones: int = option(
        1, "devices of this machine that share the batch (today --strategy=mirrored)", group="devices"
    )
    clone_on_cpu: bool = option(False, "put the clones on the CPU", group="devices")
    tpu: str | None = option(None, "name or address of the TPU; local on a TPU machine itself", group="devices")
    mode: Mode = option("train", "train, train_and_eval, eval (of the newest checkpoint) or continuous_eval (of each)")
    eval_interval_steps: int = option(
        0, "steps between two scores of train_and_eval; 0: one at each checkpoint", group="evaluation"
    )
    early_stop_patience: int = option(
        0, "scores in a row without an improvement to end after; 0: never", group="evaluation"
    )
    keep_best: bool = option(
        False, "keep the weights of the best score in the folder best of the run", group="evaluation"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_at_least(1, "log_steps", "keep_checkpoints", "num_clones")
        steps = self.steps_per_loop
        good = steps == "auto" or (type(steps) is int and steps >= 1)
        self._require("steps_per_loop", good, "expected auto, or a number of steps of at least 1")
        self._require_at_least(0, "eval_interval_steps", "early_stop_patience")
        self._require_at_least(0, "unfold_batch_norm", "recalibrate_batch_norm")
        for name in ("save_interval_secs", "save_summaries_secs"):
            self._require(name, getattr(self, name) >= 0, "expected seconds, 0 or more")
        self._require("initialize_extra_bands", self.initialize_extra_bands in EXTRA_BANDS, "expected mean or zero")
        if self.strategy not in STRATEGIES:
            raise unknown_name("strategy", self.strategy, STRATEGIES)
        if self.mode not in MODES:
            raise unknown_name("mode", self.mode, MODES)
        if self.resume not in RESUMES:
            raise unknown_name("resume", self.resume, RESUMES)
        for name in self.log_to or ():
            if name not in TRACKERS:
                raise unknown_name("log_to", name, TRACKERS)
        object.__setattr__(self, "log_to", tuple(dict.fromkeys(self.log_to or ())) or None)
        self._require_changeable()
        expected = "needs teacher, the network that says what is on pictures without labels"
        self._require("unlabelled_dir", not self.unlabelled_dir or bool(self.teacher), expected)
        self._require("unlabelled_share", 0 < self.unlabelled_share < 1, "expected a share between 0 and 1")
        scores = self.mode == "train_and_eval"
        for name in ("early_stop_patience", "keep_best"):
            self._require(name, scores or not getattr(self, name), "needs mode=train_and_eval, which gives the scores")

    def _require_changeable(self) -> None:
        """Raises DeepLabError for an option in allow_change that must not change; field names become those of flags."""
        flags = changeable()
        names = tuple(flags.get(name, name) for name in self.allow_change or ())
        for name in names:
            if name not in flags.values():
                known = ", ".join(sorted(flags.values()))
                raise DeepLabError(
                    f"allow_change={name}: must stay as the run began with it; these may change: {known}"
                )
        object.__setattr__(self, "allow_change", names or None)
