"""Augmentation by keras-cv's layers: what they do to pictures, that labels stay sound, and that nothing is left to
chance."""

import colorsys
import functools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from record_files import example_of, write_records

from deeplab_tf.config import DataConfig
from deeplab_tf.data import augment
from deeplab_tf.data.augment import DRAWS, make_augmentation
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.errors import DeepLabError

PIXEL = (127.5, 127.5, 127.5)
EVERYTHING = {"color_jitter": (0.3, 0.3, 0.3, 0.1), "gaussian_blur": 1.5, "grid_mask": 0.5, "cut_mix": 0.5}
RANDOM = np.random.default_rng(3)
SIZES = [(30 + i, 44 - 2 * i) for i in range(9)]


def picture(height: int = 21, width: int = 33) -> np.ndarray:
    return RANDOM.uniform(0, 255, (height, width, 3)).astype(np.float32)


@functools.cache
def traced(**options):
    """The augmentation of an image in a graph of any size."""
    made = make_augmentation(DataConfig(**options), PIXEL)
    return tf.function(made.augment_image, input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([15])])


def changed(image: np.ndarray, draws: dict[int, float], **options) -> np.ndarray:
    """The image augmented with these numbers; 0.5 for those that are not given."""
    numbers = np.full(15, 0.5, np.float32)
    numbers[list(draws)] = list(draws.values())
    return traced(**options)(image, numbers).numpy()


# ---- colours


def test_colour_jitter_is_brightness_contrast_saturation_hue():
    image = picture()
    found = changed(image, {0: 0.9, 1: 0.2, 2: 0.7, 3: 0.95}, color_jitter=(0.2, 0.5, 0.4, 0.1))
    expected = np.clip(image.astype(np.float64) + 0.8 * 0.2 * 255, 0, 255)
    mean = expected.mean(axis=(0, 1))
    expected = np.clip((expected - mean) * (1 - 0.6 * 0.5) + mean, 0, 255) / 255
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*expected[place])
        saturation = min(1.0, saturation * (1 + 0.4 * 0.4))
        expected[place] = colorsys.hsv_to_rgb((hue + 0.9 * 0.1) % 1, saturation, value)
    np.testing.assert_allclose(found, 255 * expected, atol=0.02)


def test_draws_in_the_middle_change_no_colour():
    image = picture()
    np.testing.assert_allclose(changed(image, {}, color_jitter=(1, 1, 1, 0.5)), image, atol=0.01)


def test_jitter_stays_in_range():
    for draws in ({0: 0.0, 1: 0.999, 2: 0.999, 3: 0.0}, {0: 0.999, 1: 0.0, 2: 0.0, 3: 0.999}):
        found = changed(picture(), draws, color_jitter=(1, 1, 1, 0.5))
        assert 0 <= found.min() <= found.max() <= 255


# ---- blur


def test_blur_is_a_bell_that_does_not_darken_the_edge():
    image = picture()
    found = changed(image, {4: 0.8}, gaussian_blur=2.0)
    bell = np.exp(-(np.arange(-6, 7) ** 2) / (2 * 1.6**2))
    inside, expected = np.ones((*image.shape[:2], 1)), image.astype(np.float64)
    for axis in (0, 1):
        inside, expected = (
            scipy.ndimage.correlate1d(array, bell, axis, mode="constant") for array in (inside, expected)
        )
    np.testing.assert_allclose(found, expected / inside, atol=0.01)
    np.testing.assert_allclose(changed(np.full((4, 3, 3), 90, np.float32), {4: 0.9}, gaussian_blur=9.0), 90, atol=1e-3)


def test_a_blur_of_nothing():
    image = picture()
    np.testing.assert_allclose(changed(image, {4: 0.0}, gaussian_blur=2.0), image, atol=1e-3)


# ---- grid


