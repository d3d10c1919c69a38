"""The commands: help without TensorFlow, flags from fields, exit statuses, and converting what is damaged or wrong."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from commands import finished, one_line
from conftest import ROOT
from golden import golden_tensor

from deeplab_tf.config import ModelConfig, PredictConfig, TrainConfig
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import cli, convert, options, predict
from deeplab_tf.version import __version__
from deeplab_tf.weights.tf1 import variable_map, write_tensors
from deeplab_tf.zoo import lookup

SMALL = ModelConfig(depth_multiplier=0.25, num_classes=3, aspp_convs_filters=16)
DATA = "model.ckpt.data-00000-of-00001"


# ---- help


def started(*command: str) -> subprocess.CompletedProcess:
    """Runs a Python program that reports what it imports on standard error."""
    environment = {**os.environ, "COLUMNS": "80"}
    command = [sys.executable, "-X", "importtime", *command]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


def imported(done: subprocess.CompletedProcess) -> set[str]:
    """Returns the top-level names of the modules that a process imported."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.split("|")[-1].strip().partition(".")[0] for line in lines}


HEAVY_MODULES = {"tensorflow", "keras", "PIL", "tensorflow_datasets", "keras_cv", "matplotlib"}


@pytest.mark.parametrize("command", cli.COMMANDS)
@pytest.mark.parametrize("way", ["deeplab-tf", "python tools"])
def test_help(command, way):
    start = ["-m", "deeplab_tf.tools.cli", command] if way == "deeplab-tf" else [f"tools/{cli.file_of(command)}.py"]
    done = started(*start, "--help")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "absl" in imported(done)
    assert not imported(done) & HEAVY_MODULES
    assert "Flags:" in done.stdout
    assert not [line for line in done.stderr.splitlines() if not line.startswith("import time:")]


def test_help_lists_every_flag_with_its_default(capsys):
    for tool, classes in {convert: [ModelConfig], predict: [ModelConfig, PredictConfig]}.items():
        assert finished(tool.run, "--helpfull") == 0
        text = capsys.readouterr().out
        assert tool.__doc__.strip().splitlines()[0] in " ".join(text.split())
        for config in classes:
            for name, field in config.__dataclass_fields__.items():
                switch = f"  --[no]{name}\n" if field.type is bool else f"  --{name}\n"
                assert switch in text
        assert max(map(len, text.splitlines())) <= 120
    told = " ".join(text.split())
    assert "(default: mask,overlay,raw)" in told and "(default: mobilenet_v2)" in told


def test_help_wins_over_mistakes(capsys):
    assert finished(predict.run, "--nonsense", "--help") == 0
    assert finished(predict.run, "-h") == 0
    assert "Flags:" in capsys.readouterr().out


def test_usage_of_the_console_script(capsys):
    for arguments, status in {("--help",): 0, ("-h",): 0, ("help",): 0, (): 1}.items():
        assert finished(cli.main, *arguments) == status
        text = capsys.readouterr().out
        assert all(f"\n  {command} " in text for command in cli.COMMANDS)
    done = started("-m", "deeplab_tf.tools.cli", "--help")
    assert done.returncode == 0 and all(command in done.stdout for command in cli.COMMANDS)
    assert not imported(done) & HEAVY_MODULES


def test_version(capsys):
    assert finished(cli.main, "--version") == 0
    assert capsys.readouterr().out == f"deeplab_tf {__version__}\n"


def test_unknown_command(capsys):
    assert finished(cli.main, "convertt") == 1
    assert (
        one_line(capsys.readouterr().err)
        == "deeplab-tf: unknown command 'convertt'; did you mean convert or convert-to-tflite?"
    )
    assert finished(cli.main, "xyz") == 1
    message = one_line(capsys.readouterr().err)
    assert all(command in message for command in cli.COMMANDS)


