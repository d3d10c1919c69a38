"""Exported formats of a model, and the certificate that an exported file agrees with the model."""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
