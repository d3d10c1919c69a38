"""Input that stays parallel where TensorFlow's operations are deterministic."""

import tensorflow as tf


def kept_parallel(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the data set, with the same elements in the same order, out of reach of tf.data's rewriting.

    tf.config.experimental.enable_op_determinism also has tf.data rewrite each pipeline (its pass make_deterministic): a
    map that reads files, calls Python or may fail becomes sequential, and nothing is prefetched, because the pass
    cannot know that nothing is shared. A pipeline that is a pure function of seed and place, and keeps its order
    (deterministic=True), loses nothing but time by that. The rewriting does not look into a wrapped data set.

    Other rewriting does not reach it either, such as that of a map and a batch into one operation: use it for
    deterministic runs only.
    """
    with tf.device("CPU"):
        wrapped = tf.raw_ops.WrapDatasetVariant(input_handle=tf.data.experimental.to_variant(dataset))

    def inner(_: tf.Tensor) -> tf.data.Dataset:
        variant = tf.raw_ops.UnwrapDatasetVariant(input_handle=wrapped)
        return tf.data.experimental.from_variant(variant, dataset.element_spec)

    outer = tf.data.Dataset.from_tensors(0).flat_map(tf.autograph.experimental.do_not_convert(inner))
    # Strategies ask at each step whether there is a batch, unless they know.
    known = outer.apply(tf.data.experimental.assert_cardinality(dataset.cardinality()))
    return known.prefetch(tf.data.AUTOTUNE)
