"""Pictures without labels beside the labelled ones of a training: records, or a folder of picture files.

In a batch their labels are one value that is neither a class nor ignored: only a teacher's loss counts such pixels.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.catalog.image_facts import ImageFacts, require_same_bands
from deeplab_tf.config import DataConfig, RunConfig
from deeplab_tf.data import find, records
from deeplab_tf.data.encoded_files import read_file
from deeplab_tf.data.examples import ExampleSource, open_records, without_autograph
from deeplab_tf.data.file_tree import extension, files_below
from deeplab_tf.data.identity import records_digest
from deeplab_tf.data.layouts import find_layout
from deeplab_tf.data.locate import Located, locate_records
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS
from deeplab_tf.data.photographs import PhotographRules, stored_content
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import PILLOW_ERRORS, png_bytes
from deeplab_tf.ops.network_pictures import read_photograph
from deeplab_tf.ops.photograph_files import open_photograph

_SPLIT = "train"
_FLAG = "--unlabelled_dir"
_ExampleOf = Callable[[tf.Tensor], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """The pictures without labels of a training, and their places in its batches.

    Attributes:
      folder: where they lie.
      share: of each batch that they take.
      located: their records; None: they are files.
      names: the files, relative to the folder; () where they are records.
    """

    folder: str
    share: float
    located: Located | None
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: RunConfig, data: DataConfig) -> "Unlabelled | None":
        """Returns the pictures of `run.unlabelled_dir`; None where it is not set.

        Raises:
          DeepLabError: there are none, or the batch has no place for them or for labelled ones.
        """
        if not run.unlabelled_dir:
            return None
        folder = files.path(run.unlabelled_dir)
        if not folder.is_dir():
            problem = "is a file" if folder.is_file() else "no such folder"
            raise DeepLabError(f"{_FLAG}={folder}: {problem}; expected a folder of pictures or of records")
        if records.find_splits(folder):
            located = _located(_own(data, str(folder)), run.unlabelled_split or _SPLIT)
            found = cls(str(folder), run.unlabelled_share, located)
        elif run.unlabelled_split:
            raise DeepLabError(
                f"--unlabelled_split={run.unlabelled_split}: {folder} holds no records, and pictures have no splits; "
                "leave it out"
            )
        else:
            found = cls(str(folder), run.unlabelled_share, None, _pictures(str(folder)))
        share, taken = run.unlabelled_share, found.of_batch(data.batch_size)
        if not 0 < taken < data.batch_size:
            raise DeepLabError(
                f"--unlabelled_share={share:g}: {taken} of a batch of {data.batch_size}; expected a share that leaves "
                "both kinds of pictures at least one, and a batch of two or more"
            )
        return found

    def __len__(self) -> int:
        return len(self.names) if self.located is None else len(self.located.index)

    def of_batch(self, batch_size: int) -> int:
        """Returns the number of pictures without labels in each batch."""
        return int(batch_size * self.share + 1e-9)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What run.json holds: the number of pictures, and a digest of the records or of names and sizes."""
        if self.located is not None:
            return {"records": len(self), "digest": records_digest(self.located)}
        return {"pictures": len(self), "digest": _digest(self.folder, self.names)}

    def open(self, data: DataConfig, facts: Dataset) -> ExampleSource:
        """Returns the pictures as a source of examples, whose labels are `unlabelled_label` everywhere.

        Args:
          data: of the labelled ones.
          facts: the same.

        Raises:
          DeepLabError: they have other bands than the labelled ones, or the labels have no value to spare.
        """
        filler = unlabelled_label(facts)
        config = _own(data, self.folder)
        digest = hashlib.sha256(repr((self.identity, filler, facts.image)).encode()).hexdigest()[:32]
        if self.located is not None:
            theirs = find.find_dataset(None, self.folder)
            require_same_bands(theirs.image, facts.image, name=self.folder, expected_name="the network")
            source = open_records(config, _SPLIT, self.located)
            return dataclasses.replace(source, facts=facts, labelled=False, filler=filler, identity=digest)
        count = len(self.names)
        with tf.device("CPU"):
            return PictureFolder(
                config=config,
                split="",
                facts=facts,
                labelled=False,
                keys={},
                count=count,
                identity=digest,
                files=tf.constant([os.path.join(self.folder, name) for name in self.names]),
                shard=tf.range(count, dtype=tf.int32),
                offset=tf.zeros(count, tf.int64),
                number=tf.zeros(count, tf.int64),
                filler=filler,
            )

    def mixed(self, batch_size: int, labelled: _ExampleOf, unlabelled: _ExampleOf) -> _ExampleOf:
        """Returns the function that makes the example at a position of the sequence of all batches, of both kinds.

        Each part of a batch has its share of either, so that devices and accumulated parts see the same mixture.

        Args:
          batch_size: examples in a batch.
          labelled: makes the example at a position (int64 scalar) of the sequence of labelled ones.
          unlabelled: the same of the others.
        """
        places = np.arange(batch_size + 1)
        before = np.floor(places * self.share + 1e-9).astype(np.int64)  # pictures without labels before each place
        is_unlabelled = np.diff(before) > 0
        rank = np.where(is_unlabelled, before[:-1], places[:-1] - before[:-1])
        taken = int(before[-1])

        def example_of(position: tf.Tensor) -> dict[str, Any]:
            batch, place = position // batch_size, tf.math.floormod(position, batch_size)
            number = tf.gather(tf.constant(rank), place)
            return tf.cond(
                tf.gather(tf.constant(is_unlabelled), place),
                lambda: unlabelled(batch * taken + number),
                lambda: labelled(batch * (batch_size - taken) + number),
            )

        return example_of


