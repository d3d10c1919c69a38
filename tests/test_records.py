"""Records: the release's schema in bytes, its fixture, shards by its arithmetic, and damage by file and number."""

import io
import pathlib
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf.data import record_index, records
from deeplab_tf.errors import DeepLabError


def encode(array: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def write(file, payloads) -> str:
    with tf.io.TFRecordWriter(str(file)) as writer:
        for payload in payloads:
            writer.write(payload)
    return str(file)


def read(index: record_index.RecordIndex, number: int) -> bytes:
    file, offset = index.files[index.shard[number]], index.offset[number]
    return record_index.RecordAt(tf.constant(file), tf.constant(offset)).get_single_element().numpy()


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


# ---- one record


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_schema_in_bytes(picture, kind):
    image, label = encode(picture, kind), encode(picture[..., 0] % 21, "PNG")
    serialized = records.make_example(image, label, filename="2007_000033", height=6, width=8)
    example = tf.train.Example.FromString(serialized)
    found = {k: list((v.bytes_list or v.int64_list).value) for k, v in example.features.feature.items()}
    found |= {k: list(v.int64_list.value) for k, v in example.features.feature.items() if v.int64_list.value}
    assert found == {
        "image/encoded": [image],
        "image/filename": [b"2007_000033"],
        "image/format": [kind.lower().encode()],
        "image/height": [6],
        "image/width": [8],
        "image/channels": [3],
        "image/segmentation/class/encoded": [label],
        "image/segmentation/class/format": [b"png"],
    }
    again = records.make_example(image, label, filename="2007_000033", height=6, width=8)
    assert again == serialized


def test_written_is_read(picture):
    label = picture[..., :1] % 21
    content = encode(label[..., 0], "PNG")
    parsed = records.parse_example(
        records.make_example(encode(picture, "PNG"), content, filename="é 1", height=6, width=8)
    )
    np.testing.assert_array_equal(records.decode_image(parsed[records.IMAGE]), picture)
    np.testing.assert_array_equal(records.decode_label(parsed[records.LABEL]), label)
    assert parsed[records.FILENAME].numpy().decode() == "é 1"
    assert (int(parsed[records.HEIGHT]), int(parsed[records.WIDTH])) == (6, 8)


def test_missing_keys_are_as_in_the_release():
    parsed = records.parse_example(tf.train.Example().SerializeToString())
    assert {k: v.numpy() for k, v in parsed.items()} == {
        records.IMAGE: b"",
        records.LABEL: b"",
        records.FILENAME: b"",
        records.HEIGHT: 0,
        records.WIDTH: 0,
    }
    unlabelled = records.make_example(encode(np.zeros((2, 2), np.uint8), "PNG"), None, filename="a", height=2, width=2)
    assert records.parse_example(unlabelled)[records.LABEL].numpy() == b""


def test_the_format_is_sniffed(picture):
    jpeg = encode(picture, "JPEG")
    example = tf.train.Example.FromString(records.make_example(jpeg, None, filename="a", height=6, width=8))
    example.features.feature["image/format"].bytes_list.value[0] = b"png"  # as the release's ADE20K records say
    parsed = records.parse_example(example.SerializeToString())
    np.testing.assert_array_equal(records.decode_image(parsed[records.IMAGE]), tf.io.decode_jpeg(jpeg, channels=3))


def test_grey_images_have_three_channels(picture):
    grey = records.decode_image(encode(picture[..., 0], "PNG"))
    np.testing.assert_array_equal(grey, np.repeat(picture[..., :1], 3, axis=-1))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_part_of_a_jpeg_is_as_in_the_whole(subsampling, colours):
    random = np.random.default_rng(1)
    array = random.integers(0, 256, (99, 131, colours), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(array[..., 0] if colours == 1 else array).save(stream, "JPEG", subsampling=subsampling)
    whole = records.decode_image(stream.getvalue()).numpy()
    for _ in range(25):
        top, left = random.integers(0, 60), random.integers(0, 90)
        height, width = random.integers(5, 99 - top + 1), random.integers(5, 131 - left + 1)
        part = records.decode_part(stream.getvalue(), [top, left, height, width]).numpy()
        assert part.shape == (height, width, 3)
        expected = whole[top : top + height, left : left + width]
        np.testing.assert_array_equal(part[1:-1, 1:-1], expected[1:-1, 1:-1])


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (b"GIF89a..", None, "x.gif: begins with b'GIF89a..'; a record holds a JPEG or PNG image"),
        (b"", None, "x.gif: begins with b''"),
        (b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe0", "its label begins with .*PNG label"),
    ],
)
def test_what_is_no_image_is_refused(image, label, message):
    with pytest.raises(DeepLabError, match=message):
        records.make_example(image, label, filename="x.gif", height=1, width=1)


# ---- shards


def test_shard_names_and_ranges():
    assert records.shard_name("train_aug", 3, 4) == "train_aug-00003-of-00004.tfrecord"
    assert records.shard_ranges(10582, 4) == [
        range(2646),
        range(2646, 5292),
        range(5292, 7938),
        range(7938, 10582),
    ]
    assert [len(r) for r in records.shard_ranges(5, 4)] == [2, 2, 1, 0]
    assert [len(r) for r in records.shard_ranges(0, 2)] == [0, 0]


def test_shards_are_found_in_order(tmp_path):
    for number in (2, 0, 1):
        write(tmp_path / records.shard_name("train", number, 3), [b"%d" % number])
    write(tmp_path / records.shard_name("train_aug", 0, 1), [b""])
    files = records.find_shards(tmp_path, "train")
    assert [file[-23:] for file in files] == [f"rain-0000{i}-of-00003.tfrecord"[-23:] for i in range(3)]
    index = record_index.index_shards(files)
    assert [read(index, i) for i in range(3)] == [b"0", b"1", b"2"]
    assert record_index.count_examples(tmp_path, "train") == 3


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(DeepLabError, match="nowhere: no such folder.*train-\\*.tfrecord"):
        records.find_shards(tmp_path / "nowhere", "train")
    with pytest.raises(DeepLabError, match="no files train-\\*; build it"):
        records.find_shards(tmp_path, "train")
    write(tmp_path / records.shard_name("train_aug", 0, 2), [])
    write(tmp_path / records.shard_name("val", 0, 1), [])
    with pytest.raises(DeepLabError, match="no files train-\\*; it has splits train_aug, val"):
        records.find_shards(tmp_path, "train")
    with pytest.raises(DeepLabError, match=r"train_aug-00001-of-00002.tfrecord is missing \(1 of 2"):
        records.find_shards(tmp_path, "train_aug")
    write(tmp_path / records.shard_name("val", 0, 4), [])
    with pytest.raises(DeepLabError, match="val is there in 1 and in 4 shards"):
        records.find_shards(tmp_path, "val")


def test_the_index_places_every_record(tmp_path):
    payloads = [bytes([i]) * (i * 37 % 300) for i in range(40)]
    files = [write(tmp_path / f"a{part}", payloads[part * 20 : part * 20 + 20]) for part in (0, 1)]
    index = record_index.index_shards([files[0], write(tmp_path / "empty", []), files[1]])
    assert len(index) == 40
    assert index.faults == ()
    assert index.number.tolist() == [*range(20), *range(20)]
    assert set(index.shard.tolist()) == {0, 2}
    assert [read(index, i) for i in (0, 7, 19, 20, 33, 39)] == [payloads[i] for i in (0, 7, 19, 20, 33, 39)]


def test_a_record_larger_than_the_buffer(tmp_path):
    payload = np.random.default_rng(0).bytes(1_000_000)
    index = record_index.index_shards([write(tmp_path / "a", [b"x", payload, b"y"])])
    assert read(index, 1) == payload
    assert read(index, 2) == b"y"


def test_damage_is_placed(tmp_path):
    content = pathlib.Path(write(tmp_path / "a", [b"a" * 10, b"b" * 20, b"c" * 30])).read_bytes()
    starts = [0, 26, 62]

    def indexed(data: bytes) -> record_index.RecordIndex:
        (tmp_path / "b").write_bytes(data)
        return record_index.index_shards([str(tmp_path / "b")])

    cut = indexed(content[:-5])
    assert len(cut) == 2
    assert cut.faults == (f"{tmp_path / 'b'}: record 2 at byte 62: the file ends at byte 103, before the record does "
                          "(truncated)",)  # fmt: skip
    assert len(indexed(content[:66])) == 2
    assert "record 2 at byte 62: the file ends at byte 66" in indexed(content[:66]).faults[0]
    wrong = bytearray(content)
    struct.pack_into("<Q", wrong, starts[1], 21)
    index = indexed(bytes(wrong))
    assert index.offset.tolist() == [0]
    assert "record 1 at byte 26: its length does not match its checksum" in index.faults[0]
    assert "not a TFRecord" in indexed(encode(np.zeros((9, 9), np.uint8), "PNG")).faults[0]

    flipped = bytearray(content)
    flipped[starts[1] + 15] ^= 1  # in the payload: found when it is read, and the others are not touched
    index = indexed(bytes(flipped))
    assert (len(index), index.faults) == (3, ())
    assert read(index, 2) == b"c" * 30
    with pytest.raises(tf.errors.DataLossError):
        read(index, 1)


# ---- the release's own fixture


def test_the_fixture_of_the_release(shared):
    index = record_index.index_shards(records.find_shards(shared / "real", "val"))
    assert len(index) == 3
    expected = [(366, 500, "2007_000033"), (335, 500, "2007_000042"), (333, 500, "2007_000061")]
    for number, (height, width, name) in enumerate(expected):
        parsed = records.parse_example(read(index, number))
        assert (int(parsed[records.HEIGHT]), int(parsed[records.WIDTH])) == (height, width)
        assert parsed[records.FILENAME].numpy().decode() == name
        assert records.decode_image(parsed[records.IMAGE]).shape == (height, width, 3)
        label = records.decode_label(parsed[records.LABEL]).numpy()
        assert label.shape == (height, width, 1)
        assert label.max() == 254
