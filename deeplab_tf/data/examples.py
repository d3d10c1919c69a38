"""From the number of a record to a sound example: image, label in range, name. Faults are named by file and record.

Everything runs in the graph of tf.data, on the host, so that it goes wherever the input pipeline goes.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping

import tensorflow as tf

from deeplab_tf.catalog import datasets
from deeplab_tf.config import DataConfig
from deeplab_tf.data import find, records, transforms
from deeplab_tf.data.locate import Located, locate_records
from deeplab_tf.errors import DeepLabError

_MARK = "deeplab_tf data: "
_UNREADABLE = "cannot be read: its checksum does not match (the file is damaged)"
_NO_IMAGE = "its image is no JPEG or PNG that can be decoded"
_NO_LABEL = "its label is no PNG that can be decoded"
_UNLIKE = "its image and its label differ in size"


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    """Makes a DeepLabError, which names file and record, of the error that such a batch ends in.

    To be put around the loop that takes the batches.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(f"{_MARK}(.*?){_MARK.strip()}", str(error), re.DOTALL)
        if not found:
            raise
        raise DeepLabError(found[1].strip()) from None


def dataset_of(config: DataConfig) -> datasets.Dataset:
    """Returns the facts of `config.dataset`. DeepLabError as catalog.find_dataset."""
    return find.find_dataset(config.dataset, config.dataset_dir, config.tfds_features)


# ---- records

