"""Where XLA keeps what it compiles: by TensorFlow's variable, on machines with GPUs, in a folder that serves."""

import os
import re

import pytest

from deeplab_tf.tools import options
from deeplab_tf.tools import train as command
from deeplab_tf.training import kept_compilations
from deeplab_tf.training.kept_compilations import VARIABLE, keep_compilations

_BEGINNING = "Note: what XLA compiles is not kept from one run to the next: "


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that gives the machine these GPUs and returns the folder where the driver tells of them."""
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")  # no nvidia-smi
    monkeypatch.setenv(VARIABLE, "")

    def with_gpus(*names: str):
        for number, name in enumerate(names):
            folder = tmp_path / "driver" / "gpus" / f"0000:0{number}:00.0"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 16\n")
        return tmp_path / "driver"

    return with_gpus


def kept_in() -> str:
    """Returns the folder that the variable names."""
    found = re.search(r"--tf_xla_persistent_cache_directory=(\S+) --tf_xla_persistent_cache_device_types=", flags())
    assert found
    return found[1]


def flags() -> str:
    return os.environ[VARIABLE]


def test_without_a_gpu_nothing_changes(machine, tmp_path):
    assert keep_compilations(machine()) is None
    assert flags() == "" and not (tmp_path / "cache").exists()


def test_each_kind_of_gpu_has_its_folder(machine, tmp_path, monkeypatch):
    folders = []
    for name in ("NVIDIA H200", "NVIDIA A100-SXM4-40GB"):
        monkeypatch.setenv(VARIABLE, "")
        assert keep_compilations(machine(name)) is None
        folders.append(kept_in())
        assert flags().endswith("=GPU,XLA_GPU_JIT")
    assert folders[0] != folders[1]
    assert sorted(folders) == sorted(map(str, (tmp_path / "cache" / "xla" / "compiled").iterdir()))
    monkeypatch.setattr(kept_compilations, "_version", lambda: "9.9")
    monkeypatch.setenv(VARIABLE, "")
    assert keep_compilations(machine("NVIDIA H200")) is None and "/9.9-" in kept_in()


def test_what_the_variable_says_stays(machine, monkeypatch):
    driver = machine("NVIDIA H200")
    monkeypatch.setenv(VARIABLE, "--tf_xla_auto_jit=2")
    assert keep_compilations(driver) is None
    assert flags().startswith("--tf_xla_auto_jit=2 --tf_xla_persistent_cache_directory=/") and kept_in()
    own = "--tf_xla_persistent_cache_directory=/mine"
    monkeypatch.setenv(VARIABLE, own)
    assert keep_compilations(driver) is None and flags() == own
    monkeypatch.setenv(VARIABLE, "flags.txt")
    line = f"{_BEGINNING}{VARIABLE}=flags.txt is a file of flags; expected --tf_xla_persistent_cache_directory in it"
    assert keep_compilations(driver) == line and flags() == "flags.txt"


@pytest.mark.parametrize(
    ("cache", "reason"),
    [
        ("{tmp}/file/cache", "{tmp}/file"),
        ("{tmp}/with space", "takes no spaces and quotes"),
        ("gs://bucket/cache", "gs://bucket/cache"),
    ],
)
def test_a_folder_that_does_not_serve_is_told(machine, tmp_path, monkeypatch, cache, reason):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DEEPLAB_TF_CACHE", cache.format(tmp=tmp_path))
    line = keep_compilations(machine("NVIDIA H200"))
    assert line and line.startswith(_BEGINNING) and reason.format(tmp=tmp_path) in line and "\n" not in line
    assert flags() == ""


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ([], True),
        (["--mode=train_and_eval", "--jit_compile"], True),
        (["--nojit_compile"], False),
        (["--mode=eval"], False),
    ],
)
def test_training_asks_for_it(monkeypatch, arguments, kept):
    """Before the paths are looked at, which starts TensorFlow where one lies in a bucket."""
    calls = []
    monkeypatch.setattr(kept_compilations, "keep_compilations", lambda: calls.append("kept"))
    monkeypatch.setattr(options, "_require_file_systems", lambda values: calls.append("paths"))
    monkeypatch.setattr(command, "main", lambda values: 0)
    with pytest.raises(SystemExit):
        command.run(["train", "--train_logdir=run", *arguments])
    assert calls == (["kept", "paths"] if kept else ["paths"])
