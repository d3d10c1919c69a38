"""The measurements of `deeplab-tf benchmark`, one module for each value of --what."""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
