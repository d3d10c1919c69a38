"""A shortage of memory: which exceptions tell one, and the one line, with numbers to try, that each command ends in."""

import dataclasses
import functools
import types

import numpy as np
import pytest
import tensorflow as tf
from commands import everything, finished, one_line
from networks import SMALL, lively
from observers import Recorder
from record_files import write_shapes

from deeplab_tf.config import DataConfig, Experiment, Inference, ModelConfig, RunConfig, ServeConfig, TrainConfig
from deeplab_tf.errors import ShortageError, first_line, is_out_of_memory, what_was_asked
from deeplab_tf.inference.predictor import Predictor, predictor_of
from deeplab_tf.inference.tiles import segment_batch
from deeplab_tf.network.sizes import halved
from deeplab_tf.serving.engine import Engine
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.tools import export_model, predict, vis
from deeplab_tf.tools import train as train_tool
from deeplab_tf.training.precision import Hardware
from deeplab_tf.training.shortage import cures
from deeplab_tf.training.step import TrainStep
from deeplab_tf.training.train import train
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.tf1 import Receipt

CPU = Hardware("CPU", 1)
TINY = ModelConfig(model_variant="tiny", num_classes=9, aspp_convs_filters=16)


def raised(work) -> BaseException:
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


@functools.cache
def shortage() -> BaseException:
    """Returns what TensorFlow raises for want of a petabyte; it waits ten seconds for one each time."""
    return raised(lambda: tf.zeros([2**50], tf.int8))


def hungry(*_, **__):
    raise shortage().with_traceback(None)


# ---- what is a shortage of memory


def test_the_first_line_of_what_a_library_says():
    assert first_line(RuntimeError("\n  decoding failed \nframe 7")) == "decoding failed"
    assert first_line(RuntimeError()) == first_line(RuntimeError(" \n")) == "RuntimeError"


def test_what_tells_a_shortage(tmp_path):
    tensor = shortage()
    assert is_out_of_memory(tensor)
    assert what_was_asked(tensor) == "OOM when allocating tensor with shape[1125899906842624] and type int8"
    by_xla = raised(lambda: tf.function(lambda: tf.zeros([2**45], tf.int8) + 1, jit_compile=True)())
    assert is_out_of_memory(by_xla) and what_was_asked(by_xla).startswith(
        "Out of memory while trying to allocate 32.00"
    )
    by_numpy = raised(lambda: np.zeros(2**50, np.int8) + 1)
    assert is_out_of_memory(by_numpy) and what_was_asked(by_numpy) == "Unable to allocate 1.00 PiB"
    assert what_was_asked(MemoryError()) == "no room for what it needs"


@pytest.mark.parametrize(
    ("error", "message", "shortage"),
    [
        (
            tf.errors.NotFoundError,
            "No algorithm worked!  Error messages:\n  CUDNN engine 0: CUDNN_STATUS_ALLOC_FAILED",
            True,
        ),
        (tf.errors.InternalError, "cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY: out of memory", True),
        (tf.errors.UnknownError, "Failed to create cublas handle: CUBLAS_STATUS_ALLOC_FAILED", True),
        (tf.errors.ResourceExhaustedError, "Ran out of memory in memory space hbm", True),
        (tf.errors.ResourceExhaustedError, "/mnt/run/model.ckpt; No space left on device", False),
        (tf.errors.ResourceExhaustedError, "records; Too many open files", False),
        (tf.errors.ResourceExhaustedError, "/home; Disk quota exceeded", False),
        (tf.errors.NotFoundError, "no such file", False),
        (tf.errors.InvalidArgumentError, "shapes differ", False),
    ],
)
def test_codes_and_messages(error, message, shortage):
    assert is_out_of_memory(error(None, None, message)) == shortage


def test_other_exceptions_are_none():
    assert not is_out_of_memory(OSError(28, "No space left on device"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        ((513, 513), 16, (353, 353)),
        ((769, 1025), 16, (529, 721)),
        ((33, 33), 16, (17, 17)),
        ((17, 17), 16, (17, 17)),
        ((9, 9), 16, (9, 9)),
    ],
)
def test_half_the_area_keeps_the_grid(size, stride, expected):
    assert halved(size, stride) == expected


# ---- training


PARTS, FEWER, CROP = "--gradient_accumulation_steps=", "--train_batch_size=", "--train_crop_size=353,353"


