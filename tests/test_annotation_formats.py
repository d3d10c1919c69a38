"""Every format of annotations as label masks: the same cat in each, and what each of them does in its own way."""

import base64
import io
import json
import pathlib
import shutil
import unicodedata
import zlib

import numpy as np
import pytest
from annotated import (
    CAT,
    HEIGHT,
    MAKERS,
    NAMED,
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
from PIL import Image
from pycocotools import mask

from deeplab_tf.catalog.datasets import dataset
from deeplab_tf.data.annotations.conversion import Conversion
from deeplab_tf.data.annotations.formats import find_annotations
from deeplab_tf.data.annotations.listing import Listing

OWN = pathlib.Path(__file__).parent / "cases" / "own_data"


def png_text(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def told(result) -> str:
    return "\n".join(result.notes)


# ---- all formats


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_cat_in_every_format(tmp_path, name):
    MAKERS[name](tmp_path)
    result, labels = converted(tmp_path)
    assert result.facts.class_names[0] == "background"
    assert result.facts.class_names[CAT[name]] == "cat"
    assert result.facts.built["annotations"] == name
    stem = "frame_000003" if name == "cvat_video" else "a"
    np.testing.assert_array_equal(labels["train"][stem], box_mask(10, 5, 30, 25, CAT[name]))
    assert result.notes == ()


@pytest.mark.parametrize("name", NAMED)
def test_names_beyond_ascii_and_spaces(tmp_path, name):
    MAKERS[name](tmp_path)
    for file in tmp_path.rglob("*"):
        if file.suffix == ".jpg":
            file.rename(file.with_name("猫 é.jpg"))
    for file in tmp_path.rglob("*"):
        if file.suffix in (".json", ".xml") and file.name != "meta.json":
            text = file.read_text(encoding="utf-8").replace("0a1b2c3d-a.jpg", "0a1b2c3d-%E7%8C%AB%20%C3%A9.jpg")
            text = text.replace("<name>cat<", "<name>кот<").replace('"a.png"', '"猫 é.png"')
            file.write_text("\ufeff" + text.replace("a.jpg", "猫 é.jpg").replace('"cat"', '"кот"'), encoding="utf-8")
        if file.name in ("meta.json", "data.yaml"):
            file.write_text(file.read_text().replace("cat", "кот"), encoding="utf-8")
        if file.name.startswith("a."):
            file.rename(file.with_name(file.name.replace("a.", "猫 é.", 1)))
    result, labels = converted(tmp_path)
    assert "кот" in result.facts.class_names
    np.testing.assert_array_equal(labels["train"]["猫 é"], box_mask(10, 5, 30, 25, CAT[name]))


def test_decomposed_names_of_files(tmp_path):
    photo(tmp_path / "images" / unicodedata.normalize("NFD", "é.jpg"))
    save_json(tmp_path / "annotations" / "instances.json", coco_values(names=("é.jpg",)))
    assert len(converted(tmp_path)[1]["train"]) == 1


@pytest.mark.parametrize("name", MAKERS)
def test_suffixes_in_any_case(tmp_path, name):
    MAKERS[name](tmp_path)
    (picture,) = (file for file in tmp_path.rglob("*") if file.suffix == ".jpg")
    picture.rename(picture.with_suffix(".JPG"))
    assert list(converted(tmp_path)[1]["train"]) == ["frame_000003" if name == "cvat_video" else "a"]


@pytest.mark.parametrize(
    ("name", "order"), [(n, "largest_first" if n in ("coco", "yolo") else "as_listed") for n in MAKERS]
)
def test_the_drawing_order_is_the_formats_or_the_users_and_recorded(tmp_path, name, order):
    MAKERS[name](tmp_path)
    assert converted(tmp_path)[0].facts.built == {"annotations": name, "drawing_order": order, "border_ignore": 0}
    other = {"largest_first": "as_listed", "as_listed": "largest_first"}[order]
    result, labels = converted(tmp_path, Conversion(drawing_order=other, border_ignore=2))
    assert result.facts.built == {"annotations": name, "drawing_order": other, "border_ignore": 2}
    expected = box_mask(8, 3, 32, 27, 255)
    expected[7:23, 12:28] = CAT[name]
    np.testing.assert_array_equal(next(iter(labels["train"].values())), expected)


# ---- the cases of own data


def test_case_labelme():
    result, labels = converted(OWN / "labelme")
    assert result.facts.class_names == ("background", "square")
    assert sorted(labels["train"]) == ["p0", "p1", "p2"]
    for name, (left, top, right, bottom) in {
        "p0": (63, 55, 89, 81),
        "p1": (50, 31, 80, 61),
        "p2": (34, 58, 52, 76),
    }.items():
        expected = np.zeros((97, 129), np.uint8)
        expected[top:bottom, left:right] = 1
        np.testing.assert_array_equal(labels["train"][name], expected)


def test_case_coco():
    result, labels = converted(OWN / "coco")
    assert result.facts.class_names == ("background", "dog")
    expected = np.zeros((97, 129), np.uint8)
    expected[10:40, 10:40] = 1
    assert sorted(labels["train"]) == ["p0", "p1", "p2"]
    for label in labels["train"].values():
        np.testing.assert_array_equal(label, expected)


# ---- COCO


def annotation(segmentation, number=1, **more) -> dict:
    return {"id": number, "image_id": 1, "category_id": 7, "segmentation": segmentation, "iscrowd": 0, **more}


def coco_root(root: pathlib.Path, *annotations: dict) -> pathlib.Path:
    photo(root / "images" / "a.jpg")
    save_json(root / "annotations" / "instances.json", coco_values(*annotations))
    return root


@pytest.mark.parametrize("compressed", [False, True])
def test_coco_run_lengths(tmp_path, compressed):
    pixels = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.7
    encoded = mask.encode(np.asfortranarray(pixels, np.uint8))
    changes = np.flatnonzero(np.diff(pixels.ravel("F"), prepend=False, append=not pixels[-1, -1]))
    counts = encoded["counts"].decode() if compressed else np.diff(changes, prepend=0).tolist()
    _, labels = converted(coco_root(tmp_path, annotation({"size": [HEIGHT, WIDTH], "counts": counts}, iscrowd=1)))
    np.testing.assert_array_equal(labels["train"]["a"], np.where(pixels, 255, 0))


def test_coco_parts_and_the_small_before_the_large(tmp_path):
    parts = [[0, 0, 5, 0, 5, 5, 0, 5], [20, 20, 30, 20, 30, 30, 20, 30]]
    large = annotation([[0, 0, 60, 0, 60, 40, 0, 40]], 2, category_id=90)
    _, labels = converted(coco_root(tmp_path, annotation(parts), large))
    expected = box_mask(0, 0, 60, 40, 2)
    expected[:5, :5] = expected[20:30, 20:30] = 1
    np.testing.assert_array_equal(labels["train"]["a"], expected)
    _, labels = converted(tmp_path, Conversion(drawing_order="as_listed"))
    np.testing.assert_array_equal(labels["train"]["a"], box_mask(0, 0, 60, 40, 2))


def test_coco_boxes_are_told(tmp_path):
    result, labels = converted(coco_root(tmp_path, annotation([], 1), annotation([[0, 0, 5, 0, 5, 5, 0, 5]], 2)))
    assert told(result).startswith("1 shape left out: boxes without a segmentation (")
    assert int(labels["train"]["a"].sum()) == 25


@pytest.mark.parametrize("layout", ["own", "split_folders", "roboflow", "plain"])
def test_coco_a_file_for_each_split(tmp_path, layout):
    for split in ("train", "val"):
        word = {"roboflow": {"train": "train", "val": "valid"}[split]}.get(layout, split)
        folder, file = {
            "own": (f"{split}2017", f"annotations/instances_{split}2017.json"),
            "split_folders": (f"images/{split}", f"annotations/instances_{split}.json"),
            "roboflow": (word, f"{word}/_annotations.coco.json"),
            "plain": (split, f"{split}.json"),
        }[layout]
        photo(tmp_path / folder / "a.jpg")
        save_json(tmp_path / file, coco_values())
    save_json(tmp_path / "annotations" / "captions_train2017.json", coco_values())
    if layout != "own":
        shutil.rmtree(tmp_path / "annotations") if layout in ("roboflow", "plain") else None
    result, labels = converted(tmp_path)
    assert {split: list(found) for split, found in labels.items()} == {"train": ["a"], "val": ["a"]}
    (train,), (val,) = result.splits["train"], result.splits["val"]
    assert "train" in train.image
    assert "val" in val.image


def test_coco_roboflows_category_of_the_set_is_no_class(tmp_path):
    values = coco_values()
    values["categories"] = [{"id": 0, "name": "pets", "supercategory": "none"}] + [
        {**one, "supercategory": "pets"} for one in values["categories"]
    ]
    photo(tmp_path / "train" / "a.jpg")
    save_json(tmp_path / "train" / "_annotations.coco.json", values)
    result, _ = converted(tmp_path)
    assert result.facts.class_names == ("background", "cat", "dog")
    assert "category 'pets' is the set's own name, and no class" in told(result)


def test_coco_of_any_size_is_read_piece_by_piece(tmp_path, monkeypatch):
    from deeplab_tf.data.annotations import streamed_json

    monkeypatch.setattr(streamed_json, "_CHUNK", 7)
    values = coco_values(*(annotation([[n, n, n + 5, n, n + 5, n + 5, n, n + 5]], n) for n in range(30)))
    photo(tmp_path / "images" / "a.jpg")
    save_json(
        tmp_path / "annotations" / "instances.json", {"annotations": values.pop("annotations"), "v": 1.25, **values}
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for n in range(30):
        expected[n : n + 5, n : n + 5] = 1
    np.testing.assert_array_equal(converted(tmp_path)[1]["train"]["a"], expected)


# ---- LabelMe


def labelme_root(root: pathlib.Path, *shapes: dict, **more) -> pathlib.Path:
    photo(root / "a.jpg")
    save_json(root / "a.json", labelme_values(*shapes, **more))
    return root


def test_labelme_shapes(tmp_path):
    bits = np.zeros((6, 8), bool)
    bits[1:4, 2:5] = True
    data = base64.b64encode(png_text(bits)).decode()
    root = labelme_root(
        tmp_path,
        {"label": "b", "points": [[30, 25], [10, 5]], "shape_type": "rectangle"},
        {"label": "a", "points": [[20, 15], [23, 19]], "shape_type": "circle"},
        {"label": "c", "points": [[40, 30], [47, 35]], "shape_type": "mask", "mask": data},
        {"label": "c", "points": [[1, 1], [9, 1], [9, 3], [1, 3]]},
        {"label": "d", "points": [[1, 1], [9, 1]], "shape_type": "line"},
        {"label": "d", "points": [[1, 1]], "shape_type": "point"},
    )
    result, labels = converted(root)
    expected = box_mask(10, 5, 30, 25, 2)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected[np.hypot(x - 20, y - 15) <= 5] = 1
    expected[30:36, 40:48][bits] = 3
    expected[1:3, 1:9] = 3
    np.testing.assert_array_equal(labels["train"]["a"], expected)
    assert result.facts.class_names == ("background", "a", "b", "c", "d")
    assert "1 shape left out: lines, which have no area (" in told(result)
    assert "1 shape left out: points, which have no area (" in told(result)
    assert "a.json: shape 5" in told(result)


@pytest.mark.parametrize("path", ["..\\images\\a.jpg", "../images/a.jpg", "C:\\me\\images\\a.jpg", "/home/me/a.jpg"])
def test_labelme_paths_of_other_systems(tmp_path, path):
    photo(tmp_path / "images" / "a.jpg")
    save_json(tmp_path / "json" / "a.json", labelme_values(name=path))
    result, labels = converted(tmp_path)
    assert list(labels["train"]) == ["a"]
    assert result.splits["train"][0].image == str(tmp_path / "images" / "a.jpg")


def test_labelme_pictures_within_the_json(tmp_path):
    file = photo(tmp_path / "elsewhere" / "x.jpg")
    data = base64.b64encode(file.read_bytes()).decode()
    save_json(tmp_path / "set" / "a.json", labelme_values(imageData=data))
    _, labels = converted(tmp_path / "set")
    np.testing.assert_array_equal(labels["train"]["a"], box_mask(10, 5, 30, 25))


def test_labelme_folders_of_splits_and_equal_names_in_folders(tmp_path):
    for folder in ("train/one", "train/two", "val"):
        labelme_root(tmp_path / folder)
    _, labels = converted(tmp_path)
    assert {split: list(found) for split, found in labels.items()} == {"train": ["one/a", "two/a"], "val": ["a"]}


def test_pictures_that_differ_in_their_suffix_keep_it(tmp_path):
    labelme_root(tmp_path)
    photo(tmp_path / "a.png")
    save_json(tmp_path / "b.json", labelme_values(name="a.png"))
    assert list(converted(tmp_path)[1]["train"]) == ["a.jpg", "a.png"]


# ---- CVAT


def cvat_root(root: pathlib.Path, *shapes: str, **more) -> pathlib.Path:
    photo(root / "images" / "a.jpg")
    (root / "annotations.xml").write_text(cvat_text(*shapes, **more), encoding="utf-8")
    return root


def test_cvat_shapes_and_heights(tmp_path):
    root = cvat_root(
        tmp_path,
        '<polygon label="cat" points="10.0,5.0;30,5;30,25;10,25" z_order="2"></polygon>',
        '<box label="dog" xtl="0" ytl="0" xbr="40" ybr="30" z_order="1"><attribute name="x">1</attribute></box>',
        '<mask label="dog" rle="0, 2, 2, 2" left="50" top="30" width="3" height="2" z_order="0"/>',
        '<ellipse label="cat" cx="50" cy="10" rx="6" ry="3" rotation="90" z_order="0"/>',
        '<box label="dog" xtl="40" ytl="30" xbr="50" ybr="32" rotation="90" z_order="0"/>',
        '<polyline label="cat" points="1,1;2,2"/><points label="cat" points="1,1"/><tag label="cat"/>',
    )
    result, labels = converted(root)
    expected = box_mask(0, 0, 40, 30, 1)
    expected[5:25, 10:30] = 2
    expected[30, 50:52] = expected[31, 51:53] = 1
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected[((x - 50) / 3) ** 2 + ((y - 10) / 6) ** 2 <= 1] = 2
    expected[26:36, 44:46][expected[26:36, 44:46] == 0] = 1
    np.testing.assert_array_equal(labels["train"]["a"], expected)
    assert result.facts.class_names == ("background", "dog", "cat")
    assert "1 shape left out: lines, which have no area" in told(result)
    assert "1 shape left out: points, which have no area" in told(result)


def test_cvat_several_jobs_and_subsets(tmp_path):
    for job, (name, subset) in enumerate([("a.jpg", "Train"), ("b.jpg", "Validation"), ("c.jpg", "default")]):
        photo(tmp_path / f"job_{job}" / "images" / subset / name)
        text = cvat_text(name=name, more=f'subset="{subset}"')
        (tmp_path / f"job_{job}" / "annotations.xml").write_text(text, encoding="utf-8")
    _, labels = converted(tmp_path)
    assert {split: list(found) for split, found in labels.items()} == {
        "train": ["job_0/images/Train/a", "job_2/images/default/c"],
        "val": ["b"],
    }


# ---- YOLO


@pytest.mark.parametrize("layout", ["images_first", "split_first", "roboflow", "no_yaml", "lists"])
def test_yolo_layouts(tmp_path, layout):
    names = "names: [dog, cat]\nnc: 2\n"
    images_first = layout in ("images_first", "no_yaml", "lists")
    for split in ("train", "val"):
        folder = tmp_path / "images" / split if images_first else tmp_path / split / "images"
        texts = tmp_path / "labels" / split if images_first else tmp_path / split / "labels"
        photo(folder / f"{split}.jpg")
        photo(folder / "empty.jpg")
        texts.mkdir(parents=True)
        (texts / f"{split}.txt").write_text("1 0 0 0.5 0 0.5 0.5 0 0.5\r\n\r\n")
        (tmp_path / f"{split}.list.txt").write_text(f"./images/{split}/{split}.jpg\nimages/{split}/empty.jpg\n")
    yaml = {
        "images_first": f"{names}train: images/train\nval: images/val\n",
        "split_first": f"path: .\n{names}train: train/images\nval: [val/images]\n",
        "roboflow": f"{names}train: ../train/images\nval: ../val/images\n",
        "lists": f"{names}train: train.list.txt\nval: val.list.txt\n",
    }.get(layout)
    if yaml:
        (tmp_path / "data.yaml").write_text(yaml)
    else:
        (tmp_path / "classes.txt").write_text("dog\ncat\n")
    result, labels = converted(tmp_path)
    assert result.facts.class_names == ("background", "dog", "cat")
    for split in ("train", "val"):
        np.testing.assert_array_equal(labels[split][split], box_mask(0, 0, 30, 20, 2))
        assert not labels[split]["empty"].any()


def test_yolo_boxes_are_told(tmp_path):
    MAKERS["yolo"](tmp_path)
    text = tmp_path / "labels" / "train" / "a.txt"
    text.write_text("0 0.5 0.5 0.1 0.1\n" + text.read_text())
    result, labels = converted(tmp_path)
    assert told(result).startswith("1 shape left out: boxes without a segmentation (")
    np.testing.assert_array_equal(labels["train"]["a"], box_mask(10, 5, 30, 25, 2))


# ---- Supervisely


def test_supervisely_shapes(tmp_path):
    MAKERS["supervisely"](tmp_path)
    bits = np.zeros((4, 5), bool)
    bits[1:3, 1:4] = True
    data = base64.b64encode(zlib.compress(png_text(bits))).decode()
    objects = [
        {
            "classTitle": "dog",
            "geometryType": "rectangle",
            "points": {"exterior": [[40, 10], [50, 20]], "interior": []},
        },
        {
            "classTitle": "cat",
            "geometryType": "polygon",
            "points": {
                "exterior": [[0, 0], [30, 0], [30, 30], [0, 30]],
                "interior": [[[5, 5], [15, 5], [15, 15], [5, 15]]],
            },
        },
        {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [50, 30]}},
        {"classTitle": "dog", "geometryType": "line", "points": {"exterior": [[0, 0], [9, 9]], "interior": []}},
    ]
    save_json(tmp_path / "ds0" / "ann" / "a.jpg.json", supervisely_values(*objects))
    result, labels = converted(tmp_path)
    expected = box_mask(40, 10, 50, 20, 1)
    expected[:30, :30] = 2
    expected[5:15, 5:15] = 0
    expected[30:34, 50:55][bits] = 1
    np.testing.assert_array_equal(labels["train"]["a"], expected)
    assert "1 shape left out: lines, which have no area" in told(result)


# ---- Label Studio


def brush(pixels: np.ndarray, *, repeats: bool) -> list[int]:
    """The run lengths of a brush stroke: as runs of one sample, or as samples one by one."""
    samples = np.repeat(np.where(pixels, 255, 0).ravel(), 4)
    bits = f"{len(samples):032b}{7:05b}{2:04b}{5:04b}{9:04b}{15:04b}"
    if repeats:
        edges = [0, *(np.flatnonzero(np.diff(samples)) + 1).tolist(), len(samples)]
        for start, end in zip(edges, edges[1:], strict=False):
            bits += f"1{3:02b}{end - start - 1:016b}{samples[start]:08b}"
    else:
        for start in range(0, len(samples), 64):
            part = samples[start : start + 64]
            bits += f"0{1:02b}{len(part) - 1:06b}" + "".join(f"{value:08b}" for value in part)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@pytest.mark.parametrize("repeats", [False, True])
def test_label_studio_brush(tmp_path, repeats):
    photo(tmp_path / "images" / "a.jpg")
    pixels = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.8
    value = {"format": "rle", "rle": brush(pixels, repeats=repeats)}
    save_json(tmp_path / "export.json", [label_studio_task(label_studio_result("brushlabels", value))])
    np.testing.assert_array_equal(converted(tmp_path)[1]["train"]["a"], pixels)


def test_label_studio_shapes(tmp_path):
    photo(tmp_path / "images" / "sub" / "a.jpg")
    turned = {"x": 5000 / WIDTH, "y": 1000 / HEIGHT, "width": 1000 / WIDTH, "height": 200 / HEIGHT, "rotation": 90}
    ellipse = {"x": 1500 / WIDTH, "y": 3000 / HEIGHT, "radiusX": 600 / WIDTH, "radiusY": 300 / HEIGHT, "rotation": 0}
    corners = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ((30, 5), (40, 5), (40, 15), (30, 15))]
    results = [
        label_studio_result("rectanglelabels", turned),
        label_studio_result("ellipselabels", ellipse),
        label_studio_result("polygonlabels", {"points": corners}, "dog"),
        label_studio_result("keypointlabels", {"x": 1, "y": 1, "width": 1}),
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    tasks = [
        label_studio_task(*results, image="/data/local-files/?d=images/sub/a.jpg"),
        {"id": 2, "data": {"image": "b.jpg"}, "annotations": []},
    ]
    save_json(tmp_path / "export.json", tasks)
    result, labels = converted(tmp_path)
    expected = box_mask(48, 10, 50, 20, 1)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected[((x - 15) / 6) ** 2 + ((y - 30) / 3) ** 2 <= 1] = 1
    expected[5:15, 30:40] = 2
    np.testing.assert_array_equal(labels["train"]["a"], expected)
    assert "1 shape left out: points, which have no area" in told(result)


def test_label_studio_takes_the_ground_truth_or_the_last(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    result = label_studio_result("polygonlabels", {"points": [[0, 0], [50, 0], [50, 50]]}, "circle")
    task = label_studio_task(result)
    task["annotations"] += [{"result": []}, {"result": [result], "was_cancelled": True}]
    save_json(tmp_path / "export.json", [task])
    assert not converted(tmp_path, facts=dataset("shapes"))[1]["train"]["a"].any()
    task["annotations"][0]["ground_truth"] = True
    save_json(tmp_path / "export.json", [task])
    assert converted(tmp_path, facts=dataset("shapes"))[1]["train"]["a"].any()


# ---- finding


def test_a_folder_without_annotations(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    photo(tmp_path / "labels" / "a.png")
    (tmp_path / "class_names.txt").write_text("a\nb\n")
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": ["a", "b"], "splits": {}}))
    (tmp_path / "labels" / "a.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    assert find_annotations(Listing(str(tmp_path))) is None
    for name in ("labelme2voc_old",):
        assert find_annotations(Listing(str(OWN / name))) is None
