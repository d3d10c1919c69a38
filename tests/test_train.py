"""Training runs: the log, checkpoints, resuming bit for bit, kills, signals, and folders of other experiments."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from observers import Recorder
from record_files import write_shapes

import deeplab_tf
from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.training.train import train
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.tf1 import variable_map, write_tensors

STEPS = 6
MODEL = ModelConfig(model_variant="tiny", aspp_convs_filters=16)


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> str:
    return write_shapes(tmp_path_factory.mktemp("records"), "train", 10, (49, 41))


def run(dataset_dir, log_dir, *, steps=STEPS, observer=None, **changes):
    update = TrainConfig(training_number_of_steps=steps, base_learning_rate=0.01, fine_tune_batch_norm=True)
    options = {"log_steps": 2, "deterministic": True, **changes}
    data = DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=4)
    return train(Experiment(MODEL, update, data, RunConfig(train_logdir=str(log_dir), **options)), observer=observer)


def tensors(prefix: str) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def equal(first: str, second: str) -> bool:
    a, b = tensors(first), tensors(second)
    return set(a) == set(b) and all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.fixture(scope="module")
def whole(dataset_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return run(dataset_dir, folder), folder


@pytest.mark.heavy
def test_a_run_leaves_checkpoints_a_log_and_a_model(whole):
    outcome, folder = whole
    assert outcome.step == STEPS and not outcome.stopped
    assert RunDirectory(folder).steps() == [0, STEPS]
    held = tensors(outcome.checkpoint)
    assert held["global_step"] == STEPS and "logits/semantic/weights/Momentum" in held
    log = RunDirectory(folder).lines()
    assert [line["step"] for line in log] == [2, 4, 6]
    assert all(line["total_loss"] == pytest.approx(line["cross_entropy"] + line["regularization"]) for line in log)
    assert all(0 <= line["waiting"] <= 1 for line in log)
    loaded = open_model(folder)
    assert loaded.card.dataset == "shapes" and loaded.card.train_split == "train"
    assert deeplab_tf.predict(loaded.model, np.zeros((1, 20, 30, 3))).shape == (1, 20, 30)


@pytest.mark.heavy
def test_training_changes_what_it_should(whole):
    _, folder = whole
    before, after = tensors(str(folder / "model.ckpt-0")), tensors(str(folder / f"model.ckpt-{STEPS}"))
    weights = [n for n in before if not n.endswith(("Momentum", "global_step"))]
    assert all(not np.array_equal(before[n], after[n]) for n in weights if n.endswith(("weights", "gamma", "mean")))


@pytest.fixture(scope="module")
def part(dataset_dir, tmp_path_factory):
    """The same run, stopped after three steps: the schedule needs the whole length, so that fewer would not do."""
    folder = tmp_path_factory.mktemp("part") / "run"
    outcome = _stopped_after(dataset_dir, folder, 3)
    assert outcome.stopped and outcome.step == 3
    return folder


@pytest.mark.heavy
def test_an_interrupted_run_goes_on_bit_for_bit(dataset_dir, tmp_path, whole, part):
    """It keeps two of its checkpoints, of one after each step."""
    shutil.copytree(part, tmp_path / "run")
    observer = Recorder()
    resumed = run(dataset_dir, tmp_path / "run", observer=observer, save_interval_secs=0, keep_checkpoints=2)
    assert "Going on from" in observer.lines[0] and resumed.step == STEPS
    assert equal(resumed.checkpoint, whole[0].checkpoint)
    assert RunDirectory(tmp_path / "run").steps() == [STEPS - 1, STEPS]
    assert not list((tmp_path / "run").glob(".partial*"))
    log = [line["step"] for line in RunDirectory(tmp_path / "run").lines()]
    assert [line["step"] for line in RunDirectory(tmp_path / "run").events()] == [0, 3], "each start is told once"
    assert log == sorted(set(log)) and log[-1] == STEPS
    assert run(dataset_dir, tmp_path / "run").step == STEPS, "a run that is done does nothing"


def _stopped_after(dataset_dir, folder, steps: int):
    update = TrainConfig(training_number_of_steps=STEPS, base_learning_rate=0.01)
    data = DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=4)
    options = RunConfig(train_logdir=str(folder), log_steps=1, deterministic=True)

    def report(progress):
        if progress.step == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    # log_steps only says how often is reported: it may differ between the parts of a run.
    return train(Experiment(MODEL, update, data, options), observer=Recorder(report))


def test_another_experiment_is_refused_and_named(dataset_dir, tmp_path, whole):
    _, folder = whole
    before = sorted(path.name for path in folder.iterdir())
    update = TrainConfig(training_number_of_steps=STEPS, base_learning_rate=0.02)
    data = DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=4)
    options = RunConfig(train_logdir=str(folder), deterministic=True)
    with pytest.raises(DeepLabError, match="another experiment.*base_learning_rate: 0.01 then, 0.02 now"):
        train(Experiment(MODEL, update, data, options))
    assert sorted(path.name for path in folder.iterdir()) == before


def test_two_trainers_do_not_share_a_folder(dataset_dir, tmp_path):
    with RunDirectory(tmp_path / "run").locked(), pytest.raises(DeepLabError, match="another trainer"):
        run(dataset_dir, tmp_path / "run")


@pytest.mark.heavy
def test_a_loss_that_is_not_finite_stops_with_the_last_checkpoint_intact(dataset_dir, tmp_path):
    update = TrainConfig(training_number_of_steps=50, base_learning_rate=1e30)
    data = DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=4)
    options = RunConfig(train_logdir=str(tmp_path / "run"), log_steps=1, save_interval_secs=0)
    with pytest.raises(DeepLabError, match="the loss is.*intact.*base_learning_rate"):
        train(Experiment(MODEL, update, data, options))
    assert all(np.all(np.isfinite(v)) for v in tensors(str(RunDirectory(tmp_path / "run").latest())).values())


@pytest.mark.heavy
def test_fine_tuning_from_other_classes(dataset_dir, tmp_path, whole):
    outcome, _ = whole
    source = {n: v for n, v in tensors(outcome.checkpoint).items() if not n.endswith("Momentum")}
    source["logits/semantic/weights"] = np.zeros((1, 1, 16, 21), np.float32)
    source["logits/semantic/biases"] = np.zeros(21, np.float32)
    write_tensors(tmp_path / "other" / "model.ckpt", source)
    initial = {"tf_initial_checkpoint": str(tmp_path / "other" / "model.ckpt")}
    with pytest.raises(DeepLabError, match="initialize_last_layer=false.*last_layers_contain_logits_only"):
        run(dataset_dir, tmp_path / "refused", **initial)
    observer = Recorder()
    run(dataset_dir, tmp_path / "run", steps=1, observer=observer, initialize_last_layer=False, **initial)
    assert "loaded" in observer.lines[0] and "excluded" in observer.lines[0]
    first = tensors(str(tmp_path / "run" / "model.ckpt-0"))
    name = "Tiny/Conv/weights"
    assert np.array_equal(first[name], source[name]) and first["global_step"] == 0
    assert first["logits/semantic/biases"].shape == (9,)
    assert not np.array_equal(first["aspp0/weights"], source["aspp0/weights"])


@pytest.mark.heavy
def test_fine_tuning_from_the_zoo(dataset_dir, tmp_path):
    observer, source = Recorder(), open_model("shapes_resnet")
    data = DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=2)
    options = RunConfig(train_logdir=str(tmp_path / "run"), tf_initial_checkpoint="shapes_resnet")
    update = TrainConfig(training_number_of_steps=1)
    train(Experiment(source.card.config, update, data, options), observer=observer)
    first, name = tensors(str(tmp_path / "run" / "model.ckpt-0")), "SmallResNet/conv1/weights"
    assert np.array_equal(first[name], variable_map(source.model)[name].numpy())
    assert "missing  " in observer.lines[0] and first["global_step"] == 0


def test_nothing_in_common_is_an_error(dataset_dir, tmp_path):
    write_tensors(tmp_path / "model.ckpt", {"vgg/weights": np.zeros(3, np.float32)})
    with pytest.raises(DeepLabError, match="none of its 1 variables"):
        run(dataset_dir, tmp_path / "run", tf_initial_checkpoint=str(tmp_path / "model.ckpt"))


@pytest.mark.heavy
def test_a_run_of_tensorflow_1_goes_on(dataset_dir, tmp_path, whole, part):
    """Its folder has checkpoints, with slots and global_step, and nothing of ours."""
    (tmp_path / "run").mkdir()
    for name in ("checkpoint", "model.ckpt-3.index", "model.ckpt-3.data-00000-of-00001"):
        shutil.copy(part / name, tmp_path / "run")
    observer = Recorder()
    outcome = run(dataset_dir, tmp_path / "run", observer=observer)
    assert "Going on from" in observer.lines[0] and equal(outcome.checkpoint, whole[0].checkpoint)
    assert open_model(tmp_path / "run").card.dataset == "shapes"


def test_checkpoints_of_another_network_are_left_alone(dataset_dir, tmp_path, whole):
    (tmp_path / "run").mkdir()
    for name in (f"model.ckpt-{STEPS}.index", f"model.ckpt-{STEPS}.data-00000-of-00001"):
        shutil.copy(whole[1] / name, tmp_path / "run")
    update = TrainConfig(training_number_of_steps=STEPS, optimizer="adam")
    data = DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=4)
    with pytest.raises(DeepLabError, match="variables do not fit this run .*not there.*--tf_initial_checkpoint"):
        train(Experiment(MODEL, update, data, RunConfig(train_logdir=str(tmp_path / "run"))))
    assert sorted(path.suffix for path in (tmp_path / "run").iterdir()) == ["", ".data-00000-of-00001", ".index"]


_FULL_DISK = """
import resource, signal, sys
from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.training.progress import TrainingObserver
from deeplab_tf.training.train import train

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

