"""Keras layers, backbones, heads and the model that `build_model` assembles from them."""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
