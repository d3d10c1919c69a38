"""COCO's panoptic segmentation, CVAT's videos and Label Studio's JSON-MIN, pixel by pixel; lists beside annotations."""

import pathlib

import numpy as np
import pytest
from annotated import (
    CAT_BOX,
    HEIGHT,
    WIDTH,
    box_mask,
    coco,
    coco_panoptic,
    coco_values,
    converted,
    cvat_track,
    cvat_video_text,
    label_studio_min_task,
    panoptic_values,
    photo,
    save_json,
    save_segments,
)

from deeplab_tf.data.annotations.conversion import Conversion
from deeplab_tf.errors import DeepLabError

OUTSIDE = CAT_BOX.replace('outside="0"', 'outside="1"')


def refused(root: pathlib.Path) -> str:
    with pytest.raises(DeepLabError) as caught:
        converted(root)
    return str(caught.value)


# ---- COCO panoptic


def panoptic(root: pathlib.Path, values: dict, segments: np.ndarray) -> None:
    coco_panoptic(root)
    save_segments(root / "annotations" / "panoptic_train" / "a.png", segments)
    save_json(root / "annotations" / "panoptic_train.json", values)


def drawn_segments() -> np.ndarray:
    segments = np.zeros((HEIGHT, WIDTH), np.uint32)
    segments[:10, :30] = 16_777_215  # the largest number of a colour
    segments[10:20, 20:50] = 256
    segments[30:, :] = 5
    return segments


def test_panoptic_segments_pixel_by_pixel(tmp_path):
    panoptic(tmp_path, panoptic_values((16_777_215, 7), (256, 7), (5, 5), (9, 7), crowds=(256,)), drawn_segments())
    result, labels = converted(tmp_path)
    expected = np.full((HEIGHT, WIDTH), 255)  # what nobody has labelled, and the crowd
    expected[:10, :30] = 1
    expected[30:, :] = 0
    np.testing.assert_array_equal(labels["train"]["a"], expected)
    assert result.facts.class_names == ("background", "cat")
    (note,) = result.notes
    assert note.startswith("1 shape left out: segments without a pixel in the PNG (") and "segment 9" in note


def test_instances_are_taken_where_coco_has_both(tmp_path):
    panoptic(tmp_path, panoptic_values((5, 5)), np.full((HEIGHT, WIDTH), 5, np.uint32))
    save_json(tmp_path / "annotations" / "instances_train.json", coco_values())
    assert converted(tmp_path)[0].facts.built["annotations"] == "coco"
    result, labels = converted(tmp_path, format_name="coco_panoptic")
    assert not labels["train"]["a"].any() and result.facts.built["annotations"] == "coco_panoptic"


@pytest.mark.parametrize(
    ("values", "segments", "message"),
    [
        (panoptic_values((256, 7), (5, 5)), drawn_segments(), "segment 16777215 of the PNG is not in segments_info"),
        (
            panoptic_values((256, 99)),
            drawn_segments(),
            "segment 256: category_id 99, which is not among the categories",
        ),
        (panoptic_values((5, 5)), drawn_segments()[:20], "a.png: 20 x 60 pixels, but the image announces 40 x 60"),
        (
            {**panoptic_values(), "annotations": [{"image_id": 1, "file_name": "../../x.png", "segments_info": []}]},
            drawn_segments(),
            "missing segments",
        ),
        (
            {**panoptic_values(), "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": 3}]},
            drawn_segments(),
            "segments_info: 3 where a list was expected",
        ),
        (
            {**panoptic_values(), "annotations": [{"image_id": 2, "file_name": "a.png", "segments_info": []}]},
            drawn_segments(),
            "image_id 2, which is not among the images",
        ),
    ],
)
def test_panoptic_files_that_do_not_fit(tmp_path, values, segments, message):
    panoptic(tmp_path, values, segments)
    assert message in refused(tmp_path)


# ---- CVAT video


def video(root: pathlib.Path, *tracks: str, frames: int = 4) -> None:
    for frame in range(frames):
        photo(root / "images" / f"frame_{frame:06d}.PNG")
    (root / "annotations.xml").write_text(cvat_video_text(*tracks), encoding="utf-8")


