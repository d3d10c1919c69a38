"""The doctor and build-data agree: on the cases that people report, and on others of each kind."""

import io
import json
import os
import pathlib
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import finished, one_line

from deeplab_tf.data import records
from deeplab_tf.doctor.dataset import check_dataset
from deeplab_tf.doctor.findings import Diagnosis, Finding
from deeplab_tf.doctor.frames import frames_apart
from deeplab_tf.tools import build_data, doctor

CASES = pathlib.Path(__file__).parent / "cases" / "own_data"
SIZE = (48, 64)
NO_VAL = ["no-val-split"]
# case -> the codes of errors and warnings, and words of the finding that its row asks for.
EXPECTED: dict[str, tuple[list[str], str]] = {
    "palette_order": (["palette-by-colours"], "4 palette labels hold the data set's colours at other indices"),
    "sixteen_bit": ([], "3 bands of uint16; values of 303 to 431 become 0 to 255"),
    "grey_2bit": ([], "4 2-bit grey PNG: images/p00.jpg, images/p01.jpg, images/p02.jpg, ..."),
    "smoothed": (["labels-out-of-range"], "--threshold=128"),
    "mask_0_128": (["labels-out-of-range", "empty-class"], "--label_map=128:1"),
    "one_class": (["one-class"], "a single class, 'thing'"),
    "names_257": (["too-many-classes"], "class_names.txt: 257 classes"),
    "bom_lists": ([], "one size, largest 97 x 129"),
    "bom_names": ([], "to background"),
    "upper_images": ([], "one size, largest 97 x 129"),
    "lists_of_pairs": ([], "one size, largest 97 x 129"),
    "stray_txt": ([], "not lists: README.txt"),
    "tiff": ([], "one size, largest 97 x 129"),
    "cvat_masks": (["colour-label", *NO_VAL], "default is all there is"),
    "labelme": (NO_VAL, "train is all there is"),
    "labelme2voc_old": (NO_VAL, "train is all there is"),
    "coco": (NO_VAL, "train is all there is"),
    "test_without_labels": (["near-duplicates"], "no labels for test"),
    "exif_3": (["exif-rotation"], "3 of train and 1 of val have an image that its EXIF data turn"),
    "equal_stems": (["equal-stems"], "images/p01.jpg and images/p01.png"),
}


def test_every_case_is_here():
    assert set(EXPECTED) == {entry.name for entry in CASES.iterdir() if entry.is_dir()}


@pytest.mark.parametrize("case", EXPECTED)
def test_a_case_that_people_report(case, capsys):
    codes, words = EXPECTED[case]
    found = check_dataset(CASES / case)
    assert list(found.codes) == codes
    assert words in found.text()
    refused = any(finding.severity == "error" for finding in found.findings)
    assert finished(doctor, f"--dataset_dir={CASES / case}") == int(refused)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("case", EXPECTED)
def test_errors_are_what_build_data_refuses(case, tmp_path):
    """One class alone is built with a note, and judged by doctor."""
    flags = (f"--root={CASES / case}", f"--output_dir={tmp_path / 'records'}", "--num_processes=1")
    status = finished(build_data, "--dataset=folder", *flags)
    refused = any(finding.severity == "error" for finding in check_dataset(CASES / case).findings)
    assert bool(status) == (refused and case != "one_class")
    if status == 0:
        assert check_dataset(tmp_path / "records").count("error") == int(case == "one_class")


# ---- others of each kind


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def label(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, size, np.uint8)