def test_a_straight_grid():
    image = picture(40, 60)
    found = changed(image, {5: 0.5, 6: 0.6, 7: 0.25, 8: 0.0}, grid_mask=0.5)
    unit, first, side = 18 + 0.5 * 3, 73 - 40, 73 - 60  # of the diagonal's square the middle is seen
    rows, columns = (np.mod(np.arange(73) + draw * unit, unit) < 0.3 * unit for draw in (0.25, 0.0))
    hidden = (rows[:, None] & columns)[first // 2 : first // 2 + 40, side // 2 : side // 2 + 60]
    np.testing.assert_allclose(found[hidden], 127.5)
    np.testing.assert_array_equal(found[~hidden], image[~hidden])
    assert 0.05 < hidden.mean() < 0.15


@pytest.mark.heavy
def test_turned_grids_hide_and_leave_the_rest():
    image, shares = picture(60, 60), []
    for number in range(20):
        draws = dict(zip(range(5, 10), np.random.default_rng(number).uniform(size=5), strict=True))
        found = changed(image, draws, grid_mask=1.0)
        hidden = (found == 127.5).all(axis=-1)
        np.testing.assert_array_equal(found[~hidden], image[~hidden])
        shares.append(hidden.mean())
    assert 0.2 < np.mean(shares) < 0.5  # of squares whose sides are uniform in 0..1, and a pixel where they are turned
    assert np.ptp(shares) > 0.5


# ---- CutMix


def mixed(count: int = 8, share: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A batch whose image i is 10 * i + 3 everywhere and whose label is i, mixed."""
    made = make_augmentation(DataConfig(cut_mix=share), PIXEL)
    numbers = np.arange(count, dtype=np.float32)[:, None, None, None]
    batch = {
        "image": tf.constant(np.broadcast_to(10 * numbers + 3, (count, 31, 41, 3))),
        "label": tf.constant(np.broadcast_to(numbers, (count, 31, 41, 1)).astype(np.int32)),
        "image_name": tf.constant(["a"] * count),
        DRAWS: tf.constant(np.random.default_rng(seed).uniform(size=(count, 15)).astype(np.float32)),
    }
    found = tf.function(made.mix_batch)(batch)
    assert set(found) == {"image", "label", "image_name"}
    assert (found["image"].dtype, found["label"].dtype) == (tf.float32, tf.int32)
    return found["image"].numpy(), found["label"].numpy()


def test_image_and_label_are_cut_together():
    image, label = mixed()
    np.testing.assert_array_equal(image, np.repeat(10.0 * label + 3, 3, axis=-1))
    for number, found in enumerate(label[..., 0]):
        values = set(np.unique(found))
        assert len(values - {number}) <= 1
        other = found != number
        if other.any():
            rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
            box = other[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.all()  # a rectangle
    assert len({tuple(np.unique(found)) for found in label}) > 3


def test_the_share_of_pictures_that_are_cut():
    label = mixed(count=400, share=0.25)[1]
    cut = (label != np.arange(400)[:, None, None, None]).any(axis=(1, 2, 3)).mean()
    assert 0.19 < cut < 0.3
    np.testing.assert_array_equal(mixed(share=1e-9)[1][..., 0, 0, 0], np.arange(8))


# ---- in the pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Nine pictures of different sizes; the red of a pixel is ten times its class."""
    examples = []
    for number, size in enumerate(SIZES):
        classes = RANDOM.integers(0, 21, size, np.uint8)
        pixels = np.stack([10 * classes, *RANDOM.integers(0, 256, (2, *size), np.uint8)], axis=-1)
        examples.append(example_of(f"p{number}", pixels, classes))
    return write_records(tmp_path_factory.mktemp("records"), "train", examples)


def dataset(folder: str, *, part=(0, 1), start_step: int = 0, seed: int = 5, **options) -> tf.data.Dataset:
    config = DataConfig(dataset_dir=folder, **{"crop_size": (33, 49), "batch_size": 4, **options})
    return make_dataset(config, split="train", training=True, seed=seed, part=part, start_step=start_step)


def taken(some: tf.data.Dataset, count: int) -> list[dict]:
    return list(some.take(count).as_numpy_iterator())


def batches(folder: str, count: int = 4, **options) -> list[dict]:
    return taken(dataset(folder, **options), count)


@pytest.fixture(scope="module")
def plain_dataset(folder) -> tf.data.Dataset:
    return dataset(folder)


@pytest.fixture(scope="module")
def plain(plain_dataset) -> list[dict]:
    return taken(plain_dataset, 4)


@pytest.fixture(scope="module")
def augmented(folder) -> tf.data.Dataset:
    return dataset(folder, **EVERYTHING)


@pytest.fixture(scope="module")
def whole(augmented) -> list[dict]:
    """A run with everything that augments."""
    return taken(augmented, 6)


def assert_equal(first: list[dict], second: list[dict]):
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_batches_keep_their_form(plain_dataset, augmented, whole):
    assert augmented.element_spec == plain_dataset.element_spec
    for batch in whole:
        assert 0 <= batch["image"].min() <= batch["image"].max() <= 255
        assert set(np.unique(batch["label"])) <= {*range(21), 255}
        assert np.isfinite(batch["image"]).all()


@pytest.mark.heavy
def test_a_run_resumes_with_the_same_pixels(folder, whole):
    """That a run made anew is the same, test_mixed_precision_does_not_reach_the_pictures shows."""
    assert_equal(whole[3:], batches(folder, 3, start_step=3, **EVERYTHING))
    other = batches(folder, 6, seed=6, **EVERYTHING)
    assert any((a["image"] != b["image"]).any() for a, b in zip(whole, other, strict=True))


@pytest.mark.heavy
def test_pictures_are_changed_alike_in_every_partition(folder):
    options = {key: value for key, value in EVERYTHING.items() if key != "cut_mix"}
    whole = batches(folder, 3, **options)
    parts = [batches(folder, 3, part=(i, 2), **options) for i in (0, 1)]
    assert_equal(whole, [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts, strict=True)])


@pytest.mark.heavy
@pytest.mark.parametrize("option", ["color_jitter", "gaussian_blur", "grid_mask"])
def test_labels_and_padding_stay(folder, plain, option):
    changed = batches(folder, **{option: EVERYTHING[option]})
    for before, after in zip(plain, changed, strict=True):
        np.testing.assert_array_equal(before["label"], after["label"])
        padding = before["label"][..., 0] == 255
        assert padding.any()
        assert (after["image"][padding] == 127.5).all()
        assert (before["image"][~padding] != after["image"][~padding]).mean() > 0.01


FIXED = {"min_scale_factor": 1.0, "max_scale_factor": 1.0}


@pytest.fixture(scope="module")
def cut(folder) -> list[dict]:
    return batches(folder, 6, cut_mix=1.0, **FIXED)


def test_cut_mix_in_the_pipeline(folder, cut):
    """At scale 1 the red of every pixel tells its class: image and label were cut at the same place."""
    plain = batches(folder, 6, **FIXED)
    differ = 0
    for before, after in zip(plain, cut, strict=True):
        inside = after["label"][..., 0] != 255
        np.testing.assert_array_equal(after["image"][inside][:, 0], 10 * after["label"][inside][:, 0])
        assert (after["image"][~inside] == 127.5).all()
        differ += (before["label"] != after["label"]).any(axis=(1, 2, 3)).sum()
    assert differ > 10


def test_the_numbers_of_options_do_not_depend_on_each_other(folder, cut):
    """An option more leaves what another draws as it was."""
    both = batches(folder, 2, cut_mix=1.0, color_jitter=(0.2, 0.2, 0.2, 0.1), **FIXED)
    for a, b in zip(cut, both, strict=False):
        np.testing.assert_array_equal(a["label"], b["label"])


@pytest.mark.heavy
def test_mixed_precision_does_not_reach_the_pictures(folder, whole):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert_equal(whole, batches(folder, 6, **EVERYTHING))
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.heavy
def test_deterministic_operations_allow_it(folder, whole):
    code = f"""
import sys, tensorflow as tf
tf.config.experimental.enable_op_determinism()
tf.keras.utils.set_random_seed(0)
from deeplab_tf.config import DataConfig
from deeplab_tf.data.pipeline import make_dataset
options = dict(dataset_dir={folder!r}, crop_size=(33, 49), batch_size=4)
make_dataset(DataConfig(**options), split="train", training=True)
print("keras_cv" in sys.modules)
made = make_dataset(DataConfig(**options, **{EVERYTHING!r}), split="train", training=True, seed=5)
print(float(tf.reduce_sum(next(iter(made))["image"])))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, total = done.stdout.split()[-2:]
    assert imported == "False"
    np.testing.assert_allclose(json.loads(total), whole[0]["image"].sum(), rtol=1e-4)


def test_nothing_is_on_by_default():
    assert make_augmentation(DataConfig(), PIXEL) is None
    assert make_augmentation(DataConfig(color_jitter="", gaussian_blur=0.0, cut_mix=0.0), PIXEL) is None
    assert isinstance(make_augmentation(DataConfig(grid_mask=0.5), PIXEL), augment.Augmentation)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color_jitter": "0.2"}, r"color_jitter=\(0.2,\): expected brightness,contrast,saturation"),
        ({"color_jitter": (0.1, 0.1, 0.1, 0.6)}, "hue in 0..0.5"),
        ({"gaussian_blur": -1.0}, "gaussian_blur=-1.0: expected pixels"),
        ({"grid_mask": 1.5}, "grid_mask=1.5: expected a share"),
        ({"cut_mix": 2.0}, "cut_mix=2.0: expected a share"),
        ({"cut_mix": 0.5, "batch_size": 1}, "cut_mix=0.5: needs a batch_size of at least 2"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(DeepLabError, match=message):
        DataConfig(**options)
