"""The user's own data in every usual layout: folders, names, lists, classes; what is not understood is refused."""

import json
import os
import pathlib
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from commands import finished
from PIL import Image

from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.config.data import DataConfig
from deeplab_tf.data import records
from deeplab_tf.data.class_names import class_notes, named_classes
from deeplab_tf.data.folder import folder_facts, folder_splits, read_folder
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import build_data

CASES = pathlib.Path(__file__).parent / "cases" / "own_data"


def touch(root: pathlib.Path, *paths: str) -> pathlib.Path:
    """Makes files; layouts are told by their names alone."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def found(root: pathlib.Path) -> dict[str, list[tuple[str, str | None, str]]]:
    """Image and label, relative to the root, and the record's name, of each split."""
    return {
        split: [(os.path.relpath(p.image, root), p.label and os.path.relpath(p.label, root), p.filename) for p in pairs]
        for split, pairs in folder_splits(root).items()
    }


def ran(root: pathlib.Path, out: pathlib.Path, *flags: str) -> int:
    return finished(
        build_data, "--dataset=folder", f"--root={root}", f"--output_dir={out}", "--num_processes=1", *flags
    )


# ---- the cases


CLEAN = ["bom_lists", "bom_names", "upper_images", "lists_of_pairs", "stray_txt", "palette_order", "grey_2bit"]


@pytest.mark.parametrize("case", CLEAN)
def test_cases_that_are_read(case, tmp_path, capsys):
    """They are drawn from the same four masks, of which bom_lists has plain ones."""
    assert ran(CASES / case, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    facts = datasets.read_dataset(tmp_path / "out")
    assert facts.class_names == ("background", "square", "disc")
    assert dict(facts.splits) == {"train": 3, "val": 1}
    assert ("4 palette labels were read by their colours" in printed) == (case == "palette_order")
    assert ("not lists: README.txt (0 of 2 lines name images)" in printed) == (case == "stray_txt")
    config = DataConfig(dataset_dir=str(tmp_path / "out"), crop_size=(97, 129), batch_size=1)
    plain = sorted((CASES / "bom_lists" / "labels").iterdir())
    for split, expected in (("train", plain[:3]), ("val", plain[3:])):
        labels = [b["label"].numpy()[0, ..., 0] for b in make_dataset(config, split=split, training=False)]
        for label, file in zip(labels, expected, strict=True):
            np.testing.assert_array_equal(label, np.asarray(Image.open(file)))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("smoothed", "smoothed edges? --threshold=128 makes everything from there on class 1"),
        (
            "mask_0_128",
            "all labels together, of all pixels: 0 95.02%, 128 4.98%; a mask of 0 and 128? --label_map=128:1",
        ),
        ("names_257", "class_names.txt: 257 classes; a label has 8 bits, so at most 256"),
        ("equal_stems", "images/p01.jpg and images/p01.png have the same name and so one label"),
    ],
)
def test_cases_that_are_refused(case, message, tmp_path, capsys):
    assert ran(CASES / case, tmp_path / "out") == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("case", "flag"), [("smoothed", "--threshold=128"), ("mask_0_128", "--label_map=128:1")])
def test_cures(case, flag, tmp_path):
    assert ran(CASES / case, tmp_path / "out", flag) == 0
    config = DataConfig(dataset_dir=str(tmp_path / "out"), crop_size=(97, 129), batch_size=1)
    masks = sorted((CASES / case / "labels").iterdir())[:3]
    for batch, file in zip(make_dataset(config, split="train", training=False), masks, strict=True):
        np.testing.assert_array_equal(batch["label"].numpy()[0, ..., 0], np.asarray(Image.open(file)) >= 128)


def test_one_class_is_told(tmp_path, capsys):
    assert ran(CASES / "one_class", tmp_path / "out") == 0
    assert "a single class, 'thing': one class cannot be learned" in capsys.readouterr().out


