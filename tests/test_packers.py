"""Archives for the servers: what is in them, byte for byte; and every fault is told before anything is written."""

import io
import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest
from commands import finished

from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import PackConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.pack import make_plan, pack
from deeplab_tf.tools import pack as tool

IDS = {
    "voc": ("2008_000006", "2008_000011"),
    "cityscapes": ("berlin_000000_000019", "mainz_000001_009328"),
    "ade20k": ("ADE_test_00000001", "ADE_test_00000002"),
}
SIZE = (6, 8)
IMAGE_ENDS = {"voc": ".jpg", "cityscapes": "_leftImg8bit.png", "ade20k": ".jpg"}
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def classes_of(server: str, number: int) -> np.ndarray:
    """Every class of the server somewhere, differently in each picture."""
    count = {"voc": 21, "cityscapes": 19, "ade20k": 150}[server]
    values = np.arange(48) * (number + 1) % count + (server == "ade20k")
    return values.reshape(SIZE).astype(np.uint8)


def make(tmp_path, server: str, *, end: str = "", change=lambda values: values) -> PackConfig:
    """Writes images and predictions, and returns the configuration that packs them."""
    images, predictions = tmp_path / "images", tmp_path / "predictions"
    images.mkdir()
    predictions.mkdir()
    for number, name in enumerate(IDS[server]):
        PIL.Image.new("RGB", SIZE[::-1]).save(images / f"{name}{IMAGE_ENDS[server]}")
        PIL.Image.fromarray(change(classes_of(server, number))).save(predictions / f"{name}{end}.png")
    output = tmp_path / "out" / ("results.tgz" if server == "voc" else f"{server}.zip")
    return PackConfig(server=server, images=str(images), predictions=str(predictions), output=str(output))


def members(path) -> dict[str, PIL.Image.Image]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    else:
        with tarfile.open(path) as archive:
            contents = {member.name: archive.extractfile(member).read() for member in archive}
    return {name: PIL.Image.open(io.BytesIO(content)) for name, content in contents.items()}


def changed(config: PackConfig, **values) -> PackConfig:
    return PackConfig(**{**{name: getattr(config, name) for name in config.__dataclass_fields__}, **values})


@pytest.mark.parametrize("competition", ["comp5", "comp6"])
def test_voc(tmp_path, competition):
    found = members(pack(make_plan(changed(make(tmp_path, "voc", end="_raw"), competition=competition))))
    folder = f"results/VOC2012/Segmentation/{competition}_test_cls"
    assert list(found) == [f"{folder}/{name}.png" for name in IDS["voc"]]
    for number, picture in enumerate(found.values()):
        assert picture.mode == "P" and np.array_equal(picture, classes_of("voc", number))
        assert tuple(picture.getpalette()[3:6]) == (128, 0, 0)  # VOC's aeroplane
        assert [tuple(picture.getpalette()[3 * i : 3 * i + 3]) for i in range(21)] == list(
            DATASETS["pascal_voc_seg"].palette
        )


def test_cityscapes_train_ids_become_label_ids(tmp_path):
    plan = make_plan(make(tmp_path, "cityscapes", end="_leftImg8bit_raw"))
    assert plan.notes == ("train ids become label ids",)
    found = members(pack(plan))
    assert list(found) == [f"{name}_pred.png" for name in IDS["cityscapes"]]
    for number, picture in enumerate(found.values()):
        expected = [[LABEL_IDS[value] for value in row] for row in classes_of("cityscapes", number)]
        assert picture.mode == "L" and np.array_equal(picture, expected)


def test_cityscapes_label_ids_stay(tmp_path):
    config = make(tmp_path, "cityscapes", change=lambda values: np.array(LABEL_IDS, np.uint8)[values])
    plan = make_plan(config)
    assert not plan.translate
    first = next(iter(members(pack(plan)).values()))
    assert set(np.unique(first)) == set(LABEL_IDS)
    with pytest.raises(DeepLabError, match=r"hold 19 \(\d+ pixels\).* expected 0 to 18"):
        make_plan(changed(config, ids="train_ids"))


def test_cityscapes_ids_that_could_be_both(tmp_path):
    config = make(tmp_path, "cityscapes", change=lambda values: np.full_like(values, 11))
    with pytest.raises(DeepLabError, match=r"values 11 may be train ids or label ids; say which: --ids="):
        make_plan(config)
    values = {
        ids: np.unique(next(iter(members(pack(make_plan(changed(config, ids=ids)))).values())))
        for ids in ("train_ids", "label_ids")
    }
    assert values == {"train_ids": [24], "label_ids": [11]}


def test_ade20k(tmp_path):
    config = make(tmp_path, "ade20k")
    found = members(pack(make_plan(config)))
    assert list(found) == [f"{name}.png" for name in IDS["ade20k"]]
    assert all(np.array_equal(picture, classes_of("ade20k", i)) for i, picture in enumerate(found.values()))
    PIL.Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "predictions" / f"{IDS['ade20k'][0]}.png")
    assert make_plan(config).notes == ("label 0 (other) occurs, which the server counts as wrong",)


