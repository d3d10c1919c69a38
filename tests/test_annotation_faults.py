"""Damaged, hostile and ill-fitting annotations: one line each that names file and cure, and nothing is written."""

import base64
import io
import json
import pathlib
import re
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from annotated import (
    HEIGHT,
    MAKERS,
    WIDTH,
    box_mask,
    coco_values,
    converted,
    cvat_text,
    label_studio_result,
    label_studio_task,
    labelme_values,
    photo,
    save_json,
    supervisely_values,
)
from commands import everything, finished
from PIL import Image

from deeplab_tf import files
from deeplab_tf.catalog.datasets import dataset_from_json, read_dataset
from deeplab_tf.data.annotations.conversion import Conversion
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import build_data

FILES = {
    "coco": "annotations/instances.json",
    "coco_panoptic": "annotations/panoptic_train.json",
    "labelme": "a.json",
    "cvat": "annotations.xml",
    "cvat_video": "annotations.xml",
    "yolo": "labels/train/a.txt",
    "supervisely": "ds0/ann/a.jpg.json",
    "labelstudio": "export.json",
    "labelstudio_min": "export.json",
}


def fault(root: pathlib.Path, options: Conversion | None = None, **more) -> str:
    """The message of the fault of a folder."""
    with pytest.raises(DeepLabError) as caught:
        converted(root, options, **more)
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def facts(*names: str, **more):
    return dataset_from_json({"class_names": list(names), **more}, pathlib.Path("/set/dataset.json"))


# ---- any bytes


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("damage", ["truncated", "bytes", "empty", "nan", "huge", "deep", "latin"])
def test_damaged_files(tmp_path, name, damage):
    MAKERS[name](tmp_path)
    file = tmp_path / FILES[name]
    content = file.read_bytes()
    numbers = {"nan": b"NaN", "huge": b"1" + b"0" * 5000}
    target = next((t for t in (b"10.0", b"[10, 5", b"16.66", b"0.16666") if t in content), b"10")
    if damage == "truncated":
        content = content[: len(content) * 2 // 3]
    elif damage == "bytes":
        content = content[:20] + bytes(range(256)) + content[20:]
    elif damage == "empty":
        content = b""
    elif damage == "deep":
        xml = file.suffix == ".xml"
        nested = b"<x>" * 50_000 if xml else b"[" * 100_000
        middle = content.index(b">") + 1 if xml else 1
        content = content[:middle] + (nested if xml else b'"x": ' + nested) + content[middle:]
        content = content if name != "labelstudio" else b'[{"data": {}, "annotations": ' + nested
    elif damage == "latin":
        content = content.replace(b"cat", b"c\xe9t").replace(b"1 ", b"\xe9 ")
    else:
        content = content.replace(target, target.replace(b"10", numbers[damage]).replace(b"16.", numbers[damage]), 1)
        content = content.replace(b"0.16666", numbers[damage] + b" ") if name == "yolo" else content
    file.write_bytes(content)
    if (name, damage) == ("yolo", "empty"):  # YOLO's way to say that nothing is there
        assert not converted(tmp_path)[1]["train"]["a"].any()
        return
    message = fault(tmp_path, format_name=name)
    assert file.name in message or "no annotations found" in message
    assert len(message.splitlines()) <= 3


BOMB = '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "head",
    [BOMB, '<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd">', '<!DOCTYPE x [<!ENTITY e SYSTEM "/x">]>'],
)
def test_xml_with_entities_is_refused(tmp_path, head):
    MAKERS["cvat"](tmp_path)
    (tmp_path / "annotations.xml").write_text(head + cvat_text().partition("?>")[2])
    assert "annotations.xml: XML with a document type or entities" in fault(tmp_path)


