"""Input under deterministic operations: parallel all the same, and equal in bits from any step."""

import threading

import pytest
import tensorflow as tf
from record_files import write_shapes
from tensorflow.python.framework import config as switch
from test_loop import run
from test_pipeline import assert_equal

from deeplab_tf.config import DataConfig
from deeplab_tf.data import decoded_cache
from deeplab_tf.data.parallel import kept_parallel
from deeplab_tf.data.pipeline import make_dataset

PARALLEL = {"ParallelMap", "ParallelMapV2", "MapAndBatch"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_shapes(tmp_path_factory.mktemp("records"), "train", 7, (40, 50))


@pytest.fixture
def deterministic():
    tf.config.experimental.enable_op_determinism()


def dataset(folder, start_step: int = 0, **options) -> tf.data.Dataset:
    config = DataConfig("shapes", folder, crop_size=(33, 33), batch_size=4, **options)
    return make_dataset(config, split="train", training=True, seed=3, start_step=start_step)


def nodes(iterator) -> dict[str, float]:
    """Returns what an iterator runs, from tf.data's own model of it: name -> threads of a map, room of a buffer."""
    found = tf.data.experimental.get_model_proto(iterator).nodes.values()
    return {node.name: max((parameter.value for parameter in node.parameters), default=0) for node in found}


def test_the_pipeline_runs_in_parallel_and_ahead(folder, deterministic):
    sequential = iter(dataset(folder))
    next(sequential)
    assert not PARALLEL & nodes(sequential).keys(), "TensorFlow leaves it parallel by itself: kept_parallel can go"
    assert nodes(sequential)["Prefetch"] == 0
    iterator = iter(kept_parallel(dataset(folder)))
    next(iterator)
    assert PARALLEL & nodes(iterator).keys() and nodes(iterator)["Prefetch"] > 0


@pytest.fixture
def readers(monkeypatch) -> list[bool]:
    """Returns whether each reader of the cache met another one; the first of those that come in turn does not."""
    begun = threading.Condition()
    read = decoded_cache.DecodedCache._read
    met = []

    def meet(self, record):
        with begun:
            number = len(met)
            met.append(False)
            begun.notify_all()
            met[number] = begun.wait_for(lambda: len(met) > 1, timeout=30)
        return read(self, record)

    monkeypatch.setattr(decoded_cache.DecodedCache, "_read", meet)
    return met


def test_two_pictures_are_read_at_once(folder, tmp_path, deterministic, readers):
    next(iter(kept_parallel(dataset(folder, decoded_cache=str(tmp_path / "cache")))))
    assert len(readers) > 1 and all(readers)


@pytest.mark.heavy
@pytest.mark.parametrize("steps_per_loop", [1, 3])
def test_a_deterministic_run_reads_in_parallel(folder, tmp_path, deterministic, readers, steps_per_loop):
    data = {"decoded_cache": str(tmp_path / "cache")}
    update = {"training_number_of_steps": 3}
    options = {"deterministic": True, "steps_per_loop": steps_per_loop}
    run(folder, tmp_path / "run", data=data, update=update, **options)
    assert len(readers) > 1 and all(readers)


@pytest.mark.heavy
@pytest.mark.parametrize("options", [{"cut_mix": 0.7, "grid_mask": 0.5}, {"decoded_cache": "cache"}])
def test_equal_bits_in_two_runs_and_from_any_step(folder, tmp_path, deterministic, options):
    """What augmentation changes has been through all that a pipeline without options does."""
    if "decoded_cache" in options:
        options = {"decoded_cache": str(tmp_path / "cache")}

    def read(start: int, count: int) -> list:
        return list(kept_parallel(dataset(folder, start, **options)).take(count).as_numpy_iterator())

    whole = read(0, 6)
    assert_equal(read(0, 6), whole)
    assert_equal(read(4, 2), whole[4:])
    switch.disable_op_determinism()
    assert_equal(list(dataset(folder, 0, **options).take(6).as_numpy_iterator()), whole)
