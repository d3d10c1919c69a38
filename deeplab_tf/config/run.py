"""RunConfig: where a training run reads and writes, how often, on which devices. Import it from deeplab_tf.config."""

import dataclasses

from deeplab_tf.config.fields import Options, option, path_option
from deeplab_tf.errors import unknown_name

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
MODES = ("train", "train_and_eval", "eval", "continuous_eval")

_BATCHES = ("unfold_batch_norm", "recalibrate_batch_norm")


@dataclasses.dataclass(frozen=True)
class RunConfig(Options):
    """What surrounds the update: the release's train flags for folders, initial weights, logs and checkpoints."""

    train_logdir: str | None = path_option(
        None, "folder of the run: checkpoints, logs and the description of the model"
    )
    train_split: str = option("train", "split to train on")
    tf_initial_checkpoint: str | None = path_option(None, "weights to start from: anything `convert` reads")
    initialize_last_layer: bool = option(True, "also start the head from these weights")
    unfold_batch_norm: int = option(
        0, "batches that statistics are measured on for folded initial weights, the network staying the same function"
    )
    recalibrate_batch_norm: int = option(0, "batches that the statistics are measured on anew after the last step")
    log_steps: int = option(10, "steps between two lines of the log")
    save_interval_secs: int = option(1200, "seconds between two checkpoints")
    keep_checkpoints: int = option(5, "number of the newest checkpoints that are kept")
    save_summaries_secs: int = option(600, "seconds between two sets of TensorBoard histograms, and images")
    save_summaries_images: bool = option(False, "show TensorBoard images, labels and predictions of a batch")
    profile_logdir: str | None = path_option(None, "folder for a TensorBoard profile of steps 10 to 20 after the start")
    deterministic: bool = option(False, "use deterministic operations only: equal runs give equal bits")
    strategy: str = option("auto", "devices: auto, one_device, mirrored, multi_worker (TF_CONFIG) or tpu")
    num_clones: int = option(1, "devices of this machine that share the batch (today --strategy=mirrored)")
    clone_on_cpu: bool = option(False, "put the clones on the CPU")
    tpu: str | None = option(None, "name or address of the TPU; local on a TPU machine itself")
    mode: str = option("train", "train, train_and_eval, eval (of the newest checkpoint) or continuous_eval (of each)")
    eval_interval_steps: int = option(0, "steps between two scores of train_and_eval; 0: one at each checkpoint")
    early_stop_patience: int = option(0, "end after so many scores in a row that are no better; 0: never")
    keep_best: bool = option(False, "keep the weights of the best score in the folder best of the run")

    def __post_init__(self):
        super().__post_init__()
        for name in ("log_steps", "keep_checkpoints", "num_clones"):
            self._require(name, getattr(self, name) >= 1, "expected a number of at least 1")
        for name in ("save_interval_secs", "save_summaries_secs"):
            self._require(name, getattr(self, name) >= 0, "expected seconds, 0 or more")
        for name in ("eval_interval_steps", "early_stop_patience", *_BATCHES):
            self._require(name, getattr(self, name) >= 0, "expected a number of at least 0")
        for name, known in (("strategy", STRATEGIES), ("mode", MODES)):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        scores = self.mode == "train_and_eval"
        for name in ("early_stop_patience", "keep_best"):
            self._require(name, scores or not getattr(self, name), "needs mode=train_and_eval, which gives the scores")