def test_masks_of_cvat(tmp_path):
    assert ran(CASES / "cvat_masks", tmp_path / "out") == 0
    facts = datasets.read_dataset(tmp_path / "out")
    assert (facts.class_names, dict(facts.splits)) == (("background", "Square", "Disc"), {"default": 4})
    root = tmp_path / "own"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets"):
        (root / folder).parent.mkdir(exist_ok=True)
        (root / folder).symlink_to((CASES / "cvat_masks" / folder).absolute())
    (root / "labelmap.txt").write_bytes((CASES / "cvat_masks" / "labelmap.txt").read_bytes())
    assert ran(root, tmp_path / "two") == 0
    again = datasets.read_dataset(tmp_path / "two")
    assert (again.class_names, again.palette) == (facts.class_names, facts.palette)
    first, second = (sorted((tmp_path / name).glob("*.tfrecord")) for name in ("out", "two"))
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_images_without_labels(tmp_path, capsys):
    assert ran(CASES / "test_without_labels", tmp_path / "out") == 0
    assert "no labels for test: its records hold images alone" in capsys.readouterr().out
    assert datasets.read_dataset(tmp_path / "out").unlabelled == ("test",)
    for file in records.find_shards(tmp_path / "out", "test"):
        for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
            assert records.LABEL not in tf.train.Example.FromString(record).features.feature
    config = DataConfig(dataset_dir=str(tmp_path / "out"), crop_size=(97, 129), batch_size=2)
    (batch,) = make_dataset(config, split="test", training=False)
    assert set(np.unique(batch["label"])) == {255}


# ---- folders


@pytest.mark.parametrize("images", ["images", "Image", "IMG", "imgs", "JPEGImages", "photos", "rgb"])
@pytest.mark.parametrize(
    "labels", ["labels", "Masks", "annotations", "SegmentationClass", "SegmentationClassRaw", "GT"]
)
def test_names_of_folders(tmp_path, images, labels):
    touch(tmp_path, f"{images}/a.JPG", f"{labels}/a.PNG")
    assert found(tmp_path) == {"train": [(f"{images}/a.JPG", f"{labels}/a.PNG", "a")]}


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "dev")])
def test_folders_of_splits(tmp_path, splits):
    inside, below, beside = (tmp_path / name for name in ("inside", "below", "beside"))
    for split in splits:
        touch(inside, f"{split}/images/a.jpg", f"{split}/masks/a.png")
        touch(below, f"images/{split}/a.jpg", f"masks/{split}/a.png")
        touch(beside, f"{split}/a.jpg", f"{split}_labels/a.png")
    for root in (inside, below, beside):
        assert set(found(root)) == set(splits)
        assert all(pathlib.Path(pair.label).is_file() for pairs in folder_splits(root).values() for pair in pairs)
        assert [name for pairs in found(root).values() for _, _, name in pairs] == ["a"] * len(splits)


def test_folders_of_splits_in_other_words(tmp_path):
    root = touch(
        tmp_path / "a", "images/train/a.jpg", "images/valid/b.jpg", "labels/training/a.png", "labels/val/b.png"
    )
    assert found(root) == {
        "train": [("images/train/a.jpg", "labels/training/a.png", "a")],
        "valid": [("images/valid/b.jpg", "labels/val/b.png", "b")],
    }
    root = touch(tmp_path / "b", "train_images/a.jpg", "train_masks/a.png", "val_images/b.jpg", "val_masks/b.png")
    assert {split: len(pairs) for split, pairs in found(root).items()} == {"train": 1, "val": 1}
    root = touch(tmp_path / "c", "train/a.png", "trainannot/a.png", "val/b.png", "valannot/b.png", "test/c.png")
    assert found(root)["test"] == [("test/c.png", None, "c")]
    (root / "valannot" / "b.png").unlink()
    assert found(root)["val"] == [("val/b.png", "val/b_mask.png", "b")]  # never the image itself
    touch(root, "valannot/b.png")
    assert found(root)["val"] == [("val/b.png", "valannot/b.png", "b")]
    root = touch(tmp_path / "d", "images/train/a.jpg", "images/val/b.jpg", "labels/a.png", "labels/b.png")
    assert found(root)["val"] == [("images/val/b.jpg", "labels/b.png", "b")]


def test_folders_below(tmp_path):
    touch(tmp_path, "images/ulm/a.png", "labels/ulm/a.png", "images/bonn/a.png", "labels/bonn/a_mask.tif")
    assert found(tmp_path) == {
        "train": [
            ("images/bonn/a.png", "labels/bonn/a_mask.tif", "bonn/a"),
            ("images/ulm/a.png", "labels/ulm/a.png", "ulm/a"),
        ]
    }
    (tmp_path / "train.txt").write_text("ulm/a\n")
    (tmp_path / "val.txt").write_text("bonn/a.png\n")
    assert found(tmp_path)["val"] == [("images/bonn/a.png", "labels/bonn/a_mask.tif", "bonn/a")]


