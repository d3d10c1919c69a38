"""Unpacking that refuses what would leave the folder or fill the disk, and the one checkpoint of a folder."""

import gzip
import hashlib
import io
import pathlib
import tarfile

import pytest

from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights import archives


def make_archive(*members: tuple[str, bytes]) -> bytes:
    """Returns a .tar.gz of (name, content); incompressible enough to be cut in the middle."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


MEMBERS = (("model/model.ckpt.index", b"index"), ("model/model.ckpt.data-00000-of-00001", bytes(range(256)) * 2000))
CONTENT = make_archive(*MEMBERS)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def write_tar(path: pathlib.Path, *members: tarfile.TarInfo) -> pathlib.Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def assert_refused(archive: pathlib.Path, target: pathlib.Path, *texts: str):
    before = set(target.parent.rglob("*"))
    with pytest.raises(DeepLabError) as error:
        archives.unpack(archive, target)
    message = one_line(error)
    assert all(text in message for text in (str(archive), *texts))
    assert set(target.parent.rglob("*")) == before


def test_unpack_writes_every_file(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(CONTENT)
    folder = archives.unpack(tmp_path / "a.tar.gz", tmp_path / "deep" / "out")
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == dict(MEMBERS)
    assert archives.find_prefix(folder) == str(folder / "model" / "model.ckpt")
    assert {p.name for p in (tmp_path / "deep").iterdir()} == {"out"}


@pytest.mark.parametrize(
    "bad",
    [
        member("../escape", size=3),
        member("a/../../escape", size=3),
        member("/tmp/escape", size=3),
        member("..\\escape", size=3),
        member("C:/escape", size=3),
        member("link", kind=tarfile.SYMTYPE, link="../../escape"),
        member("link", kind=tarfile.SYMTYPE, link="/etc"),
        member("link", kind=tarfile.LNKTYPE, link="/etc/hostname"),
        member("device", kind=tarfile.CHRTYPE),
        member("pipe", kind=tarfile.FIFOTYPE),
    ],
    ids=lambda bad: f"{bad.name}-{bad.linkname or bad.type.decode()}",
)
def test_members_that_leave_the_folder_are_refused(tmp_path, bad):
    archive = write_tar(tmp_path / "a.tar.gz", member("good", size=3), bad)
    assert_refused(archive, tmp_path / "out", repr(bad.name))


def test_a_write_through_a_link_stays_inside(tmp_path):
    archive = write_tar(
        tmp_path / "a.tar.gz",
        member("real", kind=tarfile.DIRTYPE),
        member("link", kind=tarfile.SYMTYPE, link="real"),
        member("link/file", size=3),
    )
    folder = archives.unpack(archive, tmp_path / "out")
    assert (folder / "real" / "file").read_bytes() == b"xxx"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "Not a gzipped file"),
        (CONTENT[: len(CONTENT) // 2], "end-of-stream"),
        (CONTENT[:-4], "end-of-stream"),
        (CONTENT[:-8] + bytes(4) + CONTENT[-4:], "CRC"),
        (gzip.compress(b"not a tar at all" * 100), "not a whole"),
        (make_archive(), "no files"),
    ],
    ids=["nothing", "html", "half", "trailer", "crc", "no-tar", "no-members"],
)
def test_damaged_archives_are_one_line(tmp_path, content, text):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(content)
    assert_refused(archive, tmp_path / "out", text)


def test_what_a_member_says_of_itself_is_not_believed(tmp_path):
    """Each took gigabytes, or ended in a traceback: sizes of headers, links to nothing, folders without end."""
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    extended = tarfile.TarInfo("pax")
    extended.type, extended.size = tarfile.XHDTYPE, 3 << 30
    negative = bytearray(tarfile.TarInfo("a").tobuf())
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b"%06o\0 " % (256 + sum(negative[:148]) + sum(negative[156:]))
    whole = member("a", size=3)
    heads = {
        "a header of 3221225472 bytes": [long_name.tobuf(), extended.tobuf()],
        "a header of -1 bytes": [bytes(negative)],
        "lies too deep": [member("a/" * 60 + "b").tobuf(tarfile.GNU_FORMAT)],
        "not a whole .tar.gz": [
            member("b", kind=tarfile.LNKTYPE, link="nothing").tobuf(),
            member("b", kind=tarfile.LNKTYPE, link="b").tobuf(),
        ],
    }
    for text, contents in heads.items():
        for number, head in enumerate(contents):
            path = tmp_path / f"{text[:4]}{number}.tar.gz"
            path.write_bytes(gzip.compress(head + whole.tobuf() + b"xxx".ljust(512, b"\0") + bytes(1024)))
            assert_refused(path, tmp_path / "out", text)


def test_members_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 3)
    path = write_tar(tmp_path / "many.tar.gz", *(member(f"f{number}") for number in range(4)))
    assert_refused(path, tmp_path / "out", "more than 3 members")


def test_a_missing_archive_is_one_line(tmp_path):
    assert_refused(tmp_path / "none.tar.gz", tmp_path / "out", "No such file")


@pytest.mark.parametrize("members", [[member("big", size=50_000)], [member(f"f{i}") for i in range(100)]])
def test_a_bomb_is_stopped(tmp_path, monkeypatch, members):
    monkeypatch.setattr(archives, "MAX_UNPACKED", 40_000)
    assert_refused(write_tar(tmp_path / "a.tar.gz", *members), tmp_path / "out", "more than 40000 bytes")


def test_a_bomb_behind_the_last_member_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED", 600_000)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(gzip.decompress(CONTENT) + bytes(1_000_000)))
    assert_refused(archive, tmp_path / "out", "more than 600000 bytes")


def test_a_folder_with_files_is_not_overwritten(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(CONTENT)
    (tmp_path / "out").mkdir()
    archives.unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    with pytest.raises(DeepLabError, match="not empty"):
        archives.unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_the_slower_of_two_unpackings_takes_the_folder_of_the_faster(tmp_path, monkeypatch):
    (tmp_path / "a.tar.gz").write_bytes(CONTENT)
    extract = archives._extract

    def overtaken(archive, folder):
        extract(archive, folder)
        monkeypatch.setattr(archives, "_extract", extract)
        archives.unpack(archive, tmp_path / "out")

    monkeypatch.setattr(archives, "_extract", overtaken)
    archives.unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"a.tar.gz", "out"}


def touch(folder: pathlib.Path, *prefixes: str):
    for prefix in prefixes:
        for suffix in (".index", ".data-00000-of-00001", ".meta"):
            file = folder / f"{prefix}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


@pytest.mark.parametrize(
    ("prefixes", "state", "expected"),
    [
        (["model.ckpt"], None, "model.ckpt"),
        (["deep/er/model.ckpt-30000"], None, "deep/er/model.ckpt-30000"),
        (["model.ckpt-9", "model.ckpt-10", "model.ckpt-8"], None, "model.ckpt-10"),
        (["model.ckpt-9", "model.ckpt-10"], "model.ckpt-9", "model.ckpt-9"),
        (["model.ckpt-9", "model.ckpt-10"], "/elsewhere/train/model.ckpt-9", "model.ckpt-9"),
        (["a/model.ckpt", "model.ckpt-10"], "a/model.ckpt", "a/model.ckpt"),
        (["model.ckpt-9", "model.ckpt-10"], "/elsewhere/model.ckpt-7", "model.ckpt-10"),
        (["x65-d48-2-3x256_init.ckpt"], "gone.ckpt", "x65-d48-2-3x256_init.ckpt"),
    ],
)
def test_the_prefix_is_found(tmp_path, prefixes, state, expected):
    touch(tmp_path, *prefixes)
    (tmp_path / "._model.ckpt.index").touch()
    if state:
        (tmp_path / "checkpoint").write_text(
            f'model_checkpoint_path: "{state}"\nall_model_checkpoint_paths: "model.ckpt-1"\n'
        )
    assert archives.find_prefix(tmp_path) == str(tmp_path / expected)


def test_the_state_file_of_the_folder_itself_comes_first(tmp_path):
    touch(tmp_path, "model.ckpt-7", "model.ckpt-9", "best/model.ckpt-8")
    for folder, step in ((tmp_path, 9), (tmp_path / "best", 8)):
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "model.ckpt-{step}"\n')
    assert archives.find_prefix(tmp_path) == str(tmp_path / "model.ckpt-9")
    assert archives.find_prefix(tmp_path / "best") == str(tmp_path / "best" / "model.ckpt-8")


@pytest.mark.parametrize(
    ("prefixes", "listed"),
    [
        (["a.ckpt", "b.ckpt"], "(a.ckpt, b.ckpt)"),
        (["a/model.ckpt-1", "b/model.ckpt-2"], "(a/model.ckpt-1, b/model.ckpt-2)"),
        (["model.ckpt", "model.ckpt-2"], "(model.ckpt, model.ckpt-2)"),
    ],
)
def test_several_prefixes_are_listed(tmp_path, prefixes, listed):
    touch(tmp_path, *prefixes)
    with pytest.raises(DeepLabError) as error:
        archives.find_prefix(tmp_path)
    assert listed in one_line(error)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DeepLabError, match=r"expected <prefix>\.index and <prefix>\.data"):
        archives.find_prefix(tmp_path)
    (tmp_path / "frozen_inference_graph.pb").touch()
    with pytest.raises(DeepLabError, match=r"frozen graph: give .*frozen_inference_graph\.pb"):
        archives.find_prefix(tmp_path)
    (tmp_path / "model.ckpt.index").touch()
    with pytest.raises(DeepLabError, match=r"no model\.ckpt\.data-\* beside it"):
        archives.find_prefix(tmp_path)
    with pytest.raises(DeepLabError, match="found a file"):
        archives.find_prefix(tmp_path / "model.ckpt.index")
    with pytest.raises(DeepLabError, match="found nothing"):
        archives.find_prefix(tmp_path / "nowhere")
