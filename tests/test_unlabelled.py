"""Pictures without labels in training: their places in a batch, records and files of them, a run, and refusals."""

import dataclasses
import io
import json
import os
import signal

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import finished, one_line
from conftest import fill
from observers import Recorder
from record_files import encoded, write_shapes

from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.data import shapes
from deeplab_tf.data.examples import named_batches, open_records
from deeplab_tf.data.pipeline import BatchPart, training_batches
from deeplab_tf.data.unlabelled import Mixed, Unlabelled, stored_picture, unlabelled_label
from deeplab_tf.doctor.run import check_run
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import train as train_tool
from deeplab_tf.training.teacher import opened_teacher
from deeplab_tf.training.train import train
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.tf1 import Receipt

NAMES = DATASETS["shapes"].class_names
MODEL = ModelConfig("tiny", num_classes=len(NAMES), crop_size=(33, 33), aspp_convs_filters=8)
_WHOLE = BatchPart()
_BYTES = ImageFacts(3, "uint8", ((0.0, 200.0),), (1.0, 2.0, 3.0))
_BANDS = ImageFacts(4, "float32", ((0.0, 1.0), (0.0, 1.0), (0.0, 2.0), (0.0, 1.0)), (1.0,) * 4)
FREE = 254  # neither a class of the shapes nor ignored


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Labelled records, others, the pictures of the others as files, and a teacher."""
    root = tmp_path_factory.mktemp("unlabelled")
    write_shapes(root / "labelled", "train", 5, (49, 41))
    write_shapes(root / "others", "train", 7, (49, 41))
    (root / "pictures" / "below").mkdir(parents=True)
    for number in range(7):
        image, _ = shapes.shapes_example(0, number, height=49, width=41)
        PIL.Image.fromarray(image).save(root / "pictures" / "below" / f"shapes_{number}.png")
    (root / "empty").mkdir()
    (root / "empty" / "notes.txt").write_text("no picture")
    teacher = build_model(MODEL)
    fill(teacher)
    card = ModelCard(MODEL, dataset="shapes", class_names=NAMES, palette=DATASETS["shapes"].palette)
    save_model(root / "teacher", teacher, Receipt("drawn", "", {}, {}), card=card)
    return root


def data_of(places, **changes) -> DataConfig:
    options = {"crop_size": (33, 33), "batch_size": 4, **changes}
    return DataConfig(dataset="shapes", dataset_dir=str(places / "labelled"), **options)


def run_of(places, folder, **changes) -> RunConfig:
    return RunConfig(unlabelled_dir=str(places / folder), **{"teacher": str(places / "teacher"), **changes})


def source_of(places, folder, data, **changes) -> Mixed:
    unlabelled = Unlabelled.of(run_of(places, folder, **changes), data)
    assert unlabelled
    return Mixed(open_records(data, "train"), unlabelled)


def mixed(places, folder, count, *, data=None, start=0, part=_WHOLE, **changes):
    data = data or data_of(places)
    batches = training_batches(source_of(places, folder, data, **changes), 3, start_step=start, part=part)
    return list(batches.take(count).as_numpy_iterator())


# ---- batches


@pytest.fixture(scope="module")
def whole(places) -> list[dict[str, np.ndarray]]:
    """Ten batches; half of each is without labels."""
    return mixed(places, "others", 10, unlabelled_share=0.5)


def test_every_part_of_a_batch_has_its_share(places, whole):
    """Each kind goes through its own pictures, all of them in each epoch."""
    without = np.stack([[(label == FREE).any() for label in batch["label"]] for batch in whole])
    assert (without == [False, True, False, True]).all()
    for batch, row in zip(whole, without, strict=True):
        for label, is_unlabelled in zip(batch["label"], row, strict=True):
            assert set(np.unique(label)) <= ({FREE, 255} if is_unlabelled else {*range(len(NAMES)), 255})
    names = np.stack([batch["image_name"] for batch in whole])
    assert len(set(names[:, ::2].ravel()[:5])) == 5 and len(set(names[:, 1::2].ravel()[:7])) == 7
    shares = mixed(places, "others", 4, unlabelled_share=0.25)
    assert [[(label == FREE).any() for label in b["label"]] for b in shares] == [[False, False, False, True]] * 4


def test_batches_are_a_pure_function_of_the_step(places, whole):
    """A half of the batch is the default."""
    later = mixed(places, "others", 2, start=3)
    halves = [mixed(places, "others", 5, part=BatchPart(number, 2)) for number in range(2)]
    for key in ("image", "label", "image_name"):
        assert all(np.array_equal(a[key], b[key]) for a, b in zip(whole[3:5], later, strict=True))
        joined = [np.concatenate([a[key], b[key]]) for a, b in zip(*halves, strict=True)]
        assert all(np.array_equal(a[key], b) for a, b in zip(whole[:5], joined, strict=True))


def test_files_give_the_pixels_of_records(places, whole):
    pictures = mixed(places, "pictures", 3)
    for a, b in zip(whole[:3], pictures, strict=True):
        assert np.array_equal(a["image"], b["image"]) and np.array_equal(a["label"], b["label"])
    assert {name.decode() for name in pictures[0]["image_name"][1::2]} < {f"below/shapes_{i}" for i in range(7)}


@pytest.mark.heavy
def test_augmented_cached_and_as_bytes(places, tmp_path):
    """CutMix takes the label along; a cache of one set does not hold the labels of another."""
    data = data_of(places, cut_mix=1.0)
    labels = np.stack([batch["label"] for batch in mixed(places, "others", 8, data=data)])
    assert any({FREE, 0} <= set(np.unique(label)) for label in labels.reshape(-1, 33 * 33))
    cached = data_of(places, decoded_cache=str(tmp_path), min_scale_factor=1.0, max_scale_factor=1.0)
    for _ in range(2):
        found = mixed(places, "labelled", 4, data=cached)
        assert all((batch["label"][1] >= FREE).all() and (batch["label"][0] != FREE).all() for batch in found)
    plain = data_of(places, min_scale_factor=1.0, max_scale_factor=1.0)
    source = source_of(places, "pictures", plain)
    as_bytes = next(iter(training_batches(source, 3, as_bytes=True)))
    expected = next(iter(training_batches(source, 3)))
    assert np.array_equal(tf.cast(as_bytes["label"], tf.int32), expected["label"])
    assert as_bytes["image"].pixels.dtype == tf.uint8


# ---- pictures


def test_pictures_as_files(tmp_path):
    """What a record holds as it is stays so; the rest is decoded as predict does, and turned upright."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    plain = encoded(pixels, "JPEG", quality=95)
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    for name, content in {
        "plain.jpg": plain,
        "turned.jpg": encoded(pixels, "JPEG", quality=95, exif=turned),
        "lossless.webp": encoded(pixels, "WEBP", lossless=True),
    }.items():
        (tmp_path / name).write_bytes(content)
    assert stored_picture(str(tmp_path / "plain.jpg"), None) == (plain, (6, 9))
    content, size = stored_picture(str(tmp_path / "turned.jpg"), None)
    assert size == (9, 6) and tf.io.decode_png(content).shape == (9, 6, 3)
    content, _ = stored_picture(str(tmp_path / "lossless.webp"), None)
    assert np.array_equal(tf.io.decode_png(content), pixels)
    (tmp_path / "broken.jpg").write_bytes(plain[:40])
    with pytest.raises(DeepLabError, match=r"broken\.jpg: "):
        stored_picture(str(tmp_path / "broken.jpg"), None)