# ---- wrong values


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"images": {}}, "'{' where a list as the value of 'images'"),
        ({"images": []}, "annotations of image_id 1, which is not among the images"),
        ({"categories": []}, "annotations of category_id 7, which is not among the categories"),
        ({"annotations": [7]}, "7 where an object was expected"),
        ({"annotations": [{"image_id": True, "category_id": 7}]}, "image_id=True; expected a whole number"),
        ({"annotations": [{"image_id": 1}]}, "category_id=None; expected a whole number"),
        ({"categories": [{"id": 7, "name": 3}]}, "3 where a text was expected"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "height": 40.5, "width": 60}]}, "expected whole numbers"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "height": -40, "width": 60}]}, "expected whole numbers"),
        ({"images": [{"id": 1, "file_name": ["a"], "height": 40, "width": 60}]}, "where a text was expected"),
        ({"images": [{"id": 1, "height": 40, "width": 60}]}, "no 'file_name'|None where a text was expected"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "height": 41, "width": 60}]},
         "annotated at 41 x 60 pixels .height x width., but .*a.jpg has 40 x 60"),
        ({"images": [{"id": 1, "file_name": "b.jpg", "height": 40, "width": 60}]}, "missing image b.jpg"),
        ({"images": [{"id": 1, "file_name": "../../../etc/a.jpg2", "height": 40, "width": 60}]}, "missing image"),
        ({"images": [{"id": 1, "file_name": "", "height": 40, "width": 60}]}, "missing image"),
        ({"images": [{"id": n, "file_name": "a.jpg", "height": 40, "width": 60} for n in (1, 2)]}, "annotated before"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}] * 2}, "id 1 occurs twice"),
    ],
)  # fmt: skip
def test_coco_of_wrong_values(tmp_path, change, expected):
    MAKERS["coco"](tmp_path)
    save_json(tmp_path / FILES["coco"], {**coco_values(), **change})
    message = fault(tmp_path, format_name="coco")
    assert "instances.json" in message

    assert re.search(expected, message), message


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([["a", 1, 2, 3, 4, 5]], "'a' where a number was expected"),
        ([[True, 1, 2, 3, 4, 5]], "True where a number was expected"),
        ([[1e300, 1, 2, 3, 4, 5]], "1e.300 lies outside of any picture"),
        ([[10**30, 1, 2, 3, 4, 5]], "a huge number lies outside of any picture"),
        ([[1, 2, 3, 4, 5]], "5 numbers; expected pairs"),
        (["abc"], "'abc' where a number was expected"),
        ("abc", "'abc' where a list was expected"),
        ([None], "None where a"),
        ({"size": [60, 40], "counts": [2400]}, r"size \[60, 40\], but the image announces \[40, 60\]"),
        ({"size": [40, 60], "counts": [2399]}, "run lengths that do not add up to 2400 pixels"),
        ({"size": [40, 60], "counts": [-1, 2401]}, "run lengths that do not add up"),
        ({"size": [40, 60], "counts": [1.5, 2398.5]}, "run lengths that do not add up"),
        ({"size": [40, 60], "counts": "zzzz"}, "is not a text of run lengths"),
        ({"size": [40, 60], "counts": "0"}, "run lengths that do not add up"),
        ({"size": [40, 60], "counts": None}, "None where a list was expected"),
        ({"counts": "0"}, "size None, but the image announces"),
    ],
)
def test_coco_of_wrong_segmentations(tmp_path, segmentation, expected):
    MAKERS["coco"](tmp_path)
    one = {"id": 5, "image_id": 1, "category_id": 7, "segmentation": segmentation, "iscrowd": 0}
    save_json(tmp_path / FILES["coco"], coco_values(one))
    message = fault(tmp_path)

    assert re.search(expected, message), message
    assert "image 1 (a.jpg): annotation 5: segmentation" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shapes": {}}, "a.json: shapes: {} where a list was expected"),
        ({"shapes": [5]}, "a.json: shape 1: 5 where an object was expected"),
        ({"shapes": [{"points": [[1, 2]]}]}, "shape 1: no 'label'"),
        ({"shapes": [{"label": "a", "points": [[1, 2, 3]]}]}, "shape 1: points: expected points [x, y]"),
        ({"shapes": [{"label": "a", "points": [[1, None]]}]}, "None where a number was expected"),
        ({"shapes": [{"label": "a", "shape_type": "cube", "points": []}]}, "shape_type 'cube'; expected polygon"),
        ({"shapes": [{"label": "a", "shape_type": "circle", "points": [[1, 2]]}]}, "a circle of 1 points; expected 2"),
        ({"imageHeight": 41}, "annotated at 41 x 60 pixels (height x width), but"),
        ({"imageHeight": None}, "None where a number was expected"),
        ({"imagePath": "b.jpg"}, "a.json: missing image b.jpg"),
        ({"imagePath": "b.jpg", "imageData": "%%%"}, "a.json: imageData: not base64"),
        ({"imagePath": "b.jpg", "imageData": "aaaa"}, "imageData: not an image"),
        ({"imagePath": 7}, "imagePath: 7 where a text was expected"),
    ],
)
def test_labelme_of_wrong_values(tmp_path, change, expected):
    photo(tmp_path / "a.jpg")
    save_json(tmp_path / "a.json", labelme_values(**change))
    assert expected in fault(tmp_path, facts=facts("background", "a", "cat"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ('<polygon label="cat" points="1,2;3"/>', "points='1,2;3'; expected x,y;x,y"),
        ('<polygon label="cat" points="1,2;3,x;4,5"/>', "'x' where a number was expected"),
        ('<polygon label="cat" points="1,2;3,nan;4,5"/>', "nan lies outside of any picture"),
        ('<polygon points="1,2;3,1;4,5"/>', "no label"),
        ('<box label="cat" xtl="1" ytl="2" xbr="3"/>', "ybr: None where a number was expected"),
        ('<mask label="cat" rle="2,3" left="0" top="0" width="2" height="2"/>', "do not add up to 4 pixels"),
        ('<mask label="cat" rle="a" left="0" top="0" width="2" height="2"/>', "rle='a'; expected run lengths"),
        ('<mask label="cat" rle="4" left="0" top="0" width="999999" height="999999"/>', "a mask of 999999 x 999999"),
    ],
)
def test_cvat_of_wrong_values(tmp_path, shape, expected):
    photo(tmp_path / "images" / "a.jpg")
    (tmp_path / "annotations.xml").write_text(cvat_text(shape))
    message = fault(tmp_path)
    assert expected in message
    assert "annotations.xml: image 'a.jpg'" in message


