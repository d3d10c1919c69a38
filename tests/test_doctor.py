"""The doctor's look at data: one folder a finding, which is found there and not in the clean one; and the figures."""

import json
import math
import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import finished
from golden import golden_image, golden_label
from record_files import encoded

from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.data import records
from deeplab_tf.doctor.dataset import check_dataset
from deeplab_tf.doctor.labels import explain_values, inspect_label
from deeplab_tf.doctor.likeness import alike, thumbnail
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.class_weights import label_weights
from deeplab_tf.ops.pictures import palette_png
from deeplab_tf.tools import doctor

CLASSES, SIZE = 4, (48, 64)
PALETTE = palettes.pascal_palette(CLASSES)
IDS = {"train": ("a", "b", "c"), "val": ("d", "e")}


def label_of(name: str) -> np.ndarray:
    return golden_label(name, *SIZE, CLASSES).astype(np.uint8)


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """A clean data set as files."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for split, names in IDS.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            (tmp_path / "images" / f"{name}.jpg").write_bytes(encoded(golden_image(name, *SIZE), "JPEG"))
            (tmp_path / "labels" / f"{name}.png").write_bytes(encoded(label_of(name)))
    (tmp_path / "class_names.txt").write_text("sky\nroad\ncar\ntree\n")
    return tmp_path


def write_records(folder: pathlib.Path, labels: dict[str, bytes]) -> pathlib.Path:
    """The same as TFRecords, with other labels where there are some."""
    out = folder / "records"
    out.mkdir()
    for split, names in IDS.items():
        with tf.io.TFRecordWriter(str(out / records.shard_name(split, 0, 1))) as writer:
            for name in names:
                image = (folder / "images" / f"{name}.jpg").read_bytes()
                label = labels.get(name, (folder / "labels" / f"{name}.png").read_bytes())
                facts = {"filename": name, "height": SIZE[0], "width": SIZE[1]}
                writer.write(records.make_example(image, label, **facts))
    names = ["sky", "road", "car", "tree"]
    (out / "dataset.json").write_text(json.dumps({"name": "own", "class_names": names}))
    return out


def relabel(folder: pathlib.Path, change, names=()):
    for name in names or "abcde":
        (folder / "labels" / f"{name}.png").write_bytes(encoded(change(label_of(name))))


def put(path: pathlib.Path, content: bytes):
    path.write_bytes(content)


def greys(label: np.ndarray) -> np.ndarray:
    colours = np.array([*PALETTE, *[(224, 224, 192)] * 252]) @ [0.299, 0.587, 0.114]
    return np.rint(colours)[label].astype(np.uint8)


def turned(folder: pathlib.Path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    put(folder / "images/a.jpg", encoded(golden_image("a", *SIZE), "JPEG", exif=exif))


def copied(folder: pathlib.Path):
    picture = PIL.Image.fromarray(golden_image("a", *SIZE)).resize((32, 24))
    label = PIL.Image.fromarray(label_of("a")).resize((32, 24), PIL.Image.Resampling.NEAREST)
    put(folder / "images/d.jpg", encoded(np.asarray(picture)[:, ::-1] // 2 + 40, "JPEG", quality=95))
    put(folder / "labels/d.png", encoded(np.asarray(label)))


FAULTS = {
    "missing-image": lambda f: (f / "images/b.jpg").unlink(),
    "missing-label": lambda f: (f / "labels/d.png").unlink(),
    "unreadable": lambda f: put(f / "images/c.jpg", (f / "images/c.jpg").read_bytes()[:300]),
    "jpeg-label": lambda f: put(f / "labels/a.png", encoded(label_of("a"), "JPEG")),
    "unknown-colours": lambda f: put(f / "labels/a.png", encoded(golden_image("x", *SIZE))),
    "colour-label": lambda f: put(f / "labels/a.png", encoded(np.array(PALETTE, np.uint8)[label_of("a") % CLASSES])),
    "size-mismatch": lambda f: put(f / "labels/a.png", encoded(label_of("a")[:, :40])),
    "exif-rotation": turned,
    "labels-out-of-range": lambda f: relabel(f, lambda label: np.where(label == 2, 9, label).astype(np.uint8), ["a"]),
    "binary-mask": lambda f: relabel(f, lambda label: np.where(label == 1, 255, 0).astype(np.uint8)),
    "palette-as-grey": lambda f: relabel(f, greys),
    "empty-class": lambda f: relabel(f, lambda label: np.where(label == 3, 0, label).astype(np.uint8)),
    "ignored-share": lambda f: relabel(f, lambda label: np.where(label == 1, 1, 255).astype(np.uint8), IDS["val"]),
    "near-duplicates": copied,
}


def test_the_clean_one_is_clean(folder):
    found = check_dataset(folder)
    assert found.codes == ()
    assert [finding.code for finding in found.findings] == ["class-shares", "ignored-share", "crop-size"]
    assert check_dataset(write_records(folder, {})).codes == ()


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_found_and_no_other(folder, code):
    FAULTS[code](folder)
    found = check_dataset(folder)
    assert found.codes == (code,)
    finding = found.findings[0]
    expected = "warning" if code in ("colour-label", "empty-class", "ignored-share", "near-duplicates") else "error"
    assert finding.severity == expected and finding.cure
    assert finding.evidence and all(finding.evidence)


def test_evidence_names_file_value_and_count(folder):
    FAULTS["labels-out-of-range"](folder)
    finding = check_dataset(folder).findings[0]
    assert finding.evidence == (
        f"1 of train have labels out of range: 9; {folder.name} has 0 to 3, or 255 for what is ignored",
        f"images/a.jpg has label 9 ({np.sum(label_of('a') == 2)} pixels)",
    )


def test_a_label_of_sixteen_bits(folder):
    put(folder / "labels/a.png", encoded(label_of("a").astype(np.uint16) * 300))
    finding = check_dataset(folder).findings[0]
    assert finding.code == "labels-out-of-range" and "in a 16-bit grey PNG; expected 0..255" in finding.evidence[1]
    for name in "abcde":
        put(folder / f"labels/{name}.png", encoded(label_of(name).astype(np.uint16) * 300))
    assert check_dataset(folder).codes == ("labels-out-of-range",)


@pytest.mark.parametrize("kind", ["palette", "rgb"])
def test_colours_in_records_are_an_error(folder, kind):
    label = label_of("b") % CLASSES
    content = palette_png(label, PALETTE) if kind == "palette" else encoded(np.array(PALETTE, np.uint8)[label])
    found = check_dataset(write_records(folder, {"b": content}))
    assert found.codes == ("stored-colours",)
    assert found.findings[0].evidence[1].startswith("train-00000-of-00001.tfrecord: record 1 (b) holds a")


def test_colours_without_a_class_are_named(folder):
    label = np.array(PALETTE, np.uint8)[label_of("a") % CLASSES]
    label[3, 4] = 250, 251, 17
    put(folder / "labels/a.png", encoded(label))
    found = check_dataset(folder)
    assert found.codes == ("unknown-colours",)
    assert found.findings[0].evidence[1] == (
        "labels/a.png: a colour label with (250, 251, 17) (1 pixels), not in the palette; give it in dataset.json"
    )
    share = 1 / (5 * SIZE[0] * SIZE[1])
    assert (
        found.findings[0].evidence[2]
        == f"colours that are not in the palette, of all pixels: (250, 251, 17) {share:.2%}"
    )
    assert '"class_names": ["sky", "road", "car", "tree", "class_250_251_17"]' in found.findings[0].evidence[3]


def test_damaged_records_are_passed_over(folder):
    out = write_records(folder, {"d": encoded(np.full(SIZE, 77, np.uint8))})
    file = out / records.shard_name("train", 0, 1)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    found = check_dataset(out)
    assert found.codes == ("unreadable", "labels-out-of-range")
    assert "record 1 does not match its checksum (damaged)" in found.findings[0].evidence[1]
    file.write_bytes(content[:-20])
    assert "truncated" in " ".join(check_dataset(out).findings[0].evidence)


def test_records_that_hold_no_examples(folder):
    out = write_records(folder, {})
    with tf.io.TFRecordWriter(str(out / records.shard_name("train", 0, 1))) as writer:
        writer.write(b"no protocol buffer")
    (out / records.shard_name("val", 0, 1)).write_bytes(b"")
    found = check_dataset(out)
    assert found.codes == ("empty-split", "unreadable")
    assert found.findings[0].evidence == ("val: not one example that can be read",)
    assert "record 0 is not a tf.train.Example (damaged)" in found.findings[1].evidence[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "0 bytes"), (b"text, not a picture", "begins with b'text, no'")],
)
def test_labels_that_are_no_pictures(folder, content, words):
    put(folder / "labels/a.png", content)
    expected = f"labels/a.png: no label that can be decoded ({words})"
    assert check_dataset(folder).findings[0].evidence == ("1 of train cannot be read", expected)


def test_labels_that_are_no_whole_numbers(folder):
    values = label_of("a").astype(np.float32)
    values[0], values[1] = 0.5, np.nan
    put(folder / "labels/a.png", encoded(values, "TIFF"))
    finding = check_dataset(folder).findings[0]
    assert finding.code == "labels-out-of-range"
    assert finding.evidence[1] == "labels/a.png: label 0.5; expected whole numbers (a map of probabilities?)"


def test_what_is_all_ignored_is_no_mask(folder):
    relabel(folder, lambda label: np.full_like(label, 255))
    found = check_dataset(folder)
    assert found.codes == ("ignored-share",)
    assert found.findings[0].evidence[1:] == ("3 examples of train have no other", "2 examples of val have no other")


def test_photographs_for_labels_are_given_no_weights(folder):
    relabel(folder, lambda label: golden_image("noise", *SIZE)[..., 0])
    found = check_dataset(folder)
    assert found.codes == ("labels-out-of-range",)
    assert [finding.code for finding in found.findings] == ["labels-out-of-range", "crop-size"]


def test_only_some_splits_and_what_belongs_to_no_list(folder):
    FAULTS["jpeg-label"](folder)
    put(folder / "labels/z.png", b"")
    found = check_dataset(folder, splits=["val"])
    assert found.codes == () and found.facts["examples"] == {"val": 2}
    assert found.findings[-1].evidence == ("1 files among the labels belong to no image of a list", "labels/z.png")
    with pytest.raises(DeepLabError, match="unknown split"):
        check_dataset(folder, splits=["vall"])
    with pytest.raises(DeepLabError, match="no such folder"):
        check_dataset(folder / "nothing")
    with pytest.raises(DeepLabError, match=f"train.txt: is a file; give its folder, {folder};"):
        check_dataset(folder / "train.txt")


def test_progress(folder):
    seen = []
    check_dataset(folder, begin=lambda count: seen.append(count), advance=lambda: seen.append("one"))
    assert seen == [5, *["one"] * 5]


def test_images_of_overlapping_splits_are_no_duplicates(folder):
    (folder / "trainval.txt").write_text("a\nd")
    assert check_dataset(folder).codes == ()
    (folder / "holdout.txt").write_text("a")
    assert "near-duplicates" in check_dataset(folder).codes


def test_the_histogram_is_numpys(folder):
    found = check_dataset(folder).facts["histogram"]["train"]
    values, counts = np.unique([label_of(name) for name in IDS["train"]], return_counts=True)
    assert found == {str(v): int(c) for v, c in zip(values, counts, strict=True)}


def test_cityscapes_as_it_is_downloaded(tmp_path):
    ids = np.array(datasets.DATASETS["cityscapes"].evaluation_ids, np.uint8)
    for split, name in (("train", "berlin_000000_000019"), ("val", "bonn_000001_000019")):
        for part, end, array in (
            ("leftImg8bit", "leftImg8bit", golden_image(name, *SIZE)),
            ("gtFine", "gtFine_labelIds", np.where(label_of(name) == 255, 4, ids[label_of(name) % CLASSES])),
        ):
            (tmp_path / part / split / "city").mkdir(parents=True)
            put(tmp_path / part / split / "city" / f"{name}_{end}.png", encoded(array.astype(np.uint8)))
    found = check_dataset(tmp_path)
    assert found.codes == ("empty-class",)
    assert found.facts["dataset"] == "cityscapes" and found.facts["examples"] == {"train_fine": 1, "val_fine": 1}
    assert set(found.facts["histogram"]["train_fine"]) == {"0", "1", "2", "3", "255"}


# ---- parts


def test_label_weights_by_hand():
    # Class 0: 60 pixels in images of 100; class 1: 20 of 50; class 2: 20 of 100; class 3 never.
    found = label_weights(np.array([60, 20, 20, 0]), np.array([100, 50, 100, 0]))
    assert found["median_frequency"] == [0.667, 1.0, 2.0, 1.0]
    assert found["inverse_log"] == [float(f"{1 / math.log(1.02 + p):.3g}") for p in (0.6, 0.2, 0.2)] + [1.0]
    assert label_weights(np.zeros(3, np.int64), np.zeros(3, np.int64)) == {}


def counts(*values: int) -> np.ndarray:
    return np.bincount(values, minlength=256)


@pytest.mark.parametrize(
    ("present", "ids", "code", "cure"),
    [
        ((1, 2, 3, 4), None, "labels-out-of-range", "--label_map=1:0,2:1,3:2,..."),
        ((0, 1, 4, 255), None, "labels-out-of-range", "one class more than the 4"),
        ((0, 7, 26, 33), (7, 26, 33), "labels-out-of-range", "Cityscapes' label ids"),
        ((0, 38, 75, 113), None, "palette-as-grey", "palette PNG was decoded as colours"),
        ((0, 1, 9), None, "labels-out-of-range", "--label_policy=ignore"),
        (tuple(range(0, 250, 3)), None, "labels-out-of-range", "this many values cannot be classes"),
    ],
)
def test_the_likely_cure(present, ids, code, cure):
    found = explain_values(counts(*present), PALETTE, ids)
    assert found[0] == code and cure in found[1]


def test_one_bit_labels():
    content = encoded(np.eye(8, dtype=bool))
    stored = inspect_label(content).counts
    assert list(np.flatnonzero(stored)) == [0, 255]
    assert np.array_equal(np.unique(records.decode_label(content)), [0, 255])  # what TensorFlow makes of it


def test_likeness():
    first = PIL.Image.fromarray(golden_image("one", 90, 120))
    other, plain = PIL.Image.fromarray(golden_image("two", 90, 120)), PIL.Image.new("RGB", (90, 90), (9, 9, 9))
    second = [other, first.resize((50, 40)).convert("L"), plain]
    one, two = np.stack([thumbnail(first), thumbnail(plain)]), np.stack(list(map(thumbnail, second)))
    ((i, j, likeness),) = alike(one, two, least=0.99)
    assert (i, j) == (0, 1) and 0.99 < likeness <= 1 + 1e-6


# ---- real data, and the command


def test_real_data(shared):
    voc = check_dataset(shared / "real" / "voc_mini", dataset="pascal_voc_seg")
    assert voc.codes == () and voc.facts["examples"] == {"val": 3}
    bad = check_dataset(shared / "real")
    assert bad.codes == ("labels-out-of-range",)
    assert "21, 22" in bad.findings[0].evidence[0] and "this many values" in bad.findings[0].cure
    assert bad.findings[1].code == "assumed-dataset"


@pytest.mark.heavy
def test_camvid_is_clean(shared):
    found = check_dataset(shared / "camvid")
    assert found.codes == () and found.facts["examples"] == {"train": 367, "val": 101}


def test_the_command(folder, capsys):
    assert finished(doctor, f"--dataset_dir={folder}") == 0
    assert "0 errors, 0 warnings, 3 notes" in capsys.readouterr().out
    FAULTS["binary-mask"](folder)
    assert finished(doctor, f"--dataset_dir={folder}") == 1
    text = capsys.readouterr().out
    assert "ERROR   binary-mask: all labels are 0 or 255 (ignored)" in text and "-> deeplab-tf build-data" in text
    assert finished(doctor, f"--dataset_dir={folder}", "--json") == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["errors"], found["findings"][0]["code"]) == (1, "binary-mask")
    assert set(found["findings"][0]) == {"code", "severity", "evidence", "cure"}
    assert finished(doctor) == 1
    assert "nothing to check; expected one of --dataset_dir" in capsys.readouterr().err
