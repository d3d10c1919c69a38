"""The doctor's look at a run's folder: what is odd is found, and not in the folder of a sound run."""

import dataclasses
import functools
import json
import pathlib

import numpy as np
import pytest
from commands import finished

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.doctor.network import network_findings
from deeplab_tf.doctor.run import check_run, options_of
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import doctor
from deeplab_tf.tools.train import concerns
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.tf1 import variable_map, write_tensors

MODEL = ModelConfig(model_variant="tiny", num_classes=9, crop_size=(65, 65), aspp_convs_filters=16)
RECIPE = Experiment(
    MODEL,
    train=TrainConfig(training_number_of_steps=20),
    data=DataConfig(dataset="shapes", crop_size=(65, 65), batch_size=16),
)


@functools.cache
def tensors() -> dict[str, np.ndarray]:
    variables = variable_map(build_model(MODEL, zeros=True))
    return {name: np.zeros(variable.shape, np.float32) for name, variable in variables.items()}


def make_run(folder: pathlib.Path, *, card: dict | None = None, steps=(10, 20), losses=None, **changes) -> pathlib.Path:
    """Writes the folder of a run that was not run."""
    directory = RunDirectory(folder)
    directory.path.mkdir()
    options = {**options_of(RECIPE), "model": MODEL.to_json(), **changes}
    described = {"dataset": "shapes", "train_split": "train", **(card or {})}
    directory.describe(ModelCard(MODEL, **described), options)
    for step in steps:
        directory.save(step, tensors(), keep=5)
    for number, loss in enumerate(losses or np.linspace(2, 0.5, 20), 1):
        directory.log({"step": number, "cross_entropy": float(loss)})
    return folder


def other_network(folder: pathlib.Path):
    write_tensors(folder / "model.ckpt-20", {"tiny/strange": np.zeros(3, np.float32)})


def of_another_run(folder: pathlib.Path):
    for suffix in (".index", ".data-00000-of-00001"):
        (folder / f"model.ckpt-20{suffix}").rename(folder / f"model.ckpt-30000{suffix}")
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-30000"')


def truncated(folder: pathlib.Path):
    file = folder / "model.ckpt-20.index"
    file.write_bytes(file.read_bytes()[:40])


FOLDERS = {
    "other network": ("foreign-checkpoint", "error", other_network),
    "newer than the log": ("foreign-checkpoint", "error", of_another_run),
    "damaged": ("foreign-checkpoint", "error", truncated),
    "converted model": ("foreign-checkpoint", "warning", lambda f: (f / "model.ckpt.index").write_bytes(b"")),
    "stale state": (
        "stale-state",
        "warning",
        lambda f: (f / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-99"'),
    ),
    "no run.json": ("foreign-directory", "warning", lambda f: (f / "run.json").unlink()),
    "no deeplab.json": ("foreign-directory", "warning", lambda f: (f / "deeplab.json").unlink()),
    "no JSON": ("foreign-directory", "error", lambda f: (f / "run.json").write_text("{")),
    "of another program": ("foreign-directory", "error", lambda f: (f / "run.json").write_text('{"epochs": 3}')),
    "options of another kind": (
        "foreign-directory",
        "error",
        lambda f: (f / "run.json").write_text(
            (f / "run.json").read_text().replace('"batch_size": 16', '"batch_size": "x"')
        ),
    ),
    "no text for a log": ("foreign-log", "warning", lambda f: (f / "metrics.jsonl").write_bytes(b"\x80\x81")),
}
OPTIONS = {
    "batch-norm-batch": {"batch_size": 8},
    "loss-stuck": {"losses": [2.2] * 20},
    "loss-not-finite": {"losses": [2.0] * 19 + [float("nan")]},
    "foreign-directory": {"model": dataclasses.replace(MODEL, aspp_convs_filters=32).to_json()},
    "contaminated": {"card": {"train_split": "val"}},
}


def test_a_sound_run(tmp_path):
    found = check_run(make_run(tmp_path / "run"), {"small": RECIPE})
    assert [finding.code for finding in found.findings] == ["recipe"]
    assert found.facts["checkpoints"] == [10, 20]


@pytest.mark.parametrize("name", FOLDERS)
def test_odd_folders(tmp_path, name):
    code, severity, change = FOLDERS[name]
    change(make_run(tmp_path / "run"))
    found = check_run(tmp_path / "run", {})
    assert found.codes == (code,)
    assert found.findings[0].severity == severity and found.findings[0].cure


@pytest.mark.parametrize("code", OPTIONS)
def test_odd_options(tmp_path, code):
    found = check_run(make_run(tmp_path / "run", steps=(), **OPTIONS[code]), {})
    assert found.codes == (code,)


def test_batch_norm_by_the_part(tmp_path):
    def codes(name, **changes):
        return check_run(make_run(tmp_path / name, steps=(), **changes), {}).codes

    assert codes("a", gradient_accumulation_steps=2) == ("batch-norm-batch",)
    assert codes("b", num_clones=2) == ("batch-norm-batch",)
    words = [check_run(tmp_path / name, {}).findings[0].evidence[0] for name in "ab"]
    assert ["each device" in line for line in words] == [False, True]
    assert codes("c", num_clones=2, sync_batch_norm=True) == ()
    assert (
        codes("d", batch_size=2, fine_tune_batch_norm=False) == codes("e", batch_size=2, freeze_batch_norm=True) == ()
    )


def test_deviations_from_the_nearest_recipe(tmp_path):
    far = dataclasses.replace(RECIPE, train=TrainConfig(base_learning_rate=1.0, momentum=0.5))
    run = make_run(tmp_path / "run", steps=(), base_learning_rate=0.3)
    note = check_run(run, {"far": far, "near": RECIPE}).findings[0]
    assert (note.code, note.severity) == ("recipe-deviation", "note")
    assert note.evidence == (
        "1 options differ from the recipe near",
        "base_learning_rate: 0.3 here, 0.0001 in the recipe",
    )
    assert check_run(run, {"near": RECIPE}).codes == ("recipe-deviation",)  # it was asked for
    other = dataclasses.replace(RECIPE, data=dataclasses.replace(RECIPE.data, dataset="camvid"))
    others = {"first": other, "second": other}
    assert check_run(run, others).findings[0].code == "no-recipe"


def test_contamination_by_the_split_that_is_asked_for(tmp_path):
    run = make_run(tmp_path / "run", steps=())
    assert check_run(run, {}, eval_split="trainval").codes == ("contaminated",)


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"atrous_rates": (6, 12, 18)}, []),
        ({"atrous_rates": (12, 24, 36), "output_stride": 8, "crop_size": (513, 513)}, []),
        ({"atrous_rates": (6, 12, 18), "output_stride": 8}, ["rates-for-stride"]),
        ({"atrous_rates": (12, 24, 36)}, ["rates-for-stride"]),
        ({"atrous_rates": (6, 12, 18), "crop_size": (257, 513)}, ["rates-exceed-features"]),
        ({"atrous_rates": (6, 12, 18), "crop_size": (321, 513)}, []),
        ({"crop_size": (512, 513)}, ["crop-for-stride"]),
        ({"atrous_rates": (12,), "output_stride": 8, "aspp_with_batch_norm": False, "model_variant": "vgg16"}, []),
    ],
)
def test_networks(changes, codes):
    config = ModelConfig(**{"model_variant": "xception_65", **changes})
    assert [finding.code for finding in network_findings(config)] == codes


