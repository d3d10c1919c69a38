"""What a user reads of the commands: pages of help, subjects, unknown flags, and completion in a shell."""

import dataclasses
import shutil
import subprocess

import pages
import pytest
from commands import finished, one_line

from deeplab_tf import config
from deeplab_tf.config.fields import Options
from deeplab_tf.config.groups import GROUPS
from deeplab_tf.tools import cli, completion, help_pages, topics, train

CONFIGURATIONS = [
    part
    for part in vars(config).values()
    if isinstance(part, type) and issubclass(part, Options) and part is not Options
]


def page(capsys, monkeypatch, columns, *words) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert finished(cli.main, *words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", cli.COMMANDS)
@pytest.mark.parametrize("columns", [60, 80, 100])
def test_pages_fit_the_terminal_and_cut_no_word(capsys, monkeypatch, command, columns):
    values = pages.flags_of(command)
    listed = help_pages.listed(values)
    first = {vars(values[name])["place"]: name for name in listed if "place" in vars(values[name])}
    full = page(capsys, monkeypatch, columns, command, "--helpfull")
    short = page(capsys, monkeypatch, columns, command, "--help")
    for text in (full, short):
        assert not [line for line in text.splitlines() if len(line) > columns and len(line.split()) > 2]
        assert "repeat this option" not in text
    for name in listed:
        assert f"--[no]{name}\n" in full if values[name].boolean else f"--{name}\n" in full
        # All its words, in their order; a word that is cut is another one.
        assert " ".join(help_pages.text_of(values[name]).split()) in " ".join(full.split())
        assert f"{name}\n" in short or f"{name} " in short
    assert len(first) <= 12
    described = [
        line.strip().removeprefix("--").removeprefix("[no]") for line in short.splitlines() if line[:4] == "  --"
    ]
    assert described[: len(first)] == [first[place] for place in sorted(first)]


@pytest.mark.parametrize("part", CONFIGURATIONS)
def test_every_option_has_a_group(part):
    assert {field.metadata["group"] for field in dataclasses.fields(part)} <= set(GROUPS)


def test_flags_that_a_command_refuses_are_not_offered(capsys, monkeypatch):
    """Those of train whose values follow from the checkpoint; extend says so where one is given."""
    refused = {"mode", "teacher", "loss", "label_map", "tf_initial_checkpoint"}
    full = page(capsys, monkeypatch, 80, "extend", "--helpfull")
    told = {line.strip().removeprefix("--").removeprefix("[no]") for line in full.splitlines() if line[:4] == "  --"}
    assert not told & refused and {"add", "checkpoint", "optimizer"} <= told
    short = page(capsys, monkeypatch, 80, "extend", "--help")
    described = [line.strip() for line in short.splitlines() if line[:4] == "  --"]
    assert described[:3] == ["--checkpoint", "--add", "--background"]
    line = next(line for line in completion.bash().splitlines() if line.startswith("    extend) echo"))
    assert "--mode=" not in line and "--add=" in line
    assert finished(cli.main, "extend", "--label_mop=1") == 1
    assert "label_map" not in one_line(capsys.readouterr().err)


def test_a_group_alone(capsys, monkeypatch):
    for words in (["train", "--help=crf"], ["help", "train", "crf"]):
        text = page(capsys, monkeypatch, 80, *words)
        assert text.startswith("Post-processing by a CRF:\n  --[no]crf\n") and text.count("\n  --") == 7
    assert finished(cli.main, "train", "--help=crff") == 1
    message = one_line(capsys.readouterr().err)
    assert message == "deeplab-tf train: unknown group of flags 'crff'; did you mean crf?"


def test_examples_can_be_copied_at_any_width():
    doc = 'Does it.\n\n  tool --a="1 2" --b=3 \\\n    --c\n  tool --d      what it is\n'
    assert help_pages.text(doc, 20) == ('Does it.\n\n  tool --a="1 2" \\\n    --b=3 --c\n  tool --d\n      what it is')
    assert help_pages.text(doc, 80) == doc.strip()


@pytest.mark.parametrize("topic", topics.TOPICS)
def test_topics(capsys, monkeypatch, topic):
    text = page(capsys, monkeypatch, 80, "help", *topic.split("-"))
    assert text.startswith(f"{topic}: ") and max(map(len, text.splitlines())) <= 80
    for line in text.replace("\\\n", "").splitlines():
        if line.startswith("  deeplab-tf "):
            pages.require_parsed(line.split()[1:])


def test_topics_that_do_not_exist(capsys):
    assert finished(cli.main, "help", "checkpoint") == 1
    assert (
        one_line(capsys.readouterr().err)
        == "deeplab-tf: unknown topic 'checkpoint'; did you mean checkpoints or export?"
    )
    assert finished(cli.main, "help", "verify") == 0
    assert capsys.readouterr().out.startswith("Proves released checkpoints")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--batch_size=3", ". Did you mean: train_batch_size, eval_batch_size"),
        ("--trian_logdir=x", ". Did you mean: train_logdir ?"),
        ("--nolog_steps", ". Did you mean: log_steps ?"),
        ("--learning-rate=1", ". Did you mean: base_learning_rate, end_learning_rate, adam_learning_rate ?"),
        ("--Crop_Size=3", ". Did you mean: train_crop_size, eval_crop_size"),
        ("--qqq", " (--help lists the flags)"),
    ],
)
def test_unknown_flags(capsys, given, meant):
    assert finished(train.run, "--train_logdir=run", given) == 1
    assert meant in one_line(capsys.readouterr().err)


