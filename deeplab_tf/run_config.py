"""RunConfig: where a training run reads and writes, and how often. Import it from deeplab_tf.config."""

import dataclasses

from deeplab_tf.fields import Options, option


@dataclasses.dataclass(frozen=True)
class RunConfig(Options):
    """What surrounds the update: the release's train flags for folders, initial weights, logs and checkpoints."""

    train_logdir: str | None = option(None, "folder of the run: checkpoints, logs and the description of the model")
    train_split: str = option("train", "split to train on")
    tf_initial_checkpoint: str | None = option(None, "weights to start from: anything `convert` reads")
    initialize_last_layer: bool = option(True, "also start the head from these weights")
    log_steps: int = option(10, "steps between two lines of the log")
    save_interval_secs: int = option(1200, "seconds between two checkpoints")
    keep_checkpoints: int = option(5, "number of the newest checkpoints that are kept")
    deterministic: bool = option(False, "use deterministic operations only: equal runs give equal bits")

    def __post_init__(self):
        super().__post_init__()
        for name in ("log_steps", "keep_checkpoints"):
            self._require(name, getattr(self, name) >= 1, "expected a number of at least 1")
        self._require("save_interval_secs", self.save_interval_secs >= 0, "expected seconds, 0 or more")
