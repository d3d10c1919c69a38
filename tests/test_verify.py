"""Proving a checkpoint: a fake archive of golden weights passes, and fails for the right reason when it is not it."""

import base64
import dataclasses
import json
import pathlib
import tarfile

import numpy as np
import pytest
from commands import finished
from golden import golden_tensor
from record_files import write_shapes

from deeplab_tf.catalog import datasets
from deeplab_tf.config import ModelConfig
from deeplab_tf.evaluation import verify as module
from deeplab_tf.evaluation.verify import record, recorded_reference, verify
from deeplab_tf.ops.images import label_png
from deeplab_tf.tools import verify as tool
from deeplab_tf.weights.loading import manifest_of
from deeplab_tf.weights.sources import sha256_of
from deeplab_tf.weights.tf1 import write_tensors
from deeplab_tf.zoo import lookup
from deeplab_tf.zoo.entry import ReleasedCheckpoint, Score
from deeplab_tf.zoo.released import CHECKPOINTS

CONFIG = ModelConfig(model_variant="tiny", num_classes=9, aspp_convs_filters=16)
ENTRY = ReleasedCheckpoint(
    "fake",
    CONFIG,
    file="fake_2018_01_01.tar.gz",
    dataset="shapes",
    train_split="train",
    scores=(Score(50.0, 16), Score(60.0, 16, split="test")),
)
NAME = "logits/semantic/weights"


def golden() -> dict[str, np.ndarray]:
    return {name: golden_tensor(name, tuple(shape)) for name, shape in manifest_of(ENTRY).items()}


def put(cache: pathlib.Path, tensors: dict[str, np.ndarray]) -> pathlib.Path:
    """Writes the archive by hand to where it would be downloaded to."""
    write_tensors(cache / "made" / "model.ckpt", {**tensors, "global_step": np.int64(30000)})
    with tarfile.open(cache / ENTRY.file, "w:gz") as tar:
        tar.add(cache / "made", "fake")
    return cache / ENTRY.file


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict:
    """What is recorded of the good archive, without its sum: every packing has another."""
    cache = tmp_path_factory.mktemp("good")
    put(cache, golden())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(lookup.CHECKPOINTS, "fake", ENTRY)
        found = record(ENTRY, cache=cache)
    assert found.pop("sha256") == sha256_of(cache / ENTRY.file)
    return json.loads(json.dumps(found))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setitem(lookup.CHECKPOINTS, "fake", ENTRY)
    monkeypatch.setattr(lookup, "manifest", lambda name: manifest_of(lookup.find(name)))
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path))
    return tmp_path


def status(found) -> dict[str, str]:
    return {check.name: check.status for check in found.checks}


def failure(found) -> str:
    """The words of the one check that failed."""
    (words,) = [check.words for check in found.checks if check.status == "failed"]
    assert found.verdict == "failed"
    return words


@pytest.mark.heavy
def test_golden_weights_pass(cache, reference):
    entry = dataclasses.replace(ENTRY, sha256=sha256_of(put(cache, golden())))
    found = verify(entry, reference=reference)
    assert status(found) == dict.fromkeys(("archive", "variables", "weights", "prediction"), "passed")
    assert found.verdict == "passed" and found.scores == ()
    assert "as published" in found.checks[0].words and "bit for bit as recorded" in found.checks[2].words
    assert found.checks[3].words.startswith("100.000%")


@pytest.mark.heavy
def test_a_wrong_hash(cache, reference):
    put(cache, golden())
    words = failure(verify(dataclasses.replace(ENTRY, sha256="0" * 64), reference=reference))
    assert f"expected {'0' * 64} (the published sum)" in words
    words = failure(verify(ENTRY, reference={**reference, "sha256": "1" * 64}))
    assert f"expected {'1' * 64} (recorded)" in words


def test_a_missing_variable(cache, reference):
    tensors = golden()
    del tensors[NAME]
    put(cache, tensors)
    found = verify(ENTRY, reference=reference)
    assert failure(found) == f"of {len(tensors) + 1} variables, 1 missing: {NAME}"
    assert status(found) == {"archive": "passed", "variables": "failed"}


def test_one_weight_that_changed(cache, reference):
    tensors = golden()
    tensors[NAME].flat[7] += 1e-3
    put(cache, tensors)
    before, after = reference["variables"][NAME]["sum"], tensors[NAME].sum(dtype=np.float64)
    assert after - before == pytest.approx(1e-3, rel=1e-3)
    words = failure(verify(ENTRY, reference=reference))
    assert words == f"1 of {len(tensors)} variables differ: {NAME} sums to {after:.9g}, recorded {before:.9g}"


def test_weights_that_changed_places(cache, reference):
    """The sums stay, the network does not."""
    tensors = golden()
    tensors[NAME] = tensors[NAME][..., ::-1].copy()
    put(cache, tensors)
    found = verify(ENTRY, reference=reference)
    assert status(found) == {"archive": "passed", "variables": "passed", "weights": "failed", "prediction": "failed"}