@pytest.mark.parametrize("end", ["_mask", "_label", "_gt", "-mask", ".mask", "_L", "_labels", "_segmentation", "_MASK"])
def test_images_and_labels_in_one_folder(tmp_path, end):
    touch(tmp_path / "a", "x.jpg", f"x{end}.png", "y.jpg", f"y{end}.png")
    assert found(tmp_path / "a") == {"train": [("x.jpg", f"x{end}.png", "x"), ("y.jpg", f"y{end}.png", "y")]}
    touch(tmp_path / "b", "images/x.png", f"labels/x{end}.png", "train/z.png")
    assert found(tmp_path / "b") == {"train": [("images/x.png", f"labels/x{end}.png", "x")]}
    touch(tmp_path / "c", "train/x.png", f"train/x{end}.png", "val/y.png", f"val/y{end}.png")
    assert {split: len(pairs) for split, pairs in found(tmp_path / "c").items()} == {"train": 1, "val": 1}


def test_images_in_the_root(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "Masks/a.png", "Masks/b.png")
    assert found(tmp_path) == {"train": [("a.jpg", "Masks/a.png", "a"), ("b.jpg", "Masks/b.png", "b")]}


def test_other_pairs_of_names(tmp_path):
    assert found(touch(tmp_path / "a", "x.jpg", "x.png", "y.JPG", "y.png")) == {
        "train": [("x.jpg", "x.png", "x"), ("y.JPG", "y.png", "y")]
    }
    root = touch(tmp_path / "b", "images/x.jpg", "labels/x.jpg.png", "images/y_image.jpg", "labels/y_mask.png")
    assert [label for _, label, _ in found(root)["train"]] == ["labels/x.jpg.png", "labels/y_mask.png"]
    root = touch(tmp_path / "c", "images/image_1.jpg", "labels/mask_1.png")
    assert found(root) == {"train": [("images/image_1.jpg", "labels/mask_1.png", "image_1")]}
    root = touch(tmp_path / "d", "images/x.jpg", "labels/x_mask.png", "labels/x_label.png")
    with pytest.raises(DeepLabError, match=r"x.jpg: .*x_label.png and .*x_mask.png may both be its label"):
        folder_splits(root)


def test_hidden_files_links_and_spellings_of_unicode(tmp_path):
    decomposed, composed = (unicodedata.normalize(form, "Häuser") for form in ("NFD", "NFC"))
    touch(tmp_path, f"images/{decomposed}.jpg", f"labels/{composed}.png", "images/._b.jpg", "images/.DS_Store")
    touch(tmp_path, "images/Thumbs.db", "__MACOSX/images/c.jpg", "images/.cache/d.jpg")
    elsewhere = touch(tmp_path / "elsewhere", "e.jpg")
    (tmp_path / "images" / "more").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(tmp_path / "images")  # a circle
    (tmp_path / "images" / "f.jpg").symlink_to(elsewhere / "e.jpg")
    touch(tmp_path, "labels/more/e.png", "labels/f.png")
    pairs = found(tmp_path)["train"]
    assert {name for _, _, name in pairs} == {decomposed, "more/e", "f"}
    assert {label for _, label, _ in pairs} == {f"labels/{composed}.png", "labels/more/e.png", "labels/f.png"}
    (tmp_path / "val.txt").write_text(f"{composed}\n", encoding="utf-8")
    assert found(tmp_path)["val"][0][0] == f"images/{decomposed}.jpg"


def test_folders_of_labels_without_pictures(tmp_path):
    root = touch(tmp_path, "images/a.jpg", "SegmentationClass/a.npy", "SegmentationClassPNG/a.png", "labels/a.txt")
    assert found(root) == {"train": [("images/a.jpg", "SegmentationClassPNG/a.png", "a")]}
    touch(root, "masks/a.png")
    (root / "class_names.txt").write_text("a\nb\n")
    assert "labels are taken from masks, not from SegmentationClassPNG" in read_folder(root).notes


# ---- lists


@pytest.fixture
def own(tmp_path) -> pathlib.Path:
    names = ("a", "b", "c d", "e.f")
    return touch(tmp_path / "own", *(f"images/{n}.jpg" for n in names), *(f"labels/{n}.png" for n in names))