def test_installed_console_script():
    script = shutil.which("deeplab-tf", path=str(pathlib.Path(sys.executable).parent))
    assert script, "deeplab-tf is not installed beside this Python"
    done = subprocess.run([script, "convert"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("deeplab-tf convert: --checkpoint is missing")


# ---- flags


def parsed(config_class, *arguments: str):
    """The configuration that a command line gives."""
    values = flags.FlagValues()
    options.define_flags(values, config_class)
    values(["tool", *arguments])
    return config_class(**options.given(values, config_class))


@pytest.mark.parametrize(
    ("name", "together", "apart", "expected"),
    [
        ("atrous_rates", ["6,12,18"], ["6", "12", "18"], (6, 12, 18)),
        ("crop_size", ["513,769"], ["513", "769"], (513, 769)),
        ("decoder_output_stride", ["8,4"], ["8", "4"], (8, 4)),
        ("image_pyramid", ["0.5,1.0"], ["0.5", "1"], (0.5, 1.0)),
        ("image_pooling_stride", ["4,5"], ["4", "5"], (4, 5)),
        ("atrous_rates", ["12"], ["12,"], (12,)),
        ("atrous_rates", [""], [], None),
    ],
)
def test_both_syntaxes_of_lists(name, together, apart, expected):
    first = parsed(ModelConfig, *(f"--{name}={value}" for value in together))
    assert first == parsed(ModelConfig, *(f"--{name}={value}" for value in apart))
    assert getattr(first, name) == expected


def test_lists_of_prediction():
    together = parsed(PredictConfig, "--eval_scales=0.5,1.0", "--save=raw,mask")
    assert together == parsed(PredictConfig, "--eval_scales=0.5", "--eval_scales=1.0", "--save=raw", "--save=mask")
    assert together.eval_scales == (0.5, 1.0) and together.save == ("raw", "mask")


def test_other_kinds_of_flags():
    found = parsed(ModelConfig, "--noadd_image_level_feature", "--depth_multiplier=0.5", "--num_classes", "19")
    assert (found.add_image_level_feature, found.depth_multiplier, found.num_classes) == (False, 0.5, 19)
    assert parsed(ModelConfig, "--decoder_use_sum_merge=true").decoder_use_sum_merge
    assert parsed(ModelConfig) == ModelConfig() and parsed(PredictConfig) == PredictConfig()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "auto"),
        (["--jit_compile"], "true"),
        (["--nojit_compile"], "false"),
        (["--jit_compile=auto"], "auto"),
        (["--jit_compile=AUTO"], "auto"),
        (["--jit_compile=1"], "true"),
        (["--jit_compile=False"], "false"),
        (["--jit_compile", "--seed=3"], "true"),
    ],
    ids=str,
)
def test_a_switch_is_given_as_a_boolean_flag_is(arguments, expected):
    assert parsed(TrainConfig, *arguments).jit_compile == expected


def test_a_switch_that_is_none(capsys):
    def define(values):
        options.define_flags(values, TrainConfig)

    with pytest.raises(SystemExit):
        options.run(lambda values: None, define, ["tool", "--jit_compile=maybe"])
    assert "--jit_compile=maybe: expected one of auto, true, false" in one_line(capsys.readouterr().err)
    values = flags.FlagValues()
    define(values)
    values(["tool", "--nojit_compile"])
    assert values["jit_compile"].serialize() == "--jit_compile=false"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--num_classes=x"], "num_classes"),
        (["--add_image_level_feature=maybe"], "add_image_level_feature"),
        (["--atrous_rate=6"], "Did you mean: atrous_rates"),
        (["--num_classes"], "num_classes"),
        (["left over"], "unexpected argument 'left over'"),
    ],
)
def test_flags_that_do_not_parse(arguments, expected, capsys):
    assert finished(convert.run, *arguments) == 1
    assert expected in one_line(capsys.readouterr().err)


def test_interruption_is_no_traceback(capsys):
    def interrupted(values):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as done:
        options.run(interrupted, lambda values: None, ["tool"])
    assert done.value.code == 130
    assert one_line(capsys.readouterr().err) == "tool: interrupted"


# ---- zoo


