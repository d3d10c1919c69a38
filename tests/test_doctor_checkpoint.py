"""The doctor's look at weights and at what they predict: each of the five causes of one class alone."""

import dataclasses
import functools
import json
import types

import keras
import numpy as np
import pytest
from commands import finished
from golden import golden_tensor
from record_files import encoded

from deeplab_tf.catalog import datasets
from deeplab_tf.config import ModelConfig
from deeplab_tf.data.shapes import shapes_example
from deeplab_tf.doctor import predictions
from deeplab_tf.doctor.checkpoint import check_checkpoint, has_fresh_head
from deeplab_tf.doctor.predictions import check_predictions
from deeplab_tf.doctor.samples import open_data
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import build_data, doctor
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt, load_tf1_checkpoint, variable_map, write_tensors

TINY = ModelConfig(model_variant="tiny", num_classes=9, aspp_convs_filters=16)


@pytest.fixture(scope="module")
def fresh() -> dict[str, np.ndarray]:
    """The weights of a network that was never trained."""
    keras.utils.set_random_seed(0)
    return {name: variable.numpy() for name, variable in variable_map(build_model(TINY)).items()}


@pytest.fixture(scope="module")
def trained(fresh) -> dict[str, np.ndarray]:
    """The same with a head that is no longer as it was drawn."""
    return {**fresh, "logits/semantic/biases": np.linspace(-0.1, 0.1, 9, dtype=np.float32)}


@functools.cache
def network(config: ModelConfig) -> keras.Model:
    """A network that each test gives all its weights."""
    return build_model(config, zeros=True)


def saved(folder, weights: dict[str, np.ndarray], *, config=TINY, **facts) -> str:
    """Writes a model directory of these weights."""
    write_tensors(folder / "source" / "model.ckpt", weights)
    model = network(config)
    receipt: Receipt = load_tf1_checkpoint(model, folder / "source" / "model.ckpt")
    shapes = datasets.DATASETS["shapes"]
    card = ModelCard(config, dataset="shapes", class_names=shapes.class_names, palette=shapes.palette, **facts)
    save_model(folder / "model", model, receipt, card=card)
    return str(folder / "model")


def codes_of(found) -> list[str]:
    return [finding.code for finding in found.findings]


@pytest.mark.heavy
def test_sound_weights(tmp_path, trained):
    found = check_checkpoint(saved(tmp_path, trained, train_split="train"))
    assert found.codes == ()
    notes = {finding.code: finding.evidence for finding in found.findings}
    count = sum(value.size for value in trained.values())
    assert notes["what-it-is"][0] == f"tiny, for 9 classes: {len(trained)} variables, {count:,} values"
    assert notes["trained-on"][0] == "trained on shapes train"
    assert notes["may-be-scored-on"] == ("of shapes: val",)


def test_contaminated_or_unknown(tmp_path, trained):
    (tmp_path / "a").mkdir()
    path = saved(tmp_path / "a", trained, train_split="train", source_checkpoint="x")
    assert check_checkpoint(path, eval_split="train").codes == ("contaminated",)
    assert check_checkpoint(path, eval_split="val").codes == ()
    assert check_checkpoint(saved(tmp_path, trained)).codes == ("unknown-training",)


def test_a_split_that_the_data_set_has_not(tmp_path, trained):
    found = check_checkpoint(saved(tmp_path, trained, train_split="train"), eval_split="vall")
    assert found.codes == ("unknown-split",)
    (finding,) = (finding for finding in found.findings if finding.code == "unknown-split")
    assert finding.evidence == ("--eval_split=vall: shapes has no split of that name; expected train, val",)


@pytest.mark.parametrize(
    ("code", "leaf", "value"),
    [("not-finite", "weights", np.nan), ("batch-norm-statistics", "moving_variance", -1.0)],
)
def test_damaged_values(tmp_path, trained, code, leaf, value):
    name = next(name for name in trained if name.endswith(f"/{leaf}"))
    weights = {**trained, name: np.full_like(trained[name], value)}
    found = check_checkpoint(saved(tmp_path, weights, train_split="train"))
    assert found.codes == (code,) and name in found.findings[0].evidence[0]


def test_a_head_that_was_never_trained(tmp_path, fresh, trained):
    assert has_fresh_head(fresh) and not has_fresh_head(trained)
    assert not has_fresh_head({**fresh, "logits/semantic/weights": fresh["logits/semantic/weights"] * 3})
    found = check_checkpoint(saved(tmp_path, fresh, train_split="train"))
    assert "untrained-head" in found.codes


def test_rates_that_do_not_belong(tmp_path, trained):
    config = dataclasses.replace(TINY, output_stride=8, atrous_rates=None)
    assert check_checkpoint(saved(tmp_path, trained, config=config, train_split="train")).codes == ()


