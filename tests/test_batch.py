"""--train_batch_size=auto: the largest batch that fits, the rate for it, and runs that go on with theirs."""

import math
import types

import pytest
import tensorflow as tf
from absl import flags
from commands import everything, finished, one_line
from record_files import write_shapes

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.tools import train as train_tool
from deeplab_tf.training import batch, memory
from deeplab_tf.training.batch import Room, fitted, largest
from deeplab_tf.training.step import make_train_step
from deeplab_tf.weights.run_options import read_run

GIB = 2**30


class Device:
    """A probe: an update takes `own` and `each` bytes an image; from `fails` images on the device has no room."""

    def __init__(self, own: int, each: int, fails: float = math.inf) -> None:
        self.own, self.each, self.fails = own, each, fails
        self.asked: list[int] = []

    def __call__(self, count: int) -> int:
        self.asked.append(count)
        if count >= self.fails:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return self.own + count * self.each


@pytest.mark.parametrize(
    ("device", "room", "expected", "asked"),
    [
        (Device(10, 10), Room(1000, 10_000), 96, [8, 16, 96]),
        (Device(10, 10), Room(1000, 50), 48, [8, 16, 48]),
        (Device(10, 10), Room(75, 50), 6, [8, 4, 6, 7]),
        (Device(10, 10), Room(1000, 5), 5, [5]),
        (Device(10, 10), Room(19, 50), 0, [8, 4, 2, 1]),
        (Device(10, 10, fails=50), Room(1000, 10_000), 48, [8, 16, 96, 56, 32, 40, 48]),
        (Device(10, 10, fails=50), Room(math.inf, 10_000), 48, [8, 16, 32, 64, 48, 56]),
        (Device(10, 10, fails=3), Room(math.inf, 10_000), 2, [8, 4, 2, 3]),
        (Device(10, 0), Room(1000, 100), 96, [8, 16, 32, 64, 96]),
        (Device(10, 10), Room(1000, 10_000, parts=3), 96, [6, 12, 96]),
        (Device(10, 10), Room(1000, 20, parts=16), 16, [16]),
    ],
)
def test_the_search(device, room, expected, asked):
    count, used = largest(device, room)
    assert (count, device.asked) == (expected, asked)
    assert used == (device(count) if count else 0)


