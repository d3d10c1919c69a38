"""The TF1 names of training state: the step, optimiser slots, counters, moving averages."""

GLOBAL_STEP = "global_step"
# The optimiser's variables beside each weight, <variable>/<slot>. No optimiser here writes RMSProp's.
SLOTS = {"momentum": ("Momentum",), "adam": ("Adam", "Adam_1"), "rmsprop": ("RMSProp", "RMSProp_1")}
AVERAGE = "ExponentialMovingAverage"
# Adam's powers; with freeze_steps those of the backbone have the suffix that a second optimiser of TensorFlow 1 has.
POWERS = ("beta1_power", "beta2_power")
LATE_POWERS = tuple(f"{name}_1" for name in POWERS)
COUNTERS = (GLOBAL_STEP, *POWERS, *LATE_POWERS, "loss_scale", "loss_scale_good_steps")