def test_tracks_among_pictures_are_refused_with_the_cure(tmp_path):
    MAKERS["cvat"](tmp_path)
    text = cvat_text().replace("<image", '<track id="0" label="cat"></track><image', 1)
    (tmp_path / "annotations.xml").write_text(text)
    assert "tracks of a video; --annotation_format=cvat_video reads them" in fault(tmp_path)
    assert "pictures among the tracks of a video" in fault(tmp_path, format_name="cvat_video")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2 0 0 1 0 1 1", "a.txt: line 1: class '2'; expected a number from 0 to 1"),
        ("-1 0 0 1 0 1 1", "class '-1'"),
        ("cat 0 0 1 0 1 1", "class 'cat'"),
        ("1 0 0 1 0 1", "5 numbers; expected pairs"),
        ("1 10 5 30 5 30 25 10 25", "30 is no share of the picture; expected numbers from 0 to 1"),
        ("1 0 0 nan 0 1 1", "nan lies outside of any picture"),
        ("1 0 0 x 0 1 1", "expected a class and numbers"),
    ],
)
def test_yolo_of_wrong_values(tmp_path, line, expected):
    MAKERS["yolo"](tmp_path)
    (tmp_path / FILES["yolo"]).write_text(line)
    assert expected in fault(tmp_path)


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("names: [a, b]\nnc: 3\n", "nc=3, but there are 2 names"),
        ("names: {0: a, 2: b}\n", "expected 0, 1, 2... without gaps"),
        ("names: 5\n", "names=5; expected the names of the classes"),
        ("names: [dog, cat]\ntrain: images/nothing\n", "train=images/nothing: not below"),
        ("names: [dog, cat]\ntrain: ../../../\n", "not below"),
        ("names: [dog, cat]\ntrain: 5\n", "train=5; expected a folder"),
        ("names: [dog, cat\ntrain: {", "damaged YAML"),
        ("names: !!python/object/apply:os.system ['true']\n", "damaged YAML"),
    ],
)
def test_yolo_of_wrong_descriptions(tmp_path, yaml, expected):
    MAKERS["yolo"](tmp_path)
    (tmp_path / "data.yaml").write_text(yaml)
    message = fault(tmp_path)
    assert expected in message
    assert "data.yaml" in message


