"""Row 4, and every command on a disk that is full: each ends in one line, with what was there before as it was."""

import errno
import gc
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import annotated
import numpy as np
import PIL.Image
import pytest
import record_files
import tensorflow as tf
from commands import finished, one_line
from full_disk import FullDisk
from golden import golden_image
from networks import SMALL, lively

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import ExportConfig, PredictConfig
from deeplab_tf.config.pack import PackConfig
from deeplab_tf.data.build import BuildOptions, build_records
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.shapes import write_shapes
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.pack import make_plan, pack
from deeplab_tf.exporting.export import export
from deeplab_tf.filesystems.remote_errors import os_errors
from deeplab_tf.inference.files import predict_files
from deeplab_tf.ops.images import png_bytes
from deeplab_tf.tools import build_data, convert, doctor, predict, train, vis
from deeplab_tf.tools import eval as evaluation
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt

CARD = ModelCard(config=SMALL)
SAVE = ("mask", "overlay", "raw", "cutout", "probabilities")


@pytest.fixture(scope="module")
def model():
    return lively(SMALL)


@pytest.fixture(scope="module")
def sources(model, tmp_path_factory) -> pathlib.Path:
    """A folder with what the commands read: a picture, a model directory, a set of shapes, predictions."""
    folder = tmp_path_factory.mktemp("sources")
    PIL.Image.fromarray(golden_image("a", 20, 30)).save(folder / "a.png")
    save_model(folder / "model", model, Receipt("tests", "0" * 64, {}, {}), card=CARD)
    write_shapes(folder=folder / "shapes", splits={"train": 2, "val": 1}, height=33, width=33)
    (folder / "photos").mkdir()
    PIL.Image.fromarray(golden_image("a", 20, 30)).save(folder / "photos" / "2008_000006.jpg")
    (folder / "raw").mkdir()
    (folder / "raw" / "2008_000006_raw.png").write_bytes(png_bytes(np.zeros((20, 30), np.uint8)))
    return folder


def state(folder: pathlib.Path) -> dict[str, bytes | None]:
    """Returns all files of a folder with their content, and its folders."""
    return {
        str(place.relative_to(folder)): place.read_bytes() if place.is_file() else None for place in folder.rglob("*")
    }


def fails_at_every_write(monkeypatch, before: pathlib.Path, work: Callable[[pathlib.Path], object]) -> int:
    """Runs `work` on copies of a folder, with room for one write more each time; returns how many it needs."""
    place = before.with_name(f"{before.name}-filled")
    shutil.copytree(before, place)
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, place)
        work(place)
    assert disk.done
    for room in range(disk.done):
        shutil.rmtree(place)
        shutil.copytree(before, place)
        with monkeypatch.context() as patch, pytest.raises(DeepLabError) as error:
            FullDisk(patch, place, room)
            work(place)
        message = str(error.value)
        assert "\n" not in message and "cannot be written" in message, (room, message)
        assert os.strerror(errno.ENOSPC) in message or "No space" in message, (room, message)
        assert state(place) == state(before), room
    return disk.done


def test_row_4_predictions_on_a_full_disk(model, sources, tmp_path, monkeypatch):
    before = tmp_path / "before"
    (before / "out").mkdir(parents=True)
    for name in ("a_mask.png", "a_probabilities.npy", "b_mask.png"):
        (before / "out" / name).write_bytes(b"of an earlier run")
    options = PredictConfig(resize="none", save=SAVE, runtime="tf")

    def work(place: pathlib.Path) -> None:
        list(predict_files(model, CARD, [str(sources / "a.png")], place / "out", options))

    assert fails_at_every_write(monkeypatch, before, work) >= len(SAVE) + 1


def test_row_4_the_command_says_it_in_one_line(sources, tmp_path, monkeypatch, capsys):
    """What is mapped is allocated first: without that the process would end with SIGBUS."""
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        FullDisk(patch, tmp_path / "out", room=1)  # for the header of the array
        flags = [
            f"--checkpoint={sources}/model",
            f"--output_dir={tmp_path}/out",
            "--save=probabilities",
            "--runtime=tf",
        ]
        assert finished(predict, *flags, str(sources / "a.png")) == 1
    message = one_line(capsys.readouterr().err)
    assert f"--output_dir={tmp_path}/out: cannot be written (No space left on device)" in message
    assert state(tmp_path / "out") == {}