def put(path: pathlib.Path, array: np.ndarray, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path, **options)


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Pictures a to d for train, e and f for val, of three classes."""
    root = tmp_path / "mine"
    for number, name in enumerate("abcdef"):
        split = "train" if name < "e" else "val"
        put(root / "images" / split / f"{name}.png", picture(number))
        put(root / "labels" / split / f"{name}.png", label(number))
    (root / "class_names.txt").write_text("rest\ncat\ndog\n")
    return root


def finding(found: Diagnosis, code: str) -> Finding:
    (one,) = (one for one in found.findings if one.code == code)
    return one


def test_a_clean_folder(folder):
    assert check_dataset(folder).codes == ()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("upright", [True, False])
def test_every_orientation_of_exif(folder, orientation, upright):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    for name in "abcd":
        put(folder / f"images/train/{name}.png", picture(ord(name)), exif=exif)
        put(folder / f"labels/train/{name}.png", label(ord(name), SIZE[::-1] if upright else SIZE))
    found = check_dataset(folder)
    if orientation > 4 and upright:
        assert found.codes == ()
        assert finding(found, "exif-turned").evidence == (
            "4 photographs are turned upright, as their EXIF data say and as predict does",
            "images/train/a.png, images/train/b.png, images/train/c.png, ...",
        )
    elif orientation > 4 or not upright:
        assert found.codes == ("exif-rotation",)
        assert finding(found, "exif-rotation").severity == "error"
        assert len(finding(found, "exif-rotation").evidence) == 4  # the count, and three examples
    else:
        assert "exif-rotation" in found.codes


@pytest.mark.parametrize("value", [0, 7, 255])
def test_photographs_without_contrast(folder, value):
    for name in "ab":
        put(folder / f"images/train/{name}.png", np.full((*SIZE, 3), value, np.uint8))
    found = check_dataset(folder)
    assert found.codes == ("no-contrast",)
    assert finding(found, "no-contrast").evidence[:2] == (
        "2 of train have an image of one value everywhere",
        f"images/train/a.png: without contrast: every pixel is {value}; leave it out, or save the photograph again",
    )


def test_a_photograph_that_is_cut_off(folder):
    stream = io.BytesIO()
    PIL.Image.fromarray(picture(0, (480, 640))).save(stream, "JPEG")
    content = stream.getvalue()
    (folder / "images/train/a.png").unlink()
    (folder / "images/train/a.jpg").write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    put(folder / "labels/train/a.png", label(0, (480, 640)))
    found = check_dataset(folder)
    assert found.codes == ("truncated",)
    assert "images/train/a.jpg: cut off: it announces 480 rows" in finding(found, "truncated").evidence[1]


@pytest.mark.parametrize(("names", "code"), [(255, None), (256, "ignored-class"), (257, "too-many-classes")])
def test_many_classes(folder, names, code):
    (folder / "class_names.txt").write_text("\n".join(f"c{i}" for i in range(names)))
    codes = [one for one in check_dataset(folder).codes if one != "empty-class"]
    assert codes == ([code] if code else [])


def test_257_classes_of_a_dataset_json(folder):
    (folder / "dataset.json").write_text(json.dumps({"class_names": [f"c{i}" for i in range(257)]}))
    (folder / "class_names.txt").unlink()
    found = check_dataset(folder)
    assert found.codes == ("class-names",)
    assert "expected 1 to 256 different names" in found.text()


def test_photographs_of_several_bit_depths(folder):
    deep = (np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) * 20).astype(np.uint16)
    put(folder / "images/train/b.png", deep)
    found = check_dataset(folder)
    assert set(found.codes) == {"photographs-differ", "bands"}
    assert "b.png" in finding(found, "bands").evidence[1]


def test_a_set_of_sixteen_bits_without_contrast(folder):
    for split in ("train", "val"):
        for file in (folder / "images" / split).iterdir():
            put(file, np.full(SIZE, 300, np.uint16))
    found = check_dataset(folder)
    assert found.codes == ("set-without-contrast", "no-contrast")
    assert finding(found, "no-contrast").evidence[0] == (
        "4 of train and 2 of val have an image of one value everywhere"
    )


def test_labels_of_several_encodings(folder):
    indices = PIL.Image.fromarray(label(1)).convert("P")
    indices.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    indices.save(folder / "labels/train/b.png")
    put(folder / "labels/train/c.png", np.repeat(label(2)[..., None], 3, axis=-1))
    found = check_dataset(folder)
    assert found.codes == ()
    assert finding(found, "mixed-encodings").evidence == (
        "labels of 3 kinds",
        "4 8-bit grey PNG: images/train/a.png, images/train/d.png, images/val/e.png, ...",
        "1 palette PNG: images/train/b.png",
        "1 RGB PNG of indices: images/train/c.png",
    )


def test_colours_that_contradict_indices(folder):
    indices = PIL.Image.fromarray(label(1)).convert("P")
    indices.putpalette([128, 0, 0, 9, 9, 200, 0, 0, 0])
    indices.save(folder / "labels/train/b.png")
    found = check_dataset(folder)
    assert found.codes == ("palette-contradiction",)
    assert "labels/train/b.png: a palette whose index" in finding(found, "palette-contradiction").evidence[1]


def test_unknown_colours_with_their_share(folder):
    colours = np.array([(0, 0, 0), (128, 0, 0), (1, 2, 3)], np.uint8)
    for name in "abcd":
        put(folder / f"labels/train/{name}.png", colours[label(ord(name))])
    found = check_dataset(folder)
    assert found.codes[0] == "unknown-colours"
    evidence = finding(found, "unknown-colours").evidence
    assert evidence[0] == "4 of train have labels of colours that are not in the palette"
    assert len(evidence) == 1 + 3 + 2  # three examples, the shares, and a dataset.json
    assert evidence[4].startswith("colours that are not in the palette, of all pixels: (1, 2, 3) ")


def renamed(folder: pathlib.Path, names: dict[str, str]):
    for old, new in names.items():
        for part in ("images", "labels"):
            split = "train" if old < "e" else "val"
            (folder / part / split / f"{old}.png").rename(folder / part / split / f"{new}.png")


def test_frames_of_one_video_in_both_splits(folder):
    names = ("frame_000010", "frame_000020", "frame_000050", "frame_000060", "frame_000030", "frame_000040")
    renamed(folder, dict(zip("abcdef", names, strict=True)))
    found = check_dataset(folder)
    assert found.codes == ("video-across-splits",)
    assert finding(found, "video-across-splits").evidence == (
        "2 neighbours of numbered frames lie in different splits: one video is on both sides",
        "frame_000020 in train, frame_000030 in val",
        "frame_000040 in val, frame_000050 in train",
    )


def test_numbers_alone_are_no_video(folder):
    """Photographs are numbered too; here they look nothing like each other."""
    renamed(folder, dict(zip("abcdef", ("p01", "p03", "p05", "p06", "p02", "p04"), strict=True)))
    assert check_dataset(folder).codes == ()
    still = picture(0)
    for split, name, shift in (("train", "p01", 0), ("val", "p02", 9), ("train", "p03", 18), ("val", "p04", 27)):
        put(folder / f"images/{split}/{name}.png", np.clip(still.astype(int) * 0.7 + shift, 0, 255).astype(np.uint8))
    assert "video-across-splits" in check_dataset(folder).codes


def test_numbers_of_any_length():
    pictures = [np.zeros(256, np.float32)]
    one, other = "frame_" + "9" * 5000, "frame_" + "9" * 4999 + "8"
    ((first, second),) = frames_apart({"train": [one], "val": [other]}, {"train": pictures, "val": pictures})
    assert (first.name, second.name) == (other, one)
    for names in (["", "frame", "7"], ["frame_٣", "frame_²", "a\nb_4"]):
        assert not [*frames_apart({"train": names, "val": names}, {"train": pictures * 3, "val": pictures * 3})]


def test_no_split_to_score(folder):
    for part in ("images", "labels"):
        for file in (folder / part / "val").iterdir():
            file.rename(folder / part / "train" / file.name)
    found = check_dataset(folder)
    assert found.codes == ("no-val-split",)
    assert "--val_share=0.2" in finding(found, "no-val-split").cure
    assert check_dataset(folder, splits=["train"]).codes == ()


# ---- records


def built(folder: pathlib.Path, *flags: str) -> pathlib.Path:
    out = folder.parent / "records"
    given = (f"--root={folder}", f"--output_dir={out}", "--num_shards=1", "--num_processes=1", *flags)
    assert finished(build_data, "--dataset=folder", *given) == 0
    return out


def restated(out: pathlib.Path, **changes):
    facts = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps({**facts, **changes}))


STATED = {
    "splits": ({"splits": {"train": 4, "val": 3}}, "val: dataset.json says 3 examples, there are 2 records"),
    "a split more": ({"splits": {"train": 4, "val": 2, "test": 1}}, "test: dataset.json says 1 examples, there are no"),
    "a split less": ({"splits": {"train": 4}}, "val: dataset.json says no such split, there are 2 records"),
    "unlabelled": ({"unlabelled": ["val"]}, "val: dataset.json says that it has no labels, 2 records hold one"),
}


@pytest.mark.parametrize("case", STATED)
def test_a_dataset_json_that_records_contradict(folder, case):
    out = built(folder)
    assert check_dataset(out).codes == ()
    changes, words = STATED[case]
    restated(out, **changes)
    found = check_dataset(out)
    assert "dataset-json" in found.codes and words in found.text()


def test_records_of_more_classes_than_their_dataset_json(folder):
    out = built(folder)
    restated(out, class_names=["rest", "cat"], palette=[[0, 0, 0], [128, 0, 0]])
    assert check_dataset(out).codes == ("labels-out-of-range",)
    restated(out, class_names=["c"] * 300)
    assert check_dataset(out).codes == ("dataset-json",)


def test_records_of_sixteen_bits(folder):
    for split in ("train", "val"):
        for file in (folder / "images" / split).iterdir():
            put(file, np.random.default_rng(0).integers(100, 900, SIZE).astype(np.uint16))
    out = built(folder)
    found = check_dataset(out)
    assert "bit-depth" in [one.code for one in found.findings] and not found.count("error")
    restated(out, image={})
    assert check_dataset(out).codes == ("dataset-json",)
    facts = json.loads((out / "dataset.json").read_text())
    del facts["image"]
    (out / "dataset.json").write_text(json.dumps(facts))
    assert "bands" in check_dataset(out).codes


def test_photographs_of_records(tmp_path):
    """Records that other programs have written."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    PIL.Image.fromarray(picture(0)).save(turned, "JPEG", exif=exif)
    flat = io.BytesIO()
    PIL.Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(flat, "PNG")
    own = io.BytesIO()
    PIL.Image.fromarray(label(0) % 2).save(own, "PNG")
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": ["rest", "cat"]}))
    for split in ("train", "val"):
        with tf.io.TFRecordWriter(str(tmp_path / records.shard_name(split, 0, 1))) as writer:
            for image in (turned.getvalue(), flat.getvalue()):
                facts = {"filename": split, "height": SIZE[0], "width": SIZE[1]}
                writer.write(records.make_example(image, own.getvalue(), **facts))
    found = check_dataset(tmp_path)
    assert found.codes == ("no-contrast", "exif-rotation", "near-duplicates")
    assert finding(found, "exif-rotation").severity == "warning"


