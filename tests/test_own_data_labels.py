"""Every label that docs/how-to/own_data.md names is read, or refused as it says."""

import pathlib
import re
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from commands import finished
from own_folders import (
    COLOURS,
    COMMANDS,
    SIZE,
    agree,
    build,
    column,
    commands,
    label,
    rows,
    stored,
    usual,
)

from deeplab_tf.doctor.dataset import check_dataset

# ---- labels


def paletted(indices: np.ndarray, colours) -> PIL.Image.Image:
    image = PIL.Image.fromarray(indices)
    image.putpalette([value for colour in colours for value in colour])
    return image


def grey(bits: int):
    def write(file: pathlib.Path, classes: np.ndarray):
        if bits == 1:
            PIL.Image.fromarray(classes > 0).save(file)
            return
        paletted(classes, [(0, 0, 0)] * 3).save(file, bits=bits)
        file.write_bytes(as_grey(file.read_bytes()))

    return write


def as_grey(content: bytes) -> bytes:
    """Returns a palette PNG as a grey one of the same bits: without its palette, and with another type."""
    out, position = bytearray(content[:8]), 8
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind = bytes(content[position + 4 : position + 8])
        data = bytes(content[position + 8 : position + 8 + length])
        data = data[:9] + b"\0" + data[10:] if kind == b"IHDR" else data
        if kind != b"PLTE":
            out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        position += 12 + length
    return bytes(out)


def saved(change, **options):
    return lambda file, classes: PIL.Image.fromarray(change(classes)).save(file, **options)


def reordered(file: pathlib.Path, classes: np.ndarray):
    paletted((classes + 1) % 3, [COLOURS[2], COLOURS[0], COLOURS[1]]).save(file)


def contradicting(file: pathlib.Path, classes: np.ndarray):
    paletted((classes + 1) % 3, [(7, 7, 9), COLOURS[0], COLOURS[1]]).save(file)


def smoothed(classes: np.ndarray) -> np.ndarray:
    mask = PIL.Image.fromarray(np.where(classes > 0, 255, 0).astype(np.uint8))
    return np.asarray(
        mask.resize((SIZE[1] // 2, SIZE[0] // 2)).resize((SIZE[1], SIZE[0]), PIL.Image.Resampling.BILINEAR)
    )


# What a label is -> how it is written, and what is stored for classes; or, in REFUSED, the words of the refusal.
WRITTEN = {
    "a grey PNG of 8 bits": ([saved(lambda c: c)], lambda c: c),
    "a grey PNG of 1, 2 or 4 bits": ([grey(2), grey(4)], lambda c: c),
    "a grey PNG of 16 bits, values up to 255": ([saved(lambda c: c.astype(np.uint16))], lambda c: c),
    "a palette PNG": ([lambda f, c: paletted(c, COLOURS).save(f)], lambda c: c),
    "a palette PNG whose colours are the set's, at other indices": ([reordered], lambda c: c),
    "an RGB PNG of the colours in `labelmap.txt` or `dataset.json`": (
        [saved(lambda c: np.array(COLOURS, np.uint8)[c])],
        lambda c: c,
    ),
    "an RGB PNG with red = green = blue = class": ([saved(lambda c: np.stack([c] * 3, axis=-1))], lambda c: c),
    "a lossless TIFF, BMP, GIF or WEBP": (
        [
            saved(lambda c: c, format="TIFF"),
            saved(lambda c: c, format="BMP"),
            saved(lambda c: c, format="GIF"),
            saved(lambda c: np.stack([c] * 3, axis=-1), format="WEBP", lossless=True),
        ],
        lambda c: c,
    ),
}
MASKS = {
    "0 and 255, of two classes": (saved(lambda c: np.where(c > 0, 255, 0).astype(np.uint8)), "--label_map=255:1"),
    "0 and 128, of two classes": (saved(lambda c: np.where(c > 0, 128, 0).astype(np.uint8)), "--label_map=128:1"),
    "smoothed at the edges, of two classes": (saved(smoothed), "--threshold=128"),
}
REFUSED = {
    "numbered from 1": (saved(lambda c: c + 1), "--label_map=1:0,2:1,3:2"),
    "of colours that are not known": (
        saved(lambda c: np.array([(0, 0, 0), (5, 6, 7), (8, 9, 10)], np.uint8)[c]),
        "write this as dataset.json",
    ),
    "a palette of known and unknown colours that contradict the indices": (contradicting, "do indices or colours"),
    "a JPEG, or another lossy file": (saved(lambda c: c * 100, format="JPEG"), "export the labels as PNG"),
}


def test_every_label_is_tried():
    assert column("labels") == [*WRITTEN, *MASKS, *REFUSED]


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_label_that_is_read(my_data, kind):
    writers, expected = WRITTEN[kind]
    for write in writers:
        usual(my_data)
        for seed, name in enumerate("abc"):
            write(my_data / "labels" / "train" / f"{name}.png", label(seed))
        assert build() == 0
        for seed, name in enumerate("abc"):
            np.testing.assert_array_equal(stored("train")[name][1], expected(label(seed)))
        agree()
        for file in pathlib.Path("my_records").iterdir():
            file.unlink()
    if kind == "a grey PNG of 1, 2 or 4 bits":
        grey(1)(my_data / "labels" / "train" / "a.png", label(0))
        assert build() == 0
        np.testing.assert_array_equal(stored("train")["a"][1], label(0) > 0)


@pytest.mark.parametrize("kind", [*MASKS, *REFUSED])
def test_a_label_that_is_refused(my_data, kind, capsys):
    write, words = {**MASKS, **REFUSED}[kind]
    usual(my_data)
    for file in (my_data / "labels").rglob("*.png"):
        write(file, label(0))
    if kind in MASKS:
        (my_data / "class_names.txt").write_text("rest\nthing")
    assert build() == 1
    message = capsys.readouterr().err
    assert words in message and not pathlib.Path("my_records").exists()
    assert check_dataset("my_data").count("error") == 1
    (printed,) = [row[1] for row in rows("labels") if row[0] == kind]
    given = re.findall(r"`(--\S+?)`", printed)
    if given:
        assert build(*given) == 0
        expected = {"numbered from 1": label(0)}.get(kind, label(0) > 0)
        if kind != "smoothed at the edges, of two classes":
            np.testing.assert_array_equal(stored("train")["a"][1], expected)


@pytest.mark.parametrize(("command", "kind"), [*zip(commands("masks"), [*MASKS][1:], strict=True)])
def test_the_commands_for_masks(my_data, command, kind):
    usual(my_data)
    (my_data / "class_names.txt").write_text("rest\nthing")
    for file in (my_data / "labels").rglob("*.png"):
        MASKS[kind][0](file, label(0))
    name, *flags = command
    assert finished(COMMANDS[name], *flags, "--num_processes=1") == 0
