"""The check of an example's label: `label_policy` carried out, and a message for values that are not classes."""

import tensorflow as tf

from deeplab_tf.data.examples import (
    ExampleSource,
    WindowOf,
    fail_unless,
    next_sound_example,
    record_name,
    sound_example,
)


def checked_example(
    source: ExampleSource, record: tf.Tensor, window_of: WindowOf | None = None
) -> dict[str, tf.Tensor]:
    """Returns the example of a record with its label checked; a fault ends the iteration.

    The example is that of `try_example` with "skipped" (int32): the number of damaged records before it that it stands
    in for. That is 0 unless `skip_corrupt_records` is set.
    """
    if source.config.skip_corrupt_records:
        example, skipped = next_sound_example(source, record, window_of)
        record = tf.math.floormod(record + tf.cast(skipped, tf.int64), source.count)
    else:
        example = sound_example(source, record, window_of)
        skipped = tf.constant(0)
    return {**example, "label": checked_label(source, record, example), "skipped": skipped}


def checked_label(source: ExampleSource, record: tf.Tensor, example: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns the label of an example, uint8 [h, w, 1], after `label_policy`: a class, or ignored, or the filler."""
    label = example["label"]
    if not source.labelled:
        return label
    policy = source.config.label_policy
    if policy == "map":
        table = list(range(256))
        for old, new in source.config.label_table.items():
            table[old] = new
        label = tf.gather(tf.constant(table, tf.uint8), tf.cast(label, tf.int32))
    classes = source.facts.num_classes
    ignored = tf.constant(source.facts.ignore_label, tf.uint8)
    if classes > 255:
        return label

    def wrong() -> tf.Tensor:
        return (label >= tf.constant(classes, tf.uint8)) & (label != ignored)

    if policy == "ignore":
        return tf.where(wrong(), ignored, label)

    def message() -> tf.Tensor:
        name = record_name(source, record, example["image_name"])
        return _label_fault(source, name, tf.boolean_mask(label, wrong()))

    # A maximum takes half the time of comparing every pixel. Adding 1 wraps an ignored 255 to 0, out of its way; only a
    # suspicious maximum is looked at again pixel by pixel.
    increment = tf.constant(int(source.facts.ignore_label == 255), tf.uint8)
    suspicious = tf.reduce_max(label + increment) >= tf.constant(classes, tf.uint8) + increment
    good = tf.cond(suspicious, lambda: ~tf.reduce_any(wrong()), lambda: tf.constant(True))
    with tf.control_dependencies([fail_unless(good, message)]):
        return tf.identity(label)


def _label_fault(source: ExampleSource, name: tf.Tensor, wrong: tf.Tensor) -> tf.Tensor:
    """Returns the message for the labels `wrong` (uint8 [n]) of a record: values, numbers of pixels, likely cure."""
    values, _, counts = tf.unique_with_counts(tf.cast(wrong, tf.int32))
    parts = tf.strings.join([tf.strings.as_string(values), " (", tf.strings.as_string(counts), " pixels)"])
    more = tf.where(tf.size(values) > 5, " and others", "")
    listed = tf.strings.reduce_join(parts[:5], separator=", ")
    facts = source.facts
    expected = f"; {facts.name} has classes 0..{facts.num_classes - 1} and {facts.ignore_label} for what is ignored"
    binary = "; is it a mask of 0 and 255? --label_policy=map --label_map=255:1 makes it one of 0 and 1"
    other = (
        "; --label_policy=ignore ignores them, --label_policy=map --label_map=old:new renames them; for colour "
        "labels or another numbering, rebuild the records (deeplab-tf build-data)"
    )
    cure = tf.where(tf.reduce_all(values == 255), binary, other)
    return tf.strings.join([name, ": label ", listed, more, expected, cure])
