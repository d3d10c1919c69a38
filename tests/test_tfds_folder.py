"""Reading what TensorFlow Datasets has prepared: any set with images and masks, drawn like records of our own."""

import io
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from deeplab_tf.config import DataConfig
from deeplab_tf.data import find, tfds_folder
from deeplab_tf.data.examples import named_errors
from deeplab_tf.data.locate import locate_records
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.errors import DeepLabError

OFFLINE = tfds.download.DownloadConfig(try_download_gcs=False)
CLASSES = ["rest", "cat", "dog"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def arrays(number: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(number)
    size = (20 + number % 5, 30 - number % 7)
    return random.integers(0, 256, (*size, 3), np.uint8), random.integers(0, 3, size, np.uint8)


class TinyPets(tfds.core.GeneratorBasedBuilder):
    """Eleven pictures and three; two configurations."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="plain"), tfds.core.BuilderConfig(name="odd")]
    features = {
        "image": tfds.features.Image(),
        "file_name": tfds.features.Text(),
        "label": tfds.features.ClassLabel(num_classes=5),
        "segmentation_mask": tfds.features.LabeledImage(labels=CLASSES, shape=(None, None, 1)),
    }

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(11)), "test": self._generate_examples(range(20, 23))}

    def _generate_examples(self, numbers):
        for number in numbers:
            image, label = arrays(number)
            yield number, self.example(f"picture {number}", image, label[..., None])

    def example(self, name, image, label):
        return {"image": image, "file_name": name, "label": 3, "segmentation_mask": label}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    """TFDS's folder, with the set prepared in two shards and more of train, in its second configuration too."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    config = tfds.download.DownloadConfig(try_download_gcs=False, num_shards=2)
    for name in ("plain", "odd"):
        TinyPets(data_dir=folder, config=name).download_and_prepare(download_config=config)
    return folder


def prepare(folder, features: dict, example, **options) -> str:
    """Prepares one picture under other features, and returns the name of the set."""

    class Other(TinyPets, skip_registration=True):
        name = "other"
        BUILDER_CONFIGS = []

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(range(1))}

    Other.features, Other.example = features, lambda self, name, image, label: example(image, label)
    Other(data_dir=str(folder), **options).download_and_prepare(download_config=OFFLINE)
    return "tfds:other"


def config(data_dir: str, dataset: str = "tfds:tiny_pets", **changes) -> DataConfig:
    return DataConfig(dataset=dataset, dataset_dir=str(data_dir), **{"crop_size": (40, 40), "batch_size": 2, **changes})


def names(dataset: tf.data.Dataset) -> list[str]:
    return [name.decode() for batch in dataset.as_numpy_iterator() for name in batch["image_name"]]


# ---- what is read


def test_evaluation_reads_each_example_once(data_dir):
    dataset = make_dataset(config(data_dir, batch_size=1, crop_size=None), split="train", training=False)
    found = list(dataset.as_numpy_iterator())
    assert sorted(batch["image_name"][0].decode() for batch in found) == sorted(f"picture {i}" for i in range(11))
    for batch in found:
        image, label = arrays(int(batch["image_name"][0].split()[1]))
        np.testing.assert_array_equal(batch["image"][0], image)
        np.testing.assert_array_equal(batch["label"][0, ..., 0], label)
        assert (batch["height"][0], batch["width"][0]) == label.shape


def test_the_order_and_the_pixels_are_those_of_tfds(data_dir):
    theirs = tfds.load("tiny_pets", data_dir=data_dir, split="train", download=False)
    ours = make_dataset(config(data_dir, batch_size=1, crop_size=None), split="train", training=False)
    for expected, batch in zip(theirs, ours, strict=True):
        assert batch["image_name"][0] == expected["file_name"]
        np.testing.assert_array_equal(batch["image"][0], tf.cast(expected["image"], tf.float32))
        np.testing.assert_array_equal(batch["label"][0], tf.cast(expected["segmentation_mask"], tf.int32))


def test_a_split_called_test_has_labels(data_dir):
    (batch,) = make_dataset(config(data_dir, batch_size=3), split="test", training=False)
    assert set(np.unique(batch["label"])) == {0, 1, 2, 255}
    assert len(locate_records(config(data_dir), "test").index) == 3


@pytest.mark.heavy
def test_training_is_a_function_of_seed_and_step(data_dir):
    def taken(**options):
        dataset = make_dataset(config(data_dir), split="train", training=True, **options)
        return list(dataset.take(6).as_numpy_iterator())

    whole, later, other = taken(seed=3), taken(seed=3, start_step=2), taken(seed=4)
    assert {batch["image"].shape for batch in whole} == {(2, 40, 40, 3)}
    for first, second in zip(whole[2:], later, strict=False):
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])
    assert any((a["image"] != b["image"]).any() for a, b in zip(whole, other, strict=True))
    epoch = [name for batch in taken(seed=3)[:6] for name in batch["image_name"]][:11]
    assert len(set(epoch)) == 11