def test_pictures_of_bands_as_files(places, tmp_path):
    pixels = np.random.default_rng(0).random((6, 9, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", pixels)
    found = Unlabelled.of(run_of(places, tmp_path), data_of(places))
    assert found and found.names == ("a.npy",)
    content, size = stored_picture(str(tmp_path / "a.npy"), _BANDS)
    assert size == (6, 9)
    np.testing.assert_array_equal(np.load(io.BytesIO(content)), pixels)


def test_masks_beside_images_are_no_pictures(places, tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            (tmp_path / folder / f"{number}.png").write_bytes(encoded(np.zeros((5, 5), np.uint8)))
    found = Unlabelled.of(run_of(places, tmp_path), data_of(places))
    assert found and found.names == ("images/0.png", "images/1.png")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("bad.png", encoded(np.full((40, 40, 3), 7, np.uint8))[:50], ""),
        ("it's ü.png", b"xxxx", "not an image (begins with b'xxxx'); expected JPEG"),
        ("a\\303.png", b'"\\n', r"""not an image (begins with b'"\\n')"""),
    ],
)
def test_a_picture_that_is_damaged_is_named(places, tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    batches = training_batches(source_of(places, tmp_path, data_of(places)), 0)
    with pytest.raises(DeepLabError) as caught:
        next(named_batches(batches))
    assert f"{tmp_path / name}: {told}" in str(caught.value)


def test_the_label_of_what_has_none():
    assert unlabelled_label(DATASETS["shapes"]) == 254 and unlabelled_label(DATASETS["ade20k"]) == 255


# ---- a run


def taught(places, log_dir, *, observer=None, folder="pictures", model=MODEL, **changes):
    update = TrainConfig(training_number_of_steps=6, base_learning_rate=0.01, teacher_confidence=0.0)
    run = run_of(places, folder, train_logdir=str(log_dir), deterministic=True, **{"log_steps": 2, **changes})
    return train(Experiment(model, update, data_of(places), run), observer=observer)


def tensors(folder) -> dict[str, bytes]:
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt-6"))
    return {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()}


@pytest.mark.heavy
def test_a_taught_run_goes_on_bit_for_bit_also_in_loops(places, tmp_path):
    taught(places, tmp_path / "whole")
    stop = Recorder(lambda progress: os.kill(os.getpid(), signal.SIGTERM))
    assert taught(places, tmp_path / "run", observer=stop).stopped
    assert taught(places, tmp_path / "run", steps_per_loop=3).step == 6
    assert tensors(tmp_path / "run") == tensors(tmp_path / "whole")
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert recorded["unlabelled_dir"]["pictures"] == 7 and recorded["unlabelled_share"] == 0.5
    assert "foreign-directory" not in {finding.code for finding in check_run(tmp_path / "run", {}).findings}
    with pytest.raises(DeepLabError, match="unlabelled_dir: .*7.* then, .* now.*--allow_change=unlabelled_dir"):
        taught(places, tmp_path / "run", folder="others")
    first, last = (RunDirectory(tmp_path / "whole").lines()[number]["cross_entropy"] for number in (0, -1))
    assert np.isfinite([first, last]).all()


def test_a_teacher_of_other_classes(places, tmp_path):
    names = ("background", "square", *NAMES[2:])
    card = ModelCard(MODEL, dataset="own", class_names=names, palette=DATASETS["shapes"].palette)
    save_model(tmp_path / "other", build_model(MODEL), Receipt("drawn", "", {}, {}), card=card)
    with pytest.raises(
        DeepLabError, match=rf"--teacher=.*other: its class 1 is 'square', that of the data {NAMES[1]!r}"
    ):
        taught(places, tmp_path / "run", teacher=str(tmp_path / "other"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("teacher", "learner", "message"),
    [
        ({}, {"num_classes": 5}, f"has {MODEL.num_classes} classes; expected 5"),
        ({"image": _BANDS}, {}, "the data set has photographs of .*, the teacher reads 4 bands of float32"),
        ({"image": _BYTES}, {}, "reads values of 0 to 200, the data set has 0 to 255; expected"),
        ({}, {"image": _BYTES}, "reads values of 0 to 255, the data set has 0 to 200; expected"),
        (
            {"image": _BANDS},
            {"image": dataclasses.replace(_BANDS, range=((0.0, 1.0),))},
            "reads values of 0 to 1, 0 to 2, the data set has 0 to 1; expected",
        ),
    ],
)
def test_a_teacher_that_does_not_fit(tmp_path, teacher, learner, message):
    cards = []
    for facts in (teacher, learner):
        image = facts.get("image")
        channels = image.channels if image else 3
        config = dataclasses.replace(
            MODEL, input_channels=channels, num_classes=facts.get("num_classes", MODEL.num_classes)
        )
        cards.append(ModelCard(config, image=image))
    save_model(tmp_path / "other", build_model(cards[0].config), Receipt("drawn", "", {}, {}), card=cards[0])
    asked = Experiment(model=cards[1].config, run=RunConfig(teacher=str(tmp_path / "other")))
    with pytest.raises(DeepLabError, match=f"--teacher={tmp_path}/other: {message}"):
        opened_teacher(asked, cards[1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--unlabelled_dir={root}/pictures"], "unlabelled_dir='{root}/pictures': needs teacher"),
        (
            ["--teacher={root}/teacher", "--teacher_confidence=0.5"],
            "--teacher_confidence=0.5 would do nothing: it needs",
        ),
        (["--unlabelled_dir={root}/none", "--teacher={root}/teacher"], "--unlabelled_dir={root}/none: no such folder"),
        (["--teacher={root}/none"], "--teacher={root}/none: checkpoint"),
        (["--teacher={root}/teacher", "--distillation_weight=0"], "--distillation_weight=0: nothing is learned from"),
        (["--teacher=hf://nobody"], "--teacher=hf://nobody: expected hf://owner/name"),
        (["--unlabelled_dir={root}/empty", "--teacher={root}/teacher"], "empty: holds no pictures (.jpg, .jpeg"),
        (
            ["--unlabelled_dir={root}/pictures", "--teacher={root}/teacher", "--unlabelled_split=x"],
            "--unlabelled_split=x: {root}/pictures holds no records",
        ),
        (
            ["--unlabelled_dir={root}/others", "--teacher={root}/teacher", "--unlabelled_split=x"],
            "--unlabelled_dir={root}/others: no files x-*; it has splits train",
        ),
        (
            ["--unlabelled_dir={root}/others", "--teacher={root}/teacher", "--unlabelled_share=0.2"],
            "--unlabelled_share=0.2: 0 of a batch of 4; expected",
        ),
        (
            ["--unlabelled_dir={root}/others", "--teacher={root}/teacher", "--unlabelled_share=1"],
            "unlabelled_share=1.0: expected a share between 0 and 1",
        ),
        (
            ["--unlabelled_dir={root}/others", "--teacher={root}/teacher", "--teacher_confidence=2"],
            "teacher_confidence=2.0: expected a probability",
        ),
    ],
)
def test_refusals(places, tmp_path, capsys, given, message):
    small = (f"--dataset_dir={places}/labelled", "--dataset=shapes", "--train_crop_size=33,33", "--train_batch_size=4")
    more = [line.format(root=places) for line in given]
    assert finished(train_tool, f"--train_logdir={tmp_path}/run", *small, *more) == 1
    assert message.format(root=places) in one_line(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_other_bands_are_refused(places, tmp_path):
    folder = tmp_path / "bands"
    write_shapes(folder, "train", 1, (40, 40))
    image = {"channels": 4, "dtype": "uint8", "range": [[0, 255]], "mean": [1, 2, 3, 4]}
    (folder / "dataset.json").write_text(json.dumps({"name": "b", "class_names": ["x", "y"], "image": image}))
    unlabelled = Unlabelled.of(run_of(places, folder), data_of(places))
    assert unlabelled
    with pytest.raises(DeepLabError, match="bands has photographs of 4 bands of uint8, the network reads 3 bands"):
        unlabelled.open(data_of(places), DATASETS["shapes"])