@pytest.mark.parametrize(
    ("bitmap", "expected"),
    [
        ({"data": "%%", "origin": [0, 0]}, "bitmap: no picture that can be decoded"),
        (
            {"data": base64.b64encode(zlib.compress(b"x" * 100)).decode(), "origin": [0, 0]},
            "no picture that can be decoded",
        ),
        (
            {"data": base64.b64encode(zlib.compress(bytes(1 << 29))).decode(), "origin": [0, 0]},
            "no picture that can be",
        ),
        ({"data": "", "origin": [0]}, "expected [x, y]"),
        ({"origin": [0, 0]}, "no 'data'"),
    ],
)
def test_supervisely_of_wrong_values(tmp_path, bitmap, expected):
    MAKERS["supervisely"](tmp_path)
    save_json(
        tmp_path / FILES["supervisely"],
        supervisely_values({"classTitle": "cat", "geometryType": "bitmap", "bitmap": bitmap}),
    )
    assert expected in fault(tmp_path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"format": "rle", "rle": [1, 2, 3]}, "rle ends early"),
        ({"format": "rle", "rle": [255] * 9}, "rle of 4294967295 samples; expected 60 x 40 x 4"),
        ({"format": "rle", "rle": [0, 0, 37, 128, 58, 0, 0]}, "rle ends early"),
        ({"format": "rle", "rle": ["a"]}, "expected bytes"),
        ({"format": "rle", "rle": []}, "expected bytes"),
        ({"format": "png", "rle": []}, "a brush of format 'png'; expected rle"),
    ],
)
def test_label_studio_of_wrong_values(tmp_path, value, expected):
    photo(tmp_path / "images" / "a.jpg")
    save_json(tmp_path / "export.json", [label_studio_task(label_studio_result("brushlabels", value))])
    assert expected in fault(tmp_path, facts=facts("background", "cat"))


@pytest.mark.parametrize("kind", [["brushlabels"], {"a": 1}, None, 5])
def test_label_studio_of_results_whose_type_is_no_text(tmp_path, kind):
    """They are passed over, as those of types that draw nothing are."""
    photo(tmp_path / "images" / "a.jpg")
    result = {**label_studio_result("brushlabels", {"format": "rle", "rle": [0]}), "type": kind}
    save_json(tmp_path / "export.json", [label_studio_task(result)])
    _, labels = converted(tmp_path, facts=facts("background", "cat"))
    (label,) = labels["train"].values()
    assert not label.any()


# ---- what does not fit


def test_every_fault_is_told_at_once(tmp_path):
    for name in "abcd":
        photo(tmp_path / f"{name}.jpg", (HEIGHT + (name == "b"), WIDTH))
        save_json(tmp_path / f"{name}.json", labelme_values(name=f"{name}.jpg"))
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.jpg").unlink()
    message = fault(tmp_path)
    assert message.startswith("3 faults, nothing was written:\n")
    assert ["b.json: annotated at" in message, "c.json: damaged JSON" in message, "missing image d.jpg" in message] == [
        True
    ] * 3


def test_labels_that_are_not_among_the_classes_are_listed_once(tmp_path):
    MAKERS["labelme"](tmp_path)
    save_json(tmp_path / "a.json", labelme_values(*[{"label": "Cat", "points": [[1, 1], [9, 1], [9, 9]]}] * 3))
    message = fault(tmp_path, facts=facts("background", "cat"))
    assert message.splitlines()[1:] == [
        f"  {tmp_path}/a.json: shape 1: label 'Cat' (3 shapes) is not among the classes (background, cat); "
        "add it to their list, or rename it"
    ]