def test_zoo_lists_every_checkpoint(capsys):
    assert finished(cli.main, "zoo") == 0
    rows = capsys.readouterr().out.splitlines()
    released = [entry.name for entry in lookup.CHECKPOINTS.values() if entry.kind != "embedded"]
    assert len(released) == 24
    for name in lookup.CHECKPOINTS:
        assert sum(row.split()[:1] == [name] for row in rows) == 1, name
    assert all(column in "\n".join(rows[:3]) for column in ("name", "data set", "published", "cached"))


def test_zoo_as_markdown(capsys):
    assert finished(cli.main, "zoo", "--markdown") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(lookup.CHECKPOINTS)
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_a_reader_that_goes_away_is_no_traceback():
    command = [sys.executable, "-m", "deeplab_tf.tools.cli", "zoo"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() in (0, 1)


# ---- convert


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """The golden weights of the small network by their TF1 names."""
    return {name: golden_tensor(name, tuple(v.shape)) for name, v in variable_map(build_model(SMALL)).items()}


@pytest.fixture
def source(tmp_path, tensors) -> pathlib.Path:
    """A TF1 checkpoint of the small network, as training leaves it."""
    state = {"global_step": np.int64(30000), "logits/semantic/weights/Momentum": tensors["logits/semantic/weights"]}
    write_tensors(tmp_path / "source" / "model.ckpt", {**tensors, **state})
    return tmp_path / "source"


def read(folder) -> dict[str, np.ndarray]:
    """All tensors of the checkpoint in a folder."""
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.heavy
def test_convert_there_and_back(source, tensors, tmp_path, capsys):
    model, back = tmp_path / "model", tmp_path / "back"
    assert finished(convert.run, f"--checkpoint={source}", f"--output_dir={model}") == 0
    text = capsys.readouterr().out
    assert ["depth_multiplier", "0.25"] in [line.split() for line in text.splitlines()]
    assert "Note: --output_stride=16 assumed" in text
    assert (
        f"{len(tensors)} variables loaded, none missing; 1 skipped: counter of the training; 1 skipped: optimiser slot"
        in text
    )
    assert f"Written: {model}" in text
    names = {"deeplab.json", "receipt.json", "checkpoint", "model.ckpt.index", DATA}
    assert {path.name for path in model.iterdir()} == names
    assert json.loads((model / "deeplab.json").read_text())["config"]["num_classes"] == 3
    receipt = json.loads((model / "receipt.json").read_text())
    assert receipt["counts"] == {"loaded": len(tensors), "skipped": 2}

    assert finished(convert.run, f"--checkpoint={model}", f"--output_dir={back}", "--to_tf1") == 0
    assert {path.name for path in back.iterdir()} == names - {"deeplab.json"}
    found = read(back)
    assert found.pop("global_step") == 30000
    assert set(found) == set(tensors)
    assert all(np.array_equal(found[name], value) for name, value in tensors.items())


@pytest.mark.heavy
def test_convert_keeps_the_training_state_if_asked(source, tmp_path):
    flag = "--keep_training_state"
    assert finished(convert.run, f"--checkpoint={source}", f"--output_dir={tmp_path / 'kept'}", flag) == 0
    assert read(tmp_path / "kept").keys() == read(source).keys()
    assert finished(convert.run, f"--checkpoint={source}", f"--output_dir={tmp_path / 'left'}") == 0
    assert read(source).keys() - read(tmp_path / "left").keys() == {"logits/semantic/weights/Momentum"}


@pytest.mark.heavy
def test_values_that_no_sound_training_leaves_are_refused_unless_they_are_asked_for(tensors, tmp_path, capsys):
    norm = next(name for name in tensors if name.endswith("/moving_variance"))
    odd = {"logits/semantic/biases": np.full(3, np.nan, np.float32), norm: -np.ones_like(tensors[norm])}
    write_tensors(tmp_path / "odd" / "model.ckpt", {**tensors, **odd})
    arguments = [f"--checkpoint={tmp_path / 'odd'}", f"--output_dir={tmp_path / 'model'}"]
    assert finished(convert.run, *arguments) == 1
    error = one_line(capsys.readouterr().err)
    told = (
        "1 variables hold values that are not finite: logits/semantic/biases",
        f"1 moving variances are below 0: {norm}",
    )
    assert f"{tmp_path / 'odd'}: {'; '.join(told)}; expected weights" in error and "--allow_non_finite" in error
    assert not (tmp_path / "model").exists()
    assert finished(convert.run, *arguments, "--allow_non_finite") == 0
    printed = capsys.readouterr().out
    assert all(f"Note: {line}\n" in printed for line in told), "told, as by export, eval and predict"
    for step in (np.arange(3), np.float32(3), np.int64(-1)):
        write_tensors(tmp_path / "step" / "model.ckpt", {**tensors, "global_step": step})
        assert finished(convert.run, f"--checkpoint={tmp_path / 'step'}", f"--output_dir={tmp_path / 'no'}") == 1
        assert "global_step is " in (line := one_line(capsys.readouterr().err)) and "expected one integer" in line


def test_convert_into_a_folder_that_holds_a_model(source, tmp_path, capsys):
    assert finished(convert.run, f"--checkpoint={source}", f"--output_dir={tmp_path / 'model'}") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    capsys.readouterr()
    for flag in ("--noto_tf1", "--to_tf1"):
        assert finished(convert.run, f"--checkpoint={source}", f"--output_dir={tmp_path / 'model'}", flag) == 1
        assert f"{tmp_path / 'model'}: already holds" in one_line(capsys.readouterr().err)
    assert finished(convert.run, f"--checkpoint={source}", f"--output_dir={source}") == 1
    assert "already holds" in one_line(capsys.readouterr().err)
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def assert_refused(capsys, checkpoint, out, *arguments: str, texts: tuple[str, ...]):
    """Converting fails with one line that has all `texts`, and leaves nothing."""
    assert finished(convert.run, f"--checkpoint={checkpoint}", f"--output_dir={out}", *arguments) == 1
    message = one_line(capsys.readouterr().err)
    assert all(text in message for text in texts), message
    assert not out.exists() or not any(out.iterdir())


def cut(path: pathlib.Path, kept: float):
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])


