"""The measurements of `deeplab-tf benchmark`, one module for each value of --what; `processes` has convert and help."""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
