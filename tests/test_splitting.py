"""The division into train and val: the same everywhere, groups together, never where there is a split already."""

import json
import pathlib
import shutil

import pytest
from commands import finished

from deeplab_tf.catalog import datasets
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.splitting import Division, divide
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import build_data

CASES = pathlib.Path(__file__).parent / "cases" / "own_data"


def pairs(*names: str, label: str | None = "label.png") -> list[Pair]:
    return [Pair(f"{name}.jpg", label, name) for name in names]


def divided(splits, *options, **named) -> dict[str, list[str]]:
    return {
        split: [p.filename for p in found] for split, found in divide(splits, Division(*options, **named))[0].items()
    }


FRAMES = pairs(*(f"video{v}_frame{f:02d}" for v in range(10) for f in range(20)))


def test_a_division_is_the_same_everywhere():
    names = pairs(*"abcdefghij")
    first = divided({"train": names}, 0.3)
    assert {split: len(found) for split, found in first.items()} == {"train": 7, "val": 3}
    assert sorted(first["train"] + first["val"]) == list("abcdefghij")
    assert first == divided({"train": names}, 0.3)
    assert first["val"] == ["c", "f", "g"]
    assert divided({"train": names}, 0.3, seed=1)["val"] != first["val"]
    assert set(divided({"train": names[::-1]}, 0.3)["val"]) == set(first["val"])


@pytest.mark.parametrize("group_by", [r"(video\d+)_", r"video\d+", r"^(.*)_frame"])
@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_together(group_by, seed):
    splits, told = divide({"default": FRAMES}, Division(0.2, group_by, seed))
    videos = {split: {p.filename.partition("_")[0] for p in found} for split, found in splits.items()}
    assert not videos["train"] & videos["val"]
    assert {split: len(found) for split, found in splits.items()} == {"train": 160, "val": 40}
    assert [p.filename for p in splits["train"]] == sorted(p.filename for p in splits["train"])
    assert told == "default was divided: 160 images for train, 40 (20.0%) for val, which has 2 of 10 groups"


def test_both_parts_have_images():
    for share in (0.001, 0.999):
        found = divided({"train": pairs("a", "b", "c")}, share)
        assert found["train"]
        assert found["val"]
    assert divided({"all": pairs("a", "b")}, 0.5).keys() == {"train", "val"}


def test_other_splits_stay():
    found = divided({"training": pairs(*"abcd"), "test": pairs("t", label=None)}, 0.25)
    assert {split: len(names) for split, names in found.items()} == {"train": 3, "val": 1, "test": 1}
    found = divided({"default": pairs(*"abcd"), "test": pairs("t", label=None)}, 0.25)
    assert found["test"] == ["t"]


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        ({"train": FRAMES, "val": FRAMES}, (0.2,), "val_share=0.2: there is a split val already"),
        ({"train": FRAMES, "Valid": FRAMES}, (0.2,), "there is a split Valid already"),
        ({"a": FRAMES, "b": FRAMES}, (0.2,), "there are splits a, b already and none is called train"),
        ({"train": FRAMES}, (0,), "val_share=0: expected a share between 0 and 1"),
        ({"train": FRAMES}, (1.5,), "val_share=1.5: expected a share between 0 and 1"),
        ({"train": FRAMES}, (float("nan"),), "val_share=nan: expected a share"),
        ({"train": FRAMES}, (0.2, "("), "group_by=.: not a regular expression"),
        ({"train": FRAMES}, (0.2, "film"), "group_by=film: does not match video0_frame00, video0_frame01, .* 197 more"),
        ({"train": FRAMES}, (0.2, "video"), "val_share=0.2: group_by=video: all images are in one group"),
        ({"train": FRAMES[:1]}, (0.2,), "val_share=0.2: a single image"),
    ],
)
def test_mistakes(splits, options, message):
    with pytest.raises(DeepLabError, match=message):
        divide(splits, Division(*options))


def test_the_command_divides_the_masks_of_cvat(tmp_path, capsys):
    root = shutil.copytree(CASES / "cvat_masks", tmp_path / "own")
    command = ["--dataset=folder", f"--root={root}", "--num_processes=1"]
    assert finished(build_data, *command, f"--output_dir={tmp_path / 'out'}") == 0
    assert "default is the only split: --val_share=0.2 divides it into train and val" in capsys.readouterr().out
    flags = [*command, "--val_share=0.25", r"--group_by=frame_\d+", "--split_seed=3"]
    assert finished(build_data, *flags, f"--output_dir={tmp_path / 'two'}") == 0
    assert "default was divided: 3 images for train, 1 (25.0%) for val, which has 1 of 4 groups" in (
        capsys.readouterr().out
    )
    facts = datasets.read_dataset(tmp_path / "two")
    assert dict(facts.splits) == {"train": 3, "val": 1}
    assert facts.built == {"val_share": 0.25, "split_seed": 3, "group_by": r"frame_\d+"}
    assert json.loads((tmp_path / "two" / "dataset.json").read_text())["built"] == facts.built
    for given, message in (
        ([*command, "--group_by=x"], "--group_by"),
        ([*command, "--split_seed=1"], "--split_seed"),
        (["--dataset=shapes", "--val_share=0.2"], "--val_share"),
        (["--dataset=folder", f"--root={CASES / 'bom_lists'}", "--val_share=0.2"],
         "there is a split val already"),
    ):  # fmt: skip
        assert finished(build_data, *given, f"--output_dir={tmp_path / 'no'}") == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "no").exists()
