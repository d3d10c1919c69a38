"""The synthetic data set: equal everywhere, labelled truly, written whole or not at all."""

import zlib

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.catalog import datasets
from deeplab_tf.data import shapes
from deeplab_tf.data.shapes import shapes_example, write_shapes
from deeplab_tf.errors import DeepLabError

DATASET = datasets.dataset("shapes")


@pytest.fixture(scope="module")
def examples():
    return [shapes_example(0, index) for index in range(120)]


# ---- shapes_example


def test_types_and_sizes():
    image, label = shapes_example(3, 1, height=65, width=97)
    assert (image.dtype, image.shape) == (np.uint8, (65, 97, 3))
    assert (label.dtype, label.shape) == (np.uint8, (65, 97))


def test_a_pure_function_of_seed_and_index():
    image, label = shapes_example(5, 9)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    shapes_example(5, 10)
    again = shapes_example(5, 9)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(label, again[1])
    assert (shapes_example(5, 10)[0] != image).any()
    assert (shapes_example(6, 9)[0] != image).any()


def test_bit_equal_on_every_machine():
    # Sixty pictures take every outline and texture. Another sum means that data sets in use have changed: the golden
    # figures of whatever was trained on them go with it.
    image_sum = label_sum = 0
    for index in range(60):
        image, label = shapes_example(7, index, height=80, width=101)
        image_sum, label_sum = zlib.crc32(image.tobytes(), image_sum), zlib.crc32(label.tobytes(), label_sum)
    assert (image_sum, label_sum) == (3094647122, 16919873)


def test_every_class_occurs_and_background_leads(examples):
    counts = np.bincount(np.concatenate([label.ravel() for _, label in examples]), minlength=256)
    assert set(np.flatnonzero(counts)) == {*range(DATASET.num_classes), 255}
    shares = counts / counts.sum()
    assert 0.5 < shares[0] < 0.85
    assert shares[1 : DATASET.num_classes].min() > 0.008
    assert shares[255] < 0.1


def test_pictures_show_two_or_more_classes(examples):
    present = [len(set(np.unique(label)) - {0, 255}) for _, label in examples]
    assert min(present) >= 1
    assert np.mean(present) > 2


def test_classes_touch_only_across_a_seam(examples):
    for _, label in examples:
        for a, b in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            touching = (a != b) & (a != 255) & (b != 255)
            assert not touching.any()


def test_the_seam_is_two_pixels_wide(examples):
    for _, label in examples[:40]:
        seam = label == 255
        # No pixel of a seam is further than one step from a class, but for crossings of seams and slivers.
        near = np.pad(~seam, 1)
        near = near[:-2, 1:-1] | near[2:, 1:-1] | near[1:-1, :-2] | near[1:-1, 2:]
        assert (near & seam).sum() > 0.9 * seam.sum()


def test_later_shapes_cover_earlier_ones_but_never_most_of_one():
    covered = 0
    for index in range(40):
        random = shapes._Random(2, index)
        painter = shapes._Painter(random, 97, 97)
        for _ in range(6):
            before = painter._owner.copy()
            painter.add(random)
            changed = before != painter._owner
            assert (painter._owner[changed] > before[changed]).all()
            covered += bool(changed[before > 0].any())
        seen = np.bincount(painter._owner.ravel(), minlength=len(painter._areas))
        assert (seen[1:] >= shapes._VISIBLE * np.array(painter._areas[1:])).all()
    assert covered > 40


def test_class_is_not_told_by_colour(examples):
    means = {c: [] for c in range(1, DATASET.num_classes)}
    for image, label in examples:
        for c in set(np.unique(label)) - {0, 255}:
            means[int(c)].append(image[label == c].mean(0))
    centres = np.array([np.mean(m, 0) for m in means.values()])
    spread = np.mean([np.std(m, 0).mean() for m in means.values()])
    assert np.ptp(centres, axis=0).max() < 1.6 * spread


def test_edges_are_smooth():
    image, label = shapes_example(0, 5, height=129, width=129)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 1000
    assert image.std() > 10
    assert label.max() == 255


