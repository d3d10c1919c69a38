"""Colour masks, overlays, palette PNGs and sheets."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops import pictures, sheets

PALETTE = palettes.pascal_palette(21)
NAMES = datasets.dataset("pascal_voc_seg").class_names


def _picture(height, width, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, 3)).astype(np.uint8)


def _halves(height, width):
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 15
    return labels


# ---- colour_mask


def test_colour_mask_against_the_release_test():
    labels = np.array([[0, 16, 16], [52, 7, 52]])
    expected = [[(0, 0, 0), (0, 64, 0), (0, 64, 0)], [(0, 64, 192), (128, 128, 128), (0, 64, 192)]]
    mask = pictures.colour_mask(labels, palettes.colour_map("pascal"))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)
    mask = pictures.colour_mask(np.array([[1, 3], [10, 20]]), palettes.colour_map("ade20k"))
    np.testing.assert_array_equal(mask, [[(120, 120, 120), (6, 230, 230)], [(4, 250, 7), (204, 70, 3)]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, np.uint16])
def test_colour_mask_takes_any_integer(dtype):
    labels = np.arange(21).reshape(3, 7).astype(dtype)
    np.testing.assert_array_equal(pictures.colour_mask(labels, PALETTE).reshape(21, 3), PALETTE)


def test_colour_mask_of_the_ignored():
    labels = np.array([[0, 255]], np.uint8)
    mask = pictures.colour_mask(labels, PALETTE, ignore_label=255)
    np.testing.assert_array_equal(mask, [[(0, 0, 0), pictures.IGNORE_COLOUR]])
    with pytest.raises(DeepLabError, match="label 255 .*21 colours"):
        pictures.colour_mask(labels, PALETTE)


def test_colour_mask_across_strips():
    labels = (np.arange(2100 * 1100) % 21).astype(np.uint8).reshape(2100, 1100)
    mask = pictures.colour_mask(labels, PALETTE)
    np.testing.assert_array_equal(mask, np.array(PALETTE, np.uint8)[labels])
    labels[-1, -1] = 21
    with pytest.raises(DeepLabError, match="label 21"):
        pictures.colour_mask(labels, PALETTE)


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros(3, np.uint8),
        np.zeros((2, 2, 1), np.uint8),
        np.zeros((2, 2), np.float32),
        np.zeros((0, 4), np.uint8),
        [[0, 1]],
        np.array([[600]]),
        np.array([[-1]]),
    ],
    ids=["1-d", "3-d", "float", "empty", "list", "600", "negative"],
)
def test_wrong_labels(labels):
    with pytest.raises(DeepLabError, match="label"):
        pictures.colour_mask(labels, palettes.colour_map("pascal"))


def test_wrong_palette():
    with pytest.raises(DeepLabError, match="palette"):
        pictures.colour_mask(np.zeros((1, 1), int), [(0, 0, 256)])


# ---- class_shares


def test_class_shares_are_sorted_and_leave_out_the_ignored():
    labels = np.array([[0, 0, 0, 15], [15, 255, 2, 255]], np.uint8)
    shares = pictures.class_shares(labels, NAMES, ignore_label=255)
    assert [(i, n) for i, n, _ in shares] == [(0, "background"), (15, "person"), (2, "bicycle")]
    np.testing.assert_allclose([s for _, _, s in shares], [3 / 6, 2 / 6, 1 / 6])


def test_class_shares_may_ignore_class_zero_or_all():
    labels = np.array([[0, 0, 3]])
    assert pictures.class_shares(labels, NAMES, ignore_label=0) == [(3, "bird", 1.0)]
    assert pictures.class_shares(np.zeros((2, 2), int), NAMES, ignore_label=0) == []


def test_class_shares_need_a_name():
    with pytest.raises(DeepLabError, match="label 21 .*21 class names"):
        pictures.class_shares(np.array([[21]]), NAMES)


# ---- blend and overlay


def test_blend_mixes_and_draws_the_border():
    image, labels = _picture(20, 30), _halves(20, 30)
    mixed = pictures.blend(image, labels, PALETTE, alpha=0.5)
    colours = pictures.colour_mask(labels, PALETTE)
    inside = np.ones((20, 30), bool)
    inside[:, 14] = False
    expected = 0.5 * image[inside] + 0.5 * colours[inside]
    assert np.abs(mixed[inside] - expected).max() <= 0.5
    assert (mixed[:, 14] == 255).all()


def test_blend_of_one_class_at_the_ends_of_alpha():
    image, labels = _picture(9, 7), np.full((9, 7), 15)
    np.testing.assert_array_equal(pictures.blend(image, labels, PALETTE, alpha=0), image)
    np.testing.assert_array_equal(pictures.blend(image, labels, PALETTE, alpha=1)[0, 0], PALETTE[15])


def test_blend_does_not_depend_on_strips(monkeypatch):
    image, labels = _picture(64, 50), _halves(64, 50)
    labels[20:41, 10:40] = 3
    whole = pictures.blend(image, labels, PALETTE)
    monkeypatch.setattr(pictures, "_STRIP_PIXELS", 350)
    np.testing.assert_array_equal(pictures.blend(image, labels, PALETTE), whole)


def test_borders_grow_with_the_picture():
    labels = _halves(1800, 1800)
    mixed = pictures.blend(np.zeros((1800, 1800, 3), np.uint8), labels, PALETTE)
    assert np.flatnonzero((mixed[900] == 255).all(-1)).tolist() == [899, 900]


def overlay(image, labels, palette, names, **ignored) -> np.ndarray:
    """The picture that `predict` writes: `blend` above a legend of the classes present."""
    shares = pictures.class_shares(labels, names, **ignored)
    return sheets.with_legend(pictures.blend(image, labels, palette, **ignored), shares, palette)


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (129, 97), (40, 700), (1500, 2000)])
def test_overlay_keeps_the_picture_and_adds_a_readable_legend(size):
    height, width = size
    image, labels = _picture(height, width), _halves(height, width)
    result = overlay(image, labels, PALETTE, NAMES)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[:height, :width], pictures.blend(image, labels, PALETTE))
    legend = result[height:]
    assert legend.shape[0] >= 20
    assert legend.shape[1] >= 100
    swatch = np.flatnonzero((legend == PALETTE[15]).all(-1).any(0))
    assert len(swatch) >= 10, "the swatch of person is not in the legend"
    assert (legend == PALETTE[3]).all(-1).sum() == 0, "a class that is absent has a swatch"


def test_letters_grow_with_the_picture():
    def letters(height, width):
        picture = np.zeros((height, width, 3), np.uint8)
        return overlay(picture, _halves(height, width), PALETTE, NAMES).shape[0] - height

    assert letters(64, 64) < letters(1500, 2000)
    assert letters(300, 400) < 60


def test_overlay_wraps_many_classes():
    labels = np.repeat(np.arange(21, dtype=np.uint8), 20)[None].repeat(50, 0)
    wide = overlay(np.zeros((50, 420, 3), np.uint8), labels, PALETTE, NAMES)
    assert wide.shape[1] == 420
    for colour in PALETTE:
        assert (wide[50:] == colour).all(-1).sum() >= 80


def test_overlay_of_a_label_map_that_is_all_ignored():
    labels = np.full((4, 4), 255, np.uint8)
    result = overlay(_picture(4, 4), labels, PALETTE, NAMES, ignore_label=255)
    assert result.shape[0] > 4


@pytest.mark.parametrize(
    ("image", "alpha", "message"),
    [
        (np.zeros((4, 5, 3), np.uint8), 0.5, r"\(4, 5, 3\).*\(4, 4, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), 0.5, "expected uint8"),
        (np.zeros((4, 4, 3), np.float32), 0.5, "float32"),
        (np.zeros((4, 4, 3), np.uint8), 1.5, "alpha=1.5"),
    ],
)
def test_wrong_images(image, alpha, message):
    with pytest.raises(DeepLabError, match=message):
        pictures.blend(image, np.zeros((4, 4), np.uint8), PALETTE, alpha=alpha)


# ---- palette_png


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (300, 200)])
@pytest.mark.parametrize("count", [2, 21, 512])
def test_palette_png_gives_the_indices_back(size, count):
    labels = np.random.default_rng(1).integers(0, min(count, 256), size)
    labels[-1, -1] = 255
    picture = Image.open(io.BytesIO(pictures.palette_png(labels, palettes.pascal_palette(count))))
    assert picture.mode == "P"
    decoded = np.array(picture)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, labels)
    assert picture.convert("RGB").getpixel((size[1] - 1, size[0] - 1)) == (224, 224, 192)


def test_palette_png_shows_the_palette():
    labels = np.arange(21, dtype=np.uint8)[None]
    picture = Image.open(io.BytesIO(pictures.palette_png(labels, PALETTE))).convert("RGB")
    np.testing.assert_array_equal(np.array(picture)[0], PALETTE)


def test_palette_png_holds_a_byte():
    with pytest.raises(DeepLabError, match="label 256"):
        pictures.palette_png(np.array([[256]]), PALETTE)


# ---- picture_sheet


def test_sheet_has_every_tile_caption_and_swatch():
    tiles = [[np.full((50, 80, 3), 10 * (3 * r + c + 1), np.uint8) for c in range(3)] for r in range(2)]
    legend = [("person", (192, 128, 128)), ("bird", (128, 128, 0))]
    options = {"column_titles": ["photo", "label", "overlay"], "row_captions": ["one", "two"], "legend": legend}
    sheet = sheets.picture_sheet(tiles, title="a title", tile=160, **options)
    for tile in (tile for row in tiles for tile in row):
        assert (sheet == tile[0, 0]).all(-1).sum() >= 100 * 160
    for _, colour in legend:
        assert (sheet == colour).all(-1).sum() >= 80
    bare = sheets.picture_sheet(tiles, tile=160)
    assert bare.shape[0] < sheet.shape[0]
    assert bare.shape[1] == sheet.shape[1]


def test_sheet_takes_pictures_of_any_size():
    tiles = [[_picture(1, 1), _picture(700, 20)], [_picture(20, 700), _picture(513, 513)]]
    sheet = sheets.picture_sheet(tiles, row_captions=["a caption far too long for its sheet " * 9, ""], tile=64)
    assert sheet.shape[1] < 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": []}, "one or more rows"),
        ({"rows": [[_picture(2, 2)], []]}, "equal length"),
        ({"column_titles": ["a", "b"]}, "2 column titles for 1 columns"),
        ({"row_captions": ["a", "b"]}, "2 row captions for 1 rows"),
        ({"tile": 5}, "tile=5"),
        ({"rows": [[np.zeros((2, 2), np.uint8)]]}, r"\(2, 2\)"),
    ],
)
def test_wrong_sheets(options, message):
    with pytest.raises(DeepLabError, match=message):
        sheets.picture_sheet(**{"rows": [[_picture(2, 2)]], **options})


def test_import_needs_no_tensorflow():
    code = "import sys, deeplab_tf.ops.pictures; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