def test_google_weights(shared):
    found = check_checkpoint(shared / "real" / "deeplabv3_mnv2_dm05_pascal")
    assert found.codes == ("unknown-training",)
    assert "folded-batch-norm" in codes_of(found)
    assert any("depth_multiplier=0.5" in line for line in found.findings[1].evidence)


def test_nothing_to_open(tmp_path):
    found = check_checkpoint(tmp_path / "nothing")
    assert found.codes == ("unreadable",) and found.count("error") == 1


# ---- predictions


def folder_of(path, labels=lambda label: label) -> str:
    """Writes two drawn pictures as a data set."""
    for part in ("images", "labels"):
        (path / part).mkdir(parents=True)
    for i in range(2):
        image, label = shapes_example(0, i, height=65, width=65)
        (path / "images" / f"{i}.png").write_bytes(encoded(image))
        (path / "labels" / f"{i}.png").write_bytes(encoded(labels(label)))
    (path / "val.txt").write_text("0\n1\n")
    shapes = datasets.DATASETS["shapes"]
    (path / "dataset.json").write_text(json.dumps({"name": "shapes", "class_names": list(shapes.class_names)}))
    return str(path)


def held(finding) -> list[str]:
    return [line[4:] for line in finding.evidence if line.startswith("[x]")]


def test_predictions_of_the_embedded_network(tmp_path):
    found = check_predictions("shapes_resnet", folder_of(tmp_path / "data"))
    assert found.codes == () and sum(found.facts["shares"].values()) == pytest.approx(1)
    assert "look black" in found.findings[0].evidence[1]


def test_labels_of_cityscapes_are_counted_by_class(tmp_path, monkeypatch):
    """As downloaded they hold label ids: 7 is road, class 0."""
    name = "bonn_000001_000019"
    for part, end, array in (
        ("leftImg8bit", "leftImg8bit", np.zeros((8, 9, 3), np.uint8)),
        ("gtFine", "gtFine_labelIds", np.full((8, 9), 7, np.uint8)),
    ):
        (tmp_path / part / "val" / "bonn").mkdir(parents=True)
        (tmp_path / part / "val" / "bonn" / f"{name}_{end}.png").write_bytes(encoded(array))
    monkeypatch.setattr(predictions, "_predicted_pixels", lambda *_: np.eye(19, dtype=np.int64)[3])
    config = types.SimpleNamespace(num_classes=19)
    loaded = types.SimpleNamespace(card=types.SimpleNamespace(config=config, image=None))
    predicted = predictions._predict(loaded, open_data(tmp_path), "val_fine", 1)
    assert predicted.labels[0] == predicted.labels.sum() == 72 and predicted.predicted[3] == 1


def always(weights, answer: int) -> dict[str, np.ndarray]:
    biases = np.full(9, -50, np.float32)
    biases[answer] = 50
    return {**weights, "logits/semantic/biases": biases}


@pytest.mark.heavy
def test_masks_of_0_and_255(tmp_path, trained):
    data = folder_of(tmp_path / "data", lambda label: np.where(label % 255 > 0, 255, 0).astype(np.uint8))
    found = check_predictions(saved(tmp_path, always(trained, 0)), data)
    assert found.codes == ("one-class-predictions",)
    causes = held(found.findings[0])
    assert (
        causes[0] == "labels are masks of 0 and 255: values [0, 255]" and "--label_map=255:1" in found.findings[0].cure
    )


@pytest.mark.heavy
def test_one_class_in_nearly_all_labels(tmp_path, trained):
    data = folder_of(
        tmp_path / "data",
        lambda label: np.where(np.arange(label.size).reshape(label.shape) < 40, 3, 0).astype(np.uint8),
    )
    found = check_predictions(saved(tmp_path, always(trained, 0)), data)
    (cause,) = held(found.findings[0])
    assert cause == f"the class has nearly all labelled pixels: {1 - 40 / 65**2:.1%} here"


@pytest.mark.heavy
def test_weights_that_were_not_loaded(tmp_path, fresh):
    # The logits stay as they are drawn; what they see is one constant feature, so that they answer with one class.
    norms = {name: np.zeros_like(value) for name, value in fresh.items() if name.endswith("/gamma")}
    norms |= {
        name: np.ones_like(value)
        for name, value in fresh.items()
        if name.startswith("concat_projection") and name.endswith("/beta")
    }
    found = check_predictions(saved(tmp_path, {**fresh, **norms}), folder_of(tmp_path / "data"))
    (cause,) = held(found.findings[0])
    assert cause.startswith("the weights were not loaded or not trained: logits as drawn")