# ---- completion


def completed(tmp_path, *words: str) -> list[str]:
    """What bash offers where the words have been typed; it takes --flag=value for three."""
    (tmp_path / "photo one.jpg").touch()
    script = (
        'source /dev/stdin; compopt() { :; }; COMP_CWORD=$(( $# - 1 )); COMP_WORDS=("$@"); _deeplab_tf; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, "-c", script, "bash", "deeplab-tf", *words],
        input=completion.bash(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["des"], ["describe"]),
        (["train", "--optim"], ["--optimizer="]),
        (["train", "--optimizer", "=", ""], ["momentum", "adam"]),
        (["train", "--optimizer", "="], ["momentum", "adam"]),
        (["train", "--optimizer", "ad"], ["adam"]),
        (["train", "--jit_compile", "=", "a"], ["auto"]),
        (["train", "--config", "=", "v1_s"], ["v1_shapes"]),
        (["train", "--log_steps", "=", ""], [""]),
        (["eval", "--checkpoint_dir", "=", "ph"], ["photo one.jpg"]),
        (["predict", "ph"], ["photo one.jpg"]),
        (["predict", "--save", "=", "mask,ov"], ["mask,overlay"]),
        (["predict", "--nocr"], ["--nocrf"]),
        (["help", "exit"], ["exit-codes"]),
        (["completion", "z"], ["zsh"]),
        (["convertt", "--"], [""]),
    ],
)
def test_bash_completes(tmp_path, words, offered):
    assert completed(tmp_path, *words) == offered


def test_completion_knows_every_flag_and_choice():
    bash, zsh = completion.bash(), completion.zsh()
    for command in cli.COMMANDS:
        values = pages.flags_of(command)
        listed = help_pages.listed(values)
        line = next(line for line in bash.splitlines() if line.startswith(f"    {command}) echo"))
        assert {word.strip("'").rstrip("=") for word in line.split()} >= {f"--{name}" for name in listed}
        assert command == "completion" or all(f"--{name}" in zsh for name in listed)
    for shell, script in {"bash": bash, "zsh": zsh}.items():
        found = shutil.which(shell)
        assert not found or subprocess.run([found, "-n"], input=script, text=True, check=False).returncode == 0


def test_completion_of_an_unknown_shell(capsys):
    assert finished(completion.run, "fish") == 1
    assert one_line(capsys.readouterr().err).endswith("unknown shell 'fish'; did you mean zsh or bash?")
    assert finished(completion.run) == 1
    assert "--shell is missing" in one_line(capsys.readouterr().err)
