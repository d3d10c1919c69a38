"""Every flag of every command that holds a path is declared as one, and takes every spelling of a path.

The flags are found in the commands themselves: a new one is in these tests without being named here.
"""

import dataclasses
import importlib
import json
import pathlib
import re

import pytest
from absl import flags

from deeplab_tf.arch import dense_prediction_cell
from deeplab_tf.config import ModelConfig
from deeplab_tf.tools import option_kinds, options
from deeplab_tf.tools.cli import COMMANDS, file_of

TOOLS = {command: importlib.import_module(f"deeplab_tf.tools.{file_of(command)}") for command in COMMANDS}


def flags_of(command: str) -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    TOOLS[command].define(values)
    return values


PATH_FLAGS = [(command, name) for command in COMMANDS for name in options.path_flags(flags_of(command))]
_WORDS = r"folder|file|path|dir|logdir|checkpoint|cache|archive"
# Flags whose name or help has such a word and that hold no path: what they hold instead.
NOT_PATHS = {
    **dict.fromkeys(
        ("save_interval_secs", "keep_checkpoints", "eval_interval_secs", "eval_interval_steps"), "a number"
    ),
    **dict.fromkeys(("max_number_of_evaluations", "max_number_of_iterations", "num_shards"), "a number"),
    **dict.fromkeys(("drop_path_keep_prob", "min_agreement", "num_images", "save_summaries_secs"), "a number"),
    "fps": "a number",
    **dict.fromkeys(("skip_corrupt_records", "to_tf1", "keep_best", "save_inference_graph"), "yes or no"),
    **dict.fromkeys(("quantize_as_file", "align_corners"), "yes or no"),
    **dict.fromkeys(("beam_runner", "mode", "resume", "format", "image_format", "label_format"), "one of a few words"),
    "ids": "one of a few words",
    "input_tensor_name": "the name of a tensor",
    "download": "yes or no",
    "unlabelled_share": "a number",
    "unlabelled_split": "the name of a split",
    "allow_change": "names of flags",
    "build-data dataset": "one of a few words, of which folder is one",
}
_ALIASES = {("export", "checkpoint"): "checkpoint_path", ("serve", "samples"): "examples"}


def test_there_are_path_flags_in_all_commands_but_two():
    assert {command for command, _ in PATH_FLAGS} == set(COMMANDS) - {"published", "completion"}
    assert len(PATH_FLAGS) > 60


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_that_speaks_of_a_file_or_folder_is_declared_as_a_path(command):
    values = flags_of(command)
    # The help before "(default: ...)": what it holds, not what else there is.
    spoken = {name for name in values if re.search(_WORDS, f"{name} {values[name].help}".partition("(default")[0])}
    others = {name.removeprefix(f"{command} ") for name in NOT_PATHS}
    undeclared = spoken - set(options.path_flags(values)) - others
    assert not undeclared, "define it by options.define_path or path_option, or say in NOT_PATHS what it holds"
    assert not set(options.path_flags(values)) & others


SPELLINGS = {
    "~/x": "{home}/x",
    "~": "{home}",
    "~/run [2]/": "{home}/run [2]",
    "run [2]": "run [2]",
    "a*b": "a*b",
    "what?": "what?",
    "x/": "x",
    "/x//": "/x",
    "../x": "../x",
    "./x/y": "./x/y",
    "ram://x": "ram://x",
    "ram://x/y [2]/": "ram://x/y [2]",
}


@pytest.mark.parametrize(("command", "name"), PATH_FLAGS)
def test_every_spelling_is_one_path(command, name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for typed, expected in SPELLINGS.items():
        values = flags_of(command)
        values([command, f"--{name}={typed}"])
        expected = expected.format(home=tmp_path)
        if typed == "x/" and isinstance(values[name].parser, option_kinds.NamedPathParser):
            expected = "./x"  # x alone would be the name of a data set
        assert values[name].value in (expected, [expected])
    if not isinstance(values[name].value, str):
        values = flags_of(command)
        given = [f"--{name}=~/a,~/b"] if type(values[name].parser) is not option_kinds.PathParser else []
        values([command, *(given or [f"--{name}=~/a", f"--{name}=~/b"])])
        found = [part for text in values[name].value for part in text.split(",")]
        assert found == [f"{tmp_path}/a", f"{tmp_path}/b"]


NO_PLACES = (
    "gs:/x",
    "foo:/x/y",
    "gs:",
    "gs://",
    "gs:///x",
    "file:/x",
    "file://x/y",
    "s3://b",
    "hdfs://b/x",
    "GS://b/x",
)


@pytest.mark.parametrize(("command", "name"), PATH_FLAGS)
def test_what_names_no_place_is_one_line_and_no_folder_of_this_machine(command, name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for typed in NO_PLACES:
        with pytest.raises(SystemExit) as ended:
            options.run(pytest.fail, TOOLS[command].define, ["tool", f"--{name}={typed}"])
        message = capsys.readouterr().err
        assert ended.value.code == 1 and message.count("\n") == 1
        assert message.startswith(f"tool: --{_ALIASES.get((command, name), name)}={typed}: ") and "expected" in message
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "name"), PATH_FLAGS)
def test_an_unknown_scheme_is_one_line_before_anything_is_done(command, name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        options.run(pytest.fail, TOOLS[command].define, ["tool", f"--{name}=foo://x/y"])
    message, named = capsys.readouterr().err, _ALIASES.get((command, name), name)
    assert ended.value.code == 1 and message.count("\n") == 1
    assert message.startswith(f"tool: --{named}=foo://x/y: foo:// is no file system that TensorFlow has here; expected")
    assert not list(tmp_path.iterdir())


def test_an_argument_without_a_flag_is_a_path_too(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    with pytest.raises(SystemExit):
        options.run(lambda values: seen.extend(values.input), TOOLS["predict"].define, ["tool", "~/a.jpg", "-"],
                    rest_is="input")  # fmt: skip
    assert seen == [str(tmp_path / "a.jpg"), "-"]


CELL_COMMANDS = [command for command, name in PATH_FLAGS if name == "dense_prediction_cell_json"]


@pytest.mark.parametrize("command", CELL_COMMANDS)
@pytest.mark.parametrize(
    "typed", ["~/cell.json", "run [2]/cell.json", "a*b/cell.json", "cell.json", "ram://cells/c.json"]
)
def test_the_file_of_a_cell_is_read_wherever_it_is(command, typed, monkeypatch, tmp_path):
    from deeplab_tf import files

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    cell = [dataclasses.asdict(branch) for branch in dense_prediction_cell.CITYSCAPES_TOP1[:2]]
    with files.written(typed) as file:
        file.write_text(json.dumps([branch.to_json() for branch in dense_prediction_cell.CITYSCAPES_TOP1[:2]]))
    values = flags_of(command)
    values([command, f"--dense_prediction_cell_json={typed}"])
    place = values["dense_prediction_cell_json"].value
    found = ModelConfig(dense_prediction_cell_json=place).dense_prediction_cell_json
    assert [dataclasses.asdict(branch) for branch in found] == cell
    assert "~" not in str(place) and not (tmp_path / "~").exists()
    assert isinstance(files.path(place), pathlib.Path) != typed.startswith("ram:")
