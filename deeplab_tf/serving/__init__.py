"""The HTTP server of a model: TensorFlow Serving's REST interface and a page. The extra `serve` installs it."""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
