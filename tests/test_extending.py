"""A network gets more classes: its grown last layer, the names of labels, a run and its scores, and refusals."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from commands import finished, one_line
from conftest import fill
from record_files import example_of, write_records

from deeplab_tf import configs
from deeplab_tf.catalog.palettes import default_palette
from deeplab_tf.config import DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.data.shapes import shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.network.wrapped import config_of
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.tools import extend
from deeplab_tf.tools.display import Display
from deeplab_tf.training import extending
from deeplab_tf.weights.growing import grown_classes, grown_network
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt, variable_map

NAMES = ("background", "circle", "triangle")
OLD = ModelConfig(model_variant="tiny", num_classes=3, crop_size=(33, 33), aspp_convs_filters=8)
CARD = ModelCard(OLD, dataset="drawn", class_names=NAMES, palette=((0, 0, 0), (128, 0, 0), (9, 9, 9)))


def old_network():
    model = build_model(OLD)
    fill(model)
    return model


def records(folder, names, table, **splits: int) -> str:
    """Writes shapes whose labels are renamed by a table, others background, and their dataset.json."""
    for split, count in splits.items():
        examples = []
        for index in range(count):
            image, label = shapes_example(0, index, height=33, width=33)
            named = np.zeros(256, np.uint8)
            named[255] = 255
            named[list(table)] = list(table.values())
            examples.append(example_of(f"p{index}", image, named[label]))
        write_records(folder, split, examples)
    (folder / "dataset.json").write_text(json.dumps({"name": folder.name, "class_names": names}))
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The old model, records of new classes alone, and records of the old ones."""
    root = tmp_path_factory.mktemp("extend")
    save_model(root / "old", old_network(), Receipt("drawn", "", {}, {}), card=CARD)
    new = records(root / "new", ("star", "elsewhere", "ring"), {0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 5: 2}, train=6, val=3)
    old = records(root / "six", NAMES, {1: 1, 2: 2}, val=3)
    return root, root / "old", new, old


@pytest.mark.parametrize("background", [0, 2])
def test_the_last_layer_grows_and_the_rest_stays_to_the_bit(background):
    old = old_network()
    grown = grown_network(old, CARD, 2, background=background)
    ours, theirs = variable_map(old), variable_map(grown)
    assert ours.keys() == theirs.keys() and config_of(grown).num_classes == 5
    kept = [number for number in range(3) if number != background]
    for name, variable in ours.items():
        value, new = variable.numpy(), theirs[name].numpy()
        if name == "logits/semantic/weights":
            assert np.array_equal(new[..., :3], value)
            assert all(np.array_equal(new[..., number], value[..., background]) for number in (3, 4))
        elif name == "logits/semantic/biases":
            assert np.array_equal(new[kept], value[kept])
            assert new[[background, 3, 4]] == pytest.approx([value[background] - np.log(3)] * 3, rel=1e-6)
        else:
            assert np.array_equal(new, value), name
    image = np.random.default_rng(0).uniform(0, 255, (1, 33, 33, 3)).astype(np.float32)

    def probabilities(model):
        powers = np.exp(model(image, training=False).numpy().astype(np.float64))
        return powers / powers.sum(-1, keepdims=True)

    before, after = probabilities(old), probabilities(grown)
    assert after[..., kept] == pytest.approx(before[..., kept], abs=1e-6)
    assert after[..., [background, 3, 4]] == pytest.approx(np.repeat(before[..., [background]], 3, -1) / 3, abs=1e-6)


def test_branches_share_the_bias():
    """DeepLab-v2 adds the logits of its branches, and their biases."""
    config = dataclasses.replace(configs.read("v2_shapes").model, num_classes=3, crop_size=(33, 33), image_pyramid=None)
    old = build_model(config)
    theirs = variable_map(grown_network(old, dataclasses.replace(CARD, config=config), 2, background=0))
    biases = {name: v for name, v in variable_map(old).items() if name.startswith("logits") and name.endswith("biases")}
    assert len(biases) == 4
    total = sum(theirs[name].numpy()[[0, 3, 4]] - variable.numpy()[0] for name, variable in biases.items())
    assert total == pytest.approx([-np.log(3)] * 3, rel=1e-6)


def test_colours_and_names_of_the_classes():
    classes = grown_classes(CARD, ["star", "ring"])
    assert classes.class_names == (*NAMES, "star", "ring") and classes.num_classes == 5
    assert classes.palette[:3] == CARD.palette and len(set(classes.palette)) == 5
    unsaid = dataclasses.replace(CARD, palette=())
    assert grown_classes(unsaid, ["star", "ring"]).palette == default_palette(classes.class_names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["circle"], "--add=circle: 'circle' is not a new name; .* it has background, circle, triangle"),
        (["star", "star"], "'star' is not a new name"),
        ([""], "--add=: '' is not a new name"),
        ([f"c{i}" for i in range(252)], "255 classes in all; expected at most 254"),
    ],
)
def test_names_that_are_refused(names, message):
    with pytest.raises(DeepLabError, match=message):
        grown_classes(CARD, names)


def test_labels_are_found_by_their_names(folders):
    _, model, new, old = folders
    extension = extending.Extension.of(str(model), ["star", "ring"])
    assert extension.labels_of(new, flag="--x").label_table == {0: 3, 1: 0, 2: 4, 255: 255}
    assert extension.labels_of(old, flag="--x", old_alone=True).label_table == {0: 0, 1: 1, 2: 2, 255: 255}
    with pytest.raises(DeepLabError, match="--dataset_dir=.*six: has no class 'star' of --add; its classes are backgr"):
        extension.labels_of(old, flag="--dataset_dir")