@pytest.mark.parametrize(
    "lines",
    [
        "a\nb\nc d\ne.f\n",
        "a\r\nb\r\n\r\nc d\r\ne.f",
        "\ufeffa.jpg\nb.JPG\nc d.jpg\ne.f.jpg\n",
        "images/a.jpg\n./images/b.jpg\nimages\\c d.jpg\n/images/e.f.jpg\n",
        "images/a.jpg labels/a.png\nimages/b.jpg\tlabels/b.png\nimages/c d.jpg, labels/c d.png\ne.f;e.f.png\n",
        "# made by hand\na.jpg a.png\nb b.png\nc d.jpg c d.png\ne.f.jpg  labels/e.f.png\n",
        "/home/other/data/images/a.jpg\nC:\\data\\images\\b.jpg\n/x/c d.jpg /x/labels/c d.png\n/e.f.jpg\n",
    ],
)
@pytest.mark.parametrize("place", ["train.txt", "ImageSets/Segmentation/Train.TXT", "lists/names.txt"])
def test_lists(own, lines, place):
    (own / place).parent.mkdir(parents=True, exist_ok=True)
    (own / place).write_text(lines, encoding="utf-8")
    split = pathlib.Path(place).stem
    assert found(own) == {split: [(f"images/{n}.jpg", f"labels/{n}.png", n) for n in ("a", "b", "c d", "e.f")]}


def test_absolute_paths_in_lists(own, tmp_path):
    elsewhere = touch(tmp_path / "elsewhere", "z.jpg", "z_label.png")
    (own / "train.txt").write_text(f"{elsewhere}/z.jpg {elsewhere}/z_label.png\n{own}/images/a.jpg\n")
    assert [(p.image, p.label, p.filename) for p in folder_splits(own)["train"]] == [
        (f"{elsewhere}/z.jpg", f"{elsewhere}/z_label.png", "z"),
        (f"{own}/images/a.jpg", f"{own}/labels/a.png", "a"),
    ]


def test_texts_that_are_not_lists(own):
    for name, text in (
        ("requirements.txt", "numpy\n"), ("LICENSE.txt", "MIT\n"), ("labels.txt", "a\nb\n"), ("classes.txt", "a\nb\n"),
        ("binary.txt", "\udcff"), ("empty.txt", ""), ("fold.txt", "a\n"), ("some.txt", "a\nb\nmissing\n"),
    ):  # fmt: skip
        (own / name).write_bytes(text.encode(errors="surrogateescape"))
    data = read_folder(own)
    assert {split: [p.filename for p in pairs] for split, pairs in data.splits.items()} == {
        "fold": ["a"],
        "some": ["a", "b", "missing"],
    }
    (note,) = data.notes
    assert note == (
        "lists of images: fold.txt, some.txt; not lists: LICENSE.txt (0 of 1 lines name images), binary.txt (not UTF-8 "
        "text), empty.txt (0 of 0 lines name images), requirements.txt (0 of 1 lines name images)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\na.jpg\n", "train.txt: 1 ids are repeated"),
        (b"\n", "train.txt: the list is empty"),
        (b"\xff\xfe", "train.txt: not UTF-8 text"),
    ],
)
def test_mistakes_in_lists(own, text, message):
    (own / "train.txt").write_bytes(text)
    with pytest.raises(DeepLabError, match=message):
        folder_splits(own)


def test_what_lists_name_and_is_not_there(own):
    (own / "train.txt").write_text("q\nr.png\na other.png\n")
    assert found(own)["train"] == [
        ("images/q.jpg", "labels/q.png", "q"),
        ("images/r.png", "labels/r.png", "r"),
        ("images/a.jpg", "other.png", "a"),
    ]


def test_equal_names_in_lists(own):
    touch(own, "images/a.png")
    (own / "train.txt").write_text("b\na\n")
    with pytest.raises(DeepLabError, match=r"train.txt: 'a' means .*images/a.jpg and .*images/a.png; name it with its"):
        folder_splits(own)
    (own / "train.txt").write_text("b\na.png\n")
    assert found(own)["train"][1] == ("images/a.png", "labels/a.png", "a")


def test_labels_are_needed_for_training(own):
    (own / "labels" / "a.png").unlink()
    (own / "labels" / "b.png").unlink()
    for split, expected in (("train", False), ("val", False), ("test", True), ("test-dev", True), ("unlabelled", True)):
        (own / f"{split}.txt").write_text("a\nb\n")
        assert all(pair.label is None for pair in folder_splits(own)[split]) == expected
    (own / "test.txt").write_text("a\nb\ne.f\n")
    assert [label for _, label, _ in found(own)["test"]] == ["labels/a.png", "labels/b.png", "labels/e.f.png"]


