"""Building records as a Beam pipeline: the same files whatever the runner, the same faults, nothing half-done."""

import json
import pathlib
import sys

import numpy as np
import pytest
from commands import finished
from PIL import Image

from deeplab_tf.catalog import datasets
from deeplab_tf.data import beam
from deeplab_tf.data.build import BuildOptions, build_records
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import build_data

pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")

SHAPES = datasets.DATASETS["shapes"]


@pytest.fixture
def splits(tmp_path) -> dict[str, list[Pair]]:
    """23 pictures and their labels as PNGs; val has fewer than there are shards. One label is a colour PNG."""
    random, folder = np.random.default_rng(5), tmp_path / "pictures"
    folder.mkdir()
    pairs = []
    for number in range(23):
        image, label = (str(folder / f"{kind}_{number:02d}.png") for kind in ("image", "label"))
        Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).save(image)
        classes = random.integers(0, 9, (6, 8), np.uint8)
        Image.fromarray(np.array(SHAPES.palette, np.uint8)[classes] if number == 4 else classes).save(label)
        pairs.append(Pair(image, label, f"picture {number}", tuple(range(9)) if number == 5 else None))
    return {"train": pairs, "val": pairs[2:5]}


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def built(folder: pathlib.Path, splits, writer=None) -> tuple[dict[str, bytes], dict[str, list[int]]]:
    counts = build_records(splits, SHAPES, folder, BuildOptions(4, 1, ((8, 0), (7, 255))), writer=writer)
    return contents(folder), {split: found.tolist() for split, found in counts.items()}


@pytest.fixture
def job_server():
    """A job server that speaks Flink's and Spark's protocol and runs the jobs itself; gives the options to find it."""
    from apache_beam.runners.portability import local_job_service

    server = local_job_service.LocalJobServicer(None)
    yield f"--job_endpoint=localhost:{server.start_grpc_server()} --environment_type=LOOPBACK"
    server.stop()


def test_the_direct_runner_writes_the_same_files(splits, tmp_path):
    expected, counts = built(tmp_path / "here", splits)
    assert len(expected) == 9
    assert built(tmp_path / "beam", splits, beam.beam_writer("DirectRunner")) == (expected, counts)
    assert counts["val"][8] == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["beam", "here", "pictures"]


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner"])
def test_the_runners_of_clusters_write_the_same_files(splits, tmp_path, job_server, runner):
    expected = built(tmp_path / "here", splits)
    assert built(tmp_path / "beam", splits, beam.beam_writer(runner, [job_server])) == expected


@pytest.mark.heavy
def test_several_processes_write_the_same_files(splits, tmp_path):
    options = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    expected = built(tmp_path / "here", splits)
    assert built(tmp_path / "beam", splits, beam.beam_writer("DirectRunner", options)) == expected