def test_tracks_frame_by_frame(tmp_path):
    dog = CAT_BOX.replace('xtl="10.0"', 'xtl="20.0"').replace('z_order="0"', 'z_order="1"')
    moved = CAT_BOX.replace('ytl="5.0"', 'ytl="15.0"')
    video(
        tmp_path,
        cvat_track((1, dog), (2, OUTSIDE), label="dog"),
        cvat_track((0, CAT_BOX), (1, CAT_BOX), (2, moved), (3, OUTSIDE), number=1),
    )
    result, labels = converted(tmp_path)
    assert result.notes == () and result.facts.class_names == ("background", "dog", "cat")
    with_dog = box_mask(10, 5, 30, 25, 2)
    with_dog[5:25, 20:30] = 1  # above, by its z_order, though listed first
    expected = [box_mask(10, 5, 30, 25, 2), with_dog, box_mask(10, 15, 30, 25, 2), box_mask(0, 0, 0, 0)]
    assert list(labels["train"]) == [f"frame_{frame:06d}" for frame in range(4)]
    for found, label in zip(labels["train"].values(), expected, strict=True):
        np.testing.assert_array_equal(found, label)


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (
            cvat_track((0, CAT_BOX), (3, CAT_BOX)),
            "frame 1: track '0' (cat) lists frames before it, not this one; export",
        ),
        (cvat_track((1, CAT_BOX), (1, CAT_BOX)), "track '0' (cat): frame 1: two shapes; expected one a frame"),
        (cvat_track((1, CAT_BOX.replace('outside="0"', 'outside="no"'))), "frame 1: outside='no'; expected 0 or 1"),
        (cvat_track((1, CAT_BOX), label=""), "track '0' (no label): no label"),
        (cvat_track((1, CAT_BOX)).replace('frame="1"', 'frame="-1"'), "frame: '-1'; expected a whole number"),
    ],
)
def test_tracks_that_cannot_be_honoured(tmp_path, track, message):
    video(tmp_path, track)
    assert message in refused(tmp_path)


def test_a_video_without_its_frames(tmp_path):
    video(tmp_path, cvat_track((0, CAT_BOX)), frames=0)
    photo(tmp_path / "images" / "000000.png")
    assert "no pictures frame_000000.png... in " in refused(tmp_path)


# ---- Label Studio, JSON-MIN


def test_json_min_shapes(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    corners = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ((10, 5), (30, 5), (30, 25), (10, 25))]
    square = {"x": 5000 / WIDTH, "y": 3000 / HEIGHT, "width": 600 / WIDTH, "height": 600 / HEIGHT, "rotation": 0}
    task = label_studio_min_task({"points": corners, "closed": True, "polygonlabels": ["cat"]})
    task["boxes"] = [{**square, "rectanglelabels": ["dog"], "original_width": WIDTH, "original_height": HEIGHT}]
    task["choice"] = [{"choices": ["good"]}]
    save_json(tmp_path / "export.json", [task])
    result, labels = converted(tmp_path)
    expected = box_mask(10, 5, 30, 25, 1)
    expected[30:36, 50:56] = 2
    np.testing.assert_array_equal(labels["train"]["a"], expected)
    assert result.facts.class_names == ("background", "cat", "dog") and result.notes == ()


def test_json_min_of_several_annotators_and_without_labels(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    cat = {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
    save_json(tmp_path / "export.json", [label_studio_min_task(cat), label_studio_min_task(cat)])
    assert "a.jpg is annotated before, in" in refused(tmp_path)
    save_json(tmp_path / "export.json", [label_studio_min_task({"x": 1, "y": 1, "width": 1, "height": 1})])
    assert "label 1: a shape without a label; expected one" in refused(tmp_path)


# ---- lists, and large pictures


def test_lists_beside_annotations(tmp_path):
    coco(tmp_path)
    for name in ("b", "c"):
        photo(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "train.txt").write_text("\ufeffa\r\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("images/a.jpg\nb.jpg\n", encoding="utf-8")
    result, labels = converted(tmp_path, Conversion(unannotated="background"))
    assert {split: list(found) for split, found in labels.items()} == {"train": ["a"], "val": ["a", "b"]}
    np.testing.assert_array_equal(labels["val"]["a"], box_mask(10, 5, 30, 25))
    assert not labels["val"]["b"].any()
    (note,) = result.notes
    assert note.startswith("1 picture left out, which no list names (") and note.endswith("c.jpg)")
    (tmp_path / "val.txt").write_text("zz\n", encoding="utf-8")
    assert "val.txt: missing image zz.jpg" in refused(tmp_path)


def test_large_pictures_are_asked_for(tmp_path):
    coco(tmp_path)
    with pytest.raises(DeepLabError, match="a.jpg: too large to be a photograph .2400 pixels, more than 100"):
        converted(tmp_path, Conversion(max_pixels=100))
    assert converted(tmp_path, Conversion(max_pixels=2400))[1]["train"]["a"].any()