WindowOf = Callable[[tf.Tensor], transforms.Window]


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleSource:
    """The records of a split: how many, where each lies (tensors [count] and [files]), the keys that differ from the
    release's, and the `identity`: a name for all that decides which pixels and labels come of them."""

    config: DataConfig
    facts: datasets.Dataset
    labelled: bool
    keys: Mapping[str, str]
    count: int
    identity: str
    files: tf.Tensor
    shard: tf.Tensor
    offset: tf.Tensor
    number: tf.Tensor

    def file(self, record: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.files, tf.gather(self.shard, record))

    def record(self, number: tf.Tensor) -> tf.data.Dataset:
        """Returns a data set of the one record."""
        return records.RecordAt(self.file(number), tf.gather(self.offset, number))

    def parsed(self, number: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the stored strings and numbers of a record."""
        return self.parse(self.record(number).get_single_element())

    def parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the stored strings and numbers of a serialized record."""
        return records.parse_example(record, self.keys)

    def decoded(self, record: tf.Tensor, window_of: WindowOf | None) -> dict[str, tf.Tensor]:
        """Returns what Example says of a serialized record; an error of TensorFlow's if it is damaged."""
        parsed = self.parse(record)
        image, shape, corner = _decode(parsed[records.IMAGE], window_of)
        height, width = tf.unstack(tf.cast(shape, tf.int64))
        return {
            "image": image,
            "shape": shape,
            "corner": corner,
            "label": self.label(parsed[records.LABEL], shape),
            "image_name": parsed[records.FILENAME],
            # Records of other makers may lack the sizes; the release would cut its pictures to 0 pixels.
            "height": tf.where(parsed[records.HEIGHT] > 0, parsed[records.HEIGHT], height),
            "width": tf.where(parsed[records.WIDTH] > 0, parsed[records.WIDTH], width),
        }

    def label(self, content: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """Returns the label uint8 [h, w, 1] of its PNG; the ignore label everywhere for a split without labels."""
        if not self.labelled:
            return tf.fill(tf.concat([shape, [1]], axis=0), tf.constant(self.facts.ignore_label, tf.uint8))
        return records.decode_label(content)


def _decode(content: tf.Tensor, window_of: WindowOf | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the image, or of a JPEG the part that its window needs; the size of the whole; where the part begins."""

    def whole():
        image = records.decode_image(content)
        return image, tf.shape(image)[:2], tf.zeros(2, tf.int32)

    def part():
        shape = tf.image.extract_jpeg_shape(content)[:2]
        box = transforms.source_box(window_of(shape))
        return records.decode_part(content, box), shape, box[:2]

    return whole() if window_of is None else tf.cond(tf.io.is_jpeg(content), part, whole)


def open_source(config: DataConfig, split: str) -> ExampleSource:
    """Returns the records of a split. DeepLabError where there are none, or where a file is damaged between records."""
    facts, located = dataset_of(config), locate_records(config, split)
    index = located.index
    for fault in index.faults:
        if not config.skip_corrupt_records:
            raise DeepLabError(f"{fault}; build it again, or leave out what follows by --skip_corrupt_records")
        print(f"Left out: {fault}, and what follows in this file", file=sys.stderr)
    if not len(index):
        raise DeepLabError(f"dataset_dir={config.dataset_dir}: the files {split}-* hold no records")
    with tf.device("CPU"):
        tensors = [tf.constant(v) for v in (index.files, index.shard, index.offset, index.number)]
    identity = _identity(config, facts, located)
    return ExampleSource(config, facts, located.labelled, located.keys, len(index), identity, *tensors)


def _identity(config: DataConfig, facts: datasets.Dataset, located: Located) -> str:
    """Returns a digest of what the records hold, by their checksums, and of how they are decoded and checked."""
    stored = [getattr(located.index, name).tobytes() for name in ("checksum", "offset", "shard")]
    policy = [config.label_policy, *config.label_table.items()]
    labels = [located.labelled, facts.num_classes, facts.ignore_label, policy]
    reading = json.dumps([tf.__version__, sorted(located.keys.items()), labels])
    return hashlib.sha256(b"".join([*stored, reading.encode()])).hexdigest()[:32]


def attempt(
    source: ExampleSource, record: tf.Tensor, window_of: WindowOf | None = None
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Returns whether the record is sound, and the example (something small if it is not).

    The example has "image" and "label" (uint8), "image_name", "height", "width" as stored, "shape" of the picture and
    the "corner" where the image begins in it: not (0, 0) where `window_of`, given the shape, needs but a part.
    """
    nothing = {key: tf.zeros([1, 1, channels], tf.uint8) for key, channels in (("image", 3), ("label", 1))}
    nothing |= {"shape": tf.zeros(2, tf.int32), "corner": tf.zeros(2, tf.int32), "image_name": ""}
    nothing |= {"height": tf.constant(0, tf.int64), "width": tf.constant(0, tf.int64)}
    good, example = _first_of(source.record(record), lambda r: (True, source.decoded(r, window_of)), (False, nothing))
    for key in ("image", "label"):
        example[key] = tf.ensure_shape(example[key], [None, None, nothing[key].shape[-1]])
    return good & tf.reduce_all(example["shape"] == tf.shape(example["label"])[:2]), example


def _first_of(argument: tf.data.Dataset, function: Callable, otherwise):
    """Returns function of the one element in a graph, or `otherwise` where one of its operations fails."""
    tried = argument.map(unconverted(function)).ignore_errors()
    return tried.concatenate(tf.data.Dataset.from_tensors(otherwise)).take(1).get_single_element()


def unconverted(function: Callable) -> Callable:
    return tf.autograph.experimental.do_not_convert(function)


def _complaint(source: ExampleSource, record: tf.Tensor) -> tf.Tensor:
    """Returns what is wrong with a record that is not sound: a string that names it. Reads it once more."""

    def passes(part: Callable) -> tf.Tensor:
        def tried(serialized):
            used = part(source.parse(serialized))
            with tf.control_dependencies([tf.debugging.assert_non_negative(tf.size(used))]):
                return tf.constant(True)

        return _first_of(source.record(record), tried, False)

    label_passes = passes(lambda parsed: source.label(parsed[records.LABEL], tf.zeros(2, tf.int32)))
    reason = tf.where(label_passes, _UNLIKE, _NO_LABEL)
    reason = tf.where(passes(lambda parsed: records.decode_image(parsed[records.IMAGE])), reason, _NO_IMAGE)
    reason = tf.where(passes(lambda parsed: parsed[records.IMAGE]), reason, _UNREADABLE)
    return tf.strings.join([_named(source, record), ": ", reason])


def _named(source: ExampleSource, record: tf.Tensor, name: tf.Tensor | None = None) -> tf.Tensor:
    words = [source.file(record), ": record ", tf.strings.as_string(tf.gather(source.number, record))]
    return tf.strings.join(words if name is None else [*words, " (", name, ")"])


def _fail_unless(good: tf.Tensor, message: Callable[[], tf.Tensor]):
    """Ends the iteration with `message` where `good` is false. Only then is the message made."""

    def fail():
        marked = tf.strings.join([_MARK, message(), " ", _MARK.strip()])
        with tf.control_dependencies([tf.debugging.Assert(False, [marked])]):
            return tf.constant(True)

    return tf.cond(good, lambda: tf.constant(True), fail)


def sound_example(source: ExampleSource, record: tf.Tensor, window_of: WindowOf | None = None) -> dict[str, tf.Tensor]:
    """Returns the example of a record, or ends the iteration with its complaint."""
    good, example = attempt(source, record, window_of)
    with tf.control_dependencies([_fail_unless(good, lambda: _complaint(source, record))]):
        return {key: tf.identity(value) for key, value in example.items()}


def next_sound_example(
    source: ExampleSource, record: tf.Tensor, window_of: WindowOf | None = None
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Returns the example of the first sound record from `record` on, and how many (int32) were passed over.

    A batch keeps its size and its place in the epoch, so that a run with damaged records resumes like any other.
    """

    def step(tried, good, example):
        del good, example
        number = (record + tf.cast(tried, tf.int64)) % source.count
        good, example = attempt(source, number, window_of)
        told = tf.cond(good, lambda: 0, lambda: tell(source, number))
        with tf.control_dependencies([told]):
            return tried + 1, tf.identity(good), example

    start = step(tf.constant(0), None, None)
    tried, good, example = tf.while_loop(lambda tried, good, _: ~good & (tried < source.count), step, start,
                                         shape_invariants=tf.nest.map_structure(_open_shape, start))  # fmt: skip
    nothing_left = f"{source.config.dataset_dir}: not one of the {source.count} records can be read"
    with tf.control_dependencies([_fail_unless(good, lambda: tf.constant(nothing_left))]):
        return {key: tf.identity(value) for key, value in example.items()}, tried - 1


def _open_shape(tensor: tf.Tensor) -> tf.TensorShape:
    return tf.TensorShape([None, None, tensor.shape[-1]]) if tensor.shape.rank == 3 else tensor.shape


def tell(source: ExampleSource, record: tf.Tensor) -> tf.Tensor:
    """Prints which record is passed over, and returns 0."""
    with tf.control_dependencies([tf.print("Left out:", _complaint(source, record), output_stream=sys.stderr)]):
        return tf.constant(0)


# ---- labels


def checked_example(
    source: ExampleSource, record: tf.Tensor, window_of: WindowOf | None = None
) -> dict[str, tf.Tensor]:
    """Returns the example of a record with its label checked, or ends the iteration with what is wrong.

    As `attempt` gives it, and "skipped" (int32): how many records, as skip_corrupt_records allows, it stands in for.
    """
    if source.config.skip_corrupt_records:
        example, skipped = next_sound_example(source, record, window_of)
        record = (record + tf.cast(skipped, tf.int64)) % source.count
    else:
        example, skipped = sound_example(source, record, window_of), tf.constant(0)
    return {**example, "label": checked_label(source, record, example), "skipped": skipped}


def checked_label(source: ExampleSource, record: tf.Tensor, example: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns the label with `label_policy` carried out: every value a class or the ignore label."""
    label, policy = example["label"], source.config.label_policy
    if policy == "map":
        table = list(range(256))
        for old, new in source.config.label_table.items():
            table[old] = new
        label = tf.gather(tf.constant(table, tf.uint8), tf.cast(label, tf.int32))
    classes, ignored = source.facts.num_classes, tf.constant(source.facts.ignore_label, tf.uint8)
    if classes > 255:
        return label

    def wrong():
        return (label >= tf.constant(classes, tf.uint8)) & (label != ignored)

    if policy == "ignore":
        return tf.where(wrong(), ignored, label)

    def message():
        name = _named(source, record, example["image_name"])
        return _label_complaint(source, name, tf.boolean_mask(label, wrong()))

    # One more makes 255 a 0: the largest is then what matters, in half the time.
    more = tf.constant(int(source.facts.ignore_label == 255), tf.uint8)
    suspicious = tf.reduce_max(label + more) >= tf.constant(classes, tf.uint8) + more
    good = tf.cond(suspicious, lambda: ~tf.reduce_any(wrong()), lambda: tf.constant(True))
    with tf.control_dependencies([_fail_unless(good, message)]):
        return tf.identity(label)


def _label_complaint(source: ExampleSource, name: tf.Tensor, wrong: tf.Tensor) -> tf.Tensor:
    """Returns which labels are out of range, how often, and the likely cure."""
    values, _, counts = tf.unique_with_counts(tf.cast(wrong, tf.int32))
    parts = tf.strings.join([tf.strings.as_string(values), " (", tf.strings.as_string(counts), " pixels)"])
    more = tf.where(tf.size(values) > 5, " and others", "")
    listed = tf.strings.reduce_join(parts[:5], separator=", ")
    facts = source.facts
    expected = f"; {facts.name} has classes 0..{facts.num_classes - 1} and {facts.ignore_label} for what is ignored"
    binary = "; is it a mask of 0 and 255? --label_policy=map --label_map=255:1 makes it one of 0 and 1"
    other = (
        "; --label_policy=ignore ignores them, --label_policy=map --label_map=old:new renames them; colours or another "
        "numbering want another build (deeplab-tf build-data)"
    )
    cure = tf.where(tf.reduce_all(values == 255), binary, other)
    return tf.strings.join([name, ": label ", listed, more, expected, cure])