# ---- faults


def test_all_faults_at_once_and_nothing_written(tmp_path):
    config = make(tmp_path, "voc")
    folder = tmp_path / "predictions"
    (folder / "2008_000006.png").unlink()
    PIL.Image.fromarray(np.zeros((6, 7), np.uint8)).save(folder / "2008_000011.png")
    PIL.Image.new("RGB", (8, 6)).save(tmp_path / "images" / "photo.jpg")
    PIL.Image.new("RGB", (8, 6)).save(folder / "photo.png")
    with pytest.raises(DeepLabError) as error:
        make_plan(config)
    assert str(error.value).splitlines() == [
        "4 faults, nothing was packed:",
        "  photo: not what the server calls an image; VOC's ids are like 2008_000006",
        f"  2008_000006: no prediction 2008_000006.png in {folder}",
        f"  {folder}/2008_000011.png: 6 x 7 pixels, the image has 6 x 8",
        f"  {folder}/photo.png: a picture of colours (mode RGB); expected class indices, as vis and predict write raw",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("server", "wrong", "expected"),
    [("voc", 255, "0 to 20"), ("cityscapes", 200, "0 to 18"), ("ade20k", 151, "0 to 150")],
)
def test_values_that_are_no_classes(tmp_path, server, wrong, expected):
    config = make(tmp_path, server, change=lambda values: np.where(values == 3, wrong, values).astype(np.uint8))
    with pytest.raises(DeepLabError, match=rf"the predictions hold .*{wrong} \(\d+ pixels\).*{expected}"):
        make_plan(config)


def test_damaged_predictions(tmp_path):
    config = make(tmp_path, "voc")
    (tmp_path / "predictions" / "2008_000006.png").write_bytes(b"\x89PNG")
    with pytest.raises(DeepLabError, match="2008_000006.png: cannot be decoded"):
        make_plan(config)


def test_two_predictions_of_an_image(tmp_path):
    """Such as the coloured and the raw pictures of vis, side by side."""
    config = make(tmp_path, "voc")
    other = tmp_path / "predictions" / "raw"
    other.mkdir()
    PIL.Image.fromarray(classes_of("voc", 0)).save(other / "2008_000006.png")
    with pytest.raises(DeepLabError, match=r"2008_000006: both .*/2008_000006.png and .*raw/2008_000006.png; --pred"):
        make_plan(config)


def test_predictions_of_sixteen_bits(tmp_path):
    config = make(tmp_path, "voc", change=lambda values: values.astype(np.uint16))
    with pytest.raises(DeepLabError, match=r"2008_000006.png: not of 8 bits a pixel \(mode I"):
        make_plan(config)


def test_predictions_and_images_of_absurd_size(tmp_path, monkeypatch):
    config = make(tmp_path, "voc")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 20)  # 48 pixels are beyond twice of it
    with pytest.raises(DeepLabError, match="no image that can be decoded.*exceeds limit"):
        make_plan(config)


def test_a_list_instead_of_images(tmp_path):
    config = make(tmp_path, "voc")
    (tmp_path / "test.txt").write_text("2008_000011\n")
    plan = make_plan(changed(config, images=None, list_file=str(tmp_path / "test.txt")))
    assert list(plan.predictions) == ["2008_000011"]
    assert plan.notes == (
        f"1 other PNGs in {config.predictions} are left out",
        "sizes are not checked: --images gives the folder of the test images",
    )
    (tmp_path / "other.txt").write_text("2008_000099\n")
    with pytest.raises(
        DeepLabError, match=r"^--images=.* would do nothing: none of the 1 images of --list_file=.*other"
    ):
        make_plan(changed(config, list_file=str(tmp_path / "other.txt")))
    with pytest.raises(DeepLabError, match="give --images"):
        make_plan(changed(config, images=None))
    with pytest.raises(DeepLabError, match="unknown server 'vocc'; did you mean voc"):
        PackConfig(server="vocc")


def test_nothing_half_written(tmp_path, monkeypatch):
    plan = make_plan(make(tmp_path, "voc"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deeplab_tf.evaluation.pack.palette_png", full)
    with pytest.raises(DeepLabError, match="cannot be written .No space left"):
        pack(plan)
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path, capsys):
    config = make(tmp_path, "voc")
    flags = [f"--{name}={getattr(config, name)}" for name in ("server", "images", "predictions", "output")]
    assert finished(tool, *flags, "--dry_run") == 0
    assert f"Nothing was written (--dry_run); it would be {config.output}" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert finished(tool, *flags) == 0
    assert f"Written: {config.output}" in capsys.readouterr().out
    assert finished(tool, "--predictions=x") == 1
    assert "--server is missing" in capsys.readouterr().err
