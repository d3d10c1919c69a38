"""Building records: every layout, labels of every kind as indices, all faults at once, all or nothing."""

import io
import itertools
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
from commands import finished
from PIL import Image

from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.config.data import DataConfig
from deeplab_tf.data import ade20k, cityscapes, folder, packing, record_index, records, voc
from deeplab_tf.data.build import BuildOptions, build_records
from deeplab_tf.data.masks import LabelRules, read_label
from deeplab_tf.data.packing import Packed, pack
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import read_image
from deeplab_tf.tools import build_data, cli

VOC = datasets.DATASETS["pascal_voc_seg"]
RULES = LabelRules(VOC.num_classes, VOC.ignore_label, VOC.palette)
RANDOM = np.random.default_rng(0)


def save(file: pathlib.Path, array: np.ndarray, **options) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file, **options)
    return str(file)


def photo(file: pathlib.Path, height: int = 6, width: int = 8) -> str:
    return save(file, RANDOM.integers(0, 256, (height, width, 3), np.uint8))


def classes(height: int = 6, width: int = 8) -> np.ndarray:
    found = RANDOM.integers(0, 21, (height, width), np.uint8)
    found[0, 0] = 255
    return found


def palette_image(array: np.ndarray) -> Image.Image:
    image = Image.fromarray(array)
    image.putpalette([channel for colour in palettes.pascal_palette(256) for channel in colour])
    return image


def contents(directory) -> dict[str, list[dict]]:
    """The examples of each split, in order."""
    found = {}
    for file in sorted(pathlib.Path(directory).glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            values = {k: (v.bytes_list.value or v.int64_list.value)[0] for k, v in features.items()}
            found.setdefault(file.name.split("-")[0], []).append(values)
    return found


def stored_label(example: dict) -> np.ndarray:
    image = Image.open(io.BytesIO(example[records.LABEL]))
    assert image.mode == "L"
    return np.asarray(image)


@pytest.fixture
def voc_root(tmp_path) -> pathlib.Path:
    """Five pictures in the layout of PASCAL VOC with palette labels; val are d and e."""
    root = tmp_path / "VOC2012"
    for name in "abcde":
        photo(root / "JPEGImages" / f"{name}.jpg")
        (root / "SegmentationClass").mkdir(exist_ok=True)
        palette_image(classes()).save(root / "SegmentationClass" / f"{name}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, ids in (("train", "abc"), ("val", "de"), ("trainval", "abcde")):
        (lists / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
    return root


def splits_of(root: pathlib.Path) -> dict[str, list[Pair]]:
    return voc.voc_splits(root / "JPEGImages", root / "SegmentationClass", root / "ImageSets" / "Segmentation")


def command(*arguments: str) -> None:
    assert finished(build_data, *arguments) == 0


# ---- labels of every kind


def test_labels_of_every_kind_are_indices(tmp_path):
    array = classes()
    colours = np.asarray(palette_image(array).convert("RGB"))
    alpha = np.concatenate([colours, np.full((6, 8, 1), 255, np.uint8)], axis=-1)
    palette_image(array).save(tmp_path / "palette.png")
    files = [save(tmp_path / f"{k}.png", v) for k, v in (("index", array), ("rgb", colours), ("rgba", alpha))]
    files += [str(tmp_path / "palette.png"), save(tmp_path / "grey16.png", array.astype(np.uint16))]
    for file in files:
        np.testing.assert_array_equal(read_label(file, RULES), array)
        packed = pack(Pair(photo(tmp_path / "a.jpg"), file, "a"), RULES)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(packed.label))), array)
        np.testing.assert_array_equal(packed.counts, np.bincount(array.ravel(), minlength=256))
        # What TensorFlow reads are the indices, whatever the file looked like.
        np.testing.assert_array_equal(records.decode_label(packed.label)[..., 0], array)
    assert pack(Pair(str(tmp_path / "a.jpg"), files[0], "a"), RULES).label == pathlib.Path(files[0]).read_bytes()
    bits = save(tmp_path / "bits.png", array > 10)
    np.testing.assert_array_equal(read_label(bits, RULES), array > 10)


def test_images_are_stored_as_they_are(tmp_path):
    file = photo(tmp_path / "a.jpg", 5, 7)
    packed = pack(Pair(file, None, "a"), RULES)
    assert (packed.image, packed.label, packed.height, packed.width) == (pathlib.Path(file).read_bytes(), None, 5, 7)


