"""Files on this machine and by TensorFlow (file:// stands for gs:// and its like) are found, read and written alike."""

import pathlib
import subprocess
import sys

import pytest

from deeplab_tf import files
from deeplab_tf.data import ade20k, cityscapes, folder, voc


@pytest.fixture(params=["", "file://"])
def place(request, tmp_path) -> str:
    return f"{request.param}{tmp_path}"


def make(root: pathlib.Path, *names: str):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_finding_and_reading(place, tmp_path):
    make(tmp_path, "b/x.txt", "a-a/y.txt", "a/z.txt", "a/z.png")
    assert files.find(place, "*/*.txt") == [f"{place}/{name}" for name in ("a/z.txt", "a-a/y.txt", "b/x.txt")]
    assert files.find(f"{place}/nowhere", "*") == []
    assert files.path(f"{place}/a/z.png").read_bytes() == b"a/z.png"
    with pytest.raises(FileNotFoundError):
        files.path(f"{place}/nothing").read_bytes()
    with pytest.raises(OSError, match=".") as caught:
        files.path(f"{place}/a").read_bytes()
    assert caught.value.strerror
    assert [files.path(f"{place}/{name}").is_file() for name in ("a", "a/z.png", "c")] == [False, True, False]
    assert [files.path(f"{place}/{name}").is_dir() for name in ("a", "a/z.png", "c")] == [True, False, False]


def test_a_folder_grows_and_takes_its_place(place, tmp_path):
    with files.growing(f"{place}/deep/target") as growing:
        (growing / "a.txt").write_text("ä", encoding="utf-8")
        assert not (tmp_path / "deep" / "target").exists()
    assert (tmp_path / "deep" / "target" / "a.txt").read_text(encoding="utf-8") == "ä"
    (tmp_path / "empty").mkdir()
    taken = [files.is_taken(f"{place}/{name}") for name in ("deep/target", "deep/target/a.txt", "empty", "new")]
    assert taken == [True, True, False, False]
    with pytest.raises(KeyboardInterrupt), files.growing(f"{place}/deep/other") as growing:
        (growing / "a.txt").write_text("a")
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["target"]


def test_every_layout(place, tmp_path):
    make(tmp_path, "lists/train.txt", "images/lists/train.txt.png")
    (tmp_path / "lists" / "train.txt").write_text("q\np\n")
    (pair, _) = voc.voc_splits(f"{place}/photos", f"{place}/labels", f"{place}/lists")["train"]
    assert (pair.image, pair.label, pair.filename) == (f"{place}/photos/q.jpg", f"{place}/labels/q.png", "q")

    make(tmp_path, "ade/i/b.jpg", "ade/i/a.jpg", "ade/v/c.jpg")
    pairs = ade20k.ade20k_splits(*(f"{place}/ade/{name}" for name in ("i", "il", "v", "vl")))
    assert [(p.image, p.label) for p in pairs["train"]] == [
        (f"{place}/ade/i/{name}.jpg", f"{place}/ade/il/{name}.png") for name in "ab"
    ]

    make(tmp_path, "city/leftImg8bit/val/ulm/ulm_0_leftImg8bit.png", "city/gtFine/val/ulm/ulm_0_gtFine_labelIds.png")
    (pair,) = cityscapes.cityscapes_splits(f"{place}/city")["val_fine"]
    assert pair.label == f"{place}/city/gtFine/val/ulm/ulm_0_gtFine_labelIds.png"
    assert pair.label_ids[0] == 7

    make(tmp_path, "own/images/train/b.jpg", "own/images/train/notes", "own/images/val/a.PNG")
    make(tmp_path, "own/masks/train/b.png", "own/masks/val/a.png")
    (tmp_path / "own" / "class_names.txt").write_text("rest\ncat\n")
    found = folder.folder_splits(f"{place}/own")
    assert {split: [(p.image, p.label) for p in pairs] for split, pairs in found.items()} == {
        "train": [(f"{place}/own/images/train/b.jpg", f"{place}/own/masks/train/b.png")],
        "val": [(f"{place}/own/images/val/a.PNG", f"{place}/own/masks/val/a.png")],
    }
    facts = folder.folder_facts(f"{place}/own")
    assert (facts.name, facts.class_names) == ("own", ("rest", "cat"))


def test_local_files_need_no_tensorflow(tmp_path):
    make(tmp_path, "a.txt")
    code = f"import sys; from deeplab_tf import files; files.find({str(tmp_path)!r}, '*');"
    code += f"files.path({str(tmp_path / 'a.txt')!r}).read_bytes(); print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
