"""Scores and pictures of a checkpoint: evaluate, vis, verify, pack, and the report."""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