def test_the_background_is_where_the_list_has_it(tmp_path):
    MAKERS["labelme"](tmp_path)
    result, labels = converted(tmp_path, facts=facts("cat", "_background_", palette=[[1, 2, 3], [4, 5, 6]]))
    assert result.facts.class_names == ("cat", "_background_")
    assert result.facts.palette == ((1, 2, 3), (4, 5, 6))
    np.testing.assert_array_equal(labels["train"]["a"], 1 - box_mask(10, 5, 30, 25))
    result, _ = converted(tmp_path, facts=facts("cat", "dog", palette=[[1, 2, 3], [4, 5, 6]]))
    assert result.facts.class_names == ("background", "cat", "dog")
    assert result.facts.palette == ((0, 0, 0), (1, 2, 3), (4, 5, 6))


def test_shapes_called_background_and_ignore(tmp_path):
    photo(tmp_path / "a.jpg")
    save_json(
        tmp_path / "a.json",
        labelme_values(
            {"label": "cat", "points": [[0, 0], [60, 40]], "shape_type": "rectangle"},
            {"label": "_background_", "points": [[5, 5], [15, 15]], "shape_type": "rectangle"},
            {"label": "__ignore__", "points": [[20, 20], [30, 30]], "shape_type": "rectangle"},
        ),
    )
    result, labels = converted(tmp_path)
    assert result.facts.class_names == ("_background_", "cat")
    expected = box_mask(0, 0, 60, 40)
    expected[5:15, 5:15] = 0
    expected[20:30, 20:30] = 255
    np.testing.assert_array_equal(labels["train"]["a"], expected)


def test_more_classes_than_labels(tmp_path):
    values = coco_values()
    values["categories"] += [{"id": 1000 + n, "name": f"c{n}"} for n in range(253)]
    photo(tmp_path / "images" / "a.jpg")
    save_json(tmp_path / FILES["coco"], values)
    assert "256 classes with the background; expected at most 255" in fault(tmp_path)
    values["categories"].pop()
    save_json(tmp_path / FILES["coco"], values)
    assert converted(tmp_path)[0].facts.num_classes == 255