class Filler(TrainingObserver):
    def progressed(self, progress):
        if progress.step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

model, update = ModelConfig(model_variant="tiny", aspp_convs_filters=16), TrainConfig(training_number_of_steps=5)
data = DataConfig(dataset="shapes", dataset_dir=sys.argv[1], crop_size=(33, 33), batch_size=2)
run = RunConfig(train_logdir=sys.argv[2], log_steps=1, save_interval_secs=0, keep_checkpoints=1, deterministic=True)
try:
    train(Experiment(model, update, data, run), observer=Filler())
except ValueError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.heavy
def test_a_full_disk_is_named_and_the_last_checkpoint_stays(dataset_dir, tmp_path):
    command = [sys.executable, "-c", _FULL_DISK, dataset_dir, str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.startswith("UnwritableError ") and "cannot be written" in ended.stdout
    left = RunDirectory(tmp_path / "run")
    assert left.steps() == [1] and int(tensors(str(left.latest()))["global_step"]) == 1
    assert not list((tmp_path / "run").glob(".partial-*"))


@pytest.mark.heavy
def test_statistics_are_unfolded_and_measured_anew(dataset_dir, tmp_path, whole):
    source = whole[0].checkpoint
    with pytest.raises(DeepLabError, match="unfold_batch_norm=2: needs tf_initial_checkpoint"):
        run(dataset_dir, tmp_path / "refused", unfold_batch_norm=2)
    data = DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=4)
    options = {"unfold_batch_norm": 2, "recalibrate_batch_norm": 3, "tf_initial_checkpoint": source}
    run_config = RunConfig(train_logdir=str(tmp_path / "run"), **options)
    train(Experiment(MODEL, TrainConfig(training_number_of_steps=2, dropout=False), data, run_config))
    before, first, last = (
        tensors(path) for path in (source, *(str(tmp_path / "run" / f"model.ckpt-{i}") for i in (0, 2)))
    )
    images = np.zeros((2, 33, 33, 3), np.float32)
    outputs = []
    for values in (before, first):
        model = deeplab_tf.build_model(open_model(tmp_path / "run").card.config)
        for name, variable in variable_map(model).items():
            variable.assign(values[name])
        outputs.append(model(images).numpy())
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-3, atol=1e-3 * np.abs(outputs[0]).max())
    name = "Tiny/Conv/BatchNorm/moving_variance"
    assert not np.allclose(first[name], before[name], rtol=0.01)
    assert not np.allclose(last[name], first[name], rtol=1e-4), "more than two steps of the moving average would do"