@pytest.mark.parametrize(
    ("train", "data", "replicas", "expected"),
    [
        ({}, {"batch_size": 9}, 1, (f"{PARTS}3 (batch norm then sees 3 at a time)", f"{FEWER}4 with")),
        ({"gradient_accumulation_steps": 2}, {"batch_size": 12}, 2, (f"{PARTS}6 (batch norm", f"{FEWER}4 with")),
        ({"optimizer": "adam"}, {"batch_size": 2, "cut_mix": 0.5}, 1, (f"{PARTS}2", CROP)),
        ({"optimizer": "adam"}, {"batch_size": 4}, 1, (f"{PARTS}2", f"{FEWER}2")),
        ({}, {"batch_size": 1}, 1, (CROP,)),
        ({}, {"batch_size": 1, "crop_size": (17, 17)}, 1, ("a machine with more memory",)),
        (
            {"fine_tune_batch_norm": False},
            {"batch_size": 16},
            1,
            (f"{PARTS}2 (the same update, 8 at a time)", f"{FEWER}8 with --base_learning_rate=0.0035", CROP),
        ),
    ],
)
def test_the_numbers_to_try(train, data, replicas, expected):
    update = TrainConfig(base_learning_rate=0.007, **train)
    found = cures(update, DataConfig("shapes", **data), TINY, CPU, replicas)
    assert all(cure.startswith(start) for cure, start in zip(found, expected, strict=False)) and len(found) >= len(
        expected
    )
    assert "mixed_precision" not in "".join(found), "a CPU gains nothing"


def test_bfloat16_is_a_cure_where_the_device_has_it(monkeypatch):
    details = {"device_name": "NVIDIA A100", "compute_capability": (8, 0)}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    gpu = Hardware("GPU", 1, (types.SimpleNamespace(name="GPU:0"),))
    last = "in another folder --mixed_precision=bfloat16"
    assert cures(TrainConfig(), DataConfig("shapes"), TINY, gpu, 1)[-1] == last
    assert last not in cures(TrainConfig(mixed_precision="bfloat16"), DataConfig("shapes"), TINY, gpu, 1)
    assert last not in cures(TrainConfig(), DataConfig("shapes"), ModelConfig(quantize_delay_step=0), gpu, 1)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> str:
    return write_shapes(tmp_path_factory.mktemp("records"), "train", 4, (41, 41))


@pytest.mark.heavy
def test_a_run_ends_with_its_checkpoint_named(records, tmp_path, monkeypatch, capsys):
    line = (
        "--dataset=shapes",
        f"--dataset_dir={records}",
        f"--train_logdir={tmp_path / 'run'}",
        "--train_crop_size=33,33",
    )
    line += ("--train_batch_size=4", "--model_variant=tiny", "--aspp_convs_filters=16", "--training_number_of_steps=3")
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", hungry)
        assert finished(train_tool, *line) == 1
    said = one_line(capsys.readouterr().err)
    run = RunDirectory(tmp_path / "run")
    assert said == (
        "tool: not enough memory for updates of 4 images of 33 x 33 on 1 x CPU (OOM when allocating tensor with "
        "shape[1125899906842624] and type int8): try --gradient_accumulation_steps=2 (batch norm then sees 2 at a time)"
        ", or --train_batch_size=2 with --base_learning_rate=5e-05, or --train_crop_size=17,17; "
        f"{run.prefix(0)} is intact, and --allow_change with the option's name goes on from it"
    )
    allowed = "--allow_change=train_batch_size,base_learning_rate"
    assert finished(train_tool, *line, "--train_batch_size=2", "--base_learning_rate=5e-05", allowed) == 0
    assert run.steps()[-1] == 3


@pytest.mark.heavy
def test_scores_of_a_run_keep_it_intact(records, tmp_path, monkeypatch):
    data = DataConfig("shapes", records, crop_size=(33, 33), batch_size=2)
    update = TrainConfig(training_number_of_steps=1)
    options = RunConfig(train_logdir=str(tmp_path / "run"), mode="train_and_eval")
    asked = Experiment(dataclasses.replace(TINY), update, data, options)
    asked = dataclasses.replace(asked, evaluation=dataclasses.replace(asked.evaluation, eval_split="train"))
    monkeypatch.setattr(Predictor, "labels", hungry)
    with pytest.raises(ShortageError, match=r"not enough memory for 1 images.*model\.ckpt-1 is intact$"):
        train(asked, observer=Recorder())


# ---- everything that predicts