# ---- classes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_names.txt", "\ufeffroad\r\n\r\nsky \r\n"),
        ("Classes.txt", "road\nsky\n"),
        ("obj.names", "road\nsky"),
        ("labels.txt", "__ignore__\nroad\nsky\n"),
        ("labels.txt", "0 road\n1: sky\n"),
        ("data.yaml", "train: images/train\nnc: 2\nnames: ['road', 'sky']\n"),
        ("data.yaml", "names:\n  - road\n  - sky\n"),
        ("dataset.yaml", "names:\n  0: road\n  1: sky\n"),
        ("dataset.json", '\ufeff{"class_names": ["road", "sky"]}'),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:0,0,0::\nsky:128,0,0::\n"),
    ],
)
def test_files_of_class_names(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    facts = folder_facts(tmp_path)
    colours = ((0, 0, 0), (128, 0, 0)) if name == "labelmap.txt" else palettes.default_palette(("road", "sky"))
    assert (facts.class_names, facts.palette, facts.ignore_label) == (("road", "sky"), colours, 255)
    assert facts.name == tmp_path.name


def test_files_that_agree(tmp_path):
    (tmp_path / "class_names.txt").write_text("sky\nbackground\n")
    (tmp_path / "labelmap.txt").write_text("background:1,2,3::\nsky:4,5,6::\n")
    facts = folder_facts(tmp_path)
    assert (facts.class_names, facts.palette) == (("sky", "background"), ((4, 5, 6), (1, 2, 3)))
    (tmp_path / "class_names.txt").write_text("background\nroad\nsky\n")
    (tmp_path / "labelmap.txt").unlink()
    (tmp_path / "data.yaml").write_text("names: [road, sky]\n")
    assert folder_facts(tmp_path).class_names == ("background", "road", "sky")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"class_names.txt": "a\nb\n", "classes.txt": "b\na\n"}, "class_names.txt and .*classes.txt name different"),
        ({"dataset.json": '{"class_names": ["a"]}', "class_names.txt": "b\n"}, "dataset.json and .*class_names.txt"),
        ({"labelmap.txt": "a:1,2,3::\n", "dataset.json": '{"class_names": ["a"], "palette": [[1, 2, 4]]}'},
         r"give 'a' different colours: \(1, 2, 4\); \(1, 2, 3\)"),
        ({"class_names.txt": "a\nb\na\n"}, "class_names.txt: 'a' is named twice"),
        ({"class_names.txt": "\n"}, "class_names.txt: no names"),
        ({"class_names.txt": "".join(f"c{i}\n" for i in range(300))}, "300 classes; a label has 8 bits"),
        ({"dataset.json": json.dumps({"class_names": [f"c{i}" for i in range(257)]})}, "expected 1 to 256 different"),
        ({"labelmap.txt": "a\n"}, "labelmap.txt: 'a'; expected name:red,green,blue:parts:actions"),
        ({"labelmap.txt": "a:1,2,300::\n"}, "labelmap.txt: 'a:1,2,300::'; expected"),
        ({"labelmap.txt": "a:1,2,3::\nb:1,2,3::\n"}, "labelmap.txt: a and b have one colour"),
        ({"data.yaml": "names: [a\n"}, "data.yaml: not YAML"),
        ({"data.yaml": "names: 5\n"}, "data.yaml: names=5; expected a list"),
        ({"data.yaml": "names: {1: a, 3: b}\n"}, r"data.yaml: names of \[1, 3\]; expected 0, 1, 2"),
    ],
)  # fmt: skip
def test_mistakes_in_files_of_class_names(tmp_path, texts, message):
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DeepLabError, match=message):
        folder_facts(tmp_path)


def test_text_that_is_not_utf_8(tmp_path):
    (tmp_path / "class_names.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DeepLabError, match="class_names.txt: not UTF-8 text"):
        folder_facts(tmp_path)
    (tmp_path / "class_names.txt").unlink()
    (tmp_path / "data.yaml").write_text("train: images\n")
    assert named_classes(tmp_path) is None


def test_256_classes_are_told(tmp_path):
    (tmp_path / "class_names.txt").write_text("".join(f"c{i}\n" for i in range(256)))
    (note,) = class_notes(folder_facts(tmp_path))
    assert note.startswith("256 classes: the last, 'c255', is the ignore label 255 as well")
