"""The input pipeline: exact, a pure function of the step, complete, and outspoken about what is wrong."""

import dataclasses
import io
import json
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from record_files import encoded, write_records
from release_steps import flip, random_crop

import deeplab_tf
from deeplab_tf.config import DataConfig
from deeplab_tf.data import pipeline, record_index, records, transforms
from deeplab_tf.data.examples import named_batches, named_errors
from deeplab_tf.errors import DeepLabError

NAMES = [f"picture_{i:02d}" for i in range(11)]


def arrays(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture `number`: sizes differ."""
    random = np.random.default_rng(number)
    size = (20 + number, 30 - number)
    return random.integers(0, 256, (*size, 3), np.uint8), random.integers(0, 21, size, np.uint8)


def example(number: int, *, label: np.ndarray | None = None, image: bytes | None = None) -> bytes:
    pixels, classes = arrays(number)
    content = encoded(classes if label is None else label)
    height, width = classes.shape
    return records.make_example(image or encoded(pixels), content, filename=NAMES[number], height=height, width=width)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_records(tmp_path_factory.mktemp("records") / "all", "train", [example(i) for i in range(11)], shards=3)


def config(folder: str, **changes) -> DataConfig:
    return DataConfig(dataset_dir=folder, **{"crop_size": (25, 17), "batch_size": 2, **changes})


def batches(dataset: tf.data.Dataset, count: int) -> list[dict[str, np.ndarray]]:
    return list(dataset.take(count).as_numpy_iterator())


def names(found) -> list[str]:
    return [name.decode() for batch in found for name in batch["image_name"]]


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


# ---- training

SEED = 5


@pytest.fixture(scope="module")
def dataset(folder) -> tf.data.Dataset:
    return deeplab_tf.make_dataset(config(folder), split="train", training=True, seed=SEED)


@pytest.fixture(scope="module")
def stream(dataset) -> list[dict[str, np.ndarray]]:
    """Five epochs of it and a picture more, in pairs: epochs begin within a batch too."""
    return batches(dataset, 28)


def epochs_of(found, key: str) -> list[dict[str, np.ndarray]]:
    """Returns for each epoch what its pictures, by name, have under `key`."""
    values = list(zip(names(found), (value for batch in found for value in batch[key]), strict=True))
    return [dict(values[i : i + len(NAMES)]) for i in range(0, len(values) - len(NAMES) + 1, len(NAMES))]


def test_training_batches(dataset, stream):
    shapes = {key: (spec.dtype, tuple(spec.shape)) for key, spec in dataset.element_spec.items()}
    assert shapes == {
        "image": (tf.float32, (2, 25, 17, 3)),
        "label": (tf.int32, (2, 25, 17, 1)),
        "image_name": (tf.string, (2,)),
        "height": (tf.int64, (2,)),
        "width": (tf.int64, (2,)),
    }
    for batch in stream:
        assert 0 <= batch["image"].min() <= batch["image"].max() <= 255
        assert set(np.unique(batch["label"])) <= {*range(21), 255}


def test_an_epoch_is_every_record_once_and_another_order_follows(stream):
    order = names(stream)
    epochs = [tuple(order[i : i + 11]) for i in range(0, 55, 11)]
    assert all(sorted(epoch) == NAMES for epoch in epochs)
    assert len(set(epochs)) == 5


def test_orders_are_spread():
    """Every record comes about equally often at every place, and neighbours do not stay neighbours."""
    count, epochs = 12, 1000
    places = tf.range(count * epochs, dtype=tf.int64)
    keys = tf.function(lambda: tf.map_fn(lambda p: pipeline._shuffled(7, p, count)[1], places))()
    table = np.zeros((count, count), np.int64)
    np.add.at(table, (np.tile(np.arange(count), epochs), keys.numpy()), 1)
    assert abs(table - epochs / count).max() < 6 * (epochs / count) ** 0.5
    steps = np.diff(keys.numpy().reshape(epochs, count), axis=1)
    assert 0.9 < (abs(steps) == 1).mean() * count / 2 < 1.1


@pytest.mark.heavy
@pytest.mark.parametrize("start", [1, 13])
def test_a_run_begins_at_any_step(folder, stream, start):
    """Within the first epoch, and in a later one and across its end."""
    options = {"split": "train", "training": True, "seed": SEED}
    late = batches(pipeline.make_dataset(config(folder), start_step=start, **options), 4)
    assert_equal(stream[start : start + 4], late)


def test_a_late_start_costs_nothing(folder):
    started = time.monotonic()
    batches(pipeline.make_dataset(config(folder), split="train", training=True, start_step=10**12), 1)
    assert time.monotonic() - started < 20


def test_the_seed_decides_order_and_draws(folder, stream):
    """Equal ones give equal batches: the tests of other beginnings and of parts."""
    found = batches(pipeline.make_dataset(config(folder), split="train", training=True, seed=SEED + 1), 6)
    assert names(found)[:11] != names(stream)[:11]
    one, other = epochs_of(stream, "image")[0], epochs_of(found, "image")[0]
    assert sum(not np.array_equal(one[name], other[name]) for name in one) > 8


def test_draws_change_with_the_epoch(stream):
    epochs = epochs_of(stream, "image")
    assert sum(not np.array_equal(epochs[0][name], epochs[1][name]) for name in epochs[0]) > 8


@pytest.mark.heavy
def test_parts_make_up_the_batch(folder, stream):
    """A batch of six is three of the stream's pairs, and each part is a pair of it."""
    options = {"split": "train", "training": True, "start_step": 2, "seed": SEED}
    parts = [batches(pipeline.make_dataset(config(folder, batch_size=6), part=(i, 3), **options), 3) for i in range(3)]
    for step in range(3):
        assert_equal(stream[6 + 3 * step : 9 + 3 * step], [part[step] for part in parts])
    with pytest.raises(DeepLabError, match="batch_size=6: expected a multiple of 4, the devices that share it"):
        pipeline.make_dataset(config(folder, batch_size=6), part=(0, 4), **options)


def test_images_and_labels_go_together_through_the_release_steps(folder):
    """Recomputed one step after the other from the stored arrays: resize to range, scale, pad, crop, flip."""
    chosen = config(folder, batch_size=11, min_resize_value=24, max_resize_value=40, resize_factor=4,
                    model_variant="resnet_v1_50")  # fmt: skip
    (batch,) = batches(pipeline.make_dataset(chosen, split="train", training=True, seed=9), 1)
    values, flips = transforms.scale_values(0.5, 2.0, 0.25), 0
    for name, image, label in zip(batch["image_name"], batch["image"], batch["label"], strict=True):
        number = NAMES.index(name.decode())
        draws = tf.random.stateless_uniform([4], tf.constant([9 * 1_000_003, number], tf.int64), alg="philox")
        pixels, classes = arrays(number)
        resized = transforms.resize_to_range(pixels, classes[..., None], minimum=24, maximum=40, factor=4)
        scale = transforms.draw_scale(values, 0.25, draws[0])
        size = transforms.scaled_size(tf.shape(resized[0])[:2], scale)
        full = [transforms.resize_image(resized[0], size), transforms.resize_label(resized[1], size)]
        full = [transforms.pad_to(a, (25, 17), v) for a, v in zip(full, ((123.15, 115.9, 103.06), 255), strict=True)]
        full = flip(random_crop(full, (25, 17), draws[1:3]), draws[3])
        np.testing.assert_allclose(image, full[0], atol=1e-3)
        np.testing.assert_array_equal(label, full[1])
        flips += float(draws[3]) <= 0.5
    assert 0 < flips < 11


def test_a_fixed_scale_without_choice(folder):
    chosen = config(folder, min_scale_factor=1.0, max_scale_factor=1.0, crop_size=(60, 60), batch_size=1)
    for batch in batches(pipeline.make_dataset(chosen, split="train", training=True), 3):
        height, width = int(batch["height"][0]), int(batch["width"][0])
        label = batch["label"][0, :height, :, 0]
        label = label[:, :width] if label[0, 0] != 255 else label[:, -width:]
        stored = arrays(NAMES.index(batch["image_name"][0].decode()))[1]
        assert np.array_equal(label, stored) or np.array_equal(label, stored[:, ::-1])


# ---- evaluation


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_evaluation_gives_every_example_once_in_order(folder, batch_size):
    found = batches(pipeline.make_dataset(config(folder, batch_size=batch_size), split="train", training=False), -1)
    assert names(found) == NAMES
    assert [len(batch["image"]) for batch in found] == [len(r) for r in records.shard_ranges(11, -(-11 // batch_size))]
    assert np.concatenate([batch["size"] for batch in found]).tolist() == [[20 + i, 30 - i] for i in range(11)]
    if batch_size == 1:  # what is larger than the crop stays whole
        assert [batch["image"].shape[1:3] for batch in found] == [(max(25, 20 + i), max(17, 30 - i)) for i in range(11)]
    for number, (image, label, original) in enumerate(
        (image, label, original)
        for batch in found
        for image, label, original in zip(batch["image"], batch["label"], batch["original_image"], strict=True)
    ):
        pixels, classes = arrays(number)
        height, width = classes.shape
        np.testing.assert_array_equal(original[:height, :width], pixels)
        np.testing.assert_array_equal(image[:height, :width], pixels)
        np.testing.assert_array_equal(label[:height, :width, 0], classes)
        assert (image[height:] == 127.5).all()
        assert (image[:, width:] == 127.5).all()
        assert (label[height:] == 255).all()
        assert (label[:, width:] == 255).all()


def test_evaluation_shapes(folder):
    def shapes(**changes):
        dataset = pipeline.make_dataset(config(folder, batch_size=1, **changes), split="train", training=False)
        return [batch["image"].shape[1:3] for batch in batches(dataset, -1)]

    sizes = [arrays(i)[1].shape for i in range(11)]
    assert shapes(crop_size=None) == sizes  # nothing is padded
    assert shapes(crop_size=(33, 33)) == [(33, 33)] * 11


def test_evaluation_from_a_step_and_in_parts(folder):
    options = {"split": "train", "training": False}
    assert names(batches(pipeline.make_dataset(config(folder), start_step=3, **options), -1)) == NAMES[6:]
    assert batches(pipeline.make_dataset(config(folder), start_step=30, **options), -1) == []
    parts = [names(batches(pipeline.make_dataset(config(folder), part=(i, 2), **options), -1)) for i in (0, 1)]
    assert parts == [NAMES[0::2], NAMES[1::2]]


def test_resized_originals(folder):
    chosen = config(folder, batch_size=1, crop_size=(50, 50), min_resize_value=40, max_resize_value=50)
    for batch in batches(pipeline.make_dataset(chosen, split="train", training=False), 3):
        pixels, _ = arrays(NAMES.index(batch["image_name"][0].decode()))
        expected, _ = transforms.resize_to_range(pixels, None, minimum=40, maximum=50)
        assert batch["original_image"].dtype == np.uint8
        np.testing.assert_array_equal(batch["original_image"][0], tf.cast(expected, tf.uint8))
        assert (batch["height"][0], batch["width"][0]) == pixels.shape[:2]
        assert tuple(batch["size"][0]) == expected.shape[:2]


def test_the_split_named_test_needs_no_labels(tmp_path):
    image = encoded(arrays(0)[0])
    bare = tf.train.Example.FromString(records.make_example(image, None, filename="a", height=20, width=30))
    for key in (records.HEIGHT, records.WIDTH):
        del bare.features.feature[key]
    folder = write_records(tmp_path / "r", "test", [bare.SerializeToString()])
    (batch,) = batches(pipeline.make_dataset(config(folder), split="test", training=False), -1)
    assert (batch["label"] == 255).all()
    assert (batch["height"][0], batch["width"][0]) == (20, 30)  # the record does not say


# ---- labels out of range


@pytest.fixture
def bad_labels(tmp_path) -> str:
    label = arrays(4)[1]
    label[:2, :3], label[5, 5] = 200, 21
    binary = np.where(arrays(7)[1] > 10, 255, 0).astype(np.uint8)
    return write_records(
        tmp_path / "bad", "train", [example(0), example(4, label=label), example(7, label=binary)], shards=2
    )


@pytest.mark.parametrize("training", [True, False])
def test_bad_labels_are_named(bad_labels, training):
    dataset = pipeline.make_dataset(config(bad_labels, batch_size=3), split="train", training=training)
    with pytest.raises(DeepLabError) as caught, named_errors():
        batches(dataset, 1)
    message = str(caught.value)
    assert "train-00000-of-00002.tfrecord: record 1 (picture_04): label" in message
    assert "200 (6 pixels)" in message
    assert "21 (1 pixels)" in message
    assert "pascal_voc_seg has classes 0..20 and 255 for what is ignored" in message
    assert "--label_policy=ignore" in message
    assert "\n" not in message
    if not training:  # the same error without its name
        with pytest.raises(tf.errors.InvalidArgumentError, match="picture_04"):
            batches(dataset, 1)


def test_evaluate_names_bad_labels(bad_labels):
    model = deeplab_tf.build_model(deeplab_tf.ModelConfig("tiny", num_classes=21, crop_size=(25, 17)))
    dataset = pipeline.make_dataset(config(bad_labels, batch_size=3), split="train", training=False)
    with pytest.raises(DeepLabError, match=r"record 1 \(picture_04\): label"):
        deeplab_tf.evaluate(model, dataset)
    with pytest.raises(DeepLabError, match=r"record 1 \(picture_04\): label"):
        next(named_batches(dataset))


def test_bad_labels_can_be_ignored(bad_labels):
    chosen = config(bad_labels, batch_size=3, label_policy="ignore")
    (batch,) = batches(pipeline.make_dataset(chosen, split="train", training=False), -1)
    assert (batch["label"][1, :2, :3] == 255).all()
    assert batch["label"][1, 5, 5, 0] == 255
    assert (batch["label"][1] == 255).sum() == 7 + batch["label"][1].size - arrays(4)[1].size


def test_bad_labels_can_be_mapped(bad_labels):
    chosen = config(bad_labels, batch_size=3, label_policy="map", label_map="200:3,21:0")
    (batch,) = batches(pipeline.make_dataset(chosen, split="train", training=False), -1)
    assert (batch["label"][1, :2, :3] == 3).all()
    assert batch["label"][1, 5, 5, 0] == 0
    partly = config(bad_labels, batch_size=3, label_policy="map", label_map="200:3")
    with pytest.raises(DeepLabError, match=r"picture_04\): label 21 \(1 pixels\);"), named_errors():
        batches(pipeline.make_dataset(partly, split="train", training=False), -1)


def test_masks_of_0_and_255_are_recognised(bad_labels, tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": ["a", "b"], "ignore_label": 254}))
    chosen = config(bad_labels, dataset=str(tmp_path), batch_size=1)
    with pytest.raises(DeepLabError, match=r"label 255 \(.*0 and 255\? --label_policy=map --label_map=255:1"), \
            named_errors():  # fmt: skip
        names(batches(pipeline.make_dataset(dataclasses.replace(chosen, label_policy="map", label_map=[
            f"{i}:0" for i in range(2, 255)]), split="train", training=False), -1))  # fmt: skip


def test_the_fixture_of_the_release(shared):
    """Its labels are noise up to 254: the error says so, and with them ignored its facts are the release's."""
    fixture = DataConfig(dataset_dir=str(shared / "real"), crop_size=(3, 3), batch_size=1, min_resize_value=3,
                         max_resize_value=3)  # fmt: skip
    with pytest.raises(DeepLabError, match=r"val-00000-of-00001.tfrecord: record 0 \(2007_000033\): label .* others"), \
            named_errors():  # fmt: skip
        batches(pipeline.make_dataset(fixture, split="val", training=False), -1)
    ignoring = dataclasses.replace(fixture, label_policy="ignore")
    found = batches(pipeline.make_dataset(ignoring, split="val", training=False), -1)
    facts = [(int(b["height"][0]), int(b["width"][0]), b["image_name"][0].decode()) for b in found]
    assert facts == [(366, 500, "2007_000033"), (335, 500, "2007_000042"), (333, 500, "2007_000061")]
    assert {b["image"].shape for b in found} == {(1, 3, 3, 3)}
    assert {b["label"].shape for b in found} == {(1, 3, 3, 1)}


# ---- damage


@pytest.fixture
def damaged(tmp_path) -> str:
    """Eight records: 1 has a flipped bit, 3 a broken image, 4 a label of another size, 6 a broken label."""
    jpeg = io.BytesIO()
    Image.fromarray(arrays(3)[0]).save(jpeg, "JPEG")
    broken_label = tf.train.Example.FromString(example(6))
    broken_label.features.feature[records.LABEL].bytes_list.value[0] = b"\x89PNG\r\n\x1a\n nothing"
    all_records = [example(i) for i in range(8)]
    all_records[3] = example(3, image=jpeg.getvalue()[:60])
    all_records[4] = example(4, label=arrays(5)[1])
    all_records[6] = broken_label.SerializeToString()
    folder = write_records(tmp_path / "damaged", "train", all_records, shards=2)
    file = tmp_path / "damaged" / records.shard_name("train", 0, 2)
    content = bytearray(file.read_bytes())
    content[record_index.index_shards([str(file)]).offset[1] + 40] ^= 16
    file.write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (1, "train-00000-of-00002.tfrecord: record 1: cannot be read: its checksum does not match"),
        (3, "train-00000-of-00002.tfrecord: record 3: its image is no JPEG or PNG"),
        (4, "train-00001-of-00002.tfrecord: record 0: its image and its label differ in size"),
        (6, "train-00001-of-00002.tfrecord: record 2: its label is no PNG"),
    ],
)
def test_damaged_records_are_named(damaged, start, expected):
    options = {"split": "train", "training": False, "start_step": start}
    with pytest.raises(DeepLabError, match=expected), named_errors():
        batches(pipeline.make_dataset(config(damaged, batch_size=1), **options), -1)


def test_damaged_records_are_skipped_in_evaluation(damaged, capfd):
    chosen = config(damaged, batch_size=3, skip_corrupt_records=True)
    found = batches(pipeline.make_dataset(chosen, split="train", training=False), -1)
    assert names(found) == [NAMES[i] for i in (0, 2, 5, 7)]
    assert [len(batch["image"]) for batch in found] == [3, 1]
    told = capfd.readouterr().err
    assert told.count("Left out:") == 4
    assert "train-00001-of-00002.tfrecord: record 2: its label is no PNG" in told


@pytest.mark.heavy
def test_damaged_records_are_replaced_in_training(damaged):
    chosen = config(damaged, batch_size=4, skip_corrupt_records=True)
    found = batches(pipeline.make_dataset(chosen, split="train", training=True), 6)
    for epoch in range(3):
        seen = names(found[2 * epoch : 2 * epoch + 2])
        assert sorted(set(seen)) == [NAMES[i] for i in (0, 2, 5, 7)]
        assert len(seen) == 8
        # 1 is replaced by 2; 3 by 5, past 4; 4 by 5; 6 by 7
        assert sum(int(batch["skipped"].sum()) for batch in found[2 * epoch : 2 * epoch + 2]) == 5
    late = batches(pipeline.make_dataset(chosen, split="train", training=True, start_step=3), 3)
    assert_equal(found[3:], late)


def test_nothing_but_damage(tmp_path):
    folder = write_records(tmp_path / "r", "train", [example(0, image=encoded(arrays(0)[0])[:50])] * 2)
    chosen = config(folder, skip_corrupt_records=True)
    with pytest.raises(DeepLabError, match="not one of the 2 records can be read"), named_errors():
        batches(pipeline.make_dataset(chosen, split="train", training=True), 1)


def test_truncated_files_are_named_at_once(folder, tmp_path, capsys):
    content = (tmp_path.parent / "x", open(f"{folder}/{records.shard_name('train', 0, 3)}", "rb").read())[1]  # noqa: SIM115
    (tmp_path / records.shard_name("train", 0, 1)).write_bytes(content[:-9])
    with pytest.raises(DeepLabError, match=r"record 3 at byte \d+: the file ends.*--skip_corrupt_records"):
        pipeline.make_dataset(config(str(tmp_path)), split="train", training=True)
    chosen = config(str(tmp_path), skip_corrupt_records=True)
    found = batches(pipeline.make_dataset(chosen, split="train", training=False), -1)
    assert names(found) == NAMES[:3]
    assert "Left out:" in capsys.readouterr().err


# ---- options


def test_missing_options_are_named(folder, tmp_path):
    with pytest.raises(DeepLabError, match="dataset_dir is not set"):
        pipeline.make_dataset(DataConfig(), split="train", training=True)
    with pytest.raises(DeepLabError, match="crop_size is not set; training crops"):
        pipeline.make_dataset(config(folder, crop_size=None), split="train", training=True)
    with pytest.raises(DeepLabError, match=r"no files val-\*; it has splits train"):
        pipeline.make_dataset(config(folder), split="val", training=False)
    with pytest.raises(DeepLabError, match="unknown dataset 'pascal'.*dataset.json"):
        pipeline.make_dataset(config(folder, dataset="pascal"), split="train", training=False)
    with pytest.raises(DeepLabError, match="hold no records"):
        pipeline.make_dataset(
            config(write_records(tmp_path / "e", "train", [], shards=3)), split="train", training=True
        )


def test_other_errors_pass():
    with pytest.raises(tf.errors.InvalidArgumentError), named_errors():
        tf.io.decode_png(b"nothing")


def test_a_data_set_of_one_record(tmp_path):
    folder = write_records(tmp_path / "one", "train", [example(2)])
    found = batches(pipeline.make_dataset(config(folder), split="train", training=True), 3)
    assert names(found) == [NAMES[2]] * 6
    assert len({image.tobytes() for batch in found for image in batch["image"]}) > 3