def test_sbd_annotations(tmp_path):
    array = classes()
    scipy.io.savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": array, "CategoriesPresent": [1, 2]}})
    np.testing.assert_array_equal(read_label(str(tmp_path / "a.mat"), RULES), array)
    scipy.io.savemat(tmp_path / "b.mat", {"GTinst": 1})
    (tmp_path / "c.mat").write_bytes(b"nothing")
    for name in "bc":
        with pytest.raises(DeepLabError, match=f"{name}.mat: no SBD annotation"):
            read_label(str(tmp_path / f"{name}.mat"), RULES)


def test_every_fault_is_named(tmp_path):
    image, label = photo(tmp_path / "good.jpg"), save(tmp_path / "good.png", classes())
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(pathlib.Path(image).read_bytes()[:200])
    (tmp_path / "text.png").write_text("not a picture")
    stray, binary = np.full((6, 8), 0, np.uint8), np.full((6, 8), 255, np.uint8)
    stray[:2], stray[3], binary[0] = 33, 200, 0
    two = LabelRules(2, 254, VOC.palette[:2])
    cases = [
        (Pair(str(tmp_path / "no.jpg"), label, "a"), RULES, ["no.jpg: missing image"]),
        (Pair(image, str(tmp_path / "no.png"), "a"), RULES, ["no.png: missing label"]),
        (Pair(str(tmp_path / "no.jpg"), str(tmp_path / "no.png"), "a"), RULES, ["no.jpg: missing", "no.png: missing"]),
        (Pair(str(tmp_path / "empty.jpg"), label, "a"), RULES, ["empty.jpg: no image that can be decoded .0 bytes"]),
        (Pair(str(tmp_path / "cut.jpg"), label, "a"), RULES, ["cut.jpg: no image that can be decoded"]),
        (Pair(image, str(tmp_path / "text.png"), "a"), RULES, ["text.png: no label .*b'not a pi'"]),
        (Pair(save(tmp_path / "a.png", stray.astype(np.uint16)), label, "a"), RULES,
         ["a.png: 1 band of uint16; expected 3 bands of uint8"]),
        (Pair(image, image, "a"), RULES, ["good.jpg: a JPEG label.*export the labels as PNG"]),
        (Pair(photo(tmp_path / "big.jpg", 9, 8), label, "a"), RULES, ["good.png: 6 x 8 pix.*big.jpg has 9 x 8"]),
        (Pair(image, save(tmp_path / "s.png", stray), "a"), RULES, [r"label 33 \(16 pixels\), 200 \(8 pixels\)"]),
        (Pair(image, save(tmp_path / "b.png", binary), "a"), two, [r"255 \(40 pixels\).*0 and 255\? --label_m"]),
        (Pair(image, save(tmp_path / "c.png", np.full((6, 8, 3), (7, 7, 8), np.uint8)), "a"), RULES,
         [r"c.png: a colour label with \(7, 7, 8\) \(48 pixels\), not in the palette"]),
        (Pair(image, save(tmp_path / "w.png", np.full((6, 8), 999, np.uint16)), "a"), RULES, ["label 999 .*0..255"]),
    ]  # fmt: skip
    for pair, rules, expected in cases:
        found = pack(pair, rules)
        assert len(found) == len(expected), found
        for line, pattern in zip(found, expected, strict=True):
            assert re.search(pattern, line), (pattern, line)


def test_a_turned_photograph_is_stored_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = save(tmp_path / "t.jpg", RANDOM.integers(0, 256, (8, 6, 3), np.uint8), exif=exif)
    packed = pack(Pair(image, save(tmp_path / "t.png", classes(6, 8)), "t"), RULES)
    assert isinstance(packed, Packed)
    assert (packed.height, packed.width) == (6, 8)
    assert "upright" in packed.notes[0]
    with Image.open(io.BytesIO(packed.image)) as stored:
        assert np.array_equal(np.asarray(stored), read_image(image))


# ---- writing