# ---- hostile


def huge(path: pathlib.Path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


HOSTILE = {
    "an empty photograph": lambda f: (f / "images/train/a.png").write_bytes(b""),
    "a huge photograph": lambda f: huge(f / "images/train/a.png"),
    "a huge label": lambda f: huge(f / "labels/train/a.png"),
    "a folder for a label": lambda f: ((f / "labels/train/a.png").unlink(), (f / "labels/train/a.png").mkdir()),
    "a link to itself": lambda f: (
        (f / "images/train/a.png").unlink(),
        os.symlink("a.png", f / "images/train/a.png"),
    ),
    "a text": lambda f: (f / "images/train/a.png").write_text("no picture"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_findings(folder, case, capsys):
    HOSTILE[case](folder)
    found = check_dataset(folder)
    assert found.count("error") == 1 and "a.png" in found.text()
    assert finished(doctor, f"--dataset_dir={folder}") == 1
    assert "Traceback" not in capsys.readouterr().err


def test_folders_in_circles_and_empty_ones(folder, tmp_path, capsys):
    os.symlink(folder, folder / "images" / "again")
    os.symlink("..", folder / "labels" / "train" / "up")
    check_dataset(folder)
    (tmp_path / "empty").mkdir()
    assert check_dataset(tmp_path / "empty").codes == ("layout",)
    for content in (b"", b"{", b"[]", b"\xff\xfe", b'{"class_names": 3}', b"[" * 100_000):
        (folder / "dataset.json").write_bytes(content)
        assert check_dataset(folder).codes == ("class-names",)
    assert finished(doctor, f"--dataset_dir={CASES / 'clip.gif'}") == 1
    assert "is a file" in one_line(capsys.readouterr().err)