def test_boxes_alone_are_no_masks(tmp_path):
    MAKERS["coco"](tmp_path)
    save_json(tmp_path / FILES["coco"], coco_values({"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}))
    assert "none of the annotations can be drawn: 1 shape left out: boxes without a segmentation" in fault(tmp_path)


@pytest.mark.parametrize("choice", [None, "background", "leave_out", "refuse"])
def test_pictures_without_annotations(tmp_path, choice):
    photo(tmp_path / "images" / "b.jpg")
    photo(tmp_path / "images" / "val" / "c.jpg")
    photo(tmp_path / "images" / "a.jpg")
    save_json(tmp_path / FILES["coco"], coco_values(names=("a.jpg", "b.jpg")))
    if choice == "refuse":
        message = fault(tmp_path, Conversion(unannotated="refuse"))
        assert "2 pictures without annotations (" in message
        assert message.endswith("; --unannotated=background takes them as background")
        return
    result, labels = converted(tmp_path, Conversion(unannotated=choice))
    found = {split: sorted(one) for split, one in labels.items()}
    assert (
        found
        == {
            None: {"train": ["a", "b"]},
            "background": {"train": ["a", "b"], "val": ["c"]},
            "leave_out": {"train": ["a"]},
        }[choice]
    )
    left = {None: "1 picture without", "background": "", "leave_out": "2 pictures without"}[choice]
    assert "".join(result.notes).startswith(left)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_annotations_refer_to_the_picture_as_it_is_shown(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = orientation > 4
    photo(tmp_path / "a.jpg", (WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH), exif=exif)
    save_json(tmp_path / "a.json", labelme_values())
    np.testing.assert_array_equal(converted(tmp_path)[1]["train"]["a"], box_mask(10, 5, 30, 25))
    if turned:
        save_json(tmp_path / "a.json", labelme_values(imageHeight=WIDTH, imageWidth=HEIGHT))
        assert (
            f"annotated at 60 x 40 pixels (height x width), but EXIF data turns {tmp_path}/a.jpg of 60 x 40 to 40 x 60"
            in fault(tmp_path)
        )


def test_equal_names_in_several_folders_need_their_folder(tmp_path):
    for folder in ("one", "two"):
        photo(tmp_path / "pictures" / folder / "a.jpg")
    save_json(tmp_path / FILES["coco"], coco_values(names=("one/a.jpg", "two/a.jpg")))
    assert sorted(converted(tmp_path)[1]["train"]) == ["one/a", "two/a"]
    save_json(tmp_path / FILES["coco"], coco_values(names=("a.jpg",)))
    assert "2 pictures are called a.jpg (" in fault(tmp_path)


def test_pictures_outside_of_the_folder_are_not_read(tmp_path):
    photo(tmp_path / "secret.jpg")
    save_json(tmp_path / "set" / "a.json", labelme_values(name="../secret.jpg"))
    assert "missing image ../secret.jpg" in fault(tmp_path / "set")


def test_several_formats_are_for_the_user_to_choose(tmp_path):
    MAKERS["coco"](tmp_path)
    MAKERS["cvat"](tmp_path)
    message = fault(tmp_path)
    assert "annotations of 2 formats, coco (" in message
    assert message.endswith("; choose by --annotation_format")
    assert converted(tmp_path, format_name="cvat")[0].facts.built["annotations"] == "cvat"
    place = tmp_path / "annotations"
    assert converted(tmp_path, place=place)[0].facts.built["annotations"] == "coco"
    assert converted(tmp_path, place=place / "instances.json")[0].facts.built["annotations"] == "coco"
    assert "no annotations found; expected a JSON file beside each picture" in fault(tmp_path, format_name="labelme")
    assert "unknown annotation format 'kitti'" in fault(tmp_path, format_name="kitti")
    assert "no such file or folder" in fault(tmp_path, place=tmp_path / "nothing")


# ---- the command


def build(root: pathlib.Path, out: pathlib.Path, *more: str) -> int:
    return finished(build_data, "--dataset=folder", f"--root={root}", f"--output_dir={out}", "--num_processes=1", *more)


def examples(records: pathlib.Path) -> list[dict]:
    """The examples of records, in order."""
    found = []
    for file in sorted(records.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            found.append({k: (v.bytes_list.value or v.int64_list.value)[0] for k, v in features.items()})
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_the_command_builds_records_of_every_format(tmp_path, name, capsys):
    MAKERS[name](tmp_path / "set")
    assert build(tmp_path / "set", tmp_path / "records", "--border_ignore=1", "--num_shards=1") == 0
    found = read_dataset(str(tmp_path / "records"))
    assert "cat" in found.class_names
    assert found.splits == {"train": 1}
    assert (found.built["annotations"], found.built["border_ignore"]) == (name, 1)
    assert "Written:" in capsys.readouterr().out


@pytest.mark.parametrize("root", [".", "../set", "ram://annotated/{}"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_folder_by_any_path(tmp_path, name, root, monkeypatch):
    MAKERS[name](tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    place = root.format(name)
    if files.is_remote(place):
        files.copy(tmp_path / "set", files.path(place))
    assert build(place, tmp_path / "records", "--num_shards=1") == 0
    (example,) = examples(tmp_path / "records")
    assert example["image/filename"] == (b"frame_000003" if name == "cvat_video" else b"a")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--drawing_order=as_listed"], "the labels are masks"),
        (["--border_ignore=2"], "the labels are masks"),
        (["--annotation_format=coco"], "no annotations found; expected a JSON file with images"),
        (["--annotations=/nowhere"], "--annotations=/nowhere: no such file or folder"),
    ],
)
def test_options_of_annotations_are_refused_for_masks(tmp_path, more, expected, capsys):
    photo(tmp_path / "set" / "images" / "a.jpg")
    Image.fromarray(box_mask(1, 1, 5, 5)).save(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "labels").mkdir()
    (tmp_path / "set" / "a.png").rename(tmp_path / "set" / "labels" / "a.png")
    (tmp_path / "set" / "class_names.txt").write_text("background\ncat\n")
    assert build(tmp_path / "set", tmp_path / "records", *more) == 1
    assert expected in capsys.readouterr().err
    assert everything(tmp_path) == everything(tmp_path) - {"records"}
    assert build(tmp_path / "set", tmp_path / "records") == 0


def test_masks_beside_annotations_are_told(tmp_path, capsys):
    MAKERS["coco"](tmp_path / "set")
    (tmp_path / "set" / "labels").mkdir()
    Image.fromarray(box_mask(0, 0, 5, 5)).save(tmp_path / "set" / "labels" / "a.png")
    (tmp_path / "set" / "class_names.txt").write_text("background\ncat\ndog\n")
    assert build(tmp_path / "set", tmp_path / "masks") == 0
    assert (
        "instances.json (coco) lies beside masks and is not read; --annotation_format=coco reads it"
        in capsys.readouterr().out
    )
    assert read_dataset(str(tmp_path / "masks")).built == {}
    assert build(tmp_path / "set", tmp_path / "drawn", "--annotation_format=coco") == 0
    assert read_dataset(str(tmp_path / "drawn")).built["annotations"] == "coco"


@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_pictures_are_stored_as_their_labels_were_drawn(tmp_path, orientation, capsys):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = (WIDTH, HEIGHT) if orientation == 6 else (HEIGHT, WIDTH)
    photo(tmp_path / "set" / "a.jpg", stored, exif=exif)
    save_json(tmp_path / "set" / "a.json", labelme_values())
    assert build(tmp_path / "set", tmp_path / "records", "--num_shards=1") == 0
    (example,) = examples(tmp_path / "records")
    assert (example["image/height"], example["image/width"]) == (HEIGHT, WIDTH)
    with Image.open(io.BytesIO(example["image/encoded"])) as image:
        assert image.size == (WIDTH, HEIGHT)
        assert image.getexif().get(0x0112, 1) == 1
    with Image.open(io.BytesIO(example["image/segmentation/class/encoded"])) as label:
        np.testing.assert_array_equal(np.array(label), box_mask(10, 5, 30, 25))
    status = build(tmp_path / "set", tmp_path / "ignored", "--exif=ignore")
    assert status == (1 if orientation == 6 else 0)
    assert "leave out --exif=ignore" in capsys.readouterr().err or orientation == 3


@pytest.mark.parametrize("bands", [3, 5])
def test_pictures_of_several_bands(tmp_path, bands):
    pixels = np.random.default_rng(0).integers(0, 60000, (HEIGHT, WIDTH, bands), np.uint16)
    (tmp_path / "set").mkdir()
    tifffile.imwrite(tmp_path / "set" / "a.tif", pixels, planarconfig="contig", photometric="minisblack")
    save_json(tmp_path / "set" / "a.json", labelme_values(name="a.tif"))
    assert build(tmp_path / "set", tmp_path / "records") == 0
    assert read_dataset(str(tmp_path / "records")).splits == {"train": 1}


def test_a_fault_leaves_nothing(tmp_path, capsys):
    MAKERS["coco"](tmp_path / "set")
    save_json(tmp_path / "set" / FILES["coco"], json.loads(json.dumps(coco_values(names=("b.jpg",)))))
    assert build(tmp_path / "set", tmp_path / "records") == 1
    assert "missing image b.jpg" in capsys.readouterr().err
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("case", "names", "pictures"),
    [
        ("coco", ("background", "dog"), 3),
        ("labelme", ("background", "square"), 3),
        ("labelme2voc_old", ("_background_", "square", "disc"), 4),
    ],
)
def test_cases_of_own_data(tmp_path, case, names, pictures):
    root = pathlib.Path(__file__).parent / "cases" / "own_data" / case
    assert build(root, tmp_path / "records") == 0
    found = read_dataset(str(tmp_path / "records"))
    assert (found.class_names, found.splits) == (names, {"train": pictures})
    labels = [example["image/segmentation/class/encoded"] for example in examples(tmp_path / "records")]
    assert len(labels) == pictures
    for content in labels:
        with Image.open(io.BytesIO(content)) as label:
            assert set(np.unique(np.array(label))) == set(range(len(names)))