def flip(path: pathlib.Path, where: float):
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 0x10
    path.write_bytes(content)


DAMAGES = {
    "truncated data": (DATA, cut, 0.6),
    "empty data": (DATA, cut, 0),
    "bit-flipped data": (DATA, flip, 0.5),
    "bit-flipped index": ("model.ckpt.index", flip, 0.3),
    "bit-flipped end of the index": ("model.ckpt.index", flip, 0.99999),
    "truncated index": ("model.ckpt.index", cut, 0.7),
    "empty index": ("model.ckpt.index", cut, 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_convert_damaged_checkpoints(damage, source, tmp_path, capsys):
    name, spoil, where = DAMAGES[damage]
    spoil(source / name, where)
    assert_refused(capsys, source, tmp_path / "out", texts=(f"{source}/model.ckpt", "damaged or truncated"))


def test_convert_without_the_data_file(source, tmp_path, capsys):
    (source / DATA).unlink()
    assert_refused(capsys, source, tmp_path / "out", texts=(f"{source}/model.ckpt.index",))


def archive(path: pathlib.Path, *members: tuple[str, bytes]) -> pathlib.Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_convert_archives(source, tmp_path, capsys):
    files = [(f"net/{name}", (source / name).read_bytes()) for name in ("model.ckpt.index", DATA)]
    whole = archive(tmp_path / "whole.tar.gz", *files)
    assert finished(convert.run, f"--checkpoint={whole}", f"--output_dir={tmp_path / 'model'}") == 0
    capsys.readouterr()
    outside = archive(tmp_path / "outside.tar.gz", *files, ("../../evil", b"x"))
    assert_refused(capsys, outside, tmp_path / "a", texts=(str(outside), "outside of the folder"))
    assert not list(tmp_path.parent.rglob("evil"))
    text = tmp_path / "text.tar.gz"
    text.write_text("no archive")
    assert_refused(capsys, text, tmp_path / "b", texts=(str(text), "not a whole .tar.gz archive"))
    half = tmp_path / "half.tar.gz"
    half.write_bytes(whole.read_bytes()[:20000])
    assert_refused(capsys, half, tmp_path / "c", texts=(str(half), "not a whole .tar.gz archive"))
    empty = archive(tmp_path / "other.tar.gz", ("net/readme.txt", b"nothing here"))
    assert_refused(capsys, empty, tmp_path / "d", texts=("no checkpoint",))


WRONG = {
    "missing variable": ("aspp0/BatchNorm/beta", None, ("1 variables are missing: aspp0/BatchNorm/beta",)),
    "missing backbone variable": ("MobilenetV2/Conv/BatchNorm/gamma", None, ("MobilenetV2/Conv/BatchNorm/gamma",)),
    "missing logits": ("logits/semantic/weights", None, ("no logits", "logits/semantic/weights")),
    "extra variable": ("aspp0/extra", (3, 3), ("1 have no place in the model: aspp0/extra",)),
    "extra scope": ("another/weights", (3, 3), ("1 have no place in the model: another/weights",)),
    "wrong shape": ("logits/semantic/biases", (4,), ("logits/semantic/biases [4] instead of [3]",)),
    "wrong kernel": ("image_pooling/weights", (3, 3, 80, 16), ("image_pooling/weights [3, 3, 80, 16] instead of",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_convert_variables_that_do_not_fit(case, tensors, tmp_path, capsys):
    name, shape, texts = WRONG[case]
    changed = {n: value for n, value in tensors.items() if n != name}
    changed |= {name: np.zeros(shape, np.float32)} if shape else {}
    write_tensors(tmp_path / "source" / "model.ckpt", changed)
    assert_refused(capsys, tmp_path / "source", tmp_path / "out", texts=(str(tmp_path / "source"), *texts))


CONTRADICTIONS = {
    "classes": ("--num_classes=20", ("--num_classes=20 contradicts", "num_classes=3")),
    "variant": ("--model_variant=xception_65", ("--model_variant=xception_65 contradicts", "mobilenet_v2")),
    "multiplier": ("--depth_multiplier=1.0", ("--depth_multiplier=1.0 contradicts", "depth_multiplier=0.25")),
    "unknown variant": ("--model_variant=mobilenet", ("unknown model_variant 'mobilenet'", "did you mean mobilenet_v")),
    "decoder": ("--decoder_output_stride=4", ("decoder",)),
    "data set": ("--dataset=cityscapes", ("--dataset=cityscapes has 19 classes, the model 3",)),
    "unknown data set": ("--dataset=cityscape", ("unknown dataset 'cityscape'", "did you mean cityscapes")),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_convert_with_flags_that_contradict(case, source, tmp_path, capsys):
    flag, texts = CONTRADICTIONS[case]
    assert_refused(capsys, source, tmp_path / "out", flag, texts=texts)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--output_dir=x"], "--checkpoint is missing"),
        (["--checkpoint=x"], "--output_dir is missing"),
        (["--checkpoint=xception65_coco_voc", "--output_dir=x"], "did you mean xception65_coco_voc_train"),
        (["--checkpoint=no/such/model.ckpt", "--output_dir=x"], "checkpoint 'no/such/model.ckpt': no such file"),
    ],
)
def test_convert_without_what_it_needs(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert finished(convert.run, *arguments) == 1
    assert expected in one_line(capsys.readouterr().err)
    assert not any(tmp_path.iterdir())


def test_convert_into_what_cannot_be_written(source, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    folders = [tmp_path / "file", tmp_path / "file" / "out", pathlib.Path("/proc/nowhere")]
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        folders.append(tmp_path / "closed" / "out")
    for folder in folders:
        assert finished(convert.run, f"--checkpoint={source}", f"--output_dir={folder}") == 1
        message = one_line(capsys.readouterr().err)
        assert str(folder) in message and "cannot be written" in message
    assert (tmp_path / "file").read_text() == "in the way"
