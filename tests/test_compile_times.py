"""The lines about the step that XLA compiles, and the times that they come from."""

import json

import pytest
from observers import Recorder
from record_files import write_shapes

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.training.compile_times import FirstTimed, keep_time, read_times, times_file
from deeplab_tf.training.loop import Updates
from deeplab_tf.training.train import train


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.heavy
def test_a_run_tells_what_it_compiles_and_goes_on_with_another_choice(tmp_path, cache):
    records = write_shapes(tmp_path / "records", "train", 6, (40, 40))

    def lines(steps: int, jit_compile: str) -> list[str]:
        told = Recorder()
        model = ModelConfig(model_variant="tiny", aspp_convs_filters=16)
        update = TrainConfig(training_number_of_steps=steps, jit_compile=jit_compile)
        data = DataConfig(dataset="shapes", dataset_dir=records, crop_size=(33, 33), batch_size=2)
        train(Experiment(model, update, data, RunConfig(train_logdir=str(tmp_path / "run"))), observer=told)
        return [line for line in told.lines if "XLA" in line or "first step" in line]

    what = "tiny, 33,33, batch 2, float32, 1 x CPU"
    first = lines(1, "true")
    assert first[0] == f"Compiling the step with XLA: {what}" and first[1].startswith("The first step took ")
    seconds = json.loads((cache / "xla" / "times.json").read_text())[what]
    assert lines(2, "true")[0] == f"Compiling the step with XLA: {what}; last time {seconds:.0f} s"
    assert lines(3, "auto") == []  # what compiles it may change when a run goes on


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": "x"}', '{"a": true}', '{"a": null}', b"\xff\xfe\x00", None])
def test_times_that_do_not_read_are_none(cache, content):
    if content is not None:
        (cache / "xla").mkdir(parents=True)
        (cache / "xla" / "times.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    told = []
    update = FirstTimed(lambda most: Updates({}, most, 0.0), "a", told.append)
    assert [update(3).count, update(2).count] == [3, 2]
    assert told == ["Compiling the step with XLA: a", "The first step took 0 s"]
    assert read_times()["a"] == 0.0


@pytest.mark.parametrize("place", ["{file}/below", "gs-like://bucket/cache"])
def test_a_cache_that_cannot_be_written_is_none(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DEEPLAB_TF_CACHE", place.format(file=tmp_path / "file"))
    keep_time("a", 1.0)
    assert read_times() == {}


def test_other_times_stay(cache):
    keep_time("a", 1.04)
    keep_time("b", 2.0)
    assert read_times() == {"a": 1.0, "b": 2.0} and times_file() == cache / "xla" / "times.json"
