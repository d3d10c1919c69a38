"""`build-data --download` from a server in a thread: licence, resumed archives, their sums, hostile members."""

import dataclasses
import hashlib
import io
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
from commands import everything, finished, one_line
from golden import golden_image, golden_label
from PIL import Image
from scipy.io import savemat
from test_download import Server, server

from deeplab_tf.catalog import datasets, downloads
from deeplab_tf.data import downloads as fetching
from deeplab_tf.data.downloads import fetch_data, unpack
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import build_data
from deeplab_tf.zoo import download

__all__ = ["server"]  # the fixture


def encoded(array: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def photograph(name: str) -> bytes:
    return encoded(golden_image(name, 24, 32), "JPEG")


def label(name: str, ignored: int = 255) -> bytes:
    classes = golden_label(name, 24, 32, 21).astype(np.uint8)
    return encoded(np.where(classes == 255, ignored, classes).astype(np.uint8), "PNG")


def outlines(name: str) -> bytes:
    stream = io.BytesIO()
    savemat(stream, {"GTcls": {"Segmentation": golden_label(name, 24, 32, 20).astype(np.uint8)}})
    return stream.getvalue()


def tar_of(members: dict[str, bytes], *others: tarfile.TarInfo, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for other in others:
            tar.addfile(other)
    return stream.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in members.items():
            container.writestr(name, content)
    return stream.getvalue()


VOC = {
    **{f"VOCdevkit/VOC2012/JPEGImages/{n}.jpg": photograph(n) for n in ("a", "b", "c")},
    **{f"VOCdevkit/VOC2012/SegmentationClass/{n}.png": label(n) for n in ("a", "b")},
    "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt": b"a\n",
    "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt": b"b\n",
    "VOCdevkit/VOC2012/ImageSets/Main/dog_train.txt": b"a 1\n",
    "VOCdevkit/VOC2012/Annotations/a.xml": b"<annotation/>",
}
SBD = {
    **{f"benchmark_RELEASE/dataset/cls/{n}.mat": outlines(n) for n in ("b", "c")},
    "benchmark_RELEASE/dataset/img/c.jpg": photograph("c"),
    "benchmark_RELEASE/dataset/train.txt": b"c\n",
    "benchmark_RELEASE/dataset/val.txt": b"b\n",
    "benchmark_RELEASE/benchmark_code/evaluate.m": b"",
}
ADE = {
    **{
        f"ADEChallengeData2016/images/{part}/{n}.jpg": photograph(n)
        for part, n in (("training", "a"), ("validation", "b"))
    },
    **{
        f"ADEChallengeData2016/annotations/{p}/{n}.png": label(n, 0)
        for p, n in (("training", "a"), ("validation", "b"))
    },
    "ADEChallengeData2016/objectInfo150.txt": b"",
}


def published(monkeypatch, server: Server, name: str, content: bytes) -> downloads.Download:
    """Puts an archive on the server, with its own sum."""
    entry = getattr(downloads, name)
    url = f"http://127.0.0.1:{server.server_port}/{entry.file}"
    digest = hashlib.new(entry.algorithm, content).hexdigest()
    entry = dataclasses.replace(entry, url=url, digest=digest)
    monkeypatch.setattr(downloads, name, entry)
    server.content = content
    return entry


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def built(*arguments: object, status: int = 0):
    assert finished(build_data, "--num_processes=1", "--num_shards=1", *arguments) == status


def test_voc_is_fetched_once_and_its_terms_come_first(server, tmp_path, monkeypatch, capsys):
    """A cut connection is continued; what the builder does not read stays in the archive."""
    content = tar_of(VOC)
    published(monkeypatch, server, "VOC", content)
    server.cuts = [len(content) // 2]
    root = tmp_path / "VOC2012"
    built("--dataset=pascal_voc_seg", "--download", f"--voc_root={root}", f"--output_dir={tmp_path / 'out'}")
    told = capsys.readouterr()
    assert told.out.startswith("PASCAL VOC 2012: the photographs are from Flickr, whose terms")
    assert told.err.startswith("downloading VOCtrainval_11-May-2012.tar") and len(server.seen) == 2
    assert {path.name for path in root.iterdir()} == {"JPEGImages", "SegmentationClass", "ImageSets"}
    assert {path.name for path in (root / "ImageSets").iterdir()} == {"Segmentation"}
    assert dict(datasets.read_dataset(tmp_path / "out").splits) == {"train": 1, "val": 1}
    built("--dataset=pascal_voc_seg", "--download", f"--voc_root={root}", f"--output_dir={tmp_path / 'again'}")
    assert "is there already and is used" in capsys.readouterr().out and len(server.seen) == 2


def test_sbd_and_ade20k_are_fetched_too(server, tmp_path, monkeypatch, capsys):
    for name, content in VOC.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    published(monkeypatch, server, "SBD", tar_of(SBD, mode="w:gz"))
    given = (f"--voc_root={tmp_path / 'VOCdevkit/VOC2012'}", f"--sbd_dir={tmp_path / 'SBD'}", "--train_aug_size=2")
    built("--dataset=pascal_voc_seg", "--download", *given, f"--output_dir={tmp_path / 'voc'}")
    assert dict(datasets.read_dataset(tmp_path / "voc").splits)["train_aug"] == 2
    assert "SBD: outlines by the University of California, Berkeley" in capsys.readouterr().out
    published(monkeypatch, server, "ADE20K", zip_of(ADE))
    built("--dataset=ade20k", "--download", f"--ade20k_root={tmp_path / 'ade'}", f"--output_dir={tmp_path / 'records'}")
    assert dict(datasets.read_dataset(tmp_path / "records").splits) == {"train": 1, "val": 1}
    assert "non-commercial research and teaching only" in capsys.readouterr().out


def test_an_archive_of_another_sum_is_not_kept(server, tmp_path, monkeypatch, cache, capsys):
    entry = published(monkeypatch, server, "ADE20K", zip_of(ADE))
    server.content = zip_of({**ADE, "more": b""})
    given = (f"--ade20k_root={tmp_path / 'ade'}", f"--output_dir={tmp_path / 'records'}")
    built("--dataset=ade20k", "--download", *given, status=1)
    message = capsys.readouterr().err.splitlines()[-1]
    assert "sha1 is" in message and f"expected {entry.digest}; the download was not kept" in message
    assert not (tmp_path / "ade").exists() and not (tmp_path / "records").exists()
    assert {file.suffix for file in cache.iterdir()} <= {".lock"}


def test_an_archive_put_there_by_hand_needs_no_server(tmp_path, monkeypatch, cache):
    entry = dataclasses.replace(downloads.SBD, url="http://127.0.0.1:9/benchmark.tgz")
    cache.mkdir(parents=True)
    (cache / entry.file).write_bytes(content := tar_of(SBD, mode="w:gz"))
    with pytest.raises(DeepLabError, match="md5 is .*, expected 82b4d87ceb2ed10f6038a1cba92111cb"):
        fetch_data(entry, tmp_path / "SBD", tell=lambda line: None)
    mine = dataclasses.replace(entry, digest=hashlib.md5(content).hexdigest())
    fetch_data(mine, tmp_path / "SBD", tell=lambda line: None)
    assert (tmp_path / "SBD" / "cls" / "c.mat").is_file()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_and_devices_are_never_made(tmp_path):
    """A file through a link that leads out would be written beside the folder."""
    inside = "VOCdevkit/VOC2012/JPEGImages"
    others = (link(f"{inside}/out", "/tmp"), link(f"{inside}/pipe", "", tarfile.FIFOTYPE))
    (tmp_path / "a.tar").write_bytes(tar_of(VOC, *others))
    assert unpack(tmp_path / "a.tar", downloads.VOC, tmp_path / "VOC") == 7
    assert not any(path.is_symlink() or path.is_fifo() for path in (tmp_path / "VOC").rglob("*"))


BAD = {
    "climbing": ({"VOCdevkit/VOC2012/JPEGImages/../../../x": b""}, "leads out of the folder"),
    "absolute": ({"/VOCdevkit/VOC2012/JPEGImages/x": b""}, "leads out of the folder"),
    "of Windows": ({"C:\\x": b""}, "leads out of the folder"),
    "of another data set": ({"VOCdevkit/VOC2007/JPEGImages/x": b""}, "holds no VOCdevkit/VOC2012/JPEGImages"),
    "empty": ({}, "holds no VOCdevkit/VOC2012/JPEGImages"),
}


@pytest.mark.parametrize("members", BAD)
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_hostile_archives_leave_nothing(members, make, tmp_path):
    content, expected = BAD[members]
    entry = dataclasses.replace(downloads.VOC, kind="zip" if make is zip_of else "tar")
    (tmp_path / "a").write_bytes(make({**(VOC if "holds" not in expected else {}), **content}))
    with pytest.raises(DeepLabError, match=expected):
        unpack(tmp_path / "a", entry, tmp_path / "VOC")
    assert everything(tmp_path) == {"a"}


@pytest.mark.parametrize("damage", ["cut", "twice", "bomb"])
def test_damaged_archives_leave_nothing(damage, tmp_path, monkeypatch):
    content = tar_of(VOC)
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "twice":
        stream = io.BytesIO(content)
        with tarfile.open(fileobj=stream, mode="a") as tar:
            tar.addfile(tarfile.TarInfo("VOCdevkit/VOC2012/JPEGImages/a.jpg"))
        content = stream.getvalue()
    else:
        monkeypatch.setattr(fetching, "MOST_UNPACKED", 1000)
    (tmp_path / "a.tar").write_bytes(content)
    expected = {"cut": "is damaged", "twice": "'a.jpg' twice", "bomb": "unpacks to more than"}[damage]
    with pytest.raises(DeepLabError, match=expected):
        unpack(tmp_path / "a.tar", downloads.VOC, tmp_path / "VOC")
    assert everything(tmp_path) == {"a.tar"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--dataset=cityscapes", "--dataset=pascal_voc_seg or ade20k, whose owners ask for no registration"),
        ("--dataset=pascal_voc_seg --list_folder=x", "the folders of the data set left to --voc_root or --ade20k_root"),
    ],
)
def test_what_cannot_be_fetched(line, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    built(*line.split(), "--download", status=1)
    assert expected in one_line(capsys.readouterr().err)


def test_an_html_page_is_not_an_archive(server, tmp_path, monkeypatch):
    entry = published(monkeypatch, server, "VOC", b"<html>moved</html>" * 100)
    with pytest.raises(DeepLabError, match="expected a .tar archive, found a file that begins with b'<html>"):
        fetch_data(entry, tmp_path / "VOC", tell=lambda line: None)
    assert download.cache_folder().name == "cache"
