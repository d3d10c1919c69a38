"""Preprocessing: the original's figures, the facts of its own tests, and the window equal to the long way round."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import GOLDENS
from golden import golden_image, golden_label
from release_steps import flip, pad_to_bounding_box, random_crop

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.data import transforms, windows
from deeplab_tf.errors import DeepLabError

CASES = json.loads((GOLDENS / "misc" / "preprocess.json").read_text())
BASE = np.stack([[[5, 6], [9, 0]], [[4, 3], [3, 5]]], axis=-1)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS / "misc" / "preprocess.npz") as arrays:
        return dict(arrays)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise, which has the sharpest edges there are: uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def labels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 21, (height, width, 1), np.uint8)


# ---- the original's figures


@pytest.mark.parametrize("case", [c for c in CASES if c["name"].startswith("resize")], ids=lambda c: c["name"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resize_to_range_is_golden(case, dtype, golden):
    image = golden_image(case["key"], case["height"], case["width"]).astype(dtype)
    label = golden_label(case["key"], case["height"], case["width"], 21)[..., None]
    found = transforms.resize_to_range(
        image,
        label,
        minimum=case["min_size"],
        maximum=case["max_size"],
        factor=case["factor"],
        keep_aspect_ratio=case["keep_aspect_ratio"],
    )
    np.testing.assert_allclose(found[0], golden[f"{case['name']}/image"], atol=1e-3)
    np.testing.assert_array_equal(found[1], golden[f"{case['name']}/label"])


@pytest.mark.parametrize("case", [c for c in CASES if c["name"].startswith("scale")], ids=lambda c: c["name"])
def test_scaling_is_golden(case, golden, monkeypatch):
    image = golden_image(case["key"], case["height"], case["width"])
    label = golden_label(case["key"], case["height"], case["width"], 21)[..., None].astype(np.uint8)
    size = transforms.scaled_size(tf.shape(image)[:2], case["scale"])
    assert tuple(size.numpy()) == golden[f"{case['name']}/image"].shape[:2]
    np.testing.assert_allclose(transforms.resize_image(image, size), golden[f"{case['name']}/image"], atol=1e-3)
    np.testing.assert_array_equal(transforms.resize_label(label, size), golden[f"{case['name']}/label"])
    for waste in (0.0, 1e9):  # both ways to make the window
        monkeypatch.setattr(windows, "_WASTE", waste)
        window = windows.Window(tf.shape(image)[:2], size, tf.zeros(2, tf.int32), size, tf.constant(False))
        whole = windows.image_window(tf.constant(image), window)
        np.testing.assert_allclose(whole, golden[f"{case['name']}/image"], atol=1e-3)


@pytest.mark.parametrize("case", [c for c in CASES if c["name"] == "mean_pixel"], ids=lambda c: c["variant"])
def test_pad_pixel_is_golden(case):
    np.testing.assert_allclose(ARCHITECTURES[case["variant"]].pad_pixel, case["value"], rtol=1e-6)


# ---- the facts of the original's own tests


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((60, 40), (50, 100, None), (75, 50)),
        ((15, 30), (50, 100, None), (50, 100)),
        ((15, 50), (50, 100, None), (30, 100)),
        ((60, 40), (50, 98, 8), (81, 57)),
        ((15, 30), (50, 98, 8), (49, 97)),
        ((15, 50), (50, 98, 8), (33, 97)),
        ((60, 40), (96, 98, 8), (97, 65)),
        ((15, 30), (96, 98, 8), (49, 97)),
        ((15, 50), (96, 98, 8), (33, 97)),
        ((97, 38), (97, 97, 8), (97, 41)),
        ((96, 97), (97, 97, 8), (97, 97)),
        ((3936, 5248), (1441, 1441, 16), (1089, 1441)),
    ],
)
def test_range_sizes(size, limits, expected):
    minimum, maximum, factor = limits
    found = transforms.range_size(*size, minimum=minimum, maximum=maximum, factor=factor)
    assert tuple(found.numpy()) == expected


def test_range_without_the_aspect_ratio_and_channels_first():
    options = {"minimum": 97, "maximum": 97, "factor": 8, "keep_aspect_ratio": False}
    image, label = transforms.resize_to_range(photo(97, 38), labels(97, 38), **options)
    assert (image.shape, label.shape) == ((97, 97, 3), (97, 97, 1))
    layers = np.moveaxis(np.repeat(labels(60, 40), 5, axis=-1), -1, 0)
    resized = transforms.resize_label(layers, (81, 57), axis=1)
    assert resized.shape == (5, 81, 57)
    np.testing.assert_array_equal(resized[3], transforms.resize_label(labels(60, 40), (81, 57))[..., 0])


def test_flips():
    label = np.array([[0, 1], [2, 3]])[..., None]
    for axis, expected in ((0, [[9, 0], [5, 6]]), (1, [[6, 5], [0, 9]])):
        (turned,) = flip([BASE], tf.constant(0.3), probability=1.0, axis=axis)
        np.testing.assert_array_equal(turned[..., 0], expected)
        (same,) = flip([BASE], tf.constant(0.3), probability=0.0, axis=axis)
        np.testing.assert_array_equal(same, BASE)
    both = flip([BASE, label], tf.constant(0.5))
    np.testing.assert_array_equal(both[1][..., 0], [[1, 0], [3, 2]])
    np.testing.assert_array_equal(both[0][..., 1], [[3, 4], [5, 3]])
    np.testing.assert_array_equal(flip([BASE], tf.constant(0.50001))[0], BASE)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("rank", [3, 4])
def test_bounding_box(dtype, rank):
    image = BASE.astype(dtype)[None] if rank == 4 else BASE.astype(dtype)
    padded = pad_to_bounding_box(image, 2, 1, 5, 5, 255)
    expected = np.full((5, 5, 2), 255, dtype)
    expected[2:4, 1:3] = BASE
    assert padded.dtype == dtype
    np.testing.assert_array_equal(padded[0] if rank == 4 else padded, expected)
    np.testing.assert_array_equal(pad_to_bounding_box(image, 0, 0, 2, 2, 255), image)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 5, 1), "target_width must be >= width"),
        ((0, 0, 1, 5), "target_height must be >= height"),
        ((3, 0, 4, 4), "target size not possible with the given target offsets"),
    ],
)
def test_bounding_boxes_that_do_not_fit(box, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        pad_to_bounding_box(BASE, *box, 255)
    with pytest.raises(ValueError, match="Wrong image tensor rank"):
        pad_to_bounding_box(BASE[..., 0], 0, 0, 5, 5, 255)


def test_crops():
    image, label = photo(100, 200), labels(100, 200)
    places = set()
    for seed in range(20):
        crop, part = random_crop([image, label], (2, 3), tf.random.stateless_uniform([2], [seed, 0]))
        found = [
            (y, x) for y in range(99) for x in range(198) if (image[y : y + 2, x : x + 3] == np.asarray(crop)).all()
        ]
        (place,) = found
        np.testing.assert_array_equal(label[place[0] : place[0] + 2, place[1] : place[1] + 3], part)
        places.add(place)
    assert len(places) > 15
    assert random_crop([image], (10, 20), tf.zeros(2))[0].shape == (10, 20, 3)
    last = random_crop([image], (2, 3), tf.constant([0.99999994, 0.99999994]))[0]
    np.testing.assert_array_equal(last, image[-2:, -3:])


@pytest.mark.parametrize(
    ("other", "size", "message"),
    [
        ((4, 6), (2, 2), "Wrong width for tensor"),
        ((5, 5), (2, 2), "Wrong height for tensor"),
        ((4, 5), (5, 9), "Crop size greater than the image size."),
    ],
)
def test_crops_that_do_not_fit(other, size, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        random_crop([photo(4, 5), photo(*other)], size, tf.zeros(2))


def test_scales():
    np.testing.assert_array_equal(transforms.scale_values(0.5, 2.0, 0.25), [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2])
    assert transforms.scale_values(0.5, 2.0, 0.25).dtype == np.float32
    assert transforms.scale_values(1.5, 1.5, 0.25).tolist() == [1.5]
    for low, high in ((-1, 2), (2, 1)):
        with pytest.raises(DeepLabError, match="min_scale_factor"):
            transforms.scale_values(low, high, 0.25)
    values = transforms.scale_values(0.5, 2.0, 0.25)
    draws = tf.random.stateless_uniform([7000], [1, 2])
    draw_all = tf.function(lambda draws: tf.map_fn(lambda draw: transforms.draw_scale(values, 0.25, draw), draws))
    drawn = draw_all(draws).numpy()
    counts = [(drawn == value).sum() for value in values]
    assert min(counts) > 900
    assert max(counts) < 1100
    assert transforms.draw_scale(values, 0.25, tf.constant(0.99999994)).numpy() == 2.0
    between = transforms.draw_scale(transforms.scale_values(0.5, 2.0, 0), 0, tf.constant(0.5))
    assert between.numpy() == 1.25


# ---- the window


def long_way(image, label, draws, scale, crop_size, pixel, ignore):
    """The release's steps one after the other, by stock ops: scale, pad, crop, flip."""
    size = transforms.scaled_size(tf.shape(image)[:2], scale)
    image = transforms.resize_image(image, size)
    label = tf.raw_ops.ResizeNearestNeighbor(
        images=tf.cast(label, tf.int32)[None], size=size, align_corners=True, half_pixel_centers=False
    )[0]
    height, width = (max(int(size[i]), crop_size[i]) for i in (0, 1))
    image = pad_to_bounding_box(image - pixel, 0, 0, height, width, 0) + pixel
    label = pad_to_bounding_box(label, 0, 0, height, width, ignore)
    cropped = random_crop([image, label], crop_size, draws[:2])
    return flip(cropped, draws[2])


