"""The TF1 names of training state: the step, optimiser slots, counters, moving averages."""

GLOBAL_STEP = "global_step"
# The optimiser's variables beside each weight, <variable>/<slot>. No optimiser here writes RMSProp's.
SLOTS = {"momentum": ("Momentum",), "adam": ("Adam", "Adam_1"), "rmsprop": ("RMSProp", "RMSProp_1")}
AVERAGE = "ExponentialMovingAverage"
COUNTERS = (GLOBAL_STEP, "beta1_power", "beta2_power", "loss_scale", "loss_scale_good_steps")