@pytest.mark.parametrize("fails", [1, 2, 7, 8, 9, 24, 25, 100, 333])
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("most", [3, 40, 10_000])
@pytest.mark.parametrize("size", [math.inf, 700])
def test_what_is_found_fits_and_can_be_trained(fails, parts, most, size):
    device = Device(50, 7, fails)
    count, used = largest(device, Room(size, most, parts))
    assert count == 0 or (count < fails and used <= size and count <= most and count % parts == 0)
    assert len(device.asked) <= 8 and len(set(device.asked)) == len(device.asked)
    if parts < min(fails, most) and size == math.inf and fails < 64:
        grid = math.lcm(8, parts)
        assert count >= (min(fails - 1, most) // grid * grid if min(fails - 1, most) >= grid else parts)


def test_other_errors_are_not_memory():
    def broken(count):
        raise tf.errors.InvalidArgumentError(None, None, f"{count} images")

    with pytest.raises(tf.errors.InvalidArgumentError):
        largest(broken, Room(1000, 50))


# ---- the option


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> str:
    return write_shapes(tmp_path_factory.mktemp("records"), "train", 20, (41, 41))


@pytest.fixture
def machine(monkeypatch):
    """A CPU with room for 13 images of the network.

    What a probe has left is not collected: that would walk through all of TensorFlow, a second each time.
    """
    monkeypatch.setattr(batch, "gc", types.SimpleNamespace(collect=lambda: None))
    monkeypatch.setattr(memory, "memory_at_hand", lambda gpus: (14 * GIB, "24.0 GiB free on this machine"))
    monkeypatch.setattr(memory, "step_memory", lambda config, teacher: (GIB, GIB))
    return monkeypatch


def asked_for(records: str, folder="", **changes) -> Experiment:
    parts = {TrainConfig: {"base_learning_rate": 0.007}, DataConfig: {"batch_size": 4}, RunConfig: {}}
    for part in parts:
        known = part.__dataclass_fields__
        parts[part] |= {name: value for name, value in changes.items() if name in known}
    return Experiment(
        ModelConfig(model_variant="tiny"),
        TrainConfig(**parts[TrainConfig]),
        DataConfig(**{"dataset": "shapes", "dataset_dir": records, "crop_size": (33, 33), **parts[DataConfig]}),
        RunConfig(train_logdir=str(folder) or None, **parts[RunConfig]),
    )


def test_the_rate_goes_with_the_batch(records, machine):
    found, line = fitted(asked_for(records), rate_given=False)
    assert (found.data.batch_size, found.train.base_learning_rate) == (8, 0.014)
    assert line == (
        "--train_batch_size=auto: 8: 8 images of 33 x 33 take about 9 GiB of 24.0 GiB free on this machine; "
        "--base_learning_rate=0.007 for 4 becomes 0.014"
    )
    assert found.model.num_classes == 9, "what follows from the data set stays"


@pytest.mark.parametrize(
    ("changes", "given", "rate", "said"),
    [
        ({}, True, 0.007, "--base_learning_rate=0.007 stays as given"),
        ({"optimizer": "adam"}, False, 0.007, "--adam_learning_rate=0.001 stays, Adam's steps do not depend on"),
        ({"optimizer": "adam", "adam_learning_rate": 0}, False, 0.014, "becomes 0.014"),
        ({"batch_size": 8}, False, 0.007, "--base_learning_rate=0.007 is for this batch"),
    ],
)
def test_rates_that_stay(changes, given, rate, said, records, machine):
    found, line = fitted(asked_for(records, **changes), rate_given=given)
    assert found.train.base_learning_rate == rate and said in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gradient_accumulation_steps": 2}, 16),  # in parts of 8
        ({"gradient_accumulation_steps": 6}, 18),  # in parts of 3; 24 are more than the pictures
        ({"num_clones": 2, "clone_on_cpu": True}, 12),  # each has half of the memory
    ],
)
def test_parts_and_devices(changes, expected, records, machine):
    machine.setattr(batch, "reserve_devices", lambda run: None)
    found, line = fitted(asked_for(records, **changes), rate_given=False)
    assert found.data.batch_size == expected, line
    assert ("on each device" in line) == ("num_clones" in changes)


@pytest.mark.heavy
def test_a_gpu_is_asked_by_running_updates(records, machine):
    """What TensorFlow says of the GPU's memory is made up; the updates run on the CPU."""
    asked: list[str] = []
    machine.setattr(memory, "gpus_used", lambda run: 1)
    machine.setattr(memory, "most_of_gpu", lambda: (900 * 2**20, "1.0 GiB of the GPU"))
    machine.setattr(tf.config.experimental, "reset_memory_stats", asked.append)
    machine.setattr(tf.config.experimental, "get_memory_info", lambda device: {"peak": 100 * 2**20 * len(asked)})
    told: list[str] = []
    teachers: list[object] = []

    def made(*arguments, teacher):
        teachers.append(teacher)
        return make_train_step(*arguments, teacher=teacher)

    machine.setattr(batch, "make_train_step", made)
    found, line = fitted(asked_for(records, teacher="shapes_resnet"), rate_given=True, tell=told.append)
    assert (found.data.batch_size, asked) == (16, ["GPU:0", "GPU:0"])
    assert "16 images of 33 x 33 take 200 MiB of 1.0 GiB of the GPU; there are 20 pictures" in line
    assert [teacher.count_params() > 1_000_000 for teacher in teachers] == [True]
    assert told == ["--train_batch_size=auto: updates of growing batches are tried on the GPU; each is compiled first"]


def test_the_pictures_are_the_bound(records, machine):
    machine.setattr(memory, "memory_at_hand", lambda gpus: (1000 * GIB, "1000 GiB free on this machine"))
    found, line = fitted(asked_for(records), rate_given=False)
    assert found.data.batch_size == 16 and "; there are 20 pictures; --base" in line


def test_too_large_for_one(records, machine):
    machine.setattr(memory, "memory_at_hand", lambda gpus: (GIB, "2.0 GiB free on this machine"))
    with pytest.raises(
        DeepLabError, match=r"auto: not even 1 image of 33 x 33 fit into 1 GiB of 2.0 GiB free.*smaller"
    ):
        fitted(asked_for(records), rate_given=False)


