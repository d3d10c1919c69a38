"""The recipe for data of one's own: each choice and its reason, what is given instead, and runs that go on."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from commands import everything, finished, one_line
from record_files import encoded, example_of, write_records

from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import DataConfig, Experiment, ModelConfig, TrainConfig
from deeplab_tf.data.record_sample import MOST_RECORDS, sample_records
from deeplab_tf.data.shapes import shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import doctor
from deeplab_tf.tools import train as command
from deeplab_tf.training import crop_and_batch, finetuning, memory
from deeplab_tf.weights.describing import describe_weights
from deeplab_tf.weights.initialize import initialize
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt, save_tf1_checkpoint, variable_map, write_tensors

NAMES = ("ground", "circle", "other")
TINY = ModelConfig(
    model_variant="tiny", num_classes=9, aspp_convs_filters=16, decoder_output_stride=(4,), decoder_filters=16
)


def own(folder: pathlib.Path, count: int, size: tuple[int, int], *, split="train", labels=None, **facts) -> str:
    """Writes records of the shapes in three classes, or with `labels` of every picture, and their dataset.json."""
    examples: list[bytes] = []
    for index in range(count):
        image, label = shapes_example(0, index, height=size[0], width=size[1])
        label = np.where(label == 255, 255, np.minimum(label, 2)).astype(np.uint8) if labels is None else labels
        examples.append(example_of(f"p{index}", image, label))
    write_records(folder, split, examples)
    (folder / "dataset.json").write_text(json.dumps({"name": "own", "class_names": NAMES, **facts}))
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A TF1 checkpoint, which says nothing of its classes."""
    tf.keras.utils.set_random_seed(1)
    prefix = tmp_path_factory.mktemp("weights") / "model.ckpt"
    save_tf1_checkpoint(build_model(TINY), prefix)
    return str(prefix)