def augment(image, label, draws, scale, crop_size, pixel, ignore):
    """The same by windows, the image cut to what they need of it."""
    window = windows.draw_window(tf.shape(image)[:2], draws, scale=tf.constant(scale), crop_size=crop_size)
    top, left, height, width = windows.source_box(window)
    part = image[top : top + height, left : left + width]
    cut = windows.image_window(part, window, (top, left))
    filled = windows.fill(cut, window, crop_size, pixel)
    return filled, windows.label_window(tf.constant(label), window, crop_size, ignore)


@pytest.mark.parametrize("waste", [0.0, windows._WASTE, 1e9], ids=["sampled", "as it is", "resized"])
@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 1.337])
@pytest.mark.parametrize("size", [(375, 500), (500, 333), (77, 640)], ids=str)
def test_the_window_equals_the_long_way_round(size, scale, waste, monkeypatch):
    monkeypatch.setattr(windows, "_WASTE", waste)
    image, label = photo(*size), labels(*size)
    for seed in range(3):
        draws = tf.random.stateless_uniform([3], [seed, 5])
        pixel = ARCHITECTURES["resnet_v1_50" if seed else "mobilenet_v2"].pad_pixel
        crop = (321, 257) if seed else (513, 513)
        expected = long_way(image, label, draws, scale, crop, pixel, 255)
        found = augment(image, label, draws, scale, crop, pixel, 255)
        assert (found[0].dtype, found[1].dtype) == (tf.float32, tf.uint8)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-3)
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("count", [1, 5, 19, 20, 60])
@pytest.mark.parametrize("falling", [False, True])
def test_rows_between_rows(count, falling):
    array = np.random.default_rng(0).uniform(0, 255, (31, 4, 3)).astype(np.float32)
    at = np.linspace(0.25, 30, count, dtype=np.float32)[:: -1 if falling else 1]
    found = windows._sampled_rows(tf.constant(array), tf.constant(at))
    expected = [[np.interp(at, np.arange(31), array[:, i, c]) for c in range(3)] for i in range(4)]
    np.testing.assert_allclose(found, np.moveaxis(expected, -1, 0), atol=1e-4)


