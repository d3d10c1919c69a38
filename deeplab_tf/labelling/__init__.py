"""The labelling page: pictures ranked by what a model is unsure of, its masks as a start, corrections kept on disk."""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
