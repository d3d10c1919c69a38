"""From a path to checkpoints: one is one, a run's are followed as they come, vanish and grow."""

import itertools
import json
import pathlib

import numpy as np
import pytest
from golden import golden_tensor
from record_files import write_shapes

import deeplab_tf
from deeplab_tf.config import EvalConfig, ModelConfig
from deeplab_tf.data import record_index
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation import following
from deeplab_tf.evaluation.following import follow, is_run, passes
from deeplab_tf.evaluation.passes import Observer
from deeplab_tf.inference.predict import predict
from deeplab_tf.network.build import build_model
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt, variable_map, write_tensors
from deeplab_tf.zoo import lookup

SMALL = ModelConfig(depth_multiplier=0.25, num_classes=9, aspp_convs_filters=16)
DATA = ".data-00000-of-00001"
EVERY = {"eval_interval_secs": 0, "eval_crop_size": (33, 33)}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    variables = variable_map(build_model(SMALL))
    return {name: golden_tensor(name, tuple(v.shape)) for name, v in variables.items()}


def at(weights, step: int, **changes) -> dict[str, np.ndarray]:
    """The weights of a step: the classifier's offsets tell them apart."""
    bias = np.zeros(9, np.float32)
    bias[step % 9] = 1e3
    return {**weights, "logits/semantic/biases": bias, "global_step": np.int64(step), **changes}


class Run:
    """The folder of a training run: what it is, and its checkpoints."""

    def __init__(self, path: pathlib.Path, config: ModelConfig = SMALL):
        self.path = path
        path.mkdir()
        card = ModelCard(config, dataset="shapes", class_names=tuple("abcdefghi"))
        (path / "deeplab.json").write_text(json.dumps(card.to_json()))
        (path / "run.json").write_text("{}")

    def save(self, step: int, tensors: dict[str, np.ndarray], *, keep: int = 5):
        write_tensors(self.path / f"model.ckpt-{step}", tensors)
        (self.path / "checkpoint").write_text(f'model_checkpoint_path: "model.ckpt-{step}"\n')
        for old in self.steps()[:-keep]:
            self.remove(old)

    def remove(self, step: int):
        for suffix in (".index", DATA):
            (self.path / f"model.ckpt-{step}{suffix}").unlink()

    def steps(self) -> list[int]:
        return sorted(int(path.stem.partition("-")[2]) for path in self.path.glob("*.index"))


def followed(folder, events, *, changes=None, told=None, data=None, **options) -> list[int]:
    """The steps that are yielded; while it waits, `events` happen, one in each pause, and then the test fails."""
    events = iter(events)

    def pause(seconds):
        assert seconds > 0
        next(events, lambda: pytest.fail("it waits for something that does not come"))()

    config = EvalConfig(checkpoint_dir=str(folder), **{**EVERY, **options})
    observer = Observer()
    observer.tell = (told if told is not None else []).append
    if data:
        return [work.opened.step for work in passes(config, data, changes, observer=observer, pause=pause)]
    return [opened.step for opened in follow(config, changes, observer=observer, pause=pause)]


def nothing():
    pass


# ---- what is a run


