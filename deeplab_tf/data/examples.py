"""Examples from records: image, label and name for the number of a record; faults name file and record.

Everything runs in the graph of tf.data, on the host, so that it also works on the host of a remote worker.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import tensorflow as tf

from deeplab_tf.catalog import datasets
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import DataConfig
from deeplab_tf.data import find, record_index, records, windows
from deeplab_tf.data.locate import Located, locate_records
from deeplab_tf.errors import DeepLabError

T = TypeVar("T")

_MARK = "deeplab_tf data: "
_ESCAPE = re.compile(r"\\(?:[nrt'\"\\]|[0-7]{3})")  # as TensorFlow's assertions show quotes, backslashes and controls
_UNREADABLE = "cannot be read: its checksum does not match (the file is damaged)"
_NO_IMAGE = "its image is no JPEG or PNG that can be decoded"
_NO_LABEL = "its label is no PNG that can be decoded"
_DIFFERENT_SIZES = "its image and its label differ in size"


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    """Turns the error of a faulty batch into a DeepLabError that names file and record.

    Put it around a loop that takes batches from a distribution strategy; other loops iterate over `named_batches`. A
    fault can leave the graph of tf.data only as the text of a TensorFlow error, and `make_dataset` cannot do this
    itself: a tf.data.Dataset that translated its errors would lose that with the next `map` or `take`, and a
    distribution strategy never calls its Python iterator.
    """
    try:
        yield
    except tf.errors.OpError as error:
        message = re.search(f"{_MARK}(.*?){_MARK.strip()}", str(error), re.DOTALL)
        if not message:
            raise
        text = _ESCAPE.sub(lambda found: found[0].encode().decode("unicode_escape"), message[1])
        raise DeepLabError(text.strip()) from None


def named_batches(batches: Iterable[T]) -> Iterator[T]:
    """Yields the batches of a data set, and turns the error of a faulty one as `named_errors` does."""
    with named_errors():
        yield from batches


def dataset_of(config: DataConfig) -> datasets.Dataset:
    """Returns the facts of `config.dataset`; raises DeepLabError like `data.find.find_dataset`."""
    return find.dataset_of(config)


# ---- records

WindowOf = Callable[[tf.Tensor], windows.Window]  # int32 [2], the height and width of a picture -> its window


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleSource:
    """The records of a split and how they are read.

    Attributes:
      config: the options.
      split: the split's name.
      facts: the data set's classes and ignore label.
      labelled: whether the labels are read.
      keys: the release's key -> the key in these records, where they differ.
      count: the number of records.
      identity: a digest of everything that decides which pixels and labels come of the records.
      files: string [files], the paths of the shards.
      shard: int32 [count], the index in `files` of each record.
      offset: int64 [count], the byte at which it begins.
      number: int64 [count], its number in its file.
      filler: the label of every pixel where labels are not read; None: the ignore label.
    """

    config: DataConfig
    split: str
    facts: datasets.Dataset
    labelled: bool
    keys: Mapping[str, str]
    count: int
    identity: str
    files: tf.Tensor
    shard: tf.Tensor
    offset: tf.Tensor
    number: tf.Tensor
    filler: int | None = None

    @property
    def channels(self) -> int:
        """The bands of an image."""
        return self.facts.image.channels if self.facts.image else 3

    @property
    def dtype(self) -> tf.DType:
        """Of an image as it is decoded: uint8, or float32 for photographs that are not 8-bit RGB."""
        return tf.float32 if self.facts.image else tf.uint8

    def file(self, record: tf.Tensor) -> tf.Tensor:
        """Returns the path of the file that holds a record (int64 scalar)."""
        return tf.gather(self.files, tf.gather(self.shard, record))

    def record(self, number: tf.Tensor) -> tf.data.Dataset:
        """Returns a data set of the one record `number` (int64 scalar): a serialized tf.train.Example."""
        return record_index.RecordAt(self.file(number), tf.gather(self.offset, number))

    def parsed(self, number: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the stored strings and numbers of record `number` (int64 scalar)."""
        return self.parse(self.record(number).get_single_element())

    def parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the stored strings and numbers of a serialized record (string scalar)."""
        return records.parse_example(record, self.keys)

    def decoded(self, record: tf.Tensor, window_of: WindowOf | None) -> dict[str, tf.Tensor]:
        """Returns the example of a serialized record, as `try_example` describes it.

        Raises:
          tf.errors.OpError: the record is damaged (when the graph runs).
        """
        parsed = self.parse(record)
        image, shape, corner = _decode(parsed, self.facts.image, window_of)
        height, width = tf.unstack(tf.cast(shape, tf.int64))
        return {
            "image": image,
            "shape": shape,
            "corner": corner,
            "label": self.label(parsed[records.LABEL], shape),
            "image_name": parsed[records.FILENAME],
            # Records that other programs wrote may lack the sizes; the release would crop such pictures to 0 pixels.
            "height": tf.where(parsed[records.HEIGHT] > 0, parsed[records.HEIGHT], height),
            "width": tf.where(parsed[records.WIDTH] > 0, parsed[records.WIDTH], width),
        }

    def label(self, content: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """Returns the label uint8 [h, w, 1] of its PNG; the filler everywhere for a split without labels."""
        if not self.labelled:
            filler = self.facts.ignore_label if self.filler is None else self.filler
            return tf.fill(tf.concat([shape, [1]], axis=0), tf.constant(filler, tf.uint8))
        return records.decode_label(content)

    def fault(self, record: tf.Tensor) -> tf.Tensor:
        """Returns the name of an unsound record and what is wrong with it (string scalar). Reads it once more."""
        return _fault(self, record)


def _decode(
    parsed: Mapping[str, tf.Tensor], facts: ImageFacts | None, window_of: WindowOf | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the image (of a JPEG only the part under its window), the size of the whole, and the part's corner."""
    if window_of is None or facts is not None:
        return _decode_whole(parsed, facts)
    content = parsed[records.IMAGE]

    def decode_part() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        shape = tf.image.extract_jpeg_shape(content)[:2]
        box = windows.source_box(window_of(shape))
        return records.decode_part(content, box), shape, box[:2]

    return tf.cond(tf.io.is_jpeg(content), decode_part, lambda: _decode_whole(parsed, None))


