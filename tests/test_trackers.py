"""Trackers of a training run, without a network: what they get, in which of their runs, and what they must not do."""

import json
import sys
import types

import pytest
from observers import Recorder
from record_files import write_shapes

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.config.run import TRACKERS
from deeplab_tf.errors import DeepLabError
from deeplab_tf.training import trackers
from deeplab_tf.training.train import train
from deeplab_tf.weights.run_directory import SCORES, RunDirectory


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("records")
    write_shapes(folder, "val", 2, (41, 41))
    return write_shapes(folder, "train", 4, (41, 41))


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def run(dataset_dir, folder, *, steps=2, **options):
    observer = Recorder()
    data = DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=2)
    train(
        Experiment(
            ModelConfig(model_variant="tiny", aspp_convs_filters=16),
            TrainConfig(training_number_of_steps=steps),
            data,
            RunConfig(train_logdir=str(folder), **{"log_steps": 1, **options}),
        ),
        observer=observer,
    )
    return observer.lines


def offline_runs(folder) -> list[tuple[str, dict, list[dict]]]:
    """Returns id, options and lines of the runs that Weights & Biases has kept in a folder, oldest first."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    found = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        store = DataStore()
        store.open_for_scan(str(file))
        name, options, lines = "", {}, []
        while data := store.scan_data():
            record = Record.FromString(data)
            name = record.run.run_id or name
            options |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            options |= {item.key: json.loads(item.value_json) for item in record.config.update}
            if record.history.item:
                items = [("/".join(item.nested_key) or item.key, item.value_json) for item in record.history.item]
                lines.append({key: json.loads(value) for key, value in items})
        found.append((name, options, lines))
    return found


@pytest.mark.heavy
def test_both_get_options_losses_and_scores_and_a_run_that_goes_on_goes_on_there(dataset_dir, tmp_path):
    import mlflow

    scored = {"mode": "train_and_eval", "eval_interval_steps": 2, "log_to": "wandb,mlflow"}
    told = run(dataset_dir, tmp_path / "run", **scored)
    kept = json.loads((tmp_path / "run" / "trackers.json").read_text())
    assert [line for line in told if line.startswith("Track")] == [f"Tracked by {n}: run {kept[n]}" for n in TRACKERS]
    run(dataset_dir, tmp_path / "run", steps=4, **scored)
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == kept
    run(dataset_dir, tmp_path / "run", steps=4, **scored)  # is done, and opens nothing

    log = {line["step"]: line for line in RunDirectory(tmp_path / "run").lines()}
    scores = {line["step"]: line["miou"] for line in RunDirectory(tmp_path / "run").lines(SCORES)}
    client = mlflow.MlflowClient()
    (found,) = client.search_runs(["0"])
    assert (found.info.run_id, found.info.run_name, found.info.status) == (kept["mlflow"], "run", "FINISHED")

    def history(name):
        return {point.step: point.value for point in client.get_metric_history(kept["mlflow"], name)}

    for name, field in (("total_loss", "total_loss"), ("learning_rate", "learning_rate")):
        assert history(name) == {step: pytest.approx(line[field]) for step, line in log.items()}
    assert history("eval/miou_1.0_overall") == pytest.approx(scores) and set(scores) == {2, 4}
    assert found.data.params["train.training_number_of_steps"] == "2", "a parameter of MLflow stays"
    assert found.data.tags["now.train.training_number_of_steps"] == "4"
    assert found.data.params["model.model_variant"] == "tiny" and found.data.params["evaluation.eval_split"] == "val"

    first, second = offline_runs(tmp_path)
    assert first[0] == second[0] == kept["wandb"]
    assert first[1]["train"]["training_number_of_steps"] == 2 and second[1]["train"]["training_number_of_steps"] == 4
    lines = first[2] + second[2]
    assert {line["step"]: line["total_loss"] for line in lines if "total_loss" in line} == {
        step: pytest.approx(line["total_loss"]) for step, line in log.items()
    }
    assert {line["step"]: line["eval/miou_1.0_overall"] for line in lines if "total_loss" not in line} == scores


class _Failing:
    """Takes the place of a tracker: fails at each call after the first."""

    run = "first"

    def __init__(self, library, kept, name, options):
        self.calls = 0
        _Failing.made = self

    def log(self, step, values):
        self.calls += 1
        if self.calls == 2:
            raise ConnectionError("the server\nhas gone")

    def end(self, how):
        raise AssertionError("it has ended")


@pytest.mark.heavy
def test_a_tracker_that_fails_does_not_end_the_training_and_is_told_once(dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(trackers._KINDS, "mlflow", _Failing)
    told = run(dataset_dir, tmp_path / "run", steps=4, log_to="mlflow")
    notes = [line for line in told if line.startswith("Note: mlflow")]
    why = "(ConnectionError: the server)"
    assert notes == [f"Note: mlflow gets nothing more of this start of the run {why}; {tmp_path}/run has the numbers of "
                     "all steps"]  # fmt: skip
    assert _Failing.made.calls == 2
    assert [line["step"] for line in RunDirectory(tmp_path / "run").lines()] == [1, 2, 3, 4]


# ---- refused before anything is built


def refused(dataset_dir, folder, name) -> str:
    with pytest.raises(DeepLabError) as error:
        run(dataset_dir, folder, log_to=name)
    return str(error.value)


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("instead", [None, types.ModuleType("of a folder")], ids=["missing", "a folder of that name"])
def test_a_library_that_is_missing(dataset_dir, tmp_path, monkeypatch, name, instead):
    if instead:
        instead.__file__ = None
    monkeypatch.setitem(sys.modules, name, instead)
    assert refused(dataset_dir, tmp_path / "run", name) == (
        f"--log_to={name} needs {name}: pip install 'deeplab_tf[{name}]'"
    )
    assert not (tmp_path / "run").exists()


def test_no_login(dataset_dir, tmp_path, monkeypatch):
    def login():
        raise PermissionError("No API key configured.")

    settings = types.SimpleNamespace(mode="online")
    library = types.SimpleNamespace(
        __file__="x", setup=lambda: types.SimpleNamespace(settings=settings), login=login
    )
    monkeypatch.setitem(sys.modules, "wandb", library)
    expected = "--log_to=wandb: PermissionError: No API key configured. WANDB_MODE=offline needs no login"
    assert refused(dataset_dir, tmp_path / "run", "wandb") == expected
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"mlflow": 3}', "\xff"])
def test_names_of_runs_that_are_damaged(dataset_dir, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trackers.json").write_text(text, encoding="latin-1")
    said = refused(dataset_dir, tmp_path / "run", "mlflow")
    assert said.startswith(f"{tmp_path}/run/trackers.json: damaged (") and "\n" not in said


@pytest.mark.heavy
def test_a_run_that_its_tracker_has_lost(dataset_dir, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trackers.json").write_text('{"mlflow": "nowhere"}')
    said = refused(dataset_dir, tmp_path / "run", "mlflow")
    assert said.startswith("--log_to=mlflow: no run nowhere: MlflowException: Run 'nowhere' not found")
    assert said.endswith(f"; without {tmp_path}/run/trackers.json new runs are begun")


def test_names():
    assert RunConfig(log_to="mlflow,wandb,mlflow").log_to == ("mlflow", "wandb") and RunConfig(log_to="").log_to is None
    assert set(trackers._KINDS) == set(TRACKERS)
    with pytest.raises(DeepLabError, match="unknown log_to 'WandB'; did you mean wandb"):
        RunConfig(log_to="WandB")