@pytest.mark.parametrize("split", ["train[:30%]", "train[30%:]", "train[2:7]", "train[-4:]", "train[10:11]"])
def test_parts_of_a_split_are_those_of_tfds(data_dir, split):
    expected = tfds.load("tiny_pets", data_dir=data_dir, split=split, download=False)
    expected = [example["file_name"].decode() for example in expected.as_numpy_iterator()]
    assert names(make_dataset(config(data_dir), split=split, training=False)) == expected


def test_versions_and_configurations(data_dir, tmp_path):
    assert tfds_folder.read_prepared("tfds:tiny_pets", data_dir).folder.parts[-2:] == ("plain", "1.2.0")
    for name in ("tfds:tiny_pets/odd", "tfds:tiny_pets/odd:1.2.0"):
        assert tfds_folder.read_prepared(name, data_dir).folder.parts[-2:] == ("odd", "1.2.0")
    for version in ("1.9.0", "1.10.0"):
        folder = tmp_path / "pets" / "a" / version
        folder.mkdir(parents=True)
        for file in pathlib.Path(data_dir, "tiny_pets", "plain", "1.2.0").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    assert tfds_folder.read_prepared("tfds:pets", tmp_path).folder.name == "1.10.0"
    (tmp_path / "pets" / "b").mkdir()
    (tmp_path / "pets" / "a" / "1.9.0").rename(tmp_path / "pets" / "b" / "1.9.0")
    with pytest.raises(DeepLabError, match="tfds:pets: prepared are a, b; say which, tfds:pets/a"):
        tfds_folder.read_prepared("tfds:pets", tmp_path)


def test_the_usual_data_dir(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    chosen = DataConfig(dataset="tfds:tiny_pets", batch_size=2)
    assert len(names(make_dataset(chosen, split="test", training=False))) == 3


# ---- classes


def test_the_classes_are_those_of_the_mask(data_dir):
    facts = find.find_dataset("tfds:tiny_pets", data_dir)
    assert (facts.name, facts.class_names, facts.num_classes) == ("tfds:tiny_pets", tuple(CLASSES), 3)
    assert (facts.ignore_label, dict(facts.splits)) == (255, {"train": 11, "test": 3})


def test_classes_that_the_set_does_not_tell(tmp_path):
    mask = tfds.features.Image(shape=(None, None, 1))
    name = prepare(tmp_path, {"image": tfds.features.Image(), "annotation": mask},
                   lambda image, label: {"image": image, "annotation": label})  # fmt: skip
    with pytest.raises(DeepLabError, match="annotation does not say which classes there are; write them into .*json"):
        find.find_dataset(name, str(tmp_path))
    file = tmp_path / "other" / "1.2.0" / "dataset.json"
    file.write_text(json.dumps({"class_names": ["a", "b"], "ignore_label": 9, "name": "anything"}))
    facts = find.find_dataset(name, str(tmp_path))
    assert (facts.name, facts.class_names, facts.ignore_label, facts.splits) == (name, ("a", "b"), 9, {"train": 1})
    with pytest.raises(DeepLabError, match="record 0 .*label 2 .*tfds:other has classes 0..1 and 9"), named_errors():
        list(make_dataset(config(tmp_path, name), split="train", training=False))
    mapped = config(tmp_path, name, label_policy="map", label_map="2:9")
    (batch,) = make_dataset(mapped, split="train", training=False)
    assert set(np.unique(batch["label"])) == {0, 1, 9}


def test_a_number_of_classes_without_names(tmp_path):
    mask = tfds.features.LabeledImage(labels=3)
    name = prepare(tmp_path, {"image": tfds.features.Image(), "mask": mask},
                   lambda image, label: {"image": image, "mask": label})  # fmt: skip
    assert find.find_dataset(name, str(tmp_path)).class_names == ("0", "1", "2")


# ---- which features


def test_nested_features_and_others_besides(tmp_path):
    grey = tfds.features.Image(shape=(None, None, 1))
    features = {
        "view": {"photo": tfds.features.Image(), "depth": grey},
        "id": tfds.features.Text(),
        "labels": {"segmentation_label": tfds.features.LabeledImage(labels=CLASSES)},
        "parts": tfds.features.Sequence(grey),
    }

    def example(image, label):
        view = {"photo": image, "depth": label}
        return {"view": view, "id": "x/y", "labels": {"segmentation_label": label}, "parts": [label]}

    name = prepare(tmp_path, features, example)
    found = tfds_folder.read_prepared(name, tmp_path)
    assert (found.image, found.mask, found.file_name) == ("view/photo", "labels/segmentation_label", "id")
    (batch,) = make_dataset(config(tmp_path, name, crop_size=None), split="train", training=False)
    np.testing.assert_array_equal(batch["image"][0], arrays(0)[0])
    np.testing.assert_array_equal(batch["label"][0, ..., 0], arrays(0)[1])
    assert batch["image_name"][0] == b"x/y"


def prepare_two_views(folder) -> str:
    """Prepares a set with two features that may be the image, and returns its name."""
    image, grey = tfds.features.Image(), tfds.features.Image(shape=(None, None, 1))
    features = {"left": image, "right": image, "ground": grey}
    return prepare(folder, features, lambda image, label: {"left": image, "right": 255 - image, "ground": label % 3})


def test_features_that_must_be_named(tmp_path):
    name = prepare_two_views(tmp_path)
    with pytest.raises(
        DeepLabError, match=r"which feature is the mask\? .* ground \(1 channels\), left .3 .*--tfds_fea"
    ):
        tfds_folder.read_prepared(name, tmp_path)
    with pytest.raises(DeepLabError, match="unknown image feature of tfds:other 'groun'; did you mean ground"):
        tfds_folder.read_prepared(name, tmp_path, ("left", "groun"))
    facts = {"class_names": CLASSES}
    (tmp_path / "other" / "1.2.0" / "dataset.json").write_text(json.dumps(facts))
    chosen = config(tmp_path, name, tfds_features="right,ground", crop_size=None)
    (batch,) = make_dataset(chosen, split="train", training=False)
    np.testing.assert_array_equal(batch["image"][0], 255 - arrays(0)[0])
    assert batch["image_name"][0] == b""
    with pytest.raises(DeepLabError, match="tfds_features=.*expected two names"):
        config(tmp_path, tfds_features="right")


# ---- what cannot be read


def encoded(image: Image.Image, kind: str = "PNG") -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind)
    return io.BytesIO(stream.getvalue())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("palette", "is a 8-bit palette PNG"),
        ("colour", "is a 8-bit colour PNG"),
        ("bits", "is a 1-bit grey PNG"),
        ("jpeg", "begins with b'.*'"),
    ],
)
def test_masks_that_are_no_indices(tmp_path, kind, message):
    def file(label):
        image = Image.fromarray(label[..., 0])
        if kind == "jpeg":
            return encoded(image, "JPEG")
        return encoded(image.convert({"palette": "P", "colour": "RGB", "bits": "1"}[kind]))

    features = {"image": tfds.features.Image(), "mask": tfds.features.LabeledImage(labels=CLASSES)}
    name = prepare(tmp_path, features, lambda image, label: {"image": image, "mask": file(label)})
    with pytest.raises(DeepLabError, match=f"the first mask in .*{message}; expected 8-bit grey PNGs"):
        make_dataset(config(tmp_path, name), split="train", training=False)