def _decode_whole(parsed: Mapping[str, tf.Tensor], facts: ImageFacts | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    image = records.decode_photograph(parsed, facts)
    return image, tf.shape(image)[:2], tf.zeros(2, tf.int32)


def open_records(config: DataConfig, split: str, located: Located | None = None) -> ExampleSource:
    """Returns the records of a split, which `located` has found where it is given.

    Raises:
      DeepLabError: there are none, or a file is damaged between its records.
    """
    facts = dataset_of(config)
    located = located or locate_records(config, split)
    index = located.index
    for fault in index.faults:
        if not config.skip_corrupt_records:
            raise DeepLabError(f"{fault}; build it again, or leave out what follows by --skip_corrupt_records")
        print(f"Left out: {fault}, and what follows in this file", file=sys.stderr)
    if not len(index):
        raise DeepLabError(f"dataset_dir={config.dataset_dir}: the files {split}-* hold no records")
    with tf.device("CPU"):
        return ExampleSource(
            config=config,
            split=split,
            facts=facts,
            labelled=located.labelled,
            keys=located.keys,
            count=len(index),
            identity=_identity(config, facts, located),
            files=tf.constant(index.files),
            shard=tf.constant(index.shard),
            offset=tf.constant(index.offset),
            number=tf.constant(index.number),
        )


def _identity(config: DataConfig, facts: datasets.Dataset, located: Located) -> str:
    """Returns a digest of the records' contents, by their checksums, and of how they are decoded and checked."""
    stored = [getattr(located.index, name).tobytes() for name in ("checksum", "offset", "shard")]
    policy = [config.label_policy, *config.label_table.items()]
    labels = [located.labelled, facts.num_classes, facts.ignore_label, policy]
    image = [facts.image.to_json()] if facts.image else []
    reading = json.dumps([tf.__version__, sorted(located.keys.items()), labels, *image])
    return hashlib.sha256(b"".join([*stored, reading.encode()])).hexdigest()[:32]


def try_example(
    source: ExampleSource, record: tf.Tensor, window_of: WindowOf | None = None
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Returns whether a record is sound (bool), and its example, or a small placeholder if it is not.

    Args:
      source: the records.
      record: int64 scalar.
      window_of: returns the window that is needed of a picture; a JPEG is then decoded only there.

    Returns:
      The example has "image", uint8 [h, w, 3], or float32 [h, w, channels] for photographs that are not 8-bit RGB, and
      "label", uint8 [H, W, 1]; "image_name"; "height" and "width" (int64)
      as stored; "shape" (int32 [2]), the H and W of the picture; "corner" (int32 [2]), where in the picture the image
      begins: (0, 0) unless only a part was decoded.
    """
    placeholder = {
        "image": tf.zeros([1, 1, source.channels], source.dtype),
        "shape": tf.zeros(2, tf.int32),
        "corner": tf.zeros(2, tf.int32),
        "label": tf.zeros([1, 1, 1], tf.uint8),
        "image_name": "",
        "height": tf.constant(0, tf.int64),
        "width": tf.constant(0, tf.int64),
    }
    good, example = _first_or(
        (False, placeholder), source.record(record), lambda serialized: (True, source.decoded(serialized, window_of))
    )
    for key in ("image", "label"):
        example[key] = tf.ensure_shape(example[key], [None, None, placeholder[key].shape[-1]])
    return good & tf.reduce_all(example["shape"] == tf.shape(example["label"])[:2]), example


def _first_or(otherwise: Any, argument: tf.data.Dataset, function: Callable[..., Any]) -> Any:
    """Returns `function` of the only element of `argument`, or `otherwise` if one of its operations fails.

    A graph cannot catch an error. A data set that drops elements with errors can, so the function runs as its map.
    """
    results = argument.map(without_autograph(function)).ignore_errors()
    return results.concatenate(tf.data.Dataset.from_tensors(otherwise)).take(1).get_single_element()


def without_autograph(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that tf.data traces as it is written, without AutoGraph."""
    return tf.autograph.experimental.do_not_convert(function)


def _fault(source: ExampleSource, record: tf.Tensor) -> tf.Tensor:
    """Returns what `ExampleSource.fault` does."""

    def succeeds(part: Callable[[dict[str, tf.Tensor]], tf.Tensor]) -> tf.Tensor:
        def evaluated(serialized: tf.Tensor) -> tf.Tensor:
            used = part(source.parse(serialized))
            # Without a use of its result, tf.data would prune the operation that may fail.
            with tf.control_dependencies([tf.debugging.assert_non_negative(tf.size(used))]):
                return tf.constant(True)

        return _first_or(False, source.record(record), evaluated)

    label_succeeds = succeeds(lambda parsed: source.label(parsed[records.LABEL], tf.zeros(2, tf.int32)))
    reason = tf.where(label_succeeds, _DIFFERENT_SIZES, _NO_LABEL)
    reason = tf.where(succeeds(lambda parsed: records.decode_photograph(parsed, source.facts.image)), reason, _NO_IMAGE)
    reason = tf.where(succeeds(lambda parsed: parsed[records.IMAGE]), reason, _UNREADABLE)
    return tf.strings.join([record_name(source, record), ": ", reason])


def record_name(source: ExampleSource, record: tf.Tensor, image_name: tf.Tensor | None = None) -> tf.Tensor:
    """Returns a name for a record in messages (string scalar): its file, its number there and the name of its image."""
    parts = [source.file(record), ": record ", tf.strings.as_string(tf.gather(source.number, record))]
    return tf.strings.join(parts if image_name is None else [*parts, " (", image_name, ")"])


def fail_unless(good: tf.Tensor, message: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Ends the iteration with `message` if `good` is false; only then are the operations of `message` run."""

    def fail() -> tf.Tensor:
        marked = tf.strings.join([_MARK, message(), " ", _MARK.strip()])
        with tf.control_dependencies([tf.debugging.Assert(False, [marked])]):
            return tf.constant(True)

    return tf.cond(good, lambda: tf.constant(True), fail)


def sound_example(source: ExampleSource, record: tf.Tensor, window_of: WindowOf | None = None) -> dict[str, tf.Tensor]:
    """Returns the example of a record as `try_example` does; an unsound one ends the iteration with its fault."""
    good, example = try_example(source, record, window_of)
    with tf.control_dependencies([fail_unless(good, lambda: source.fault(record))]):
        return {key: tf.identity(value) for key, value in example.items()}


def next_sound_example(
    source: ExampleSource, record: tf.Tensor, window_of: WindowOf | None = None
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Returns the example of the first sound record from `record` on, and how many (int32) were skipped.

    The next record takes the place of a damaged one, so that batches keep their size and their position in the epoch
    and a run with damaged records resumes like any other.
    """

    def try_next(tried: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        number = tf.math.floormod(record + tf.cast(tried, tf.int64), source.count)
        good, example = try_example(source, number, window_of)
        reported = tf.cond(good, lambda: 0, lambda: report_skipped(source, number))
        with tf.control_dependencies([reported]):
            return tried + 1, tf.identity(good), example

    start = try_next(tf.constant(0))
    tried, good, example = tf.while_loop(
        cond=lambda tried, good, _: ~good & (tried < source.count),
        body=lambda tried, good, example: try_next(tried),
        loop_vars=start,
        # The pictures of the loop have different sizes.
        shape_invariants=tf.nest.map_structure(_open_shape, start),
    )
    nothing_left = f"{source.config.dataset_dir}: not one of the {source.count} records can be read"
    with tf.control_dependencies([fail_unless(good, lambda: tf.constant(nothing_left))]):
        return {key: tf.identity(value) for key, value in example.items()}, tried - 1


def _open_shape(tensor: tf.Tensor) -> tf.TensorShape:
    return tf.TensorShape([None, None, tensor.shape[-1]]) if tensor.shape.rank == 3 else tensor.shape


def report_skipped(source: ExampleSource, record: tf.Tensor) -> tf.Tensor:
    """Prints the fault of a record that is skipped, and returns 0."""
    with tf.control_dependencies([tf.print("Left out:", source.fault(record), output_stream=sys.stderr)]):
        return tf.constant(0)