def test_another_prediction(cache, reference):
    put(cache, golden())
    mask = base64.b64encode(label_png(np.zeros((193, 257), np.uint8))).decode()
    assert "of the pixels of the bundled picture" in failure(verify(ENTRY, reference={**reference, "mask": mask}))


@pytest.mark.heavy
def test_damage_and_absence(cache):
    assert verify(ENTRY, reference={}, cache=cache / "empty").verdict == "unavailable"
    (cache / ENTRY.file).write_bytes(b"\x1f\x8b not an archive")
    found = verify(ENTRY, reference={})
    assert status(found)["variables"] == "failed" and "not a whole .tar.gz" in found.checks[1].words


# ---- with the data


@pytest.fixture
def four(monkeypatch):
    """The shapes data set as if it had four examples."""
    facts = dataclasses.replace(datasets.DATASETS["shapes"], splits={"train": 4, "val": 4})
    monkeypatch.setitem(datasets.DATASETS, "shapes", facts)


def records(folder: pathlib.Path, count: int, name: str | None = None) -> str:
    folder.mkdir()
    if name:
        (folder / "dataset.json").write_text(json.dumps({"name": name, "class_names": list("abcdefghi")}))
    return write_shapes(folder, "val", count, (65, 65))


def test_another_data_set(cache, reference, four):
    put(cache, golden())
    words = failure(verify(ENTRY, reference={}, dataset_dir=records(cache / "a", 4, "camvid")))
    assert words == f"another data set: {cache / 'a'} holds camvid, the scores are of shapes"
    words = failure(verify(ENTRY, reference={}, dataset_dir=records(cache / "b", 3)))
    assert words.startswith("another data set, or not all of it: 3 records of val")


@pytest.mark.heavy
def test_scores_are_compared_or_marked(cache, four, monkeypatch):
    put(cache, golden())
    seen = []
    monkeypatch.setattr(
        module, "score", lambda model, batches, *_, **__: seen.append(sum(1 for _ in batches)) or {"miou": 0.499}
    )
    found = verify(ENTRY, reference={}, dataset_dir=records(cache / "a", 4))
    assert [score.verdict for score in found.scores] == ["as published", "not comparable (of val)"]
    assert [score.measured for score in found.scores] == [49.9, 49.9] and seen == [4, 4]
    on_all = dataclasses.replace(ENTRY, train_split="trainval", scores=ENTRY.scores[1:])
    found = verify(on_all, reference={}, dataset_dir=str(cache / "a"))
    assert found.scores[0].verdict == "contaminated (of val)" and "trainval" in found.scores[0].contaminated
    assert found.to_json()["scores"][0]["contaminated"] == found.scores[0].contaminated
    better = dataclasses.replace(ENTRY, scores=(Score(51.0, 16),))
    assert verify(better, reference={}, dataset_dir=str(cache / "a")).verdict == "failed"


def test_every_published_score_says_at_which_size():
    for entry in CHECKPOINTS.values():
        assert all(score.longest_side or entry.dataset in module._CROPS for score in entry.scores), entry.name
        assert {score.metric for score in entry.scores} <= set(module._SCORES), entry.name


# ---- the package's own, and the command


def test_the_embedded_checkpoint_is_as_recorded():
    assert set(recorded_reference("shapes_resnet")) == {"sha256", "variables", "mask"}
    found = verify(lookup.find("shapes_resnet"))
    assert set(status(found).values()) == {"passed"}
    assert recorded_reference("xception_41_imagenet") == {}


def test_the_command(cache, monkeypatch, capsys):
    put(cache, golden())
    out = cache / "verify.json"
    assert finished(tool, "fake", f"--output={out}") == 0
    assert capsys.readouterr().out.startswith("fake: passed\n  ok      archive: sha256 ")
    assert json.loads(out.read_text())[0]["verdict"] == "passed"
    assert finished(tool, "fake", f"--record={cache}") == 0
    assert "variables" in json.loads((cache / "fake.reference.json").read_text())
    # Another table, not fewer rows: rows that are put back would stand in another order.
    monkeypatch.setattr(lookup, "CHECKPOINTS", {n: lookup.CHECKPOINTS[n] for n in ("xception_41_imagenet", "fake")})
    monkeypatch.setattr(
        lookup, "fetch", lambda entry, **_: lookup.archive_path(entry).read_bytes() if entry is ENTRY else offline()
    )
    assert finished(tool, "--all", f"--output={out}") == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "| xception_41_imagenet | - | - | - | - |  |  | unavailable |",
        "| fake | ok | ok | ok | - |  |  | passed |",
    ]
    assert (
        finished(
            tool,
        )
        == 1
    )
    assert "expected names of the zoo, or --all" in capsys.readouterr().err
    for place in (cache, cache / "none" / "verify.json"):
        assert finished(tool, "fake", f"--output={place}") == 1
        captured = capsys.readouterr()
        assert f"--output={place}: cannot be written" in captured.err
        assert "archive" not in captured.out, "it is known before the work"


def offline():
    from deeplab_tf.errors import DeepLabError

    raise DeepLabError("no connection")
