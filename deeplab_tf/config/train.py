"""TrainConfig: the options of losses, schedule and update. Import it from deeplab_tf.config."""

import dataclasses
from typing import Literal, get_args

from deeplab_tf.config.fields import SWITCHES, Options, Switch, option, switch

Optimizer = Literal["momentum", "adam"]
LearningPolicy = Literal["poly", "step", "cosine"]
BurnIn = Literal["none", "linear"]
Loss = Literal["cross_entropy", "focal", "dice", "lovasz", "unbiased"]
Freeze = Literal["none", "backbone"]
MixedPrecision = Literal["none", "bfloat16", "float16", "auto"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
LEARNING_POLICIES: tuple[LearningPolicy, ...] = get_args(LearningPolicy)
BURN_IN_TYPES: tuple[BurnIn, ...] = get_args(BurnIn)
LOSSES: tuple[Loss, ...] = get_args(Loss)
FREEZES: tuple[Freeze, ...] = get_args(Freeze)
PRECISIONS: tuple[MixedPrecision, ...] = get_args(MixedPrecision)
LEAST_BATCH = 12  # images for training batch norm, by the DeepLab-v3 paper (arXiv 1706.05587, section 4.1)


@dataclasses.dataclass(frozen=True)
class TrainConfig(Options, group="schedule"):
    """How a network learns: the release's train flags about losses, schedule and update, and what it has no flag for.

    An `Experiment` sets `ignore_label` to its data set's.

    >>> config = deeplab_tf.TrainConfig(base_learning_rate=0.007, training_number_of_steps=30_000)
    >>> config.optimizer, config.learning_policy, config.learning_power
    ('momentum', 'poly', 0.9)
    """

    optimizer: Optimizer = option("momentum", "momentum or adam, as TensorFlow 1 computes them")
    learning_policy: LearningPolicy = option("poly", "how the rate falls: poly, step or cosine")
    base_learning_rate: float = option(1e-4, "initial rate; 0.007 for PASCAL VOC train_aug, 1e-4 for trainval")
    decay_steps: float = option(0.0, "steps of the poly and cosine policies; 0: all steps after the slow start")
    end_learning_rate: float = option(0.0, "rate at the end of the poly and cosine policies")
    learning_rate_decay_factor: float = option(0.1, "factor of the step policy")
    learning_rate_decay_step: int = option(2000, "steps after which the step policy multiplies the rate by its factor")
    learning_power: float = option(0.9, "power of the poly policy")
    training_number_of_steps: int = option(30000, "steps to train for, and the end of the rate's schedule")
    slow_start_step: int = option(0, "steps at the slow start's rate, before the policy begins")
    slow_start_learning_rate: float = option(1e-4, "rate of the slow start")
    slow_start_burnin_type: BurnIn = option("none", "none: constant slow start; linear: ramp up to base_learning_rate")
    momentum: float = option(0.9, "momentum of the momentum optimizer")
    adam_learning_rate: float = option(0.001, "constant rate of the adam optimizer; 0: the policy's rate")
    adam_epsilon: float = option(1e-8, "epsilon of the adam optimizer")
    weight_decay: float = option(0.00004, "L2 of the convolution kernels, with a half; 0.0001 for ResNet", group="loss")
    last_layer_gradient_multiplier: float = option(
        1.0, "multiplies the gradients of the head's variables", group="learning"
    )
    last_layers_contain_logits_only: bool = option(
        False, "only the logits count as the head (else ASPP and decoder)", group="learning"
    )
    fine_tune_batch_norm: bool = option(
        True, "train with batch statistics and update the moving ones", group="learning"
    )
    freeze_batch_norm: bool = option(False, "keep gamma, beta and the moving statistics as they are", group="learning")
    freeze: Freeze = option(
        "none",
        "backbone: its variables and batch statistics stay as they are, and only the head learns; needs weights",
        group="learning",
    )
    freeze_steps: int = option(
        0, "steps for which freeze holds, after which all variables learn; 0: the whole run", group="learning"
    )
    sync_batch_norm: bool = option(
        False, "batch statistics over all replicas instead of each one's own", group="learning"
    )
    upsample_logits: bool = option(
        True, "loss at the labels' size; false: labels shrink to the logits' size", group="loss"
    )
    label_weights: tuple[float, ...] | None = option(None, "loss weight of each class; unset: 1 for all", group="loss")
    hard_example_mining_step: int = option(
        0, "steps in which mining narrows from all pixels to top_k_percent_pixels", group="loss"
    )
    top_k_percent_pixels: float = option(1.0, "share of the pixels, the hardest, that count in the loss", group="loss")
    loss: Loss = option(
        "cross_entropy",
        "cross_entropy, focal, dice, lovasz, or unbiased: cross entropy of a network that has got more classes, on "
        "labels that call all of its old ones background (deeplab-tf extend)",
        group="loss",
    )
    focal_gamma: float = option(2.0, "exponent of the focal loss", group="loss")
    old_classes: int = option(0, "for loss=unbiased: the number of old classes, which are the first ones", group="loss")
    background_class: int = option(
        0, "for loss=unbiased: the old class that all pixels of the new ones belonged to", group="loss"
    )
    distillation_weight: float = option(
        1.0, "weight of the loss against the teacher's probabilities, in that of all", group="loss"
    )
    teacher_confidence: float = option(
        0.8,
        "on pictures without labels: probability of the teacher's best class below which a pixel is ignored",
        group="loss",
    )
    ignore_label: int = option(255, "label whose pixels do not count; 0 for ADE20K", group="loss")
    dropout: bool = option(True, "drop features in the head, as the release always does", group="learning")
    drop_path_keep_prob: float = option(1.0, "how likely a path of a NAS cell is kept", group="learning")
    seed: int = option(0, "dropout is a function of this seed, the step and the layer")
    gradient_accumulation_steps: int = option(1, "parts that the batch of one update is run in, one after the other")
    ema_decay: float = option(0.0, "decay of an exponential moving average of the weights; 0: none is kept")
    mixed_precision: MixedPrecision = option(
        "none",
        "compute in bfloat16 or float16, with weights in float32; none: all float32; auto: bfloat16 on TPUs and "
        "GPUs of compute capability 8.0 or more, else none",
        group="devices",
    )
    jit_compile: Switch = option(
        "auto",
        "compile the step with XLA; auto: on GPUs and TPUs, where it wins and can, not on CPUs",
        parse=switch,
        group="devices",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_names()
        self._require_schedule()
        self._require_loss()
        self._require_update()

    def _require_names(self) -> None:
        for name, known in (
            ("optimizer", OPTIMIZERS),
            ("learning_policy", LEARNING_POLICIES),
            ("slow_start_burnin_type", BURN_IN_TYPES),
            ("loss", LOSSES),
            ("freeze", FREEZES),
            ("mixed_precision", PRECISIONS),
            ("jit_compile", SWITCHES),
        ):
            self._require(name, getattr(self, name) in known, f"expected one of {', '.join(known)}")

    @property
    def by_pixel(self) -> bool:
        """Whether the loss is a sum over pixels."""
        return self.loss not in ("dice", "lovasz")

    def _require_schedule(self) -> None:
        rates = ("base_learning_rate", "end_learning_rate", "slow_start_learning_rate", "learning_rate_decay_factor")
        self._require_at_least(0, *rates, "learning_power", "slow_start_step", "decay_steps")
        self._require_at_least(1, "training_number_of_steps", "learning_rate_decay_step")
        expected = f"expected fewer than training_number_of_steps={self.training_number_of_steps}, or give decay_steps"
        endless = self.learning_policy == "step" or self.decay_steps > 0
        self._require("slow_start_step", endless or self.slow_start_step < self.training_number_of_steps, expected)

    def _require_loss(self) -> None:
        self._require_at_least(0, "hard_example_mining_step", "focal_gamma")
        share = self.top_k_percent_pixels
        self._require("top_k_percent_pixels", 0 < share <= 1, "expected a share above 0 and at most 1")
        minable = "cross_entropy, focal and unbiased can mine"
        expected = f"expected 1 with loss={self.loss}, which is not a sum over pixels; {minable}"
        self._require("top_k_percent_pixels", self.by_pixel or share == 1, expected)
        weights = self.label_weights
        self._require("label_weights", weights is None or min(weights) >= 0, "expected weights of at least 0")
        self._require_at_least(0, "distillation_weight", "background_class")
        self._require("teacher_confidence", 0 <= self.teacher_confidence <= 1, "expected a probability, 0 to 1")
        grown = self.loss == "unbiased"
        expected = "expected the number of classes before the network grew with loss=unbiased, 0 with another loss"
        self._require("old_classes", self.old_classes >= 1 if grown else self.old_classes == 0, expected)
        expected = f"expected one of the old classes, 0..{self.old_classes - 1}" if grown else "needs loss=unbiased"
        self._require("background_class", self.background_class < max(self.old_classes, 1), expected)

    def _require_update(self) -> None:
        for name in ("momentum", "ema_decay"):
            self._require(name, 0 <= getattr(self, name) < 1, "expected a number from 0 to below 1")
        keep = self.drop_path_keep_prob
        self._require("drop_path_keep_prob", 0 < keep <= 1, "expected a probability above 0 and at most 1")
        self._require("adam_epsilon", self.adam_epsilon > 0, "expected a number above 0")
        self._require_at_least(0, "adam_learning_rate", "weight_decay", "last_layer_gradient_multiplier", "seed")
        self._require_at_least(1, "gradient_accumulation_steps")
        self._require_freezing()

    def _require_freezing(self) -> None:
        self._require_at_least(0, "freeze_steps")
        steps = self.freeze_steps
        self._require("freeze_steps", not steps or self.freeze != "none", "needs freeze=backbone")
        expected = f"expected fewer than training_number_of_steps={self.training_number_of_steps}, or 0: the whole run"
        self._require("freeze_steps", steps < self.training_number_of_steps, expected)