def test_an_array_that_is_mapped_is_that_of_numpy(model, sources, tmp_path):
    options = PredictConfig(resize="none", save=("probabilities",), runtime="tf")
    list(predict_files(model, CARD, [str(sources / "a.png")], tmp_path, options))
    content = (tmp_path / "a_probabilities.npy").read_bytes()
    found = np.load(tmp_path / "a_probabilities.npy")
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    np.save(tmp_path / "again.npy", found)
    assert content == (tmp_path / "again.npy").read_bytes()


@pytest.mark.parametrize("supported", [True, False])
def test_an_allocation_is_whole(supported, tmp_path, monkeypatch):
    if not supported:

        def refused(*_):
            raise OSError(errno.EOPNOTSUPP, "no")

        monkeypatch.setattr(os, "posix_fallocate", refused, raising=False)
    with (tmp_path / "x").open("w+b") as stream:
        stream.write(b"abc")
        stream.flush()
        files.allocate(stream, 40_000_000)
        assert os.fstat(stream.fileno()).st_size == 40_000_000
        if supported and hasattr(os, "posix_fallocate"):
            assert os.fstat(stream.fileno()).st_blocks * 512 >= 40_000_000
    assert (tmp_path / "x").read_bytes()[:5] == b"abc\0\0"


def test_a_model_directory_on_a_full_disk(model, tmp_path, monkeypatch):
    before = tmp_path / "before"
    before.mkdir()
    (before / "note.txt").write_text("mine")

    def work(place: pathlib.Path) -> None:
        save_model(place / "model", model, Receipt("tests", "0" * 64, {}, {}), card=CARD)

    assert fails_at_every_write(monkeypatch, before, work) >= 4
    assert (before / "note.txt").read_text() == "mine"


def test_a_data_set_and_its_records_on_a_full_disk(sources, tmp_path, monkeypatch):
    before = tmp_path / "before"
    before.mkdir()

    def work(place: pathlib.Path) -> None:
        write_shapes(folder=place / "shapes", splits={"train": 1}, height=33, width=33)

    assert fails_at_every_write(monkeypatch, before, work) >= 3
    (tmp_path / "records").mkdir()
    shapes = sources / "shapes"
    pairs = [
        Pair(f"{shapes}/JPEGImages/{name}.jpg", f"{shapes}/SegmentationClass/{name}.png", name)
        for name in ("train_000000", "train_000001")
    ]

    def built(place: pathlib.Path) -> None:
        build_records({"train": pairs}, DATASETS["shapes"], place / "records", BuildOptions(2))

    assert fails_at_every_write(monkeypatch, tmp_path / "records", built) >= 3


@pytest.mark.parametrize("drawn", [False, True], ids=["labels", "annotations"])
def test_building_own_data_on_a_full_disk(drawn, tmp_path, monkeypatch, capsys):
    """Records, dataset.json, and the labels that are drawn from annotations into a folder for the time being."""
    if drawn:
        annotated.labelme(tmp_path / "data")
    else:
        (tmp_path / "data/labels").mkdir(parents=True)
        annotated.photo(tmp_path / "data/images/a.jpg")
        label = annotated.box_mask(10, 5, 30, 25)
        PIL.Image.fromarray(label).save(tmp_path / "data/labels/a.png")
        (tmp_path / "data/class_names.txt").write_text("background\ncat\n")
    (tmp_path / "before/tmp").mkdir(parents=True)

    def built(place: pathlib.Path) -> None:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(place / "tmp"))
            flags = [f"--root={tmp_path}/data", f"--output_dir={place}/records", "--num_processes=1", "--num_shards=1"]
            if finished(build_data, "--dataset=folder", *flags):
                raise DeepLabError(one_line(capsys.readouterr().err))
        shutil.rmtree(place / "tmp")
        (place / "tmp").mkdir()

    assert fails_at_every_write(monkeypatch, tmp_path / "before", built) >= (3 if drawn else 2)


