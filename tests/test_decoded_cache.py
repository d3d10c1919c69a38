"""Decoded pictures on disk: equal batches, one decoding, nothing stale, and no stop for want of room."""

import dataclasses
import errno
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from record_files import encoded, write_records
from test_pipeline import assert_equal

from deeplab_tf.config import DataConfig
from deeplab_tf.data import decoded_cache, records
from deeplab_tf.data.examples import named_errors
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.errors import DeepLabError

COUNT = 5


def serialized(number: int, kind: str = "PNG", *, low: int = 0, sizes: bool = True, label: int | None = None) -> bytes:
    """Record `number`: sizes differ, and a window of 33 by 41 is far smaller than the largest scales."""
    random = np.random.default_rng(number)
    size = (60 + 7 * number, 110 - 5 * number)
    pixels = random.integers(low, 256, (size[0] // 5 + 1, size[1] // 5 + 1, 3), np.uint8)
    pixels = pixels.repeat(5, 0).repeat(5, 1)[: size[0], : size[1]]
    classes = random.integers(0, 21, size, np.uint8)
    if label is not None:
        classes[0, 0] = label
    height, width = size if sizes else (0, 0)
    return records.make_example(
        encoded(pixels, kind), encoded(classes, "PNG"), filename=f"picture {number}", height=height, width=width
    )


def config(folder: str, **changes) -> DataConfig:
    return DataConfig(dataset_dir=folder, **{"crop_size": (33, 41), "batch_size": COUNT, **changes})


def batches(chosen: DataConfig, count: int, **options) -> list[dict[str, np.ndarray]]:
    dataset = make_dataset(chosen, split="train", training=True, seed=3, **options)
    return list(dataset.take(count).as_numpy_iterator())


def files(cache) -> list[pathlib.Path]:
    return sorted(path for path in pathlib.Path(cache).rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Records that no test changes."""
    return write_records(tmp_path_factory.mktemp("records"), "train", [serialized(i) for i in range(COUNT)])


@pytest.fixture(scope="module")
def plain(folder) -> list[dict[str, np.ndarray]]:
    """Its first batches without a cache."""
    return batches(config(folder), 4)


def forbid(monkeypatch, *names: str):
    """Whatever decodes with these functions from now on gives black pictures."""
    for name in names:
        monkeypatch.setattr(records, name, lambda content, *_: tf.zeros([9, 9, 3], tf.uint8))


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("PNG", {}),
        ("JPEG", {"label_policy": "ignore", "scale_factor_step_size": 0.0, "max_scale_factor": 3.0}),
        ("JPEG", {"min_resize_value": 40, "max_resize_value": 64, "resize_factor": 8}),
        ("PNG", {"skip_corrupt_records": True}),
    ],
    ids=["png", "jpeg", "resized", "skipping"],
)
def test_every_epoch_has_the_same_batches(tmp_path, monkeypatch, kind, changes):
    folder = write_records(tmp_path / "r", "train", [serialized(i, kind, sizes=i != 2) for i in range(COUNT)])
    plain = batches(config(folder, **changes), 6)
    chosen = config(folder, **changes, decoded_cache=str(tmp_path / "cache"))
    assert_equal(batches(chosen, 6), plain)  # the first epoch writes
    assert len(files(tmp_path / "cache")) == COUNT
    # From now on nothing is decoded any more, in another process neither; the middle of an epoch is no other place.
    forbid(monkeypatch, "decode_image", "decode_part", "decode_label")
    assert_equal(batches(chosen, 6), plain)
    if changes:
        return  # another place has no more to do with an option than the first
    small, late = dataclasses.replace(chosen, batch_size=1), 2 * COUNT + 2
    examples = {key: np.concatenate([batch[key] for batch in plain]) for key in plain[0]}
    expected = [{key: values[i : i + 1] for key, values in examples.items()} for i in range(late, late + 4)]
    assert_equal(batches(small, 4, start_step=late), expected)


@pytest.mark.heavy
def test_parts_share_a_folder(tmp_path):
    folder, cache = (
        write_records(tmp_path / "r", "train", [serialized(i) for i in range(COUNT)]),
        str(tmp_path / "cache"),
    )
    plain = batches(config(folder, batch_size=4), 5)
    parts = [batches(config(folder, batch_size=4, decoded_cache=cache), 5, part=(i, 2)) for i in range(2)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts, strict=True)]
    assert_equal(joined, plain)
    assert len(files(cache)) == COUNT


def test_only_the_pages_of_a_window_are_read(tmp_path):
    cache = decoded_cache.open_cache(str(tmp_path), "identity")
    image = np.arange(50 * 70 * 3, dtype=np.uint8).reshape(50, 70, 3)
    label = np.arange(50 * 70, dtype=np.uint8).reshape(50, 70, 1)
    assert not cache._read(7)[0]
    assert cache._write(7, image, label, b"name", np.array([51, 71]), np.int32(0))
    found, read_image, read_label, name, height, width = cache._read(7)
    assert (found, name, height, width) == (True, b"name", 51, 71)
    np.testing.assert_array_equal(read_image, image)
    np.testing.assert_array_equal(read_label, label)
    for array in (read_image, read_label):  # no copies, and where TensorFlow takes them as they lie
        assert isinstance(array.base, np.memmap)
        assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous and not array.flags.writeable


# ---- nothing stale


@pytest.mark.heavy
def test_other_records_in_the_same_file_are_not_mistaken(tmp_path):
    folder = write_records(tmp_path / "r", "train", [serialized(i) for i in range(COUNT)])
    cache = str(tmp_path / "cache")
    before = batches(config(folder, decoded_cache=cache), 2)
    write_records(tmp_path / "r", "train", [serialized(i, low=128) for i in range(COUNT)])
    after = batches(config(folder, decoded_cache=cache), 2)
    assert_equal(after, batches(config(folder), 2))
    assert any((a["image"] != b["image"]).any() for a, b in zip(before, after, strict=True))
    assert len(files(cache)) == 2 * COUNT


def test_a_record_of_the_same_length_is_not_mistaken(tmp_path):
    examples, cache = [serialized(i) for i in range(COUNT)], str(tmp_path / "cache")
    batches(config(write_records(tmp_path / "r", "train", examples), decoded_cache=cache), 1)
    examples[1] = examples[1].replace(b"picture 1", b"picture 9")
    (batch,) = batches(config(write_records(tmp_path / "r", "train", examples), decoded_cache=cache), 1)
    assert sorted(batch["image_name"]) == [f"picture {i}".encode() for i in (0, 2, 3, 4, 9)]


def test_a_moved_data_set_keeps_its_files(tmp_path, monkeypatch):
    folder, cache = (
        write_records(tmp_path / "r", "train", [serialized(i) for i in range(COUNT)]),
        str(tmp_path / "cache"),
    )
    plain = batches(config(folder, decoded_cache=cache), 2)
    os.rename(folder, tmp_path / "moved")
    forbid(monkeypatch, "decode_image", "decode_part", "decode_label")
    assert_equal(batches(config(str(tmp_path / "moved"), decoded_cache=cache), 2), plain)


@pytest.mark.heavy
def test_what_decides_the_pixels_is_part_of_the_name(tmp_path, folder, plain):
    cache = str(tmp_path / "cache")
    for number, changes in enumerate(
        [{}, {"label_policy": "ignore"}, {"label_policy": "map", "label_map": "3:4"}, {"dataset": "cityscapes"}],
        start=1,
    ):
        policy = {"label_policy": "ignore"} if "dataset" in changes else {}
        chosen = config(folder, **changes, **policy)
        # No label is out of range, so nothing is ignored among all classes.
        expected = plain[:2] if changes in ({}, {"label_policy": "ignore"}) else batches(chosen, 2)
        assert_equal(batches(dataclasses.replace(chosen, decoded_cache=cache), 2), expected)
        assert len(os.listdir(cache)) == number
    other = config(folder, decoded_cache=cache, crop_size=(20, 20), model_variant="resnet_v1_50", min_scale_factor=0.75)
    batches(other, 2)
    assert len(os.listdir(cache)) == 4  # the rest does not


@pytest.mark.heavy
def test_half_a_file_is_written_again(tmp_path, folder, plain):
    chosen = config(folder, decoded_cache=str(tmp_path / "cache"))
    assert_equal(batches(chosen, 1), plain[:1])
    whole = {file: file.read_bytes() for file in files(tmp_path / "cache")}
    sizes = (0, 10, 4096, 5000)
    for file, size in zip(whole, sizes, strict=False):
        file.write_bytes(whole[file][:size])
    assert_equal(batches(chosen, 1), plain[:1])
    for file, size in zip(whole, sizes, strict=False):
        assert file.read_bytes() == whole[file], size


def test_pixels_that_were_overwritten_are_noticed(tmp_path):
    """The length is right, and so is the head: the checksum tells."""
    image = np.arange(50 * 70 * 3, dtype=np.uint8).reshape(50, 70, 3)
    label = np.zeros((50, 70, 1), np.uint8)
    cache = decoded_cache.open_cache(str(tmp_path), "identity")
    assert cache._write(7, image, label, b"name", np.array([50, 70]), np.int32(0))
    assert cache._read(7)[0]
    whole = files(tmp_path)[0].read_bytes()
    for at in (0, 8, 16, 32, 38, 41, 4096, 9000, len(whole) - 1):  # sizes, name, pixels, label
        changed = bytearray(whole)
        changed[at] ^= 0x81
        files(tmp_path)[0].write_bytes(bytes(changed))
        for reader in (cache, decoded_cache.open_cache(str(tmp_path), "identity")):
            assert not reader._read(7)[0], f"byte {at}"
    assert cache._write(7, image, label, b"name", np.array([50, 70]), np.int32(0))
    assert cache._read(7)[0] and files(tmp_path)[0].read_bytes() == whole


# ---- labels and damage


@pytest.mark.heavy
def test_labels_are_checked_all_the_same(tmp_path):
    examples = [serialized(i, label=200 if i == 3 else None) for i in range(COUNT)]
    folder, cache = write_records(tmp_path / "r", "train", examples), str(tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(DeepLabError, match=r"record 3 \(picture 3\): label 200 \(1 pixels\)"), named_errors():
            batches(config(folder, decoded_cache=cache), 3)
    assert "0000003.pixels" not in {file.name for file in files(cache)}
    ignoring = config(folder, label_policy="ignore")
    expected = batches(ignoring, 3)
    for _ in range(2):
        assert_equal(batches(dataclasses.replace(ignoring, decoded_cache=cache), 3), expected)
    with pytest.raises(DeepLabError, match="label 200"), named_errors():
        batches(config(folder, decoded_cache=cache), 3)


@pytest.mark.heavy
def test_what_stands_in_for_a_damaged_record_is_not_kept(tmp_path):
    broken = tf.train.Example.FromString(serialized(1))
    broken.features.feature[records.IMAGE].bytes_list.value[0] = b"\x89PNG\r\n\x1a\n nothing"
    examples = [serialized(i) for i in range(COUNT)]
    folder = write_records(tmp_path / "r", "train", [examples[0], broken.SerializeToString(), *examples[2:]])
    chosen = config(folder, skip_corrupt_records=True)
    plain = batches(chosen, 4)
    assert [int(batch["skipped"].sum()) for batch in plain] == [1] * 4
    for _ in range(2):
        assert_equal(batches(dataclasses.replace(chosen, decoded_cache=str(tmp_path / "cache")), 4), plain)
    assert [file.stem for file in files(tmp_path / "cache")] == [f"{i:07d}" for i in (0, 2, 3, 4)]
    with pytest.raises(DeepLabError, match="record 1: its image is no JPEG or PNG"), named_errors():
        batches(config(folder, decoded_cache=str(tmp_path / "cache")), 1)


# ---- the folder


def room(monkeypatch, free: int):
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(decoded_cache.shutil, "disk_usage", lambda folder: usage)


def test_a_full_disk_ends_the_keeping_not_the_run(tmp_path, monkeypatch, capfd, folder, plain):
    chosen = config(folder, decoded_cache=str(tmp_path / "cache"))
    room(monkeypatch, (1 << 30) + 1000)  # less than a picture above what is left to others
    assert_equal(batches(chosen, 4), plain)
    told = capfd.readouterr().err
    assert told.count("decoded_cache=") == 1
    assert "cannot be written (the disk is full but for a last gibibyte, which is left to checkpoints)" in told
    assert "Make room, or name a folder on another disk" in told
    assert files(tmp_path / "cache") == []


def test_an_error_in_the_middle_of_a_file_leaves_nothing(tmp_path, monkeypatch, capfd, folder, plain):
    def replace(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(decoded_cache.os, "replace", replace)
    assert_equal(batches(config(folder, decoded_cache=str(tmp_path / "cache")), 3), plain[:3])
    assert files(tmp_path / "cache") == []
    assert "cannot be written (No space left on device)" in capfd.readouterr().err


@pytest.mark.heavy
def test_the_folder_may_be_deleted_at_any_time(tmp_path, folder, plain):
    dataset = make_dataset(config(folder, decoded_cache=str(tmp_path / "cache")), split="train", training=True, seed=3)
    found = []
    for batch in dataset.take(4).as_numpy_iterator():
        found.append(batch)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert_equal(found, plain)


def test_folders_that_will_not_do_are_named(tmp_path):
    folder = write_records(tmp_path / "r", "train", [serialized(i) for i in range(COUNT)])
    (tmp_path / "file").write_text("")
    with pytest.raises(DeepLabError, match=r"decoded_cache=.*file: cannot be written \(.*\); expected a folder"):
        batches(config(folder, decoded_cache=str(tmp_path / "file")), 1)
    with pytest.raises(DeepLabError, match="decoded_cache=gs://bucket/c: expected a folder of this machine"):
        batches(config(folder, decoded_cache="gs://bucket/c"), 1)


def test_evaluation_keeps_nothing(tmp_path):
    folder = write_records(tmp_path / "r", "train", [serialized(i) for i in range(COUNT)])
    chosen = config(folder, decoded_cache=str(tmp_path / "cache"))
    assert len(list(make_dataset(chosen, split="train", training=False))) == 1
    assert not (tmp_path / "cache").exists()