# Forked from one process that has imported everything, a run begins within a second. Each is killed at some instant,
# often in the middle of a save: with save_interval_secs=0 most of the time is spent there. test_killed_saves.py has
# each single write.
_KILLS = """
import os, signal, sys, time
from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.training.train import train
from deeplab_tf.weights.run_directory import RunDirectory

def begin(folder):
    process = os.fork()
    if process:
        return process
    try:
        update = TrainConfig(training_number_of_steps=STEPS, base_learning_rate=0.01)
        data = DataConfig(dataset="shapes", dataset_dir=sys.argv[1], crop_size=(33, 33), batch_size=2)
        run = RunConfig(train_logdir=folder, deterministic=True, save_interval_secs=0, keep_checkpoints=2)
        train(Experiment(ModelConfig(model_variant="tiny", aspp_convs_filters=16), update, data, run))
        os._exit(0)
    except BaseException as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)

STEPS, KILLS, folders = 100, 20, sys.argv[2:]
assert os.waitpid(begin(folders[0]), 0)[1] == 0
run, reached, kills = RunDirectory(folders[1]), set(), 0
while kills < KILLS:
    process, before = begin(folders[1]), run.steps()
    while run.steps() == before:
        assert os.waitpid(process, os.WNOHANG) == (0, 0), "the run ended by itself"
        time.sleep(0.002)
    time.sleep(0.03 * kills / KILLS)  # all over the next two or three steps and their checkpoints
    os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status), f"the run ended by itself after the last step: {status}"
    kills += 1
    reached.add(run.steps()[-1])
print(kills, len(reached), max(reached))
assert os.waitpid(begin(folders[1]), 0)[1] == 0
"""


@pytest.mark.heavy
def test_killed_at_twenty_instants_the_run_ends_equal(dataset_dir, tmp_path):
    folders = [str(tmp_path / name) for name in ("whole", "killed")]
    command = [sys.executable, "-c", _KILLS, dataset_dir, *folders]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert ended.returncode == 0, ended.stderr[-3000:]
    kills, different, last = map(int, ended.stdout.split()[-3:])
    assert kills == 20 and different > 5 and last < 100, "the kills must fall into the run"
    whole, killed = (str(RunDirectory(folder).latest()) for folder in folders)
    assert whole.endswith("-100") and equal(whole, killed)
    assert not list((tmp_path / "killed").glob(".partial-*"))
