"""Indices of checkpoints: all kinds that TensorFlow writes, and those that would end the process inside it."""

import contextlib
import io
import struct

import numpy as np
import pytest
import tables
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

from deeplab_tf import files
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.weights.checkpoint_index import read_index
from deeplab_tf.weights.sorted_table import TableError, read_table
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.tf1 import write_tensors

v1 = tf.compat.v1
WEIGHT = "conv/weights"


@pytest.fixture
def prefix(tmp_path):
    values = {WEIGHT: np.ones((3, 3, 3, 4), np.float32), "conv/biases": np.ones(4, np.float32), "step": np.int64(3)}
    write_tensors(tmp_path / "model.ckpt", values)
    return tmp_path / "model.ckpt"


def shaped(*sizes):
    def edit(entry):
        del entry.shape.dim[:]
        for size in sizes:
            entry.shape.dim.add().size = size

    return edit


def sliced(*extents):
    def edit(entry):
        for start, length in extents:
            part = entry.slices.add()
            part.extent.add(start=start, length=length)
            for _ in range(3):
                part.extent.add()

    return edit


def fields(**values):
    return lambda entry: [setattr(entry, name, value) for name, value in values.items()]


HOSTILE = {
    "negative": (WEIGHT, shaped(-5), "has the shape [-5]"),
    "enormous": (WEIGHT, shaped(1 << 40, 1 << 40), "has the shape [1099511627776, 1099511627776]"),
    "empty and enormous": (WEIGHT, shaped(0, 1 << 40, 1 << 40), "has the shape [0, 1099511627776, 1099511627776]"),
    "300 dimensions": (WEIGHT, shaped(*[1] * 300), "has 300 dimensions"),
    "unknown rank": (WEIGHT, lambda entry: setattr(entry.shape, "unknown_rank", True), "dimensions"),
    "another shape": (WEIGHT, shaped(3, 3, 3, 5), "has 432 bytes; its shape [3, 3, 3, 5] takes 540"),
    "no type": (WEIGHT, fields(dtype=0), "has the type 0"),
    "unknown type": (WEIGHT, fields(dtype=77), "has the type 77"),
    "reference type": (WEIGHT, fields(dtype=101), "has the type 101"),
    "resource": (WEIGHT, fields(dtype=20), "has the type 20"),
    "negative size": (WEIGHT, fields(size=-1), "-1 bytes"),
    "negative place": (WEIGHT, fields(offset=-1), "lies at -1"),
    "behind the data": (WEIGHT, fields(offset=1 << 50), "ends at byte"),
    "overlapping": (WEIGHT, fields(offset=0), "overlap"),
    "another file": (WEIGHT, fields(shard_id=3), "lies in file 3 of 1"),
    "negative file": (WEIGHT, fields(shard_id=-1), "lies in file -1 of 1"),
    "missing slice": (WEIGHT, sliced((0, 1), (1, 2)), "a slice of 'conv/weights' is missing"),
    "slice outside": (WEIGHT, sliced((0, 9)), "lies outside"),
    "slice before": (WEIGHT, sliced((-1, 2)), "lies outside"),
    "flat slice": (WEIGHT, lambda entry: entry.slices.add(), "a slice of 'conv/weights' has 0 dimensions"),
    "many files": ("", fields(num_shards=1 << 30), "1073741824 files of data"),
    "no files": ("", fields(num_shards=0), "0 files of data"),
    "missing file": ("", fields(num_shards=2), "model.ckpt.data-00000-of-00002 is missing"),
    "byte order": ("", fields(endianness=7), "byte order 7"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_does_not_fit_the_files_never_reaches_tensorflow(case, prefix):
    name, edit, expected = HOSTILE[case]
    tables.change(prefix.with_name("model.ckpt.index"), name, edit)
    with pytest.raises(DamagedError) as caught, open_source(prefix):
        pass
    assert expected in str(caught.value) and str(caught.value).startswith(f"{prefix}: damaged or truncated (")
    assert "\n" not in str(caught.value)


def test_truncated_data_are_noticed_before_they_are_read(prefix):
    data = prefix.with_name("model.ckpt.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="ends at byte 456 of model.ckpt.data-00000-of-00001, which has 455"):
        open_source(prefix).__enter__()


def test_strings_are_listed_and_not_read(tmp_path):
    tf.train.Checkpoint(net=tf.Variable([1.0, 2.0])).write(str(tmp_path / "objects"))
    with open_source(tmp_path / "objects") as source:
        assert source.shapes == {"_CHECKPOINTABLE_OBJECT_GRAPH": (), "net/.ATTRIBUTES/VARIABLE_VALUE": (2,)}
        with pytest.raises(DeepLabError, match="holds no numbers"):
            source.read("_CHECKPOINTABLE_OBJECT_GRAPH")


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory):
    """The same variables in both formats of TensorFlow 1, two of them in slices with long and short numbers."""
    folder = tmp_path_factory.mktemp("partitioned")
    with tf.Graph().as_default(), v1.Session() as session:
        for name, shape, axis in (("a/w", [200, 3], 0), ("b", [2, 30000], 1)):
            cut = v1.fixed_size_partitioner(3, axis=axis)
            v1.get_variable(name, shape=shape, partitioner=cut, use_resource=False)
        v1.get_variable("g", initializer=np.int64(-1), use_resource=False)
        session.run(v1.global_variables_initializer())
        for version in (v1.train.SaverDef.V1, v1.train.SaverDef.V2):
            saver = v1.train.Saver(write_version=version)
            saver.save(session, str(folder / f"version{version}"), write_meta_graph=False, write_state=False)
    return folder


def test_both_formats_and_slices_are_read(partitioned):
    shapes = {"a/w": (200, 3), "b": (2, 30000), "g": ()}
    assert dict(read_index(files.path(partitioned / "version2")).shapes) == shapes
    assert dict(read_index(files.path(partitioned / "version1")).shapes) == shapes
    with open_source(partitioned / "version2") as source:
        assert source.read("a/w").shape == (200, 3)


def test_slices_that_overlap_or_leave_room_are_refused(partitioned, tmp_path):
    index = tmp_path / "version2.index"
    (tmp_path / "version2.data-00000-of-00001").symlink_to(partitioned / "version2.data-00000-of-00001")
    for edit, expected in (
        (lambda entry: entry.slices.append(entry.slices[0]), "missing"),  # it was taken once
        (lambda entry: entry.slices.pop(), "have 402 values, the variable 600"),
        (shaped(200, 4), "have 600 values, the variable 800"),
    ):
        index.write_bytes((partitioned / "version2.index").read_bytes())
        tables.change(index, "a/w", edit)
        with pytest.raises(TableError, match=expected):
            read_index(files.path(tmp_path / "version2"))


def test_a_first_version_with_an_absurd_shape(partitioned, tmp_path):
    from tensorflow.core.util import saved_tensor_slice_pb2

    pairs = tables.pairs_of(partitioned / "version1")
    for sizes, expected in (((1 << 62,), "which no variable has"), ((1 << 20,), "not all there"), ((-1,), "shape")):
        meta = saved_tensor_slice_pb2.SavedTensorSlices.FromString(pairs[0][1])
        shaped(*sizes)(meta.meta.tensor[-1])
        meta.meta.tensor[-1].slice[0].extent.add()
        (tmp_path / "odd").write_bytes(tables.table([(b"", meta.SerializeToString()), *pairs[1:]]))
        with pytest.raises(DamagedError, match=expected):
            open_source(tmp_path / "odd").__enter__()


def snappy(content: bytes) -> bytes:
    """Compresses a run of equal bytes, and leaves the rest."""
    run = content.find(bytes(40))
    literals = [content[:run], content[run + 40 :]] if run >= 0 else [content]
    parts = [bytes([61 << 2]) + struct.pack("<H", len(part) - 1) + part for part in literals]
    copy = bytes([0, 0]) + bytes([38 << 2 | 2, 1, 0])  # one zero, then 39 from one byte back
    return tables.varint(len(content)) + copy.join(parts)


def test_compressed_blocks_are_read():
    pairs = [(b"a", bytes(100)), (b"b", b"x")]
    content = tables.table(pairs, kind=1, pack=snappy)
    assert list(read_table(io.BytesIO(content), len(content))) == pairs


def broken_tables():
    pair = (b"a", b"value")
    yield "empty", b"", "shorter than a footer"
    yield "zeros", bytes(500), "magic number"
    yield "order", tables.table([(b"b", b""), (b"a", b"")]), "do not ascend"
    yield "twice", tables.table([pair, pair]), "do not ascend"
    yield "compression", tables.table([pair], kind=9), "unknown way 9"
    yield "bomb", tables.table([pair], kind=1, pack=lambda _: tables.varint(1 << 40)), "compressed block of"
    yield "not snappy", tables.table([pair], kind=1), "compressed block"
    for number, what in ((1 << 31, "restarts"), (0, "restarts")):
        pack = (lambda count: lambda content: content[:-4] + struct.pack("<I", count))(number)
        yield f"{number} restarts", tables.table([pair], pack=pack), what
    yield "mark", tables.table([pair], pack=lambda c: c[:-8] + struct.pack("<II", 3, 1)), "restarts that are none"
    whole = tables.table([pair])
    yield "cut", whole[:20] + whole[-48:], "."
    footer = tables.varint(1 << 62) * 4
    yield "far", whole[:-48] + footer.ljust(40, b"\0") + whole[-8:], "lies outside"
    many = [(b"%07d" % number, b"") for number in range(100_001)]
    yield "endless", tables.table(many), "more than 100000 entries"


@pytest.mark.parametrize(("content", "expected"), [pytest.param(c, e, id=n) for n, c, e in broken_tables()])
def test_tables_that_are_not_sound(content, expected):
    with pytest.raises(TableError, match=expected):
        list(read_table(io.BytesIO(content), len(content)))


def test_every_changed_byte_and_every_cut_is_noticed(prefix):
    """A checksum covers all but the footer's padding; what remains must be read as before."""
    index = prefix.with_name("model.ckpt.index")
    whole = index.read_bytes()
    expected = dict(read_index(files.path(prefix)).shapes)
    for at in range(len(whole)):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]):
            index.write_bytes(content)
            with contextlib.suppress(TableError):
                assert dict(read_index(files.path(prefix)).shapes) == expected


def test_the_header_is_the_first_entry(prefix):
    index = prefix.with_name("model.ckpt.index")
    index.write_bytes(tables.table(tables.pairs_of(index)[1:]))
    with pytest.raises(TableError, match="how many files"):
        read_index(files.path(prefix))
    entry = tensor_bundle_pb2.BundleEntryProto()
    index.write_bytes(tables.table([(b"", b"\xff\xff"), (b"x", entry.SerializeToString())]))
    with pytest.raises(TableError, match="cannot be read"):
        read_index(files.path(prefix))
