"""Files of weights: TF1 checkpoints, archives, frozen graphs, model directories, and how they enter a model."""

from deeplab_tf.registration.backend import require_tensorflow

require_tensorflow()
