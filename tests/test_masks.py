"""Label files as they are: what was drawn is what is stored, whatever the file's depth, mode, palette and format."""

import io
import itertools
import pathlib
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.data.build import BuildOptions, build_records
from deeplab_tf.data.masks import LabelRules, encoded_label, read_label
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError

OWN = ((0, 0, 0), (250, 50, 83), (51, 221, 255), (7, 200, 9))


def rules(num_classes: int, palette: palettes.Palette | None = None, **options) -> LabelRules:
    return LabelRules(num_classes, 255, palette or palettes.pascal_palette(num_classes), **options)


def drawn(values: list[int], seed: int, height: int = 9, width: int = 11) -> np.ndarray:
    """A mask in which every value occurs."""
    random = np.random.default_rng(seed)
    mask = random.choice(np.array(values, np.uint8), (height, width))
    mask.flat[random.permutation(height * width)[: len(values)]] = values
    return mask


def packed_png(mask: np.ndarray, bits: int, *, interlaced: bool = False, palette: list | None = None) -> bytes:
    """A grey or palette PNG of 1, 2, 4, 8 or 16 bits a sample, written by hand."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = mask.shape
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for x, y, step_x, step_y in passes if interlaced else ((0, 0, 1, 1),):
        for row in mask[y::step_y, x::step_x]:
            if row.size:
                spread = (row[:, None].astype(np.uint32) >> np.arange(bits - 1, -1, -1)) & 1
                rows += b"\0" + np.packbits(spread.astype(np.uint8)).tobytes()
    header = struct.pack(">IIBBBBB", width, height, bits, 3 if palette else 0, 0, 0, int(interlaced))
    colours = chunk(b"PLTE", bytes(channel for colour in palette for channel in colour)) if palette else b""
    parts = [chunk(b"IHDR", header), colours, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def stored(file: pathlib.Path, of: LabelRules) -> np.ndarray:
    """What records hold of a file, as TensorFlow reads it."""
    label = encoded_label(str(file), None, of)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(label.png))), label.classes)
    np.testing.assert_array_equal(tf.io.decode_png(label.png, channels=1)[..., 0], label.classes)
    np.testing.assert_array_equal(label.counts, np.bincount(label.classes.ravel(), minlength=256))
    return label.classes


def palette_image(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(indices)
    image.putpalette([channel for colour in colours for channel in colour])
    return image


# ---- grey samples


@pytest.mark.parametrize(("bits", "interlaced"), [*itertools.product((1, 2, 4, 8, 16), (False, True))])
def test_grey_samples_of_every_depth(tmp_path, bits, interlaced):
    for seed in range(4):
        highest = min(2**bits - 1, 255)
        values = [0, highest] if seed == 0 else sorted({0, 1, *np.random.default_rng(seed).integers(0, highest + 1, 5)})
        mask = drawn([int(v) for v in values], seed)
        file = tmp_path / f"{seed}.png"
        file.write_bytes(packed_png(mask, bits, interlaced=interlaced))
        np.testing.assert_array_equal(stored(file, rules(256)), mask)


@pytest.mark.parametrize("suffix", ["png", "PNG", "tif", "TIFF", "bmp", "gif", "webp", "pgm"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_index_masks_of_every_mode_and_format(tmp_path, mode, suffix):
    if (suffix.lower(), mode) in {(s, m) for s in ("bmp", "gif", "webp", "pgm") for m in ("I;16", "LA")}:
        return  # not formats for such samples
    if (suffix, mode) in {("gif", "1"), ("pgm", "1"), ("pgm", "P"), ("pgm", "RGBA"), ("webp", "1"), ("webp", "P")}:
        return
    if (suffix, mode) == ("gif", "RGBA"):  # Pillow merges near colours when it writes such a file
        return
    for seed, ignored in itertools.product(range(3), (False, True)):
        values = [0, 1] if mode == "1" else [*range(7), *([255] if ignored else [])]
        mask = drawn(values, seed)
        grey = Image.fromarray(mask)
        image = {
            "1": lambda m=mask: Image.fromarray(m > 0),
            "P": lambda m=mask: palette_image(m, [(i, i, i) for i in range(256)]),
            "I;16": lambda m=mask: Image.fromarray(m.astype(np.uint16)),
        }.get(mode, lambda g=grey: g.convert(mode))()
        file = tmp_path / f"{seed}.{suffix}"
        image.save(file, **({"lossless": True} if suffix == "webp" else {}))
        np.testing.assert_array_equal(stored(file, rules(7)), mask)


def test_colours_of_16_bits_are_read_whole(tmp_path):
    """Pillow keeps the upper half of such samples, which is 0 for indices."""
    mask = drawn([0, 1, 2, 6], 5)
    for channels in (2, 3, 4):
        wide = np.repeat(mask[..., None], channels, axis=-1).astype(np.uint16)
        if channels in (2, 4):
            wide[..., -1] = 65535
        file = tmp_path / f"{channels}.png"
        file.write_bytes(tf.io.encode_png(wide).numpy())
        np.testing.assert_array_equal(stored(file, rules(7)), mask)
    colours = np.array(palettes.pascal_palette(7), np.uint16)[mask]
    for name, values in (("narrow", colours), ("stretched", colours * 257)):
        (tmp_path / f"{name}.png").write_bytes(tf.io.encode_png(values).numpy())
        np.testing.assert_array_equal(stored(tmp_path / f"{name}.png", rules(7)), mask)
    (tmp_path / "odd.png").write_bytes(tf.io.encode_png(colours + 300).numpy())
    with pytest.raises(DeepLabError, match=r"odd.png: colours of 16 bits up to 428; expected 0..255"):
        stored(tmp_path / "odd.png", rules(7))
    content = (tmp_path / "narrow.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DeepLabError, match=r"cut.png: no label that can be decoded"):
        stored(tmp_path / "cut.png", rules(7))


# ---- palettes


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_palettes_in_every_order(tmp_path, suffix, own, bits):
    """The colours are what was drawn, wherever the palette has them."""
    palette = OWN if own else palettes.pascal_palette(4)
    for number, order in enumerate(itertools.permutations(range(4))):
        mask = drawn([0, 1, 2, 3], number)
        place = np.argsort(order).astype(np.uint8)  # of each class in the palette
        image = palette_image(place[mask], [palette[i] for i in order])
        file = tmp_path / f"{number}.{suffix}"
        image.save(file, **({"bits": bits} if suffix == "png" else {}))
        np.testing.assert_array_equal(stored(file, rules(4, palette)), mask)


def test_palettes_that_say_nothing(tmp_path):
    """Indices count where the palette's colours are not the data set's, and where it is padded with black."""
    mask = drawn([0, 1, 2, 3, 255], 1)
    random = [tuple(c) for c in np.random.default_rng(2).integers(10, 60, (256, 3)).tolist()]
    pascal = [*palettes.pascal_palette(4)]
    for name, colours in {
        "grey": [(i, i, i) for i in range(256)],
        "random": random,
        "black": [(0, 0, 0)] * 256,
        "padded": [*pascal, *[(0, 0, 0)] * 252],
        "voc": [*palettes.pascal_palette(256)],
    }.items():
        palette_image(mask, colours).save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(stored(tmp_path / f"{name}.png", rules(4)), mask, err_msg=name)
    (tmp_path / "short.png").write_bytes(packed_png(mask, 8, palette=pascal))
    np.testing.assert_array_equal(stored(tmp_path / "short.png", rules(4)), mask)
    palette_image(mask, [(i, i, i) for i in range(256)]).save(tmp_path / "many.png")
    np.testing.assert_array_equal(stored(tmp_path / "many.png", rules(200)), mask)


def test_grey_palettes(tmp_path):
    """Programs that write a grey mask as a palette picture keep the levels that occur; black and white are a mask."""
    mask = drawn([0, 2, 5, 255], 1)
    for order in itertools.permutations((0, 2, 5, 255)):
        place = np.zeros(256, np.uint8)
        place[list(order)] = range(4)
        palette_image(place[mask], [(v, v, v) for v in order]).save(tmp_path / "a.png")
        np.testing.assert_array_equal(stored(tmp_path / "a.png", rules(6)), mask)
    two = drawn([0, 1], 2)
    palette_image(two, [(0, 0, 0), (255, 255, 255)]).save(tmp_path / "b.png")
    np.testing.assert_array_equal(stored(tmp_path / "b.png", rules(2)), two)
    white = rules(2, ((0, 0, 0), (255, 255, 255)))
    palette_image(1 - two, [(255, 255, 255), (0, 0, 0)]).save(tmp_path / "c.png")
    np.testing.assert_array_equal(stored(tmp_path / "c.png", white), two)


def test_the_colour_of_ignored_pixels(tmp_path):
    """VOC's void, at another index than 255, is ignored; a data set's own palette comes first."""
    mask = drawn([0, 1, 255], 3)
    indices = np.where(mask == 255, 2, mask).astype(np.uint8)
    palette_image(indices, [(0, 0, 0), (128, 0, 0), (224, 224, 192)]).save(tmp_path / "void.png")
    np.testing.assert_array_equal(stored(tmp_path / "void.png", rules(3)), mask)
    own = rules(3, ((0, 0, 0), (128, 0, 0), (224, 224, 192)))
    np.testing.assert_array_equal(stored(tmp_path / "void.png", own), indices)


def test_contradictions_show_both_readings(tmp_path):
    mask = drawn([0, 1, 2], 4)
    palette_image(mask, [(0, 128, 0), (0, 0, 0), (9, 9, 7)]).save(tmp_path / "a.png")
    with pytest.raises(DeepLabError) as caught:
        stored(tmp_path / "a.png", rules(3))
    assert str(caught.value).startswith(
        f"{tmp_path}/a.png: a palette whose index 0 has the colour (0, 128, 0) of class 2, while (9, 9, 7) of index 2 "
        "is no colour of the data set: do indices or colours count?"
    )
    (tmp_path / "b.png").write_bytes(packed_png(mask, 8, palette=[(0, 128, 0), (0, 0, 0)]))
    with pytest.raises(DeepLabError, match="while index 2 has no colour of the data set"):
        stored(tmp_path / "b.png", rules(3))


def test_labels_that_are_renamed_agree_with_their_colours(tmp_path):
    """Person of VOC as class 1 of two, by label_map: the index counts, whether or not the palette says so."""
    mask = drawn([0, 15], 6)
    palette_image(mask, [*palettes.pascal_palette(21)]).save(tmp_path / "a.png")
    for palette in (None, ((0, 0, 0), (192, 128, 128))):
        of = rules(2, palette, label_map=((15, 1),))
        np.testing.assert_array_equal(stored(tmp_path / "a.png", of), mask == 15)


# ---- colours and transparency


def test_colours_and_grey_colours(tmp_path):
    mask = drawn([0, 1, 2, 3], 7)
    for number, order in enumerate(itertools.permutations(range(4))):
        palette = tuple(OWN[i] for i in order)
        colours = np.array(palette, np.uint8)[mask]
        for mode in ("RGB", "RGBA"):
            Image.fromarray(colours).convert(mode).save(tmp_path / f"{number}.png")
            np.testing.assert_array_equal(stored(tmp_path / f"{number}.png", rules(4, palette)), mask)
    Image.fromarray(np.stack([mask * 20] * 3, -1)).save(tmp_path / "grey.png")
    with pytest.raises(DeepLabError, match=r"grey.png: a colour label with \(20, 20, 20\)"):
        stored(tmp_path / "grey.png", rules(4))
    renamed = rules(4, label_map=((20, 1), (40, 2), (60, 3)))
    np.testing.assert_array_equal(stored(tmp_path / "grey.png", renamed), mask)


def test_transparency_is_no_second_label(tmp_path):
    mask = drawn([0, 1], 8)
    colours = np.array(palettes.pascal_palette(2), np.uint8)[mask]
    see_through = np.concatenate([colours, mask[..., None] * 255], -1)  # the background is transparent
    Image.fromarray(see_through).save(tmp_path / "good.png")
    np.testing.assert_array_equal(stored(tmp_path / "good.png", rules(2)), mask)
    hidden = np.concatenate([np.zeros_like(colours), mask[..., None] * 255], -1)
    Image.fromarray(hidden).save(tmp_path / "hidden.png")
    with pytest.raises(
        DeepLabError, match=r"hidden.png: \[0, 0, 0\] is there with transparencies of 0 and 255; is the"
    ):
        stored(tmp_path / "hidden.png", rules(2))
    Image.fromarray(np.stack([mask * 0, mask * 255], -1)).save(tmp_path / "grey.png")
    with pytest.raises(DeepLabError, match="grey.png: 0 is there with transparencies"):
        stored(tmp_path / "grey.png", rules(2))


# ---- files whose values are not those that were drawn


def test_inexact_files_are_refused(tmp_path):
    mask = drawn([0, 1, 2], 9)
    grey, rgb = Image.fromarray(mask), Image.fromarray(mask).convert("RGB")
    cases = {
        "lossy.webp": (rgb, {"quality": 90}, "a WEBP label"),
        "a.jp2": (rgb, {}, "a JPEG2000 label"),
        "a.jpg": (grey, {}, "a JPEG label"),
        "jpeg.tif": (rgb, {"compression": "jpeg"}, "a TIFF with JPEG compression"),
        "cmyk.tif": (rgb.convert("CMYK"), {}, "a label of mode CMYK"),
        "two.tif": (grey, {"save_all": True, "append_images": [grey]}, "a TIFF of 2 pictures; expected a single label"),
        "white.tif": (grey, {"tiffinfo": {262: 0}}, "a TIFF that stores white as 0"),
        "half.tif": (Image.fromarray(mask / np.float32(2)), {}, "label 0.5; expected whole numbers"),
        "nan.tif": (Image.fromarray(np.full((3, 3), np.nan, np.float32)), {}, "label nan; expected whole numbers"),
        "minus.tif": (
            Image.fromarray(mask.astype(np.int32) - 1),
            {},
            "label -1 in a 32-bit grey TIFF; expected 0..255",
        ),
        "wide.tif": (Image.fromarray(mask.astype(np.uint16) * 300), {}, "label 600 in a 16-bit grey TIFF"),
    }
    for name, (image, options, message) in cases.items():
        image.save(tmp_path / name, **options)
        with pytest.raises(DeepLabError) as caught:
            read_label(str(tmp_path / name), rules(3))
        assert message in str(caught.value), (name, str(caught.value))
    (tmp_path / "scaled.pgm").write_bytes(b"P5\n# drawn by hand\n2 2\n3\n\0\1\2\3")
    with pytest.raises(DeepLabError, match="scaled.pgm: a portable anymap of other levels than 0 to 255"):
        read_label(str(tmp_path / "scaled.pgm"), rules(4))
    Image.fromarray(mask.astype(np.float32)).save(tmp_path / "whole.tif")
    np.testing.assert_array_equal(read_label(str(tmp_path / "whole.tif"), rules(3)), mask)


# ---- whole sets


def built(folder: pathlib.Path, labels: dict[str, Image.Image], of: datasets.Dataset, **options):
    pairs = []
    for name, label in labels.items():
        label.save(folder / name)
        image = folder / f"{name}.photo.png"
        height, width = np.asarray(label).shape[:2]
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).save(image)
        pairs.append(Pair(str(image), str(folder / name), name))
    notes = []
    counts = build_records({"train": pairs}, of, folder / "out", BuildOptions(1, tell=notes.append, **options))
    return counts["train"], notes


def facts(num_classes: int, palette=None) -> datasets.Dataset:
    names = tuple(f"class {i}" for i in range(num_classes))
    return datasets.Dataset(
        "own", num_classes, 255, names, palette or palettes.pascal_palette(num_classes), {}, "pascal"
    )


def test_kinds_of_labels_are_told(tmp_path):
    mask = drawn([0, 1, 2], 1)
    swapped = palette_image(np.array([0, 2, 1], np.uint8)[mask], [(0, 0, 0), (0, 128, 0), (128, 0, 0)])
    labels = {"a.png": Image.fromarray(mask), "b.png": Image.fromarray(mask), "c.png": swapped}
    labels["d.png"] = Image.fromarray(np.array(palettes.pascal_palette(3), np.uint8)[mask])
    assert built(tmp_path, labels, facts(3))[1] == [
        "Labels of several kinds: 2 8-bit grey PNG, 1 palette PNG read by its colours, 1 RGB PNG read by its colours",
        "1 palette labels were read by their colours: these are the data set's, at other indices",
    ]


def test_palettes_that_differ_between_files_are_told(tmp_path):
    mask = drawn([0, 1], 1)
    labels = {f"{i}.png": palette_image(mask, [(0, 0, 0), (9, 9, i)]) for i in range(3)}
    _, (note,) = built(tmp_path, labels, facts(2))
    assert note.startswith("The palettes of labels differ: index 1 is (9, 9, 0) in 0.png and (9, 9, 1) in 1.png.")


def test_unknown_colours_are_listed_once_with_a_dataset_json(tmp_path):
    mask = drawn([0, 1, 2], 1, 10, 10)
    mask[:] = 0
    mask[:2] = 1
    mask[2] = 2
    labels = {f"{i}.png": Image.fromarray(np.array(OWN, np.uint8)[mask]) for i in range(5)}
    with pytest.raises(DeepLabError) as caught:
        built(tmp_path, labels, facts(3))
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 faults, nothing was written:"
    assert lines[1].endswith(
        "0.png: a colour label with (51, 221, 255) (10 pixels), (250, 50, 83) (20 pixels), not in the palette; "
        "give it in dataset.json"
    )
    assert lines[4] == "  and 2 more of this kind: unknown colours"
    assert lines[5].endswith("of all pixels: (250, 50, 83) 20.00%, (51, 221, 255) 10.00%")
    pasted = lines[6].partition("class_...: ")[2]
    found = datasets.parse_dataset(pasted.encode(), "dataset.json")
    assert found.class_names == ("class 0", "class_250_50_83", "class_51_221_255")
    assert found.palette == OWN[:3]
    assert len(lines) == 7
    assert built(tmp_path, labels, found)[0][:3].tolist() == [350, 100, 50]


def test_masks_of_other_values_get_a_cure(tmp_path):
    for number, (values, cure) in enumerate(
        (
            ([0, 128], "a mask of 0 and 128? --label_map=128:1 makes it 0 and 1"),
            ([0, 255], "--label_map=255:1"),
            (
                [0, 128, 255],
                "--label_map=128:1 makes 128 class 1 and leaves 255 ignored, --label_map=128:255,255:1 does",
            ),
            ([1, 2], "do the labels begin at 1? --label_map=1:0,2:1"),
            ([100, 200], "a mask of 100 and 200? --label_map=100:0,200:1 makes it 0 and 1"),
            ([0, 3, 50, 99, 128, 255], "smoothed edges? --threshold=128"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        labels = {f"{i}.png": Image.fromarray(drawn(values, i)) for i in range(5)}
        with pytest.raises(DeepLabError) as caught:
            built(folder, labels, facts(2))
        assert cure in str(caught.value).splitlines()[-1]
        assert not (folder / "out").exists()


def test_threshold(tmp_path):
    smooth = drawn([0, 3, 127, 128, 200, 255], 2)
    grey = Image.fromarray(smooth)
    ramp = [(i, i, i) for i in range(256)]
    labels = {"a.png": grey, "b.png": grey.convert("RGB"), "c.png": palette_image(smooth, ramp), "d.tif": grey}
    labels["e.png"] = Image.fromarray(smooth >= 128)
    counts, _ = built(tmp_path, labels, facts(2), threshold=128)
    assert counts[:2].tolist() == [5 * (smooth < 128).sum(), 5 * (smooth >= 128).sum()]
    assert datasets.read_dataset(tmp_path / "out").built == {"threshold": 128}
    for options, of, message in (
        ({"threshold": 0}, facts(2), "threshold=0: expected a grey level of 1..255"),
        ({"threshold": 128}, facts(3), "threshold=128: makes two classes, but own has 3"),
        ({"threshold": 128, "label_map": ((255, 1),)}, facts(2), "threshold=128: not beside label_map"),
    ):
        with pytest.raises(DeepLabError, match=message):
            build_records({"train": []}, of, tmp_path / "no", BuildOptions(1, **options))