def test_merged_confusions():
    matrix = np.arange(9).reshape(3, 3)
    assert extending.merged(matrix, 0, [2]).tolist() == [[0 + 2 + 6 + 8, 1 + 7, 0], [3 + 5, 4, 0], [0, 0, 0]]


def flags_of(folders, run, *more: str) -> list[str]:
    _, model, new, old = folders
    steps = (
        "--training_number_of_steps=4",
        "--train_crop_size=33,33",
        "--train_batch_size=2",
        "--eval_crop_size=33,33",
    )
    places = (f"--checkpoint={model}", f"--dataset_dir={new}", f"--old_dataset_dir={old}", f"--train_logdir={run}")
    return [*places, *steps, "--base_learning_rate=0.001", *more]


def tensors(run) -> dict[str, bytes]:
    reader = tf.train.load_checkpoint(str(run / "model.ckpt-4"))
    return {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()}


@pytest.mark.heavy
def test_a_run_extends_the_network_and_goes_on(folders, tmp_path, capsys, monkeypatch):
    """A run that SIGTERM stops goes on bit for bit: what an uninterrupted one leaves is the same."""
    whole = flags_of(folders, tmp_path / "whole", "--add=star,ring", "--deterministic")
    assert finished(extend, *whole) == 0
    printed = capsys.readouterr().out
    assert "old classes: mean IoU" in printed and "new classes: mean IoU" in printed
    scores = json.loads((tmp_path / "whole" / "extended.json").read_text())
    assert list(scores["after"]["old"]) == list(NAMES) and list(scores["after"]["new"]) == ["star", "ring"]
    assert scores["before"].keys() == {"old"}
    extended = open_model(tmp_path / "whole")
    assert extended.card.class_names == (*NAMES, "star", "ring") and extended.card.palette[:3] == CARD.palette
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["old_classes"] == 3

    arguments = flags_of(folders, tmp_path / "run", "--add=star,ring", "--deterministic")
    with monkeypatch.context() as patched:
        patched.setattr(Display, "progressed", lambda self, progress: os.kill(os.getpid(), signal.SIGTERM))
        assert finished(extend, *arguments, "--log_steps=2") == 0
    assert "Stopped by a signal" in capsys.readouterr().out
    assert not (tmp_path / "run" / "extended.json").exists() and (tmp_path / "run" / "model.ckpt-2.index").exists()
    assert finished(extend, *arguments) == 0
    assert "Going on from" in capsys.readouterr().out
    assert tensors(tmp_path / "run") == tensors(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "extended.json").read_text()) == scores
    assert finished(extend, *arguments[:-2], "--add=star") == 1
    assert "extends to other classes (star, ring)" in one_line(capsys.readouterr().err)


def test_scores_are_those_of_eval(folders, tmp_path):
    """At the same crop, which the pooled feature sees: pictures are padded to it."""
    _, model, _, old = folders
    extension, found = extending.Extension.of(str(model), ["star", "ring"]), {}
    grown = str(extension.begin(str(tmp_path / "run")))
    for side in (33, 97):
        asked = Experiment(
            dataclasses.replace(OLD, num_classes=5),
            data=DataConfig(classes_of=grown),
            evaluation=EvalConfig(eval_crop_size=(side, side)),
        )
        found[side] = extension.scores(asked, None, old)["old"]
        log = tmp_path / str(side)
        flags = (f"--dataset_dir={old}", f"--eval_logdir={log}", "--dataset=six", f"--eval_crop_size={side},{side}")
        assert finished(eval_tool, f"--checkpoint_dir={model}", *flags, "--max_number_of_evaluations=1") == 0
        (line,) = (log / "metrics.jsonl").read_text().splitlines()
        mean = np.mean(list(found[side].values()))
        assert json.loads(line)["eval/miou_1.0_overall"] == pytest.approx(mean)
    assert found[33] != found[97]


def test_what_a_recipe_says_of_another_start_is_left_out(folders, tmp_path, capsys):
    _, model, _, _ = folders
    extension = extending.Extension.of(str(model), ["star", "ring"])
    asked = Experiment(
        dataclasses.replace(open_model(model).card.config, num_classes=5),
        TrainConfig(label_weights=(1.0, 2.0), top_k_percent_pixels=0.5),
        run=RunConfig(initialize_last_layer=False, unfold_batch_norm=20),
    )
    assert extension.followed(asked) == dataclasses.replace(asked, train=TrainConfig(), run=RunConfig())
    with pytest.raises(DeepLabError, match="recipe's network differs from that of --checkpoint in .* as decoder/"):
        extension.followed(
            dataclasses.replace(asked, model=dataclasses.replace(asked.model, decoder_output_stride=(4,)))
        )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--add=star,ring", "--loss=dice"], "--loss: follows from --checkpoint and --add; leave it out"),
        (["--add=star,ring", "--background=road"], "--background: unknown class 'road'"),
        (["--add=star,moon"], "has no class 'moon' of --add"),
        ([], "--add is missing"),
    ],
)
def test_refusals(folders, tmp_path, capsys, more, message):
    assert finished(extend, *flags_of(folders, tmp_path / "run", *more)) == 1
    assert message in one_line(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