def test_masks_of_16_bits(tmp_path):
    mask = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16)
    features = {"image": tfds.features.Image(), "mask": mask}
    name = prepare(tmp_path, features, lambda image, label: {"image": image, "mask": label.astype(np.uint16)})
    with pytest.raises(DeepLabError, match="its masks mask are uint16; the pipeline reads 8-bit labels"):
        tfds_folder.read_prepared(name, tmp_path)


def test_files_of_another_format(data_dir, tmp_path):
    folder = tmp_path / "tiny_pets" / "1.2.0"
    folder.mkdir(parents=True)
    source = pathlib.Path(data_dir, "tiny_pets", "plain", "1.2.0")
    (folder / "features.json").write_bytes((source / "features.json").read_bytes())
    info = json.loads((source / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "array_record"}))
    with pytest.raises(DeepLabError, match='holds array_record files; .*file_format="tfrecord"'):
        tfds_folder.read_prepared("tfds:tiny_pets", tmp_path)
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(
        DeepLabError, match="tiny_pets-train.tfrecord-00000-of-00002 is missing; prepare tfds:tiny_pets"
    ):
        make_dataset(config(tmp_path), split="train", training=False)
    (folder / "features.json").write_text("{")
    with pytest.raises(DeepLabError, match="features.json: not JSON"):
        tfds_folder.read_prepared("tfds:tiny_pets", tmp_path)


@pytest.mark.parametrize(
    ("dataset", "split", "message"),
    [
        (
            "tfds:nothing",
            "train",
            r'not prepared in .*nothing; prepare it first, in Python: tfds.builder\("nothing", data',
        ),
        ("tfds:tiny_pets:9.0.0", "train", r"not prepared in .*\(1.2.0 is\)"),
        ("tfds:tiny_pets/strange", "train", "not prepared in .*strange"),
        ("tfds:", "train", "expected tfds:name"),
        ("tfds:tiny_pets", "trai", "unknown split of tfds:tiny_pets 'trai'; did you mean train"),
        ("tfds:tiny_pets", "train[5:5]", r"split train\[5:5\] has no records; train has 11"),
        ("tfds:tiny_pets", "train[a:]", "unknown split"),
        ("tfds:tiny_pets", "train[9:200]", r"split train\[9:200\] reaches beyond the 11 records of train"),
        ("tfds:tiny_pets", "train[-12:]", "reaches beyond the 11 records of train"),
    ],
)
def test_mistakes(data_dir, dataset, split, message):
    with pytest.raises(DeepLabError, match=message):
        make_dataset(config(data_dir, dataset), split=split, training=False)


def test_looking_needs_neither_tensorflow_nor_tfds(data_dir):
    import subprocess
    import sys

    code = (
        "import sys; from deeplab_tf.data import find;"
        f"print(find.find_dataset('tfds:tiny_pets', {data_dir!r}).num_classes,"
        "*{'tensorflow', 'tensorflow_datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"
