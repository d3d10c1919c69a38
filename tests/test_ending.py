"""How the commands end, as processes: control-C is status 130, a reader that goes away is no traceback."""

import pathlib
import signal
import subprocess
import sys

import PIL.Image
import pytest
from commands import begin
from record_files import write_shapes

from deeplab_tf.config import ModelConfig
from deeplab_tf.network.build import build_model
from deeplab_tf.tools.cli import COMMANDS
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.tf1 import Receipt

_PRINTING = [[], ["--help"], ["--version"], ["zoo"], ["published"], *([command, "--help"] for command in COMMANDS)]
_CONFIG = ModelConfig("tiny", num_classes=2, aspp_convs_filters=16)
# By --runtime=auto the ranking, which goes on beside the page, would tell what it measures.
_LABEL = ["label", "--checkpoint=model", "--images=photos", "--output=made", "--runtime=tf", "--port=0"]
_LAST_LINES = {
    "serve": "Stopped\n",
    "label": "Stopped; records: deeplab-tf build-data --dataset=folder --root=made --output_dir=...\n",
}


def interrupt_after(process: subprocess.Popen, words: str) -> tuple[str, str]:
    """Sends SIGINT once the command has printed a line with `words`; returns what it printed and said after that."""
    for line in process.stdout:
        if words in line:
            break
    else:
        raise AssertionError(f"it ended before: {process.stderr.read()}")
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=120)


# Sends SIGINT a second after the start of the wait, or by `sys.settrace(trace)` while the main thread holds the lock
# of an Event, if it waits for one.
_SIGNALLED = """
import linecache, os, signal, sys, threading
from deeplab_tf.tools.listening import end_of_signals

def trace(frame, event, argument):
    if frame.f_code.co_name == "wait" and "_flag" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
        sys.settrace(None)
        interrupt()
    return trace

def interrupt():
    timer.cancel()
    os.kill(os.getpid(), signal.SIGINT)

wait = end_of_signals()
timer = threading.Timer(1, interrupt)
timer.start()
%s
sys.exit(wait())
"""


@pytest.mark.parametrize(
    "when", ["sys.settrace(trace)", "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})"], ids=["lock", "thread"]
)
def test_a_signal_ends_the_wait_whenever_it_comes(when):
    """Also one that another thread gets, which does not interrupt what the main thread waits for."""
    assert subprocess.run([sys.executable, "-c", _SIGNALLED % when], timeout=60).returncode == 130


@pytest.mark.parametrize("arguments", _PRINTING, ids=" ".join)
def test_a_reader_that_goes_away_is_no_traceback(arguments, tmp_path):
    process = begin(arguments, tmp_path)
    process.stdout.close()  # as head does, when it has its lines
    assert process.stderr.read() == ""
    assert process.wait(60) == 1


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("arguments", [["zoo"], ["doctor", "--json", "--export_dir=made"]], ids=" ".join)
def test_output_to_a_full_disk_is_one_line(arguments, tmp_path):
    (tmp_path / "made").mkdir()
    program = "import runpy; runpy.run_module('deeplab_tf.tools.cli', run_name='__main__', alter_sys=True)"
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert "the output cannot be written (No space left on device)" in ended.stderr


@pytest.mark.heavy
def test_control_c_ends_training_with_130_and_a_saved_run(tmp_path):
    (tmp_path / "records").mkdir()
    write_shapes(tmp_path / "records", "train", 4, (33, 33))
    flags = ("--dataset=shapes", "--dataset_dir=records", "--train_crop_size=33,33", "--train_batch_size=2")
    flags += ("--model_variant=tiny", "--aspp_convs_filters=16", "--training_number_of_steps=1000000", "--log_steps=1")
    command = ["train", "--train_logdir=run", *flags]
    process = begin(command, tmp_path)
    printed, said = interrupt_after(process, "step 3/")
    assert process.returncode == 130, said
    assert "Stopped by a signal; the same command goes on: step " in printed and "Traceback" not in said
    run = RunDirectory(tmp_path / "run")
    (*_, last) = run.steps()
    assert last >= 3 and f"step {last}, " in printed and not list(run.path.glob(".partial-*"))
    again = begin(command, tmp_path)
    printed, said = interrupt_after(again, f"Going on from {run.prefix(last).relative_to(tmp_path)}")
    assert again.returncode == 130 and "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "--checkpoint_dir=run", "--eval_logdir=eval", "--dataset_dir=records"], "Waiting for the first"),
        (["vis", "--checkpoint_dir=run", "--vis_logdir=vis", "--dataset_dir=records"], "Waiting for the first"),
        (["serve", "--checkpoint=model", "--port=0"], "Ctrl-C ends it"),
        (_LABEL, "Ctrl-C ends it"),
        pytest.param(["demo", "--output_dir=demo", "--held_out=100000"], "3. Scoring", marks=pytest.mark.heavy),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_control_c_ends_a_command_with_130_and_a_line(arguments, words, tmp_path):
    (tmp_path / "records").mkdir()
    write_shapes(tmp_path / "records", "val", 2, (33, 33))
    save_model(tmp_path / "model", build_model(_CONFIG), Receipt("tests", "0" * 64, {}, {}), card=ModelCard(_CONFIG))
    (tmp_path / "photos").mkdir()
    PIL.Image.new("RGB", (33, 33)).save(tmp_path / "photos/a.png")
    process = begin(arguments, tmp_path)
    printed, said = interrupt_after(process, words)
    assert process.returncode == 130
    expected = _LAST_LINES.get(arguments[0])
    if expected is None:
        assert said.endswith("interrupted\n")
    else:
        assert (printed, said) == (expected, "")
    assert "Traceback" not in said and said.count("\n") <= 1