@pytest.mark.parametrize(
    ("count", "inference", "expected"),
    [
        (4, Inference(), "try a batch of 2 or --large_images=tile with a crop of 353,353"),
        (1, Inference((0.5, 1.0, 1.75)), "try the scales 0.5,1 alone or --large"),
        (1, Inference((1.75,)), "try the scales 1 alone or --large"),
        (1, Inference(large_images="tile"), "with a crop of 81,81"),
    ],
)
def test_batches_are_told_what_fits(count, inference, expected, monkeypatch):
    predictor = Predictor(dataclasses.replace(SMALL, crop_size=(129, 129)), types.SimpleNamespace())
    monkeypatch.setattr(predictor, "labels", hungry)
    with pytest.raises(ShortageError, match=rf"not enough memory for {count} images of 513 x 513 .*{expected}"):
        segment_batch(predictor, np.zeros((count, 513, 513, 3), np.float32), inference=inference)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "m"
    config = dataclasses.replace(SMALL, num_classes=9)
    save_model(folder, lively(config), Receipt("x", "", {}, {}), card=ModelCard(config, dataset="shapes"))
    return str(folder)


OF_RECORDS = ("--dataset=shapes", "--{}_split=train", "--{}_crop_size=65,65")
COMMANDS = {
    eval_tool: (
        "--checkpoint_dir={model}",
        "--eval_logdir={out}",
        "--dataset_dir={records}",
        *(f.format("eval") for f in OF_RECORDS),
    ),
    vis: (
        "--checkpoint_dir={model}",
        "--vis_logdir={out}",
        "--dataset_dir={records}",
        *(f.format("vis") for f in OF_RECORDS),
    ),
    export_model: ("--checkpoint_path={model}", "--export_path={out}/m", "--crop_size=65,65", "--inference_scales=1,2"),
}
LINES = {
    eval_tool: "not enough memory for 1 images of 65 x 65 (OOM when",
    vis: "not enough memory for 1 images of 65 x 65 (OOM when",
    export_model: "not enough memory for the export (OOM when",
}


@pytest.mark.heavy
@pytest.mark.parametrize("tool", COMMANDS, ids=lambda tool: tool.__name__.rpartition(".")[2])
def test_commands_end_in_one_line(tool, model_folder, records, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Predictor, "labels", hungry)
    (tmp_path / "out").mkdir()
    places = {"model": model_folder, "records": records, "out": tmp_path / "out"}
    assert finished(tool, *(argument.format(**places) for argument in COMMANDS[tool])) == 1
    said = one_line(capsys.readouterr().err)
    assert said.startswith(f"tool: {LINES[tool]}")
    cure = (
        "--crop_size=41,41 or --inference_scales=1"
        if tool is export_model
        else "--large_images=tile with a crop of 33,33"
    )
    assert said.endswith(f"try {cure}")
    assert not [name for name in everything(tmp_path / "out") if "event" not in name and "segmentation" not in name]


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ((), "--longest_side=353"),
        (("--resize=none",), "--max_pixels=2100000 or --resize=longest"),
        (("--resize=none", "--max_pixels=66049", "--eval_scales=0.5,2"), "--eval_scales=0.5 or --resize=longest"),
    ],
)
def test_a_picture_that_does_not_fit(options, cure, model_folder, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "p.png"
    tf.io.write_file(str(picture), tf.io.encode_png(np.zeros((9, 9, 3), np.uint8)))
    monkeypatch.setattr(Predictor, "labels", hungry)
    line = (f"--checkpoint={model_folder}", f"--input={picture}", f"--output_dir={tmp_path / 'out'}", "--runtime=tf")
    assert finished(predict, *line, *options) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said and said.strip().endswith(
        f"p.png: not enough memory (OOM when allocating tensor with shape[1125899906842624] and type int8); try {cure}"
    )


def test_what_no_part_has_named_is_one_line_too(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("deeplab_tf.weights.loading.open_model", hungry)
    line = (f"--checkpoint={model_folder}", f"--input={tmp_path}", f"--output_dir={tmp_path / 'out'}")
    (tmp_path / "p.png").touch()
    assert finished(predict, *line) == 1
    assert one_line(capsys.readouterr().err).startswith("tool: not enough memory (OOM when allocating tensor")


def test_the_server_runs_one_by_one_what_does_not_fit_together(monkeypatch):
    model = lively(SMALL)
    engine = Engine(model, ModelCard(SMALL), ServeConfig(runtime="tf"))
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3)).astype(np.uint8)
    expected, labels = predictor_of(model).labels(images), Predictor.labels

    def narrow(self, images, inference):
        return labels(self, images, inference) if len(images) == 1 else hungry()

    monkeypatch.setattr(Predictor, "labels", narrow)
    np.testing.assert_array_equal([found for found, _ in engine._run(images)], expected)