def test_doctor_on_a_full_disk(tmp_path, monkeypatch, capsys):
    """It writes nothing but labels that it draws from annotations, into a folder for the time being."""
    annotated.labelme(tmp_path / "data")
    (tmp_path / "before").mkdir()

    def looked_at(place: pathlib.Path) -> None:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(place))
            if finished(doctor, f"--dataset_dir={tmp_path}/data"):
                raise DeepLabError(one_line(capsys.readouterr().err))
        gc.collect()  # what was drawn goes with the data

    assert fails_at_every_write(monkeypatch, tmp_path / "before", looked_at) >= 1


def test_a_submission_on_a_full_disk(sources, tmp_path, monkeypatch):
    before = tmp_path / "before"
    before.mkdir()
    config = PackConfig(server="voc", predictions=str(sources / "raw"), images=str(sources / "photos"))

    def work(place: pathlib.Path) -> None:
        pack(make_plan(PackConfig(**{**vars(config), "output": str(place / "results.tgz")})))

    assert fails_at_every_write(monkeypatch, before, work)


@pytest.mark.heavy
def test_converting_and_exporting_on_a_full_disk(model, sources, tmp_path, monkeypatch, capsys):
    (tmp_path / "before").mkdir()

    def converted(place: pathlib.Path) -> None:
        if finished(convert, f"--checkpoint={sources}/model/model.ckpt", f"--output_dir={place}/model"):
            raise DeepLabError(one_line(capsys.readouterr().err))

    assert fails_at_every_write(monkeypatch, tmp_path / "before", converted)
    (tmp_path / "exports").mkdir()

    def exported(place: pathlib.Path) -> None:
        export(model, place / "model.pb", ExportConfig(num_images=1), crop_size=(33, 33))

    assert fails_at_every_write(monkeypatch, tmp_path / "exports", exported)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_what_tensorflow_tells_of_a_disk_is_told_in_few_words(number):
    told = f"{{{{function_node x}}}} /run/.partial-1/model.ckpt.tempstate1; {os.strerror(number)} [Op:SaveV2]"
    with pytest.raises(OSError) as error, os_errors("/run"):
        raise tf.errors.ResourceExhaustedError(None, None, told)
    assert (error.value.errno, str(error.value)) == (number, f"[Errno {number}] {os.strerror(number)}: '/run'")


@pytest.mark.heavy
def test_training_scoring_and_drawing_on_a_full_disk(tmp_path, monkeypatch, capsys):
    """What a training run has saved before stays; of a report and of pictures nothing is half there."""
    data = [f"--dataset_dir={tmp_path}/records", "--dataset=shapes"]
    for split in ("train", "val"):
        record_files.write_shapes(tmp_path / "records", split, 2, (33, 33))
    begun = ["--train_split=train", "--train_crop_size=33,33", "--model_variant=tiny", "--train_batch_size=2"]
    begun += ["--aspp_convs_filters=16"]
    assert finished(train, f"--train_logdir={tmp_path}/run", "--training_number_of_steps=1", *begun, *data) == 0
    scored = [f"--checkpoint_dir={tmp_path}/run", "--eval_split=val", "--eval_crop_size=33,33"]
    drawn = [f"--checkpoint_dir={tmp_path}/run", "--vis_split=val", "--vis_crop_size=33,33"]
    place = tmp_path / "place"
    for tool, flags, least in (
        (train, [f"--train_logdir={place}/run", "--training_number_of_steps=1", *begun], 5),
        (
            evaluation,
            [f"--eval_logdir={place}/log", f"--report={place}/report", "--max_number_of_evaluations=1", *scored],
            4,
        ),
        (vis, [f"--vis_logdir={place}/vis", "--max_number_of_iterations=1", *drawn], 4),
    ):
        room = 0
        while True:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            (place / "mine").write_text("x")
            capsys.readouterr()
            with monkeypatch.context() as patch:
                FullDisk(patch, place, room)
                if finished(tool, *flags, *data) == 0:
                    break
            message = one_line(capsys.readouterr().err)
            assert "cannot be written" in message and "No space left" in message, (room, message)
            assert (place / "mine").read_text() == "x" and not list(place.rglob(".partial-*")), room
            room += 1
        assert room >= least, tool