@pytest.mark.parametrize("size", [(16, 16), (16, 300), (301, 33), (513, 513)])
def test_sizes(size):
    image, label = shapes_example(1, 2, height=size[0], width=size[1])
    assert image.shape == (*size, 3)
    assert label.shape == size
    assert (label != 0).any()


@pytest.mark.parametrize(
    ("seed", "index", "size", "message"),
    [(-1, 0, (129, 129), "seed -1"), (0, -1, (129, 129), "index -1"), (0, 0, (15, 129), "15 x 129 .*at least 16")],
)
def test_wrong_arguments(seed, index, size, message):
    with pytest.raises(DeepLabError, match=message):
        shapes_example(seed, index, height=size[0], width=size[1])


# ---- write_shapes


def test_written_folder_is_the_voc_layout(tmp_path):
    folder = write_shapes(tmp_path / "deep" / "set", splits={"train": 3, "val": 2}, seed=4, height=48, width=65)
    lists = {p.stem: p.read_text().split() for p in (folder / "ImageSets" / "Segmentation").iterdir()}
    names = {"train": [f"train_{i:06d}" for i in range(3)], "val": ["val_000000", "val_000001"]}
    assert lists == names
    every = {*names["train"], *names["val"]}
    assert {p.name for p in (folder / "JPEGImages").iterdir()} == {f"{n}.jpg" for n in every}
    assert {p.name for p in (folder / "SegmentationClass").iterdir()} == {f"{n}.png" for n in every}
    assert [p.name for p in folder.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_written_files_hold_the_examples(tmp_path, split):
    folder = write_shapes(tmp_path / "set", splits={split: 2}, seed=4, height=48, width=65)
    for i in range(2):
        image, label = shapes_example(4, shapes.FIRST_INDEX[split] + i, height=48, width=65)
        written = Image.open(folder / "SegmentationClass" / f"{split}_{i:06d}.png")
        assert written.mode == "P"
        np.testing.assert_array_equal(np.array(written), label)
        photo = np.array(Image.open(folder / "JPEGImages" / f"{split}_{i:06d}.jpg")).astype(int)
        assert np.abs(photo - image).mean() < 4


def test_a_split_does_not_depend_on_the_others(tmp_path):
    both = write_shapes(tmp_path / "both", splits={"train": 2, "val": 1}, height=32, width=32)
    alone = write_shapes(tmp_path / "alone", splits={"val": 1}, height=32, width=32)
    name = "SegmentationClass/val_000000.png"
    assert (both / name).read_bytes() == (alone / name).read_bytes()
    assert (both / name).read_bytes() != (both / name.replace("val", "train")).read_bytes()


def test_an_empty_folder_is_filled_and_another_refused(tmp_path):
    (tmp_path / "set").mkdir()
    folder = write_shapes(tmp_path / "set", splits={"val": 1}, height=32, width=32)
    before = sorted(p.name for p in folder.rglob("*"))
    with pytest.raises(DeepLabError, match="not an empty folder"):
        write_shapes(tmp_path / "set", splits={"val": 1}, height=32, width=32)
    assert sorted(p.name for p in folder.rglob("*")) == before
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DeepLabError, match="not an empty folder"):
        write_shapes(tmp_path / "file", splits={"val": 1})
    assert (tmp_path / "file").read_text() == "kept"


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(shapes.pictures, "palette_png", fail)
    with pytest.raises(OSError, match="disk full"):
        write_shapes(tmp_path / "set", splits={"val": 1}, height=32, width=32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": {"training": 1}}, "split of shapes 'training'.*train"),
        ({"splits": {"train": 0}}, "0 images in split train"),
        ({"splits": {}}, "no splits"),
        ({"splits": {"val": 1}, "seed": -3}, "seed -3"),
        ({"splits": {"val": 1}, "height": 8}, "8 x 129"),
    ],
)
def test_wrong_orders(tmp_path, options, message):
    with pytest.raises(DeepLabError, match=message):
        write_shapes(tmp_path / "set", **options)
    assert list(tmp_path.iterdir()) == []