@pytest.fixture
def machine(monkeypatch):
    """A CPU with eight GiB and a network whose update takes 1 GiB and 0.2 GiB an image of the first crop."""
    monkeypatch.setattr(memory, "gpus_used", lambda run: 0)
    monkeypatch.setattr(memory, "memory_at_hand", lambda gpus: (5 * 2**30, "8.0 GiB free on this machine"))
    monkeypatch.setattr(memory, "step_memory", lambda config, teacher: (2**30, 2**30 // 5))
    return monkeypatch


def chosen(line: str) -> tuple[Experiment, list[str]]:
    """Returns the experiment of a command's flags and the lines that it tells."""
    values = flags.FlagValues()
    command.define(values)
    values(["train", "--config=finetune", *line.split()])
    lines: list[str] = []
    return command.experiment(values, lines.append), lines


TINY_LINE = "--model_variant=tiny --decoder_output_stride=4 --aspp_convs_filters=16 --decoder_filters=16"


def test_each_choice_has_a_line_with_its_reason(tmp_path, checkpoint, machine):
    folder = own(tmp_path / "own", 20, (60, 80))
    own(tmp_path / "own", 4, (60, 96), split="val")
    found, lines = chosen(f"--dataset_dir={folder} --tf_initial_checkpoint={checkpoint}")
    assert lines == [
        f"{TINY_LINE}: the network of {checkpoint}",
        "--train_logdir=exp/own: named by the data",
        f"--initialize_last_layer=false: nothing says which 9 classes {checkpoint} tells apart",
        "--last_layers_contain_logits_only=true: ASPP and decoder keep what they have learned",
        "--last_layer_gradient_multiplier=10: what is new learns faster",
        "--train_crop_size=65,81: the median picture is 60 x 80",
        "--train_batch_size=16: an update of 16 takes about 4.2 GiB of 8.0 GiB free on this machine",
        "--eval_crop_size=65,81: holds the largest picture, 60 x 80",
        "--training_number_of_steps=500: 400 epochs of 20 pictures",
        "--fine_tune_batch_norm=true: 16 images at a time, batch norm needs 12",
        "--base_learning_rate=0.002: 0.002 for a batch of 16, which keeps what the weights know; here 16",
        "--unfold_batch_norm=20: the weights come with batch norm folded, which is trained with statistics of its own",
        "--recalibrate_batch_norm=40: the averages of a new head are slow",
        "--label_weights=: balanced enough: where they are, circle has 15.36% of a picture and ground 80.72%",
    ]
    expected = dataclasses.replace(TINY, num_classes=3, crop_size=(65, 81))
    assert found.model == expected and found.train.ignore_label == 255
    assert (found.run.train_logdir, found.evaluation.eval_crop_size) == ("exp/own", (65, 81))
    assert found.train.training_number_of_steps == 500 and not found.run.initialize_last_layer


def starting(lines: list[str], *flags_: str) -> list[str]:
    return [line for flag in flags_ for line in lines if line.startswith(f"--{flag}=")]


def test_a_backbone_learns_at_the_papers_rate(tmp_path, machine):
    """Without a head there is nothing that so high a rate would make it forget."""
    model = build_model(TINY)
    weights = {name: v.numpy() for name, v in variable_map(model).items() if name.startswith("Tiny/")}
    write_tensors(tmp_path / "bare" / "model.ckpt", weights)
    folder = own(tmp_path / "own", 20, (60, 80))
    line = f"--dataset_dir={folder} --tf_initial_checkpoint={tmp_path}/bare/model.ckpt --model_variant=tiny"
    _, lines = chosen(line)
    assert "--base_learning_rate=0.007: 0.007 for a batch of 16; here 16" in lines


def test_tiny_pictures_of_one_split(tmp_path, checkpoint, machine):
    folder = own(tmp_path / "own", 3, (20, 24))
    _, lines = chosen(f"--dataset_dir={folder} --tf_initial_checkpoint={checkpoint}")
    assert starting(lines, "train_crop_size", "train_batch_size", "eval_split", "fine_tune_batch_norm") == [
        "--train_crop_size=33,33: the median picture is 20 x 24",
        "--train_batch_size=2: an update of 2 takes about 1.4 GiB of 8.0 GiB free on this machine; there are 3 "
        "pictures",
        "--eval_split=val: there is none (train), so nothing can be scored; build-data --val_share=0.2 makes one",
        "--fine_tune_batch_norm=false: 2 images at a time, batch norm needs 12",
    ]
    assert starting(lines, "base_learning_rate", "training_number_of_steps", "unfold_batch_norm") == [
        "--base_learning_rate=0.00013: 0.001 for a batch of 16 without training batch norm, which keeps what the "
        "weights know; here 2",
        "--training_number_of_steps=500: 333 epochs of 3 pictures",
    ]


def test_huge_pictures_and_an_imbalance(tmp_path, checkpoint, machine):
    labels = np.zeros((1500, 2200), np.uint8)
    labels[:40, :40] = 1
    folder = own(tmp_path / "own", 2, (1500, 2200), labels=labels)
    found, lines = chosen(f"--dataset_dir={folder} --tf_initial_checkpoint={checkpoint}")
    assert starting(lines, "train_crop_size", "eval_crop_size", "label_weights") == [
        "--train_crop_size=225,321: the median picture is 1500 x 2200, at most 321 pixels a side on a CPU",
        "--eval_crop_size=: pictures of up to 1500 x 2200 run each at its own size",
        "--label_weights=0.5,2,1: median frequency, from 0.5 to 2: where they are, circle has 0.05% of a picture and "
        "ground 99.95%; no pixel in 2 pictures of 2 of other",
    ]
    assert found.evaluation.eval_crop_size is None and found.train.label_weights == (0.5, 2.0, 1.0)
    machine.setattr(memory, "gpus_used", lambda run: 1)
    _, lines = chosen(f"--dataset_dir={folder} --tf_initial_checkpoint={checkpoint}")
    assert starting(lines, "train_crop_size") == [
        "--train_crop_size=529,769: the median picture is 1500 x 2200, at most 769 pixels a side on a GPU"
    ]


def test_little_memory_makes_the_crop_smaller(tmp_path, checkpoint, machine):
    folder = own(tmp_path / "own", 6, (300, 400))
    machine.setattr(memory, "step_memory", lambda config, teacher: (2**30, 2 * 2**30))
    _, lines = chosen(f"--dataset_dir={folder} --tf_initial_checkpoint={checkpoint}")
    assert starting(lines, "train_crop_size", "train_batch_size") == [
        "--train_crop_size=145,193: 4 of the median picture, 300 x 400, take more than 5 GiB of 8.0 GiB free on this "
        "machine",
        "--train_batch_size=4: an update of 4 takes about 3.9 GiB of 8.0 GiB free on this machine; there are "
        "6 pictures",
    ]


def test_what_is_given_is_said(tmp_path, checkpoint, machine):
    folder = own(tmp_path / "own", 20, (60, 80), split="pictures")
    given = "--train_batch_size=1 --train_crop_size=33,33 --training_number_of_steps=7 --label_weights=1,2,3"
    given += " --output_stride=8 --train_logdir=here --initialize_last_layer"
    found, lines = chosen(f"--dataset_dir={folder} --tf_initial_checkpoint={checkpoint} {given}")
    network = TINY_LINE.replace("tiny ", "tiny --output_stride=8 ")
    assert lines[0] == f"{network}: the network of {checkpoint}, but --output_stride=8 as given"
    names = ("train_split", "initialize_last_layer", "train_crop_size", "train_batch_size", "training_number_of_steps")
    assert starting(lines, *names, "fine_tune_batch_norm", "label_weights", "train_logdir") == [
        "--train_split=pictures: there is no train; there are pictures",
        f"--initialize_last_layer=true: as given, in place of false (nothing says which 9 classes {checkpoint} tells "
        "apart)",
        "--train_crop_size=33,33: as given, in place of 65,81 (the median picture is 60 x 80)",
        "--train_batch_size=1: as given, in place of 16 (the papers')",
        "--training_number_of_steps=7: as given, in place of 6000 (300 epochs of 20 pictures)",
        "--fine_tune_batch_norm=false: 1 image at a time, batch norm needs 12",
        "--label_weights=1,2,3: as given, in place of unset (balanced enough: where they are, circle has 15.36% of a "
        "picture and ground 80.72%)",
    ]
    assert (found.model.output_stride, found.data.batch_size, found.data.crop_size) == (8, 1, (33, 33))
    assert found.train.label_weights == (1.0, 2.0, 3.0) and found.run.initialize_last_layer


def test_a_frozen_backbone_and_several_devices(tmp_path, checkpoint, machine):
    folder = own(tmp_path / "own", 40, (60, 80))
    machine.setattr(finetuning, "reserve_devices", lambda run: None)
    line = f"--dataset_dir={folder} --tf_initial_checkpoint={checkpoint} --num_clones=2 --freeze=backbone"
    found, lines = chosen(f"{line} --freeze_steps=100")
    assert (found.train.freeze, found.train.freeze_steps) == ("backbone", 100)
    assert starting(lines, "train_batch_size", "fine_tune_batch_norm") == [
        "--train_batch_size=8: an update of 8 takes about 3.6 GiB of 8.0 GiB free on this machine",
        "--fine_tune_batch_norm=false: 4 images at a time, batch norm needs 12",
    ]


def test_gpus_compute_in_what_they_have(tmp_path, checkpoint, machine):
    line = f"--dataset_dir={own(tmp_path / 'own', 4, (60, 80))} --tf_initial_checkpoint={checkpoint}"
    assert not starting(chosen(line)[1], "mixed_precision"), "on a CPU nothing is chosen"
    machine.setattr(memory, "gpus_used", lambda run: 1)
    found, lines = chosen(line)
    reason = "--mixed_precision=auto: bfloat16 where the devices have it, for speed and memory"
    assert starting(lines, "mixed_precision") == [reason] and found.train.mixed_precision == "auto"
    found, lines = chosen(f"{line} --mixed_precision=none")
    assert found.train.mixed_precision == "none" and "none: as given, in place of auto" in "".join(lines)


def test_the_largest_batch_goes_before_what_follows_from_it(tmp_path, checkpoint, machine):
    folder = own(tmp_path / "own", 40, (60, 80))
    line = f"--dataset_dir={folder} --tf_initial_checkpoint={checkpoint} --train_batch_size=auto"
    machine.setattr(memory, "memory_at_hand", lambda gpus: (100 * 2**30, "200 GiB free on this machine"))
    found, lines = chosen(line)
    assert (found.data.batch_size, found.data.crop_size, found.train.base_learning_rate) == (40, (65, 81), 0.005)
    assert starting(lines, "train_crop_size", "train_batch_size", "base_learning_rate") == [
        "--train_crop_size=65,81: the median picture is 60 x 80",
        "--train_batch_size=auto: 40: 40 images of 65 x 81 take about 9 GiB of 200 GiB free on this machine; there are "
        "40 pictures",
        "--base_learning_rate=0.005: 0.002 for a batch of 16, which keeps what the weights know; here 40",
    ]


def test_one_class_is_told(tmp_path, checkpoint, machine):
    folder = own(tmp_path / "own", 2, (40, 48), labels=np.zeros((40, 48), np.uint8))
    _, lines = chosen(f"--dataset_dir={folder} --tf_initial_checkpoint={checkpoint}")
    assert starting(lines, "label_weights") == [
        "--label_weights=: only ground has pixels in 2 pictures of 2: there is nothing to learn"
    ]


def test_the_same_classes_keep_the_last_layer(tmp_path, machine):
    folder = own(tmp_path / "shapes", 3, (40, 40), name="shapes", class_names=DATASETS["shapes"].class_names)
    found, lines = chosen(f"--dataset_dir={folder} --tf_initial_checkpoint=shapes_resnet")
    assert starting(lines, "initialize_last_layer", "last_layer_gradient_multiplier") == [
        "--initialize_last_layer=true: shapes_resnet tells the same 9 classes apart"
    ]
    assert found.run.initialize_last_layer and found.train.last_layer_gradient_multiplier == 1
    other = own(tmp_path / "own", 3, (40, 40))
    _, lines = chosen(f"--dataset_dir={other} --tf_initial_checkpoint=shapes_resnet")
    assert starting(lines, "initialize_last_layer") == [
        "--initialize_last_layer=false: shapes_resnet has 9 classes (background, circle, triangle, ...), the data 3 "
        "classes (ground, circle, other)"
    ]


# Initial weights.


def test_weights_are_described_in_every_form(tmp_path, checkpoint):
    found = describe_weights(checkpoint)
    assert (found.config, found.kind, found.class_names, found.folded) == (TINY, "segmentation", (), True)
    card = ModelCard(TINY, class_names=tuple("abcdefghi"))
    save_model(tmp_path / "model", build_model(TINY), Receipt("x", "", {}, {}), card=card)
    assert describe_weights(tmp_path / "model").class_names == card.class_names
    zoo = describe_weights("shapes_resnet")
    assert (zoo.config.model_variant, zoo.config.decoder_output_stride, zoo.folded) == ("small_resnet", (4,), False)
    assert zoo.class_names == DATASETS["shapes"].class_names
    with pytest.raises(DeepLabError, match="unknown checkpoint 'shapes_resne'; did you mean .*shapes_resnet"):
        describe_weights("shapes_resne")


def test_the_cure_for_another_network_names_what_differs(checkpoint):
    other = build_model(dataclasses.replace(TINY, aspp_convs_filters=8, num_classes=3))
    variables = {name: variable.value for name, variable in variable_map(other).items()}
    with pytest.raises(DeepLabError) as error:
        initialize(variables, checkpoint)
    assert str(error.value).endswith(
        "they are those of another network: give --aspp_convs_filters=16, and for the other classes "
        "--initialize_last_layer=false (with --last_layers_contain_logits_only to keep ASPP and decoder); "
        "--config=finetune follows the weights"
    )


# Samples.


def test_a_sample_is_bounded_and_always_the_same(tmp_path):
    label = np.zeros((4, 4), np.uint8)
    examples = [
        example_of(f"p{i}", np.zeros((4 + i % 2, 4, 3), np.uint8), np.zeros((4, 4), np.uint8) + i % 3)
        for i in range(MOST_RECORDS + 44)
    ]
    write_records(tmp_path, "train", examples, shards=3)
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": NAMES}))
    config = DataConfig(dataset_dir=str(tmp_path))
    facts = dataclasses.replace(DATASETS["shapes"], num_classes=3, class_names=NAMES)
    first, second = (sample_records(config, facts, "train") for _ in range(2))
    assert (first.records, first.seen, first.sizes.shape) == (300, MOST_RECORDS, (MOST_RECORDS, 2))
    assert first.counts.sum() == MOST_RECORDS * label.size and np.array_equal(first.counts, second.counts)


def test_labels_are_renamed_and_damaged_ones_passed_over(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    good = example_of("a", image, np.full((4, 4), 7, np.uint8))
    write_records(tmp_path, "train", [good, b"damaged", encoded(image)])
    config = DataConfig(dataset_dir=str(tmp_path), dataset="shapes", label_policy="map", label_map="7:1")
    found = sample_records(config, DATASETS["shapes"], "train")
    assert found.counts.tolist() == [0, 16, *[0] * 7] and len(found.sizes) == 1


# Runs and mistakes.


@pytest.mark.heavy
def test_the_command_trains_and_goes_on(tmp_path, checkpoint, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own(tmp_path / "records", 4, (40, 48))
    line = ["--config=finetune", "--dataset_dir=records", f"--tf_initial_checkpoint={checkpoint}"]
    few = ["--training_number_of_steps=1", "--train_batch_size=2"]
    assert finished(command, *line, *few) == 0
    assert "--training_number_of_steps=1: as given, in place of " in capsys.readouterr().out
    run = json.loads((tmp_path / "exp/own/run.json").read_text())
    assert run["model"]["decoder_output_stride"] == [4] and run["crop_size"] == [49, 49]
    monkeypatch.setattr(memory, "step_memory", None)  # not asked again
    assert finished(command, *line, "--training_number_of_steps=2") == 0
    out = capsys.readouterr().out
    assert "exp/own: the run goes on with the options that were chosen when it began (run.json)\n" in out
    assert "--training_number_of_steps=2: as given, in place of 1 (as the run in exp/own began with it)\n" in out
    assert "Done: step 2" in out


@pytest.mark.parametrize(
    "content", ['{"model": [1]}', '{"model": {"output_stride": {}}}', '{"crop_size": {"a": 1}}', "["]
)
def test_a_damaged_run_is_one_line(content, tmp_path, checkpoint, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own(tmp_path / "records", 2, (40, 48))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(content)
    line = ["--config=finetune", "--dataset_dir=records", "--train_logdir=run", f"--tf_initial_checkpoint={checkpoint}"]
    assert finished(command, *line) == 1
    assert "run.json: damaged" in one_line(capsys.readouterr().err) or "crop_size" in content


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--dataset_dir=records",
            "tool: --tf_initial_checkpoint is missing; expected the weights to start from: a name",
        ),
        ("--dataset_dir=none --tf_initial_checkpoint=W", "tool: dataset_dir=none: no such folder"),
        ("--dataset_dir=records --tf_initial_checkpoint=none", "tool: unknown checkpoint 'none'"),
        (
            "--dataset_dir=records --tf_initial_checkpoint=W --model_variant=xception_65",
            "tool: --model_variant=xception_65 contradicts W, which has model_variant=tiny; leave the flag out",
        ),
        (
            "--dataset_dir=records --tf_initial_checkpoint=W --strategy=multi_worker",
            "tool: --train_batch_size is missing; expected a number: the memory of other machines is not known",
        ),
        (
            "--dataset_dir=records --tf_initial_checkpoint=W --train_split=nothing",
            "tool: dataset_dir=records: no files",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(line, message, tmp_path, checkpoint, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own(tmp_path / "records", 2, (40, 48))
    before = everything(tmp_path)
    assert finished(command, "--config=finetune", *line.replace("=W", f"={checkpoint}").split()) == 1
    assert one_line(capsys.readouterr().err).startswith(message.replace(" W,", f" {checkpoint},"))
    assert everything(tmp_path) == before


def test_the_doctor_compares_no_run_with_it(tmp_path, capsys):
    assert finished(doctor, f"--train_logdir={tmp_path}", "--config=finetune") == 1
    assert "--config=finetune: follows the data, so there is nothing to compare a run with" in capsys.readouterr().err


def test_the_memory_of_a_network_grows_with_its_crop():
    whole, small = memory.step_memory(dataclasses.replace(TINY, crop_size=(33, 33)))
    again, large = memory.step_memory(dataclasses.replace(TINY, crop_size=(65, 65)))
    assert whole == again > 0 and 3 < large / small < 5
    taught, each = memory.step_memory(dataclasses.replace(TINY, crop_size=(33, 33)), "shapes_resnet")
    assert taught > whole + 4 * 1_000_000 and small < each < 2 * small  # its weights; no gradients pass through it
    assert crop_and_batch._within(np.array([360, 480]), 321, 16) == (241, 321)
    assert TrainConfig().fine_tune_batch_norm
