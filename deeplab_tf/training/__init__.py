"""Training: the step, its losses, schedules and optimisers, and the loop around it."""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