def test_relative_paths(splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = [Pair(f"pictures/image_{i:02d}.png", f"pictures/label_{i:02d}.png", f"picture {i}") for i in range(3)]
    work = tmp_path / "elsewhere"
    work.mkdir()

    def write(line, *rest, original=beam._write):
        monkeypatch.chdir(work)  # as in a worker
        original(line, *rest)

    expected = built(tmp_path / "here", {"train": pairs})
    monkeypatch.setattr(beam, "_write", write)
    assert built(tmp_path / "beam", {"train": pairs}, beam.beam_writer("DirectRunner")) == expected


def test_all_faults_are_listed_and_nothing_is_written(splits, tmp_path):
    pathlib.Path(splits["train"][1].image).unlink()
    pathlib.Path(splits["train"][22].label).write_text("nothing")
    Image.fromarray(np.full((6, 8), 77, np.uint8)).save(splits["val"][2].label)
    messages = []
    for number, writer in enumerate((None, beam.beam_writer("DirectRunner"))):
        with pytest.raises(DeepLabError) as caught:
            built(tmp_path / str(number), splits, writer)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("4 faults, nothing was written:\n")
    assert [file.name for file in tmp_path.iterdir()] == ["pictures"]


def test_a_pipeline_that_fails_leaves_nothing(splits, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(beam, "_write", fail)
    with pytest.raises(DeepLabError, match="--beam_runner=DirectRunner: OSError: no space left"):
        built(tmp_path / "beam", splits, beam.beam_writer("DirectRunner"))
    monkeypatch.setattr(beam, "_write", lambda *_: None)
    with pytest.raises(DeepLabError, match="DirectRunner: the pipeline ended before shard 0 was written"):
        built(tmp_path / "beam", splits, beam.beam_writer("DirectRunner"))
    assert [file.name for file in tmp_path.iterdir()] == ["pictures"]


def test_a_shard_that_is_tried_twice_is_whole(splits, tmp_path, monkeypatch):
    expected = built(tmp_path / "here", splits)

    def twice(line, work, rules, original=beam._write):
        original(line, work, rules)
        (pathlib.Path(work) / f"{json.loads(line)['number']}.0000").write_text("what a killed worker left")
        original(line, work, rules)

    monkeypatch.setattr(beam, "_write", twice)
    assert built(tmp_path / "beam", splits, beam.beam_writer("DirectRunner")) == expected


@pytest.mark.parametrize(
    ("runner", "options", "message"),
    [
        ("FlinkRuner", [], "unknown beam_runner 'FlinkRuner'; did you mean FlinkRunner"),
        (
            "DirectRunner",
            ["--direct_num_worker=2"],
            "unknown option in --beam_options .*did you mean direct_num_workers",
        ),
        ("DirectRunner", ["--direct_num_workers=2 region=x"], "--beam_options: 'region=x'; expected --name=value"),
        (
            "DirectRunner",
            ["--direct_num_workers=x"],
            "Beam cannot read it .*--direct_num_workers: invalid int value: 'x'",
        ),
    ],
)
def test_mistakes_in_options(runner, options, message):
    with pytest.raises(DeepLabError, match=message):
        beam.beam_writer(runner, options)


def test_without_beam(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(DeepLabError, match=r"needs Apache Beam .*pip install 'deeplab_tf\[beam\]'"):
        beam.beam_writer("DirectRunner")


def test_the_command(splits, tmp_path, capsys):
    root = tmp_path / "own"
    (root / "labels").mkdir(parents=True)
    (root / "images").mkdir()
    for pair in splits["train"]:
        name = pair.filename.split()[-1]
        pathlib.Path(pair.image).rename(root / "images" / f"{name}.png")
        pathlib.Path(pair.label).rename(root / "labels" / f"{name}.png")
    facts = {"class_names": SHAPES.class_names, "palette": SHAPES.palette}
    (root / "dataset.json").write_text(json.dumps(facts))
    arguments = ["--dataset=folder", f"--root={root}", "--num_shards=2"]

    assert finished(build_data, *arguments, "--num_processes=1", f"--output_dir={tmp_path / 'here'}") == 0
    assert (
        finished(
            build_data,
            *arguments,
            f"--output_dir={tmp_path / 'beam'}",
            "--beam_runner=DirectRunner",
            "--beam_options=--job_name=own",
        )
        == 0
    )
    assert contents(tmp_path / "here") == contents(tmp_path / "beam")
    assert "Written:" in capsys.readouterr().out
    assert finished(build_data, *arguments, f"--output_dir={tmp_path / 'no'}", "--beam_options=--job_name=own") == 1
    assert "--beam_options belongs to --beam_runner" in capsys.readouterr().err


@pytest.mark.parametrize("runner", [None, "DirectRunner"])
def test_files_that_tensorflow_reaches(splits, tmp_path, runner):
    """file:// stands for gs:// and its like: nothing of it is a path of this machine's."""
    expected = built(tmp_path / "here", splits)
    place = f"file://{tmp_path}"
    away = {
        split: [Pair(f"file://{pair.image}", f"file://{pair.label}", pair.filename, pair.label_ids) for pair in pairs]
        for split, pairs in splits.items()
    }
    counts = build_records(
        away, SHAPES, f"{place}/deep/away", BuildOptions(4, 1, ((8, 0), (7, 255))),
        writer=runner and beam.beam_writer(runner),
    )  # fmt: skip
    assert (
        contents(tmp_path / "deep" / "away"),
        {split: found.tolist() for split, found in counts.items()},
    ) == expected
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["away"]
    with pytest.raises(DeepLabError, match="away is there and not an empty folder"):
        build_records(away, SHAPES, f"{place}/deep/away")
    pathlib.Path(splits["val"][0].image).unlink()
    with pytest.raises(DeepLabError, match=r"2 faults(.|\n)*file://.*image_02.png: missing image"):
        build_records(away, SHAPES, f"{place}/again", writer=runner and beam.beam_writer(runner))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["deep", "here", "pictures"]