def test_other_machines_are_not_known(records, monkeypatch):
    with pytest.raises(DeepLabError, match="train_batch_size=auto: expected a number: the memory of other machines"):
        fitted(asked_for(records, strategy="multi_worker"), rate_given=False)
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(DeepLabError, match="expected a number: the memory of other machines"):
        fitted(asked_for(records), rate_given=False)


def test_a_run_that_goes_on_keeps_its_batch(records, tmp_path, monkeypatch):
    """On any machine, and with several: nothing is asked."""
    monkeypatch.setenv("TF_CONFIG", "{}")
    (tmp_path / "run.json").write_text('{"batch_size": 48, "base_learning_rate": 0.021}')
    found, line = fitted(asked_for(records, tmp_path), rate_given=False)
    assert (found.data.batch_size, found.train.base_learning_rate) == (48, 0.021)
    assert line == f"--train_batch_size=auto: 48, as the run in {tmp_path} began with it"
    for damaged in ('{"batch_size": "x", "base_learning_rate": 1}', '{"batch_size": 4}', '{"batch_size": true}', "{}x"):
        (tmp_path / "run.json").write_text(damaged)
        with pytest.raises(DeepLabError, match=r"run\.json: damaged"):
            fitted(asked_for(records, tmp_path), rate_given=False)


def test_python_takes_a_number():
    with pytest.raises(DeepLabError, match="batch_size='auto': expected a number; the flag alone takes auto"):
        DataConfig("shapes", batch_size="auto")  # pyright: ignore[reportArgumentType]


def test_the_flag(records, machine):
    def experiment(*line: str) -> Experiment:
        values = flags.FlagValues()
        train_tool.define(values)
        values(["train", f"--dataset_dir={records}", *line])
        return train_tool.experiment(values, said.append)

    said: list[str] = []
    recipe = ("--config=v3_resnet101", "--dataset=shapes", "--train_crop_size=33,33", "--train_split=train")
    found = experiment(*recipe, "--train_batch_size=AUTO")
    assert (found.data.batch_size, found.train.base_learning_rate) == (8, 0.0035), "the recipe's 0.007 is for 16"
    assert said[0].endswith("--base_learning_rate=0.007 for 16 becomes 0.0035")
    assert experiment(*recipe, "--train_batch_size=12").data.batch_size == 12
    assert experiment(*recipe, "--train_batch_size=auto", "--mode=eval").data.batch_size == 16, "nothing is trained"
    assert len(said) == 1


@pytest.mark.parametrize("value", ["many", "1.5", "auto,4"])
def test_what_is_no_number(value, records, capsys):
    assert finished(train_tool, "--train_logdir=x", f"--dataset_dir={records}", f"--train_batch_size={value}") == 1
    assert "expected a number, or auto" in one_line(capsys.readouterr().err)


def test_eval_takes_a_number(records, tmp_path, capsys):
    line = ("--checkpoint_dir=shapes_resnet", f"--eval_logdir={tmp_path / 'e'}", f"--dataset_dir={records}")
    assert finished(eval_tool, *line, "--eval_batch_size=auto") == 1
    assert "eval_batch_size" in one_line(capsys.readouterr().err) and not everything(tmp_path)


@pytest.mark.heavy
def test_the_command_trains_with_it_and_goes_on(records, tmp_path, machine, capsys):
    line = ("--dataset=shapes", f"--dataset_dir={records}", f"--train_logdir={tmp_path / 'run'}")
    line += ("--train_crop_size=33,33", "--model_variant=tiny", "--aspp_convs_filters=16", "--train_batch_size=auto")
    assert finished(train_tool, *line, "--training_number_of_steps=1") == 0
    assert capsys.readouterr().out.startswith("--train_batch_size=auto: 8: 8 images of 33 x 33 take about 9 GiB")
    machine.setattr(memory, "memory_at_hand", lambda gpus: (3 * GIB, "a smaller machine"))
    assert finished(train_tool, *line, "--training_number_of_steps=2") == 0
    assert f"auto: 8, as the run in {tmp_path / 'run'} began with it" in capsys.readouterr().out
    assert read_run(tmp_path / "run")["batch_size"] == 8