class Mixed(NamedTuple):
    """Labelled pictures, and others that take a share of each batch."""

    labelled: ExampleSource
    unlabelled: Unlabelled


def unlabelled_label(facts: Dataset) -> int:
    """Returns the label of pixels without a label: the largest byte that is neither a class nor ignored.

    Raises:
      DeepLabError: there is none.
    """
    free = [value for value in range(255, facts.num_classes - 1, -1) if value != facts.ignore_label]
    if not free:
        raise DeepLabError(
            f"{_FLAG}: {facts.name} has {facts.num_classes} classes; expected at most 254, as labels are bytes and one "
            "of them marks what has no label"
        )
    return free[0]


def _own(data: DataConfig, folder: str) -> DataConfig:
    """Returns how pictures without labels are read: as the labelled ones, but from their own folder."""
    return dataclasses.replace(data, dataset=None, dataset_dir=folder, tfds_features=None, classes_of=None)


def _located(config: DataConfig, split: str) -> Located:
    """Returns the records of a split; the error where there are none names the flag that is meant."""
    try:
        return locate_records(config, split)
    except DeepLabError as error:
        raise DeepLabError(str(error).replace("dataset_dir=", f"{_FLAG}=", 1)) from None


def _pictures(folder: str) -> tuple[str, ...]:
    """Returns the pictures below a folder, relative to it; of one that holds labels too the images alone.

    Raises:
      DeepLabError: there are none.
    """
    paths = files_below(folder)
    found = [path for path in paths if extension(path) in IMAGE_EXTENSIONS]
    layout = find_layout(paths)
    if any(source.labels for source in layout.sources):
        images = {image for source in layout.sources for image in source.images}
        found = [path for path in found if path in images]
    if not found:
        raise DeepLabError(f"{_FLAG}={folder}: holds no pictures ({', '.join(IMAGE_EXTENSIONS)}) and no records")
    return tuple(found)


def _digest(folder: str, names: tuple[str, ...]) -> str:
    """Returns a digest of the names and sizes of files, which stays the same when their folder is moved."""
    lines = (f"{name}\0{files.path(os.path.join(folder, name)).stat().st_size}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True, eq=False)
class PictureFolder(ExampleSource):
    """Picture files as a source of examples: each is one of `files`, as `predict` reads them.

    JPEG and PNG are decoded in the graph; what is stored otherwise, or turned by its EXIF data, is decoded in Python.
    """

    def record(self, number: tf.Tensor) -> tf.data.Dataset:
        """Returns a data set of the one picture `number` (int64 scalar) as a serialized tf.train.Example."""

        def packed(file: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(self._packed, [file], tf.string), [])

        return tf.data.Dataset.from_tensors(self.file(number)).map(without_autograph(packed))

    def fault(self, record: tf.Tensor) -> tf.Tensor:
        """Returns what is wrong with a picture that cannot be read (string scalar)."""
        return tf.ensure_shape(tf.numpy_function(self._why, [self.file(record)], tf.string), [])

    def _packed(self, file: bytes) -> bytes:
        name = os.fsdecode(file)
        content, size = stored_picture(name, self.facts.image)
        stem = os.path.splitext(os.path.relpath(name, self.config.dataset_dir))[0]
        return records.make_example(content, None, filename=stem, height=size[0], width=size[1], channels=self.channels)

    def _why(self, file: bytes) -> bytes:
        try:
            stored_picture(os.fsdecode(file), self.facts.image)
        except DeepLabError as error:
            return str(error).encode()
        return f"{os.fsdecode(file)}: no image that can be decoded; fetch or save it again, or take it away".encode()


def stored_picture(file: str, image: ImageFacts | None) -> tuple[bytes, tuple[int, int]]:
    """Returns a picture file as a record holds it, upright, and its height and width.

    Args:
      file: its path.
      image: what the photographs of the labelled set are; None: 8-bit RGB.

    Raises:
      DeepLabError: it is missing or damaged, or has other bands.
    """
    content = read_file(file, "image")
    if image is not None:
        try:
            stored = stored_content(content, None, PhotographRules(image))
        except DeepLabError as error:
            raise DeepLabError(f"{file}: {error}") from None
        return stored.content, (stored.height, stored.width)
    try:
        photograph = open_photograph(content)
        if photograph.plain and photograph.is_rgb and photograph.orientation == 1:
            return content, photograph.size
    except (DeepLabError, *PILLOW_ERRORS):
        pass  # what is wrong with it, the next line says
    pixels = read_photograph(content, None, name=file).pixels
    return png_bytes(pixels), (pixels.shape[0], pixels.shape[1])