def test_bytes_are_resized_as_floats():
    """The op has a path for each, and which is taken depends on the sizes: no bit may differ."""
    image = photo(57, 43)
    for size in ((20, 30), (57, 44), (56, 43), (113, 91)):
        floats = tf.raw_ops.ResizeBilinear(images=image[None].astype(np.float32), size=size, align_corners=True)
        np.testing.assert_array_equal(transforms.resize_image(image, size), floats[0])


@pytest.mark.parametrize("mirrored", [False, True])
def test_labels_are_filled_beside_the_window(mirrored):
    label = labels(4, 6)
    window = windows.Window(*(tf.constant(v) for v in ([4, 6], [4, 6], [0, 0], [4, 6])), tf.constant(mirrored))
    expected = np.full((5, 9, 1), 255, np.uint8)
    expected[:4, :6] = label
    found = windows.label_window(tf.constant(label), window, (5, 9), 255)
    assert found.dtype == tf.uint8
    np.testing.assert_array_equal(found, expected[:, ::-1] if mirrored else expected)


def test_a_window_of_a_large_picture_equals_the_long_way_round():
    image, label = photo(1024, 2048), labels(1024, 2048)
    for scale, draws in ((0.75, [0.93, 0.97, 0.4]), (2.0, [0.93, 0.97, 0.7])):
        rest = (tf.constant(draws), scale, (513, 513), (127.5,) * 3, 255)
        expected, found = long_way(image, label, *rest), augment(image, label, *rest)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-3)
        np.testing.assert_array_equal(found[1], expected[1])


def test_a_window_needs_a_part_of_the_picture():
    def box(scale, draws=(0.5, 0.5, 0.9)):
        shape = tf.constant([1024, 2048])
        window = windows.draw_window(shape, tf.constant(draws), scale=tf.constant(scale), crop_size=(513, 513))
        return windows.source_box(window).numpy().tolist()

    assert box(0.5) == [0, 0, 1024, 2048]  # resized as a whole
    assert box(1.0)[2:] == [517, 517]
    assert box(2.0)[2:] == [262, 262]
    assert box(2.0, (0.0, 0.0, 0.9))[:2] == [0, 0]
    top, left, height, width = box(2.0, (0.99999, 0.99999, 0.9))
    assert (top + height, left + width) == (1024, 2048)


def test_pixels_beyond_the_picture():
    image = tf.constant(photo(4, 5), tf.float32)
    padded = transforms.pad_to(image, (6, 5), (123.15, 115.9, 103.06)).numpy()
    np.testing.assert_allclose(padded[:4], image, atol=1e-4)
    np.testing.assert_allclose(padded[4:], np.broadcast_to((123.15, 115.9, 103.06), (2, 5, 3)), rtol=1e-6)
    np.testing.assert_array_equal(transforms.pad_to(image, (3, 2), 127.5), image)