@pytest.mark.parametrize("processes", [1, 2])
def test_records_of_a_build(voc_root, tmp_path, processes):
    splits, calls = splits_of(voc_root), []
    out = tmp_path / "out"
    counts = build_records(splits, VOC, out, BuildOptions(2, processes), advance=lambda: calls.append(1))
    assert len(calls) == 10
    assert sorted(f.name for f in out.iterdir()) == sorted(
        ["dataset.json", *(records.shard_name(s, i, 2) for s in ("train", "val", "trainval") for i in (0, 1))]
    )
    found = contents(out)
    assert {split: [e[records.FILENAME].decode() for e in examples] for split, examples in found.items()} == {
        "train": ["a", "b", "c"],
        "val": ["d", "e"],
        "trainval": ["a", "b", "c", "d", "e"],
    }
    for split, examples in found.items():
        for example, pair in zip(examples, splits[split], strict=True):
            np.testing.assert_array_equal(stored_label(example), np.asarray(Image.open(pair.label)))
            assert example[records.IMAGE] == pathlib.Path(pair.image).read_bytes()
            assert (example[records.HEIGHT], example[records.WIDTH], example["image/format"]) == (6, 8, b"jpeg")
    total = sum(np.bincount(stored_label(e).ravel(), minlength=256) for e in found["val"])
    np.testing.assert_array_equal(counts["val"], total)
    facts = datasets.read_dataset(out)
    assert (facts.name, facts.palette, dict(facts.splits)) == (
        "pascal_voc_seg",
        VOC.palette,
        {"train": 3, "val": 2, "trainval": 5},
    )
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]