@pytest.mark.heavy
def test_statistics_of_batch_norm_that_are_wrong(tmp_path):
    config = dataclasses.replace(TINY, add_image_level_feature=False)
    shapes = {name: tuple(v.shape) for name, v in variable_map(build_model(config, zeros=True)).items()}
    weights = {name: golden_tensor(name, shape) for name, shape in shapes.items()}
    weights["logits/semantic/weights"] -= weights["logits/semantic/weights"].mean(axis=2, keepdims=True)
    broken = {name: np.full(shape, 1e9, np.float32) for name, shape in shapes.items() if name.endswith("_variance")}
    found = check_predictions(saved(tmp_path, {**weights, **broken}, config=config), folder_of(tmp_path / "data"))
    (cause,) = held(found.findings[0])
    assert cause.startswith("batch norm's statistics are wrong: 100.0% becomes")
    assert "--recalibrate_batch_norm" in found.findings[0].cure


@pytest.mark.parametrize("crop", [(65, 65), (97, 129)])
def test_the_crop_of_a_network_is_any(tmp_path, trained, crop):
    """A crop makes the network take images of that size alone; batch norm is measured at it."""
    config = dataclasses.replace(TINY, crop_size=crop)
    path = saved(tmp_path, always(trained, 2), config=config)
    found = check_predictions(path, folder_of(tmp_path / "data"))
    assert found.codes == ("one-class-predictions",)
    assert "batch norm's statistics are wrong: 100.0% becomes 100.0%" in found.text()


def test_another_data_set_and_backbones(tmp_path, trained):
    data = folder_of(tmp_path / "data")
    path = saved(tmp_path, trained)
    (tmp_path / "other").mkdir()
    other = folder_of(tmp_path / "other" / "data")
    (tmp_path / "other" / "data" / "dataset.json").write_text(json.dumps({"class_names": ["rest", "cat"]}))
    assert check_predictions(path, other).codes == ("another-data-set",)
    with pytest.raises(DeepLabError, match="unknown split"):
        check_predictions(str(tmp_path / "model"), data, split="tests")


@pytest.mark.heavy
def test_the_command_gives_both(tmp_path, trained, capsys):
    path = saved(tmp_path, always(trained, 1), train_split="train")
    assert finished(doctor, f"--checkpoint={path}", f"--dataset_dir={folder_of(tmp_path / 'data')}") == 1
    text = capsys.readouterr().out
    assert "ERROR   one-class-predictions: circle has 100.00% of all pixels of 2 images" in text
    assert text.count("[ ] ") == 5 and "-> none of the usual causes" in text


def test_predictions_of_other_bands(tmp_path):
    """Photographs of four bands of 16 bits, in records and in files, and a network that reads them."""
    root = tmp_path / "bands"
    for name, split in (("a", "train"), ("b", "val")):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        random = np.random.default_rng(ord(name))
        np.save(root / "images" / split / f"{name}.npy", random.integers(0, 4000, (70, 90, 4)).astype(np.uint16))
        (root / "labels" / split / f"{name}.png").write_bytes(encoded(random.integers(0, 2, (70, 90)).astype(np.uint8)))
    (root / "class_names.txt").write_text("rest\nfield\n")
    records = tmp_path / "records"
    built = (f"--root={root}", f"--output_dir={records}", "--num_processes=1")
    assert finished(build_data, "--dataset=folder", *built) == 0
    image = datasets.read_dataset(records).image
    config = dataclasses.replace(TINY, num_classes=2, input_channels=4, crop_size=(65, 65))
    model = build_model(config)
    card = ModelCard(
        config, dataset="bands", class_names=("rest", "field"), palette=((0, 0, 0), (9, 9, 9)), image=image
    )
    variable_map(model)["logits/semantic/biases"].assign([-50, 50])
    write_tensors(tmp_path / "source" / "model.ckpt", {n: v.numpy() for n, v in variable_map(model).items()})
    receipt = load_tf1_checkpoint(model, tmp_path / "source" / "model.ckpt")
    save_model(tmp_path / "model", model, receipt, card=card)
    for place in (root, records):
        found = check_predictions(tmp_path / "model", place)
        assert found.codes == ("one-class-predictions",) and found.facts["images"] == 1
    plain = folder_of(tmp_path / "plain")
    assert finished(build_data, "--dataset=folder", f"--root={plain}", f"--output_dir={tmp_path / 'rgb'}") == 0
    (tmp_path / "rgb" / "dataset.json").write_text(json.dumps({"class_names": ["rest", "field"]}))
    assert check_predictions(tmp_path / "model", tmp_path / "rgb").codes == ("another-data-set",)
