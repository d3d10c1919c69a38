"""Trackers of a training run, without a network: what they get, in which of their runs, and what they must not do."""

import http.server
import json
import os
import socket
import struct
import sys
import threading
import types
from collections.abc import Iterator

import pytest
from observers import Recorder
from record_files import write_shapes

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.config.run import TRACKERS
from deeplab_tf.errors import DeepLabError
from deeplab_tf.training import trackers
from deeplab_tf.training.trackers import Trackers
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


def records(file) -> Iterator[bytes]:
    """Yields the records of a file of Weights & Biases, which is a log of LevelDB after a header of 7 bytes."""
    content = file.read_bytes()
    block, at, data = 32768, 7, b""
    while at + 7 <= len(content):
        if at % block > block - 7:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        data += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield data
            data = b""


def offline_runs(folder) -> list[tuple[str, dict, list[dict]]]:
    """Returns id, options and lines of the runs that Weights & Biases has kept in a folder, oldest first."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        name, options, lines = "", {}, []
        for record in map(Record.FromString, records(file)):
            name = record.run.run_id or name
            options |= {item.key: json.loads(item.value_json) for item in record.config.update}
            if record.history.item:
                items = [(item.key or "/".join(item.nested_key), item.value_json) for item in record.history.item]
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
    """Takes the place of a tracker: fails from its second call on."""

    run = "first"
    steps = []

    def __init__(self, library, kept, name, options):
        self.steps.clear()

    def log(self, step, values):
        self.steps.append(step)
        if step > 1:
            raise ConnectionError("the server\nhas gone")

    def end(self, how):
        self.steps.append(how)
        raise ConnectionError("still gone")


def trackers_of(folder, tell=print) -> Trackers:
    """Returns the trackers of a run that nobody trains."""
    asked = Experiment(run=RunConfig(train_logdir=str(folder), log_to="mlflow"))
    parts = {"config": asked.model, "train": asked.train, "data": asked.data, "options": asked.run, "asked": asked}
    devices = types.SimpleNamespace(is_chief=True)
    return Trackers(types.SimpleNamespace(directory=RunDirectory(folder), devices=devices, **parts), tell)


def test_a_tracker_that_fails_is_left_alone_and_told_once(tmp_path, monkeypatch):
    monkeypatch.setitem(trackers._KINDS, "mlflow", _Failing)
    told = []
    with trackers_of(tmp_path / "run", told.append) as made:
        for step in (1, 2, 3):
            made.log(step, {"total_loss": 1.0})
    assert _Failing.steps == [1, 2, "FAILED"]
    why = "(ConnectionError: the server)"
    assert told == [
        "Tracked by mlflow: run first",
        f"Note: mlflow gets nothing more of this start of the run {why}; {tmp_path}/run has the numbers of all steps",
    ]


def test_a_run_ends_as_it_ended(tmp_path):
    import mlflow

    with pytest.raises(ZeroDivisionError), trackers_of(tmp_path / "run") as made:
        made.log(1, {"eval/miou": float("nan"), "total_loss": 1.0})
        raise ZeroDivisionError
    with trackers_of(tmp_path / "other") as made:
        made.end("KILLED")
        made.log(2, {"total_loss": 1.0})
    found = {run.info.run_name: run for run in mlflow.MlflowClient().search_runs(["0"])}
    assert {name: run.info.status for name, run in found.items()} == {"run": "FAILED", "other": "KILLED"}
    assert found["run"].data.metrics == {"total_loss": 1.0} and not found["other"].data.metrics
    (tmp_path / "run" / "trackers.json").write_text('{"mlflow": "nowhere"}')
    with pytest.raises(DeepLabError) as error, trackers_of(tmp_path / "run"):
        pass
    said = str(error.value)
    assert said.startswith("--log_to=mlflow: no run nowhere: MlflowException: Run 'nowhere' not found")
    assert said.endswith(f"; without {tmp_path}/run/trackers.json new runs are begun")


@pytest.fixture
def overloaded() -> Iterator[tuple[str, list[str]]]:
    """The address of a server that answers 503 to all requests, and the paths of these."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(503)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "overloaded"])
def test_a_server_that_does_not_answer_is_told_soon(tmp_path, monkeypatch, overloaded, closed):
    address, asked = overloaded
    if closed:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(DeepLabError) as error, trackers_of(tmp_path / "run"):
        pass
    said = str(error.value)
    assert said.startswith("--log_to=mlflow: no run begun: ") and address.rpartition(":")[2] in said
    assert "\n" not in said and not (tmp_path / "run").exists()
    assert len(asked) == (0 if closed else 2), "MLflow would ask eight times within four minutes"
    assert not {*trackers._IMPATIENCE} & {*os.environ}


def test_only_the_chief_has_trackers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    asked = RunConfig(log_to="mlflow")
    worker = types.SimpleNamespace(is_chief=False)
    Trackers(types.SimpleNamespace(options=asked, devices=worker, directory=RunDirectory(tmp_path)), print)


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
    library = types.SimpleNamespace(__file__="x", setup=lambda: types.SimpleNamespace(settings=settings), login=login)
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


def test_names():
    assert RunConfig(log_to="mlflow,wandb,mlflow").log_to == ("mlflow", "wandb") and RunConfig(log_to="").log_to is None
    assert set(trackers._KINDS) == set(TRACKERS)
    with pytest.raises(DeepLabError, match="unknown log_to 'WandB'; did you mean wandb"):
        RunConfig(log_to="WandB")