def test_more_shards_than_images(voc_root, tmp_path):
    build_records({"val": splits_of(voc_root)["val"]}, VOC, tmp_path / "out", BuildOptions(5))
    assert len(list((tmp_path / "out").glob("val-*-of-00005.tfrecord"))) == 5
    assert len(contents(tmp_path / "out")["val"]) == 2
    config = DataConfig(dataset_dir=str(tmp_path / "out"), crop_size=(9, 9), batch_size=1)
    assert len(list(make_dataset(config, split="val", training=False))) == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_faults_are_listed_and_nothing_is_written(voc_root, tmp_path, processes):
    (voc_root / "JPEGImages" / "b.jpg").unlink()
    save(voc_root / "SegmentationClass" / "c.png", np.full((6, 8), 77, np.uint8))
    save(voc_root / "SegmentationClass" / "e.png", classes(7, 7))
    before = sorted(tmp_path.rglob("*"))
    splits = {split: splits_of(voc_root)[split] for split in ("train", "val")}
    with pytest.raises(DeepLabError) as caught:
        build_records(splits, VOC, tmp_path / "out", BuildOptions(2, processes))
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 faults, nothing was written:"
    assert ["b.jpg: missing" in lines[1], "c.png: label 77" in lines[2], "e.png: 7 x 7" in lines[3]] == [True] * 3
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_build_leaves_nothing(voc_root, tmp_path):
    calls = itertools.count()

    def interrupt():
        if next(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_records(splits_of(voc_root), VOC, tmp_path / "out", advance=interrupt)
    assert [f.name for f in tmp_path.iterdir()] == ["VOC2012"]


def test_targets_that_are_there(voc_root, tmp_path):
    splits = splits_of(voc_root)
    (tmp_path / "empty").mkdir()
    build_records(splits, VOC, tmp_path / "empty")
    with pytest.raises(DeepLabError, match="output_dir=.*empty is there and not an empty folder"):
        build_records(splits, VOC, tmp_path / "empty")
    with pytest.raises(DeepLabError, match="no images found for val"):
        build_records({"train": splits["train"], "val": []}, VOC, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(DeepLabError, match="cannot be written"):
        build_records(splits, VOC, tmp_path / "file" / "out")


def test_masks_of_0_and_255(tmp_path):
    facts = datasets.Dataset("two", 2, 255, ("no", "yes"), VOC.palette[:2], {}, "pascal")
    found = []
    for name in "ab":
        mask = RANDOM.integers(0, 2, (6, 8)).astype(np.uint8) * 255
        found.append(Pair(photo(tmp_path / f"{name}.jpg"), save(tmp_path / f"{name}.png", mask), name))
    with pytest.raises(DeepLabError, match="only 0 and 255 .*--label_map=255:1"):
        build_records({"train": found}, facts, tmp_path / "out")
    build_records({"train": found}, facts, tmp_path / "out", BuildOptions(1, 1, ((255, 1),)))
    assert {int(v) for e in contents(tmp_path / "out")["train"] for v in np.unique(stored_label(e))} == {0, 1}
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["label_map"] == [[255, 1]]
    assert datasets.read_dataset(tmp_path / "out").label_map == ((255, 1),)


# ---- layouts


def test_voc_lists_are_checked(voc_root):
    lists = voc_root / "ImageSets" / "Segmentation"
    (lists / "twice.txt").write_text("a\nb\na\n")
    with pytest.raises(DeepLabError, match="twice.txt: 1 ids are repeated"):
        splits_of(voc_root)
    (lists / "twice.txt").write_text("\n")
    with pytest.raises(DeepLabError, match="twice.txt: the list is empty"):
        splits_of(voc_root)
    with pytest.raises(DeepLabError, match=r"list_folder=.*JPEGImages: no \*.txt"):
        voc.voc_splits(voc_root, voc_root, voc_root / "JPEGImages")


@pytest.fixture
def sbd(tmp_path) -> pathlib.Path:
    """SBD with train a (in VOC train), d (in VOC val), x and val y (not in VOC)."""
    root = tmp_path / "benchmark_RELEASE" / "dataset"
    for name in "adxy":
        photo(root / "img" / f"{name}.jpg")
        (root / "cls").mkdir(exist_ok=True)
        scipy.io.savemat(root / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": np.full((6, 8), 7, np.uint8)}})
    (root / "train.txt").write_text("a\nd\nx\n")
    (root / "val.txt").write_text("y\n")
    return tmp_path / "benchmark_RELEASE"


def test_train_aug_is_derived(voc_root, sbd, tmp_path):
    splits = splits_of(voc_root)
    with pytest.raises(DeepLabError, match="train_aug would have 5 images, expected 10582.*--train_aug_size=5"):
        voc.train_aug(splits, sbd)
    found = voc.train_aug(splits, sbd.parent / "benchmark_RELEASE" / "dataset", expected=5)
    assert [pair.filename for pair in found] == ["a", "b", "c", "x", "y"]  # no d: it is in val
    assert [pathlib.Path(pair.label).suffix for pair in found] == [".png", ".png", ".png", ".mat", ".mat"]
    command(
        "--dataset=pascal_voc_seg", f"--voc_root={voc_root}", f"--sbd_dir={sbd}", "--train_aug_size=0",
        f"--output_dir={tmp_path / 'out'}", "--splits=train_aug,val", "--num_processes=1",
    )  # fmt: skip
    built = contents(tmp_path / "out")
    assert {split: len(examples) for split, examples in built.items()} == {"train_aug": 5, "val": 2}
    assert (stored_label(built["train_aug"][4]) == 7).all()
    with pytest.raises(DeepLabError, match="sbd_dir=.*no folder cls"):
        voc.train_aug(splits, voc_root)
    with pytest.raises(DeepLabError, match="train_aug needs the list val.txt"):
        voc.train_aug({"train": splits["train"]}, sbd)


def test_cityscapes(tmp_path):
    root, ids = tmp_path / "cityscapes", np.array([[7, 8, 33], [0, 255, 4]], np.uint8)
    for split, city, kind in (
        ("train", "aachen", "labelTrainIds"),
        ("train", "bonn", "labelIds"),
        ("val", "ulm", "labelIds"),
    ):
        photo(root / "leftImg8bit" / split / city / f"{city}_000_leftImg8bit.png", 2, 3)
        array = np.array([[0, 1, 18], [255, 255, 255]], np.uint8) if kind == "labelTrainIds" else ids
        save(root / "gtFine" / split / city / f"{city}_000_gtFine_{kind}.png", array)
    assert list(cityscapes.cityscapes_splits(root)) == ["train_fine", "val_fine"]
    command(
        "--dataset=cityscapes", f"--cityscapes_root={root}", f"--output_dir={tmp_path / 'out'}", "--num_processes=1"
    )
    found = contents(tmp_path / "out")
    assert [e[records.FILENAME] for e in found["train_fine"]] == [b"aachen_000", b"bonn_000"]
    for example in itertools.chain(*found.values()):
        np.testing.assert_array_equal(stored_label(example), [[0, 1, 18], [255, 255, 255]])
        assert example["image/format"] == b"png"
    assert len(list((tmp_path / "out").glob("train_fine-*-of-00010.tfrecord"))) == 10
    both = cityscapes.cityscapes_splits(root, splits=["trainval_fine"])
    assert [pair.filename for pair in both["trainval_fine"]] == ["aachen_000", "bonn_000", "ulm_000"]
    with pytest.raises(DeepLabError, match="cityscapes_root=.*no images leftImg8bit"):
        cityscapes.cityscapes_splits(root, splits=["test_fine"])
    with pytest.raises(DeepLabError, match="unknown split of cityscapes 'train'"):
        cityscapes.cityscapes_splits(root, splits=["train"])
    photo(root / "leftImg8bit" / "val" / "ulm" / "ulm_001_leftImg8bit.png", 2, 3)
    assert "ulm_001_gtFine_labelTrainIds.png: missing label" in pack(
        cityscapes.cityscapes_splits(root)["val_fine"][1], RULES
    )[0]  # fmt: skip


def test_ade20k(tmp_path):
    root = tmp_path / "ADE"
    for kind, name in (("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        photo(root / "images" / kind / f"{name}.jpg")
        save(root / "annotations" / kind / f"{name}.png", RANDOM.integers(0, 151, (6, 8), np.uint8))
    command("--dataset=ade20k", f"--ade20k_root={root}", f"--output_dir={tmp_path / 'out'}", "--num_processes=1")
    found = contents(tmp_path / "out")
    assert {split: [e[records.FILENAME] for e in examples] for split, examples in found.items()} == {
        "train": [b"ADE_train_1.jpg"],
        "val": [b"ADE_val_1.jpg"],
    }
    assert found["val"][0]["image/format"] == b"jpeg"  # the release's says png
    config = DataConfig(dataset="ade20k", dataset_dir=str(tmp_path / "out"), crop_size=(9, 9), batch_size=1)
    (batch,) = make_dataset(config, split="val", training=False)
    assert (batch["label"].numpy()[0, 6:] == 0).all()  # ADE20K ignores 0, so that fills the padding
    with pytest.raises(DeepLabError, match=r"no \*.jpg images"):
        ade20k.ade20k_splits(root, root, root, root)


# ---- the user's own data


@pytest.fixture
def own(tmp_path) -> pathlib.Path:
    root = tmp_path / "my_data"
    for name in "pqr":
        photo(root / "images" / f"{name}.{'png' if name == 'q' else 'jpg'}")
        save(root / "labels" / f"{name}.png", RANDOM.integers(0, 2, (6, 8), np.uint8))
    (root / "class_names.txt").write_text("rest\ncat\n")
    return root


def test_own_data_in_every_layout(own, tmp_path):
    assert [p.filename for p in folder.folder_splits(own)["train"]] == ["p", "q", "r"]
    (own / "train.txt").write_text("q\np\n")
    (own / "val.txt").write_text("r\n")
    listed = folder.folder_splits(own)
    assert {split: [p.filename for p in found] for split, found in listed.items()} == {
        "train": ["q", "p"],
        "val": ["r"],
    }
    assert listed["train"][0].image.endswith("q.png")
    command("--dataset=folder", f"--root={own}", f"--output_dir={tmp_path / 'out'}", "--num_shards=1")
    facts = datasets.read_dataset(tmp_path / "out")
    assert (facts.name, facts.class_names, facts.ignore_label) == ("my_data", ("rest", "cat"), 255)
    config = DataConfig(dataset="my_data", dataset_dir=str(tmp_path / "out"), crop_size=(4, 4), batch_size=2)
    batch = next(iter(make_dataset(config, split="train", training=True)))
    assert set(np.unique(batch["label"])) <= {0, 1, 255}

    parts = tmp_path / "parts"
    for split in ("train", "val"):
        photo(parts / "JPEGImages" / split / "a.jpg")
        save(parts / "masks" / split / "a.png", np.zeros((6, 8), np.uint8))
    assert {split: len(found) for split, found in folder.folder_splits(parts).items()} == {"train": 1, "val": 1}


def test_own_data_that_lacks_something(own, tmp_path):
    with pytest.raises(DeepLabError, match=r"no folder of images; expected .*images \(or one of JPEGImages"):
        folder.folder_splits(tmp_path)
    (own / "class_names.txt").unlink()
    with pytest.raises(DeepLabError, match="neither dataset.json nor class_names.txt; write the names"):
        folder.folder_facts(own)
    (own / "dataset.json").write_text(json.dumps({"class_names": ["a", "b"], "palette": [[1, 2, 3], [4, 5, 6]]}))
    assert folder.folder_facts(own).palette == ((1, 2, 3), (4, 5, 6))
    save(own / "labels" / "p.png", np.full((6, 8, 3), (4, 5, 6), np.uint8))
    np.testing.assert_array_equal(
        read_label(str(own / "labels" / "p.png"), LabelRules(2, 255, ((1, 2, 3), (4, 5, 6)))), 1
    )


# ---- dataset.json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "dataset.json: not JSON"),
        ("[]", "dataset.json: expected an object"),
        ("{}", "class_names: expected 1 to 256 different names"),
        ('{"class_names": ["a", "a"]}', "class_names: expected 1 to 256 different names"),
        ('{"class_names": "a"}', "class_names='a': expected a list"),
        ('{"class_names": [1]}', "class_names: expected strings"),
        ('{"class_name": ["a"]}', "unknown key in .*dataset.json 'class_name'; did you mean class_names"),
        ('{"class_names": ["a"], "palette": []}', "palette has 0 colours for 1 classes"),
        ('{"class_names": ["a"], "palette": [[1, 2]]}', r"palette: expected \[red, green, blue\]"),
        ('{"class_names": ["a"], "palette": ["red"]}', r"palette: expected \[red, green, blue\]"),
        ('{"class_names": ["a"], "ignore_label": 256}', "ignore_label=256: expected 0..255"),
        ('{"class_names": ["a"], "ignore_label": true}', "ignore_label=True: expected a int"),
        ('{"class_names": ["a"], "splits": {"train": "x"}}', "splits: expected name -> number"),
        ('{"class_names": ["a"], "label_map": [[1, 256]]}', r"label_map: expected pairs \[old, new\]"),
        ('{"class_names": ["a"], "unlabelled": "test"}', "unlabelled='test': expected a list"),
        ('{"class_names": ["a"], "unlabelled": [1]}', "unlabelled: expected the names of splits"),
        ('{"class_names": ["a"], "built": [1]}', r"built=\[1\]: expected a dict"),
    ],
)
def test_mistakes_in_dataset_json(tmp_path, text, message):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DeepLabError, match=message):
        datasets.read_dataset(tmp_path)


def test_dataset_json_and_names(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": ["a", "b"], "splits": {"train": 3}}))
    for source in (tmp_path, str(tmp_path), tmp_path / "dataset.json"):
        found = datasets.read_dataset(source)
        assert (found.name, found.num_classes, found.ignore_label) == (tmp_path.name, 2, 255)
        assert found.palette == ((86, 180, 233), (213, 94, 0))
        assert found.splits["train"] == 3
        assert hash(found)
    assert datasets.read_dataset("cityscapes") is datasets.DATASETS["cityscapes"]
    assert datasets.parse_dataset(datasets.dataset_json(found).encode(), tmp_path / "dataset.json") == found
    with pytest.raises(DeepLabError, match="unknown dataset 'city'.*the folder that holds a dataset.json"):
        datasets.read_dataset("city")
    with pytest.raises(DeepLabError, match="nothing.json: cannot be read"):
        datasets.read_dataset(tmp_path / "nothing.json")


# ---- the command


def test_the_release_flags_of_the_voc_builder(voc_root, tmp_path, capsys):
    """As in the release's download_and_convert_voc2012.sh."""
    command(
        "--dataset=pascal_voc_seg",
        f"--image_folder={voc_root}/JPEGImages",
        f"--semantic_segmentation_folder={voc_root}/SegmentationClass",
        f"--list_folder={voc_root}/ImageSets/Segmentation",
        "--image_format=jpg",
        f"--output_dir={tmp_path / 'tfrecord'}",
    )
    printed = capsys.readouterr().out
    assert "trainval  5 images" in printed
    assert "aeroplane" in printed
    assert (tmp_path / "tfrecord" / "train-00003-of-00004.tfrecord").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--dataset is missing"),
        (["--dataset=voc"], "unknown dataset 'voc'"),
        (["--dataset=folder"], "--root is missing"),
        (["--dataset=folder", "--root=nowhere"], "root=nowhere: no such folder"),
        (["--dataset=shapes", "--num_shards=0"], "--num_shards=0"),
        (["--dataset=shapes", "--label_format=jpg"], "label_format"),
    ],
)
def test_mistakes_of_the_command(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert finished(build_data, *arguments) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_is_found_by_its_name():
    assert "build-data" in cli.COMMANDS
    code = "from deeplab_tf.tools import cli; cli.main(['deeplab-tf', 'build-data', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--semantic_segmentation_folder" in done.stdout


def test_workers_do_not_load_tensorflow():
    code = f"import sys, {packing.__name__}; print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


# ---- real data


def test_voc_mini(shared, tmp_path):
    command(
        "--dataset=pascal_voc_seg", f"--voc_root={shared / 'real' / 'voc_mini'}", f"--output_dir={tmp_path / 'out'}",
        "--num_processes=1", "--num_shards=2",
    )  # fmt: skip
    found = contents(tmp_path / "out")["val"]
    source = shared / "real" / "voc_mini"
    assert [e[records.FILENAME] for e in found] == [b"2011_000003", b"2011_000006", b"2011_000025"]
    for example in found:
        name = example[records.FILENAME].decode()
        assert example[records.IMAGE] == (source / "JPEGImages" / f"{name}.jpg").read_bytes()
        expected = np.asarray(Image.open(source / "SegmentationClass" / f"{name}.png"))
        np.testing.assert_array_equal(stored_label(example), expected)


@pytest.mark.heavy
def test_camvid(shared, tmp_path):
    command("--dataset=folder", f"--root={shared / 'camvid'}", f"--output_dir={tmp_path / 'out'}", "--num_processes=2")
    assert dict(datasets.read_dataset(tmp_path / "out").splits) == {"train": 367, "val": 101}
    assert record_index.count_examples(tmp_path / "out", "train") == 367
    config = DataConfig(dataset=str(tmp_path / "out"), dataset_dir=str(tmp_path / "out"), crop_size=(241, 321))
    batch = next(iter(make_dataset(config, split="train", training=True)))
    assert batch["image"].shape == (8, 241, 321, 3)
    assert set(np.unique(batch["label"])) <= {*range(11), 255}
    name = (shared / "camvid" / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[0]
    first = next(iter(make_dataset(config, split="val", training=False)))
    label = np.asarray(Image.open(shared / "camvid" / "SegmentationClass" / f"{name}.png"))
    assert first["image_name"][0] == name.encode()
    np.testing.assert_array_equal(first["label"][0, :360, :480, 0], label)


# ---- memory

_MEASURE = """
import json, pathlib, sys, tempfile
from deeplab_tf.catalog import datasets
from deeplab_tf.data.build import BuildOptions, build_records
from deeplab_tf.data.pairs import Pair

def memory(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) / 1024

def growth(count, files, processes):
    pairs = [Pair(*files[i % len(files)], f"picture {i}") for i in range(count)]
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        build_records({"train": pairs}, datasets.DATASETS["shapes"], f"{folder}/out", BuildOptions(4, processes))
        size = sum(file.stat().st_size for file in pathlib.Path(folder, "out").iterdir())
    return memory("VmHWM") - before, size / 2**20

if __name__ == "__main__":
    files, processes = json.loads(sys.argv[1]), int(sys.argv[2])
    growth(100, files, processes)
    print(json.dumps([growth(int(count), files, processes) for count in sys.argv[3:]]))
"""


@pytest.mark.heavy
@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="needs /proc to see the peak memory")
@pytest.mark.parametrize(("processes", "size", "count"), [(1, 64, 10_000), (2, 128, 2_500)])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, processes, size, count):
    """Of many what is kept of each would show too; what comes from other processes is a matter of its bytes."""
    files = []
    for number in range(20):
        image = save(tmp_path / f"{number}.png", RANDOM.integers(0, 256, (size, size, 3), np.uint8))
        files.append((image, save(tmp_path / f"{number}_label.png", RANDOM.integers(0, 9, (size, size), np.uint8))))
    script = tmp_path / "measure.py"
    script.write_text(_MEASURE)
    arguments = [sys.executable, str(script), json.dumps(files), str(processes), str(count // 20), str(count)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    (few, _), (many, written) = json.loads(done.stdout)
    assert written > 120  # MB, of which a builder that keeps a shard's would hold 30
    assert many - few < 15, (few, many)
