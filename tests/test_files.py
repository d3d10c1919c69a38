"""Paths of this machine and of TensorFlow's file systems, and writing that is done completely or not at all."""

import errno
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import uuid

import pytest
from etils import epath

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems import leftovers
from deeplab_tf.filesystems.remote import RemotePath
from deeplab_tf.filesystems.remote_errors import os_errors


@pytest.fixture(params=["local", "ram://", "file://"])
def folder(request, tmp_path) -> files.AnyPath:
    """An empty folder of this machine, of the memory, and of this machine by way of TensorFlow."""
    if request.param == "ram://":
        place = files.path(f"ram://{uuid.uuid4().hex}/folder")
        place.mkdir(parents=True)
        return place
    return files.path(f"file://{tmp_path}") if request.param == "file://" else tmp_path


def names(place: files.AnyPath) -> list[str]:
    return sorted(entry.name for entry in place.iterdir())


# ---- what a path is


def test_a_home_is_expanded_and_patterns_mean_themselves(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.path("~/x") == files.path(pathlib.Path("~/x")) == tmp_path / "x"
    assert files.path("a/~/x") == pathlib.Path("a/~/x")
    for name in ("run [2]", "a*b", "what?", "a\\b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text(name)
        assert [file.read_text() for file in files.path(f"~/{name}").glob("*.txt")] == [name]


@pytest.mark.parametrize(
    ("typed", "clean"),
    [
        ("run/", "run"),
        ("run", "run"),
        ("/", "/"),
        ("./run//", "./run"),
        ("", ""),
        ("~", "{home}"),
        ("~/", "{home}"),
        ("~/run [2]/", "{home}/run [2]"),
        ("~nobody_of_that_name/x", "~nobody_of_that_name/x"),
        ("ram://run/", "ram://run"),
        ("ram://", "ram://"),
        ("file:///a/b/", "file:///a/b"),
        ("tfds:deeplab_voc", "tfds:deeplab_voc"),
        ("gs:/x", "gs:/x"),
        ("ram://a/b/../c/./d/", "ram://a/c/d"),
        ("gs://bucket/../x", None),
        ("gs://bucket/a/..", "gs://bucket"),
        ("ram://..", None),
        ("ram://a/...", "ram://a/..."),
    ],
)
def test_what_is_typed_is_cleaned_once(typed, clean, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    if clean is None:
        with pytest.raises(DeepLabError, match="lead out of"):
            files.clean(typed)
        return
    clean = clean.format(home="/home/someone")
    assert files.clean(typed) == clean
    assert files.clean(clean) == clean


def test_a_name_that_begins_with_a_tilde_stays_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir(tmp_path)
    once = files.path("./~/draft")
    assert files.path(once) == files.path(os.fspath(once)) == tmp_path / "~" / "draft"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("gs:/bucket/run", "gs://bucket/run"),
        ("foo:/x", "foo://x"),
        ("gs:", "gs://"),
        ("file:/a/b", "file:///a/b"),
    ],
)
def test_a_scheme_that_lost_a_slash_is_no_folder_of_this_machine(text, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for spelled in (text, pathlib.Path(text)):
        with pytest.raises(DeepLabError, match=f"^{text}: .*expected {meant}, or ./{text} for a folder") as caught:
            files.path(spelled)
        assert "\n" not in str(caught.value)
    place = files.path(f"./{text}")
    assert files.path(str(place)) == place == tmp_path / text
    for text in ("run:1/x", "a:b", "12:30/x", "C:/x"):
        assert files.path(text) == files.path(files.path(text)) and "//" not in str(files.path(text))


@pytest.mark.parametrize("text", ["gs://", "gs:///x", "file://host/x", "file://x"])
def test_a_path_that_names_no_place_is_one_line(text):
    with pytest.raises(DeepLabError, match=f"^{text}: names (no bucket|a host)[^\n]*; expected [^\n]*$"):
        files.path(text)


def test_parts_that_lead_up_are_not_names_of_a_bucket():
    assert str(files.path("ram://a/run/../x")) == "ram://a/x"
    with pytest.raises(DeepLabError, match=r"^gs://b/\.\./c: its \.\. lead out of gs://b; expected"):
        files.path("gs://b/../c")


@pytest.mark.parametrize("text", ["ram://a/b", "file:///a/b", "ram://a", "gs://bucket/run [2]/a*b", "hdfs:///a/b"])
def test_a_path_with_a_scheme_keeps_it(text):
    place = RemotePath(text)
    assert (str(place), os.fspath(place), repr(place)) == (text, text, f"RemotePath({text!r})")
    assert str(place / "c" / "d.txt") == f"{text}/c/d.txt"
    assert (place / "c").parent == place and str((place / "c").with_name("d")) == f"{text}/d"
    assert (place / "c.txt").stem == "c" and str((place / "c.txt").with_suffix(".png")) == f"{text}/c.png"
    assert str((place / "c" / "d").relative_to(place)) == "c/d"
    assert place.is_absolute() and place.resolve() == place.absolute() == place.expanduser() == place
    assert pickle.loads(pickle.dumps(place)) == place and hash(pickle.loads(pickle.dumps(place))) == hash(place)
    assert files.is_remote(place) and files.is_remote(text) and not files.is_remote("/gs/b")
    assert sorted([place / "b", place / "a"])[0] == place / "a"


def test_the_registry_of_epath_knows_the_schemes_of_tensorflow():
    made = files.path("ram://a/b")
    assert epath.Path("ram://a/b") == made and isinstance(made, epath.Path)
    assert isinstance(epath.Path("ram://a/b"), RemotePath)


@pytest.mark.parametrize("text", ["foo://x", "s3://bucket/x", "Ram://x"])
def test_an_unknown_scheme_is_one_line_and_makes_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for use in (
        files.path,
        lambda place: files.written(place).__enter__(),
        lambda place: files.growing(place).__enter__(),
    ):
        expected = f"^{text}: {text.partition(':')[0]}:// is no file system.*ram://"
        with pytest.raises(DeepLabError, match=expected) as caught:
            use(text)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_only_this_machine_can_is_told_in_one_line(tmp_path):
    assert files.local_path(f"file://{tmp_path}", flag="--cache", why="") == tmp_path
    with pytest.raises(DeepLabError, match="^--cache=ram://x: it is mapped into memory; give a path of this machine$"):
        files.local_path("ram://x", flag="--cache", why="it is mapped into memory")


def test_local_files_need_no_tensorflow(tmp_path):
    code = (
        "import sys; from deeplab_tf import files\n"
        f"with files.written({str(tmp_path / 'a.txt')!r}) as file: file.write_text('a')\n"
        f"with files.growing({str(tmp_path / 'b')!r}) as folder: (folder / 'c').write_text('c')\n"
        "print({'tensorflow', 'etils'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


# ---- finding and reading


def test_files_are_found_and_read_alike(folder):
    for name in (
        "b/x.txt",
        "a-a/y.txt",
        "a/z.txt",
        "a/z.png",
        "top.txt",
        "run [2]/w.txt",
        "a*b/v.txt",
        "deep/er/u.txt",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} ä")
    found = {str(place.relative_to(folder)) for place in folder.glob("*/*.txt")}
    assert found == {"a/z.txt", "a-a/y.txt", "b/x.txt", "run [2]/w.txt", "a*b/v.txt"}
    assert [place.name for place in (folder / "run [2]").glob("*")] == ["w.txt"]
    assert [place.name for place in (folder / "a*b").glob("?.txt")] == ["v.txt"]
    assert {place.name for place in folder.rglob("*.txt")} == {f"{name}.txt" for name in "xyzwvu"} | {"top.txt"}
    assert list((folder / "nowhere").glob("*")) == []
    assert (folder / "a" / "z.png").read_text(encoding="utf-8") == "a/z.png ä"
    assert (folder / "a" / "z.png").read_bytes() == "a/z.png ä".encode()
    kinds = [(place.is_file(), place.is_dir(), place.exists()) for place in (folder / "a", folder / "a/z.png")]
    assert kinds == [(False, True, True), (True, False, True)]
    for missing in ("c", "a/z.pn", "a/z.png1", "to", "deep/e"):
        assert not (folder / missing).exists() and not (folder / missing).is_dir() and not (folder / missing).is_file()
    assert names(folder / "a") == ["z.png", "z.txt"]
    assert (folder / "a" / "z.png").stat().st_size == len("a/z.png ä".encode())


def test_what_is_not_there_is_an_error_of_the_operating_system(folder):
    (folder / "file").write_text("x")
    for read in (
        (folder / "no").read_bytes,
        lambda: names(folder / "no"),
        (folder / "no").stat,
        (folder / "no").unlink,
    ):
        with pytest.raises(FileNotFoundError) as caught:
            read()
        assert str(folder / "no") in str(caught.value) and caught.value.strerror
    with pytest.raises(NotADirectoryError):
        names(folder / "file")
    with pytest.raises(IsADirectoryError):
        folder.read_bytes()
    with pytest.raises(FileExistsError):
        folder.mkdir()
    with pytest.raises(FileExistsError):
        (folder / "file").mkdir(exist_ok=True)
    (folder / "no").unlink(missing_ok=True)


def test_streams_read_in_pieces_seek_and_append(folder):
    file = folder / "file"
    with file.open("wb") as stream:
        stream.write(b"one\n")
        stream.write(bytearray(b"two\nthree"))
    with file.open("ab") as stream:
        stream.write(b"\nfour")
    with file.open("rb") as stream:
        assert (stream.read(2), stream.seek(4), stream.read(3), stream.tell()) == (b"on", 4, b"two", 7)
        assert (stream.seek(-4, os.SEEK_END), stream.read()) == (14, b"four")
    with file.open("a", encoding="utf-8") as stream:
        stream.write(" ü")
    with file.open(encoding="utf-8") as stream:
        assert [line.rstrip("\n") for line in stream] == ["one", "two", "three", "four ü"]
    file.write_bytes(b"a\xff")
    assert file.read_text(encoding="utf-8", errors="replace") == "a\ufffd"
    file.write_text("one")
    file.write_text("2")
    assert file.read_text() == "2"


def test_folders_are_copied_and_removed(folder, tmp_path):
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c").write_text("c")
    (folder / "a" / "d").write_text("d")
    files.copy(folder / "a", tmp_path / "copied")
    assert (tmp_path / "copied" / "b" / "c").read_text() == "c" and (tmp_path / "copied" / "d").read_text() == "d"
    files.copy(tmp_path / "copied", folder / "back")
    assert (folder / "back" / "b" / "c").read_text() == "c"
    if files.is_remote(folder):
        (folder / "a").rmtree()
        (folder / "a").rmtree(missing_ok=True)
        assert not (folder / "a").exists() and (folder / "back" / "d").exists()
        with pytest.raises(FileNotFoundError):
            (folder / "a").rmtree()


def test_a_network_that_fails_is_one_line():
    import tensorflow as tf

    with pytest.raises(DeepLabError, match="^gs://b/x: no host$") as caught, os_errors("gs://b/x"):
        raise tf.errors.UnavailableError(None, None, "no host\nand much more")
    assert isinstance(caught.value, OSError)
    with pytest.raises(PermissionError, match="gs://b/x"), os_errors("gs://b/x"):
        raise tf.errors.PermissionDeniedError(None, None, "no")


# ---- writing a file


def test_a_file_is_there_whole_or_not_at_all(folder):
    target = folder / "deep" / "file.txt"
    with files.written(target) as file:
        assert file.suffix == ".txt"
        file.write_text("first")
        assert not target.exists()
    assert target.read_text() == "first"
    with pytest.raises(KeyError), files.written(target) as file:
        file.write_text("half")
        raise KeyError
    with pytest.raises(KeyboardInterrupt), files.written(target) as file:
        file.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "first" and names(target.parent) == ["file.txt"]
    with files.written(target, durable=False) as file:
        file.write_text("second")
    assert target.read_text() == "second" and names(target.parent) == ["file.txt"]


@pytest.mark.parametrize("part", ["body", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, part):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "file.txt"
    target.write_text("old")
    if part != "body":
        monkeypatch.setattr(os, part, full)
    expected = f"^--output={target}: cannot be written .No space left on device.; make room"
    with pytest.raises(DeepLabError, match=expected) as caught, files.written(target, flag="--output") as file:
        file.write_text("new")
        if part == "body":
            full()
    assert "\n" not in str(caught.value)
    assert target.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_a_loss_of_power_finds_the_file_on_the_disk_before_its_name(tmp_path, monkeypatch):
    done = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append("fsync") or real_fsync(number))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append(pathlib.Path(b).name) or real_replace(a, b))
    with files.written(tmp_path / "a") as file:
        file.write_text("a")
    with files.written(tmp_path / "b", durable=False) as file:
        file.write_text("b")
    with files.growing(tmp_path / "c") as growing:
        (growing / "d").mkdir()
        (growing / "d" / "e").write_text("e")
    assert done == ["fsync", "a", "b", "fsync", "c"]


def unwritable_places(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    """Places where nothing can be made: below a file, in /proc, and, for others than root, in a read-only folder."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "locked").mkdir(mode=0o500)
    locked = [tmp_path / "locked" / "x"] if os.geteuid() else []
    return [tmp_path / "file" / "x", tmp_path / "file" / "x" / "y", pathlib.Path("/proc/x"), *locked]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    for place in unwritable_places(tmp_path):
        for write in (files.written, files.growing):
            expected = pytest.raises(DeepLabError, match="cannot be written .*; choose another")
            with expected as caught, write(place, flag="--output", cure="choose another"):
                raise AssertionError  # it is told before any work is done
            assert str(caught.value).startswith(f"--output={place}: ") and "\n" not in str(caught.value)
    (tmp_path / "folder").mkdir()
    expected = pytest.raises(DeepLabError, match="folder: cannot be written .Is a directory.")
    with expected, files.written(tmp_path / "folder"):
        raise AssertionError
    with pytest.raises(DeepLabError, match=".File name too long."), files.written(tmp_path / ("n" * 256)):
        raise AssertionError
    assert names(tmp_path) == ["file", "folder", "locked"]


def test_folders_that_were_made_for_nothing_go_again(folder):
    (folder / "mine").mkdir()
    for write in (files.written, files.growing, lambda place: files.growing(place, ["a"])):
        with pytest.raises(KeyError), write(folder / "mine" / "a" / "b" / "c"):
            raise KeyError
        assert names(folder / "mine") == []


def test_the_folder_that_was_asked_for_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    named = files.writing(tmp_path, flag="--output_dir", cure="mend it")
    with pytest.raises(files.UnwritableError) as caught, named, files.written(tmp_path / "file" / "a.png") as file:
        file.write_text("x")
    assert str(caught.value) == f"--output_dir={tmp_path}: cannot be written (File exists); mend it"
    assert caught.value.errno == errno.EEXIST


def test_a_file_has_the_rights_that_any_other_has(tmp_path):
    old = os.umask(0o027)
    try:
        with files.written(tmp_path / "file") as file:
            file.write_text("x")
        with files.growing(tmp_path / "folder"):
            pass
    finally:
        os.umask(old)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder")] == [0o640, 0o750]


def test_the_longest_name_can_be_written(folder):
    with files.written(folder / ("n" * 251 + ".txt")) as file:
        file.write_text("x")
    assert names(folder) == ["n" * 251 + ".txt"]


def test_several_may_write_one_file_at_a_time(folder):
    target, faults = folder / "file", []

    def write(number: int):
        try:
            for _ in range(10):
                with files.written(target, durable=False) as file:
                    file.write_text(str(number) * 10_000)
        except Exception as error:
            faults.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = target.read_text() if target.exists() else ""
        # ram:// replaces a file in two steps; elsewhere none of them is seen.
        assert str(folder).startswith("ram:") or (len(set(content)) <= 1 and len(content) in (0, 10_000))
    assert not faults and len(set(target.read_text())) == 1 and names(folder) == ["file"]


# ---- writing folders


def test_a_folder_grows_and_takes_its_place(folder):
    target = folder / "deep" / "target"
    with files.growing(target) as growing:
        (growing / "sub").mkdir()
        (growing / "sub" / "a.txt").write_text("ä")
        (growing / "b.txt").write_text("b")
        assert not target.exists()
    assert (target / "sub" / "a.txt").read_text(encoding="utf-8") == "ä" and names(target.parent) == ["target"]
    with pytest.raises(KeyboardInterrupt), files.growing(folder / "deep" / "other") as growing:
        (growing / "a.txt").write_text("a")
        raise KeyboardInterrupt
    (folder / "empty").mkdir()
    with files.growing(folder / "empty") as growing:
        (growing / "a.txt").write_text("a")
    assert names(folder / "empty") == ["a.txt"] and names(target.parent) == ["target"]


def test_a_full_folder_is_not_replaced(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").write_text("x")
    expected = pytest.raises(DeepLabError, match="target: cannot be written .Directory not empty.; ")
    with expected, files.growing(tmp_path / "target") as growing:
        (growing / "a").write_text("a")
    assert names(tmp_path) == ["target"] and names(tmp_path / "target") == ["mine"]


def test_files_go_into_a_folder_in_their_order(folder, monkeypatch):
    (folder / "b").write_text("old")
    (folder / "mine").write_text("mine")
    moved = []
    monkeypatch.setattr(files, "move", lambda old, new, real=files.move: moved.append(new.name) or real(old, new))
    with files.growing(folder, ["c", "a", "b"]) as growing:
        for name in ("a", "b", "c"):
            (growing / name).write_text(f"new {name}")
        assert (folder / "b").read_text() == "old"
    assert moved == ["c", "a", "b"] and names(folder) == ["a", "b", "c", "mine"]
    assert (folder / "b").read_text() == "new b"
    with pytest.raises(KeyError), files.growing(folder, ["c"]) as growing:
        (growing / "c").write_text("half")
        raise KeyError
    assert (folder / "c").read_text() == "new c" and names(folder) == ["a", "b", "c", "mine"]


def test_what_a_killed_process_left_is_removed(folder):
    (folder / ".partial-0123").mkdir()
    (folder / ".partial-0123" / "a").write_text("a")
    (folder / ".partial-4567.json").write_text("b")
    (folder / "mine").write_text("mine")
    leftovers.remove_partial(folder)
    assert names(folder) == ["mine"]


# ---- names that TensorFlow takes for patterns


@pytest.mark.parametrize("name", ["run [2]", "a*b", "what?", "plain"])
def test_a_checkpoint_is_read_wherever_it_lies(folder, name):
    import tensorflow as tf

    place = folder / name
    place.mkdir()
    prefix = place / f"{name}.ckpt-1"
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=["v"], shape_and_slices=[""], tensors=[tf.constant([1.0, 2.0])])
    with files.plain(prefix) as readable:
        reader = tf.compat.v1.train.NewCheckpointReader(readable)
        assert reader.get_tensor("v").tolist() == [1.0, 2.0]
    with files.plain(place) as readable:
        assert sorted(tf.io.gfile.listdir(readable)) == names(place)
    assert pathlib.Path(readable).exists() == (name == "plain" and not files.is_remote(folder)) or name == "plain"


def test_what_a_killed_process_had_begun_goes_when_the_next_writes_there(tmp_path):
    machine = leftovers.partial_path(tmp_path / "another").name.split("-")[1]
    dead, alive, elsewhere = (
        tmp_path / f".partial-{place}-{process}-0123456789ab.png"
        for place, process in ((machine, 2**22 + 1), (machine, os.getppid()), ("00000000", 2**22 + 1))
    )
    for place in (dead, alive, elsewhere):
        place.mkdir()
    (dead / "half").write_text("x")
    with files.written(tmp_path / "a") as file:
        file.write_text("whole")
    assert {place.name for place in tmp_path.iterdir()} == {"a", alive.name, elsewhere.name}