def test_cures_of_networks():
    (finding,) = network_findings(ModelConfig(model_variant="xception_65", output_stride=8, atrous_rates=(6, 12, 18)))
    assert finding.cure == "--atrous_rates=12,24,36, or --output_stride=16"
    (finding,) = network_findings(ModelConfig(crop_size=(512, 700)))
    assert finding.cure == "a crop of 513,705"


def test_training_says_what_is_odd_before_it_begins():
    model = ModelConfig(model_variant="xception_65", output_stride=8, atrous_rates=(6, 12, 18))
    run = RunConfig(train_split="trainval", mode="train_and_eval")
    lines = concerns(Experiment(model, data=DataConfig(batch_size=8), run=run))
    assert [line.split(" ")[0] for line in lines] == ["--atrous_rates=6,12,18", "batch", "the"]
    assert "contaminated: the weights were trained on trainval, which shares images with val" in lines[2]
    run = RunConfig(train_split="train_aug")
    sound = concerns(Experiment(model.at_output_stride(8), data=DataConfig(batch_size=16), run=run))
    assert sound == lines[:1]


def test_the_command_compares_with_the_recipes(tmp_path, capsys):
    run = make_run(tmp_path / "run", steps=(), batch_size=4)
    assert finished(doctor, f"--train_logdir={run}", "--config=camvid_frozen", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [finding["code"] for finding in found["findings"]] == ["batch-norm-batch", "recipe-deviation"]
    assert found["findings"][1]["evidence"][1] == "model_variant: tiny here, mobilenet_v2 in the recipe"
    with pytest.raises(DeepLabError, match="no such folder"):
        check_run(tmp_path / "none", {})


def test_a_run_that_ended_before_its_last_step(tmp_path):
    run = make_run(tmp_path / "run", training_number_of_steps=90)
    found = check_run(run, {})
    assert found.codes == ("unfinished",)
    assert found.findings[0].evidence == ("it stands at step 20 of 90, and no trainer is at work here",)
    with RunDirectory(run).locked():
        assert RunDirectory(run).in_use and check_run(run, {}).codes == ()
    assert not RunDirectory(run).in_use
    stopped = make_run(tmp_path / "stopped", training_number_of_steps=90, early_stop_patience=3, mode="train_and_eval")
    assert check_run(stopped, {}).codes == ()
    assert "unfinished" in [finding.code for finding in check_run(stopped, {}).findings]
    longer = make_run(tmp_path / "longer", training_number_of_steps=90, steps=(90,), losses=[1.0] * 90)
    assert check_run(longer, {}).codes == ()