def test_what_is_followed(weights, tmp_path):
    run = Run(tmp_path / "run")
    assert is_run(str(tmp_path / "run"))
    run.save(3, at(weights, 3))
    assert is_run(str(tmp_path / "run")) and is_run(f"{tmp_path}/run/")
    assert not is_run(str(tmp_path / "run" / "model.ckpt-3"))
    assert not is_run(str(tmp_path / "run" / "model.ckpt-3.index"))
    assert is_run(str(tmp_path / "to" / "come")) and is_run("exp")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "graph.pbtxt").touch()
    assert is_run(str(tmp_path / "empty"))
    for step in (10, 20):  # the release's own run
        write_tensors(tmp_path / "tf1" / f"model.ckpt-{step}", at(weights, step))
    (tmp_path / "tf1" / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-20"\n')
    assert is_run(str(tmp_path / "tf1"))


def test_what_is_a_checkpoint(weights, tmp_path):
    model = build_model(SMALL)
    save_model(tmp_path / "model", model, Receipt("tests", "0", {}, {}), card=ModelCard(SMALL))
    best = Run(tmp_path / "best")  # of the best score: it says what it is, but no run
    best.save(5, at(weights, 5))
    (best.path / "run.json").unlink()
    write_tensors(tmp_path / "tf1" / "model.ckpt", at(weights, 3))
    (tmp_path / "tf1" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    write_tensors(tmp_path / "archive" / "inside" / "model.ckpt-30000", at(weights, 30000))
    (tmp_path / "frozen").mkdir()
    (tmp_path / "frozen" / "frozen_inference_graph.pb").touch()
    for name in ("model", "best", "tf1", "archive", "archive/inside", "frozen", "model/model.ckpt"):
        assert not is_run(str(tmp_path / name)), name
    for name in ("no/such.tar.gz", "no/such.pb", "no/model.ckpt-30", "no/such.tflite"):
        assert not is_run(name), name
    assert not any(map(is_run, lookup.CHECKPOINTS))


# ---- one


@pytest.mark.heavy
def test_one_checkpoint_comes_once(weights, tmp_path):
    write_tensors(tmp_path / "model.ckpt-7", at(weights, 7))
    for path, limit in itertools.product((tmp_path / "model.ckpt-7", tmp_path), (0, 5)):
        assert followed(path, [], max_number_of_evaluations=limit) == [7]


def test_a_name_of_the_zoo():
    (opened,) = follow(EvalConfig(checkpoint_dir="shapes_resnet", eval_crop_size=(65, 65)))
    assert opened.loaded.card.config.crop_size == (65, 65)
    assert opened.path == "shapes_resnet" and opened.step == 12000


def test_mistakes(weights, tmp_path):
    with pytest.raises(DeepLabError, match="checkpoint_dir is missing"):
        next(follow(EvalConfig()))
    with pytest.raises(DeepLabError, match="no such file"):
        followed("no/such/model.ckpt", [])
    with pytest.raises(DeepLabError, match="no such folder"):  # before it waits for a checkpoint
        followed(tmp_path / "run", [], data={"dataset_dir": str(tmp_path / "no")})
    with pytest.raises(DeepLabError, match="batch_size=0"):
        followed(tmp_path / "run", [], data={"batch_size": 0})
    backbone = {n: v for n, v in weights.items() if n.startswith("MobilenetV2/")}
    write_tensors(tmp_path / "backbone" / "model.ckpt", backbone)
    with pytest.raises(DeepLabError, match="a backbone without classes"):
        followed(tmp_path / "backbone", [])


# ---- a run


def test_checkpoints_of_a_run_come_once_each(weights, tmp_path):
    folder, runs, told = tmp_path / "run", [], []

    def begin():
        runs.append(Run(folder))

    def save(step):
        return lambda: runs[0].save(step, at(weights, step), keep=2)

    events = [nothing, begin, nothing, save(1), nothing, nothing, save(2), save(5)]
    assert followed(folder, events, told=told, max_number_of_evaluations=3) == [1, 2, 5]
    assert [line.partition(" (")[0] for line in told] == [
        f"Waiting for the first checkpoint in {folder}, which does not exist yet",
        f"Waiting for the first checkpoint in {folder}, which holds none yet",
        f"Waiting for a checkpoint newer than model.ckpt-1 in {folder}",
        f"Waiting for a checkpoint newer than model.ckpt-2 in {folder}",
    ]


def test_without_a_limit_it_goes_on(weights, tmp_path):
    run = Run(tmp_path / "run")
    run.save(4, at(weights, 4))
    for limit in (0, -1):
        config = EvalConfig(checkpoint_dir=str(run.path), max_number_of_evaluations=limit, **EVERY)
        step = itertools.count(run.steps()[-1] + 1)

        def pause(seconds, *, step=step):
            number = next(step)
            run.save(number, at(weights, number))

        steps = [opened.step for opened in itertools.islice(follow(config, pause=pause), 4)]
        assert steps == [*range(steps[0], steps[0] + 4)]


def test_of_several_new_ones_the_newest_is_taken(weights, tmp_path):
    run = Run(tmp_path / "run")

    def save(*steps):
        for step in steps:
            run.save(step, at(weights, step))

    save(1, 2, 10)
    assert followed(run.path, [lambda: save(11, 12)], max_number_of_evaluations=2) == [10, 12]


@pytest.mark.heavy
def test_each_has_its_own_weights(weights, tmp_path):
    run, image = Run(tmp_path / "run"), np.full((1, 20, 30, 3), 100.0)
    run.save(2, at(weights, 2))
    models = []
    config = EvalConfig(checkpoint_dir=str(run.path), max_number_of_evaluations=2, **EVERY)
    for opened in follow(config, pause=lambda seconds: run.save(5, at(weights, 5), keep=1)):
        assert (predict(opened.loaded.model, image) == opened.step).all()
        assert opened.loaded.card.dataset == "shapes" and opened.loaded.card.config.crop_size == (33, 33)
        models.append(opened.loaded.model)
    assert models[0] is models[1], "one model, compiled once"
    assert run.steps() == [5]


def test_the_interval_is_kept(weights, tmp_path, monkeypatch):
    run, clock = Run(tmp_path / "run"), [1000.0]
    run.save(1, at(weights, 1))
    monkeypatch.setattr(following.time, "monotonic", lambda: clock[0])

    def pause(seconds):
        clock[0] += seconds
        if clock[0] == 1002:
            run.save(2, at(weights, 2))
        if clock[0] == 1050:
            run.save(3, at(weights, 3))

    config = EvalConfig(checkpoint_dir=str(run.path), max_number_of_evaluations=3, eval_interval_secs=30)
    when = [(opened.step, clock[0] - 1000) for opened in follow(config, {}, pause=pause)]
    assert when == [(1, 0), (2, 30), (3, 60)]


def test_a_checkpoint_that_vanishes_is_passed_over(weights, tmp_path, monkeypatch):
    """keep_checkpoints of the trainer removes it between the look and the read."""
    run, told, original = Run(tmp_path / "run"), [], following.open_model
    run.save(1, at(weights, 1))

    def removed_first(*arguments, **options):
        monkeypatch.setattr(following, "open_model", original)
        run.remove(1)
        return original(*arguments, **options)

    monkeypatch.setattr(following, "open_model", removed_first)
    events = [lambda: run.save(2, at(weights, 2))]
    assert followed(run.path, events, told=told, max_number_of_evaluations=1) == [2]
    assert "model.ckpt-1 vanished" in told[0] and "\n" not in told[0]


def test_one_that_vanishes_while_the_next_is_read(weights, tmp_path, monkeypatch):
    run, original = Run(tmp_path / "run"), following._again
    run.save(1, at(weights, 1))

    def removed_first(loaded, prefix):
        if prefix.name.endswith("-2"):
            run.save(3, at(weights, 3), keep=1)
        return original(loaded, prefix)

    monkeypatch.setattr(following, "_again", removed_first)
    events = [lambda: run.save(2, at(weights, 2), keep=1), nothing]
    assert followed(run.path, events, max_number_of_evaluations=2) == [1, 3]


@pytest.mark.parametrize("first", [True, False])
def test_one_that_is_still_being_copied_is_waited_for(first, weights, tmp_path):
    run, told = Run(tmp_path / "run"), []
    if not first:
        run.save(1, at(weights, 1))
    write_tensors(tmp_path / "other" / "model.ckpt-2", at(weights, 2))
    content = (tmp_path / "other" / f"model.ckpt-2{DATA}").read_bytes()

    def copy(size):
        (run.path / f"model.ckpt-2{DATA}").write_bytes(content[:size])
        (run.path / "model.ckpt-2.index").write_bytes((tmp_path / "other" / "model.ckpt-2.index").read_bytes())

    events = [lambda: copy(1000), lambda: copy(len(content) // 2), lambda: copy(len(content))]
    assert followed(run.path, events, told=told, max_number_of_evaluations=2 - first) == [*([] if first else [1]), 2]
    assert any("model.ckpt-2 vanished or is not whole" in line for line in told)


def test_flags_that_contradict_the_run_are_an_error_at_once(weights, tmp_path):
    run = Run(tmp_path / "run")
    run.save(1, at(weights, 1))
    with pytest.raises(DeepLabError, match="--depth_multiplier=1.0 contradicts .*deeplab.json.*depth_multiplier=0.25"):
        followed(run.path, [], changes={"depth_multiplier": 1.0})
    run.save(2, at(weights, 2, **{"logits/semantic/biases": np.zeros(4, np.float32)}))
    with pytest.raises(DeepLabError, match="logits/semantic/biases .4. instead of .9."):
        followed(run.path, [])


def test_a_run_of_the_release_has_no_description(weights, tmp_path):
    for step in (10, 20):
        slots = {"aspp0/weights/Momentum": np.zeros((1, 1, 80, 16), np.float32)}
        write_tensors(tmp_path / f"model.ckpt-{step}", at(weights, step, **slots))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-20"\n')
    config = EvalConfig(checkpoint_dir=str(tmp_path), max_number_of_evaluations=1, **EVERY)
    (opened,) = follow(config, {"output_stride": 8})
    assert opened.step == 20 and opened.loaded.card.config.output_stride == 8


def test_a_checkpoint_that_is_not_the_newest_keeps_its_description(weights, tmp_path):
    config = ModelConfig(depth_multiplier=0.25, num_classes=9, aspp_convs_filters=16, output_stride=8)
    run = Run(tmp_path / "run", config)
    for step in (1, 2):
        run.save(step, at(weights, step))
    prefix = str(run.path / "model.ckpt-1")
    for path in (prefix, f"{prefix}.index"):
        loaded, model = deeplab_tf.load(path)
        assert loaded.output_stride == 8  # the shapes alone would say 16
        assert variable_map(model)["logits/semantic/biases"].numpy()[1] == 1e3
    with pytest.raises(DeepLabError, match="num_classes=3 contradicts .*deeplab.json"):
        open_model(prefix, {"num_classes": 3})


# ---- its data


def test_the_data_follow_from_the_checkpoint(weights, tmp_path):
    run = Run(tmp_path / "run")
    run.save(1, at(weights, 1))
    config = EvalConfig(
        checkpoint_dir=str(run.path), max_number_of_evaluations=1, eval_batch_size=3, eval_crop_size=(49, 65)
    )
    (tmp_path / "records").mkdir()
    records = write_shapes(tmp_path / "records", "val", 2, (33, 49))
    (work,) = passes(config, {"dataset_dir": records, "min_resize_value": 40})
    data = work.records.config
    assert (data.dataset, data.batch_size, data.crop_size) == ("shapes", 3, (49, 65))
    assert data.min_resize_value == 40 and data.model_variant == "mobilenet_v2" and work.facts.name == "shapes"
    with pytest.raises(DeepLabError, match="--dataset=cityscapes has 19 classes, .*model.ckpt-1 has 9 .of shapes."):
        list(passes(config, {"dataset_dir": records, "dataset": "cityscapes"}))


def test_ones_own_data_set(weights, tmp_path):
    run = Run(tmp_path / "run")
    card = json.loads((run.path / "deeplab.json").read_text())
    (run.path / "deeplab.json").write_text(json.dumps({**card, "dataset": "letters"}))
    run.save(1, at(weights, 1))
    (tmp_path / "records").mkdir()
    described = {"name": "letters", "class_names": list("abcdefghi"), "ignore_label": 254}
    (tmp_path / "records" / "dataset.json").write_text(json.dumps(described))
    config = EvalConfig(checkpoint_dir=str(run.path), max_number_of_evaluations=1, **EVERY)
    (work,) = passes(config, {"dataset_dir": write_shapes(tmp_path / "records", "val", 2, (33, 49))})
    assert (work.facts.name, work.facts.ignore_label) == ("letters", 254)


def test_records_are_located_and_indexed_once(weights, tmp_path, monkeypatch):
    """For all the checkpoints of a run, and for what the data set's name turns out to be."""
    run, indexed, original = Run(tmp_path / "run"), [], record_index.index_shards
    run.save(1, at(weights, 1))
    (tmp_path / "records").mkdir()
    data = {"dataset_dir": write_shapes(tmp_path / "records", "val", 3, (33, 49))}
    monkeypatch.setattr(record_index, "index_shards", lambda shards: indexed.append(shards) or original(shards))
    config = EvalConfig(checkpoint_dir=str(run.path), max_number_of_evaluations=2, **EVERY)
    found = list(passes(config, data, pause=lambda seconds: run.save(5, at(weights, 5))))
    assert [work.opened.step for work in found] == [1, 5]
    assert found[0].records is found[1].records and found[0].records.count == 3
    assert len(indexed) == 1
