"""A run in a bucket that is killed at any of its writes goes on from its last save, with all of its log."""

import contextlib
import json
import uuid

import pytest
from kills import Killed, Mortal

from deeplab_tf.config import ModelConfig
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.sources import checkpoint_reader

STEPS = 3
CARD = ModelCard(ModelConfig(model_variant="tiny", aspp_convs_filters=16), dataset="shapes")


def live(folder: str, saved: list[int]) -> None:
    """Does what a training run does in its folder, from wherever it stands to the end; `saved` gets what is saved."""
    run = RunDirectory(folder)
    with run.locked():
        latest = run.latest()
        step = 0
        if latest:
            with checkpoint_reader(str(latest)) as reader:
                step = int(reader.get_tensor("global_step"))
        for damaged in run.halves():
            run.set_aside(damaged)
        run.describe(CARD, {"training_number_of_steps": STEPS})
        run.forget_after(step)
        if latest:
            run.finish_save(step, keep=2)
        else:
            run.save(0, {"global_step": 0}, keep=2)
        for number in range(step + 1, STEPS + 1):
            run.log({"step": number, "loss": number / 7})
            run.save(number, {"global_step": number}, keep=2)
            saved.append(number)


def held(folder: str) -> dict[str, bytes]:
    """Returns the files of a run and what is in them, without damaged ones that were set aside."""
    files = {file.name: file for file in RunDirectory(folder).path.iterdir()}
    return {name: file.read_bytes() for name, file in files.items() if not name.startswith("damaged-")}


@pytest.fixture(scope="module")
def undisturbed() -> tuple[dict[str, bytes], int]:
    """The files of a run that nobody killed, and the number of its changes."""
    folder = f"ram://{uuid.uuid4().hex}/run"
    with pytest.MonkeyPatch.context() as patch:
        mortal = Mortal(patch)
        live(folder, [])
        return held(folder), mortal.done


@pytest.mark.heavy
def test_a_run_that_is_killed_at_any_write_goes_on_from_its_last_save(undisturbed):
    whole, changes = undisturbed
    assert changes > 60 and len(whole) == 8
    for number in range(changes):
        folder, saved = f"ram://{uuid.uuid4().hex}/run", []
        with pytest.MonkeyPatch.context() as patch:
            mortal = Mortal(patch, number)
            with pytest.raises(Killed):
                live(folder, saved)
            mortal.revive()
            run = RunDirectory(folder)
            latest = max(run.steps(), default=0)
            assert latest >= max(saved, default=0), f"killed at change {number}"
            if run.latest():
                with checkpoint_reader(str(run.latest())) as reader:
                    assert reader.get_tensor("global_step") == latest
            assert [line["step"] for line in run.lines()][:latest] == list(range(1, latest + 1))
            live(folder, saved)
            assert held(folder) == whole, f"killed at change {number}"


def test_a_run_whose_second_life_is_killed_too(undisturbed):
    whole, changes = undisturbed
    for number in range(5, changes, 11):
        folder = f"ram://{uuid.uuid4().hex}/run"
        with pytest.MonkeyPatch.context() as patch:
            for more in (number, 7, 13, 23):
                mortal = Mortal(patch, more)
                with contextlib.suppress(Killed):  # it may have come to its end
                    live(folder, [])
            mortal.revive()
            live(folder, [])
            assert held(folder) == whole


def test_a_log_that_was_cut_off_is_read_to_its_last_whole_line():
    run = RunDirectory(f"ram://{uuid.uuid4().hex}/run")
    with run.locked():
        run.log({"step": 1})
        (run.path / "metrics.jsonl").open("a").write('{"step": 2, "los')
        assert run.lines() == [{"step": 1}]
        run.forget_after(2)
        run.log({"step": 2})
    assert [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()] == run.lines()
    assert run.lines() == [{"step": 1}, {"step": 2}]
