"""Folders of annotated pictures in every format, made for tests, and what becomes of them."""

import json
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.data.annotations.conversion import Conversion, Converted, convert
from deeplab_tf.data.annotations.formats import find_annotations
from deeplab_tf.data.annotations.listing import Listing

HEIGHT, WIDTH = 40, 60


def photo(file: pathlib.Path, size: tuple[int, int] = (HEIGHT, WIDTH), **options: object) -> pathlib.Path:
    """Writes a picture of (height, width)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize(size[::-1]).convert("RGB").save(file, **options)
    return file


def save_json(file: pathlib.Path, values: object) -> pathlib.Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return file


def box_mask(left: int, top: int, right: int, bottom: int, label: int = 1) -> np.ndarray:
    label_map = np.zeros((HEIGHT, WIDTH), np.uint8)
    label_map[top:bottom, left:right] = label
    return label_map


def converted(
    root: pathlib.Path,
    options: Conversion | None = None,
    *,
    facts: Dataset | None = None,
    place: pathlib.Path | None = None,
    format_name: str | None = None,
) -> tuple[Converted, dict[str, dict[str, np.ndarray]]]:
    """Returns what became of a folder, and split -> name -> label."""
    listing = Listing(str(root))
    found = find_annotations(listing, str(place) if place else None, format_name)
    assert found is not None
    with tempfile.TemporaryDirectory() as scratch:
        result = convert(found.open(), facts, listing, scratch, options or Conversion())
        return result, {split: dict(_labels(pairs)) for split, pairs in result.splits.items()}


def _labels(pairs) -> Iterator[tuple[str, np.ndarray]]:
    for pair in pairs:
        with Image.open(pair.label) as image:
            assert (image.mode, image.format) == ("L", "PNG")
            yield pair.filename, np.array(image)


# ---- one folder of each format: a cat in the box (10, 5, 30, 25) of a.jpg


def coco(root: pathlib.Path) -> None:
    photo(root / "images" / "a.jpg")
    save_json(root / "annotations" / "instances.json", coco_values())


def coco_values(*annotations: dict, names: tuple[str, ...] = ("a.jpg",), split: str = "") -> dict:
    """COCO's object of pictures and annotations, which by default are the cat."""
    cat = {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[10, 5, 30, 5, 30, 25, 10, 25]], "iscrowd": 0}
    images = [{"id": n, "file_name": name, "height": HEIGHT, "width": WIDTH} for n, name in enumerate(names, 1)]
    categories = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}]
    return {
        "info": {"split": split},
        "images": images,
        "annotations": list(annotations or [cat]),
        "categories": categories,
    }


def labelme_values(*shapes: dict, name: str = "a.jpg", **more: object) -> dict:
    cat = {"label": "cat", "points": [[10, 5], [30, 25]], "shape_type": "rectangle"}
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH, "imageData": None}
    return {"version": "5.4.1", "flags": {}, "shapes": list(shapes or [cat]), "imagePath": name, **size, **more}


def labelme(root: pathlib.Path) -> None:
    photo(root / "a.jpg")
    save_json(root / "a.json", labelme_values())


CVAT_META = "<version>1.1</version><meta><task><labels>{}</labels></task></meta>"


def cvat_text(*shapes: str, labels: tuple[str, ...] = ("dog", "cat"), name: str = "a.jpg", more: str = "") -> str:
    cat = '<box label="cat" xtl="10.0" ytl="5.0" xbr="30.0" ybr="25.0" z_order="0"/>'
    listed = "".join(f"<label><name>{label}</name><color>#ff0000</color></label>" for label in labels)
    image = f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}" {more}>{"".join(shapes or [cat])}</image>'
    return f'<?xml version="1.0" encoding="utf-8"?><annotations>{CVAT_META.format(listed)}{image}</annotations>'


def cvat(root: pathlib.Path) -> None:
    photo(root / "images" / "a.jpg")
    (root / "annotations.xml").write_text(cvat_text(), encoding="utf-8")


def yolo(root: pathlib.Path) -> None:
    photo(root / "images" / "train" / "a.jpg")
    (root / "labels" / "train").mkdir(parents=True)
    corners = [(10, 5), (30, 5), (30, 25), (10, 25)]
    line = " ".join(f"{x / WIDTH!r} {y / HEIGHT!r}" for x, y in corners)
    (root / "labels" / "train" / "a.txt").write_text(f"1 {line}\n")
    (root / "data.yaml").write_text("path: /home/me/data\ntrain: images/train\nval:\nnames:\n  0: dog\n  1: cat\n")


def supervisely(root: pathlib.Path) -> None:
    photo(root / "ds0" / "img" / "a.jpg")
    save_json(root / "meta.json", {"classes": [{"title": "dog", "shape": "polygon"}, {"title": "cat", "shape": "any"}]})
    ring = {"exterior": [[10, 5], [30, 5], [30, 25], [10, 25]], "interior": []}
    values = supervisely_values({"classTitle": "cat", "geometryType": "polygon", "points": ring})
    save_json(root / "ds0" / "ann" / "a.jpg.json", values)


def supervisely_values(*objects: dict) -> dict:
    return {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": list(objects)}


def label_studio_task(*results: dict, image: str = "/data/upload/1/0a1b2c3d-a.jpg", number: int = 1) -> dict:
    return {"id": number, "data": {"image": image}, "annotations": [{"result": list(results), "was_cancelled": False}]}


def label_studio_result(kind: str, value: dict, label: str = "cat") -> dict:
    return {"type": kind, "original_width": WIDTH, "original_height": HEIGHT, "value": {**value, kind: [label]}}


def label_studio(root: pathlib.Path) -> None:
    photo(root / "images" / "a.jpg")
    share = {"x": 1000 / WIDTH, "y": 500 / HEIGHT, "width": 2000 / WIDTH, "height": 2000 / HEIGHT, "rotation": 0}
    save_json(root / "export.json", [label_studio_task(label_studio_result("rectanglelabels", share))])


def label_studio_min(root: pathlib.Path) -> None:
    photo(root / "images" / "a.jpg")
    share = {"x": 1000 / WIDTH, "y": 500 / HEIGHT, "width": 2000 / WIDTH, "height": 2000 / HEIGHT, "rotation": 0}
    save_json(root / "export.json", [label_studio_min_task({**share, "rectanglelabels": ["cat"]})])


def label_studio_min_task(*shapes: dict, image: str = "/data/upload/1/0a1b2c3d-a.jpg", number: int = 1) -> dict:
    sized = [{**shape, "original_width": WIDTH, "original_height": HEIGHT} for shape in shapes]
    return {"image": image, "id": number, "label": sized, "annotator": 1, "annotation_id": number, "lead_time": 9.5}


def coco_panoptic(root: pathlib.Path) -> None:
    photo(root / "images" / "a.jpg")
    segments = np.full((HEIGHT, WIDTH), 71_000, np.uint32)
    segments[5:25, 10:30] = 300
    save_segments(root / "annotations" / "panoptic_train" / "a.png", segments)
    save_json(root / "annotations" / "panoptic_train.json", panoptic_values((300, 7), (71_000, 5)))


def save_segments(file: pathlib.Path, segments: np.ndarray) -> None:
    """Writes numbers of segments, uint32 [h, w], as the colours of a PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    colours = np.stack([segments % 256, segments // 256 % 256, segments // 65536], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(file)


def panoptic_values(*segments: tuple[int, int], name: str = "a.jpg", crowds: tuple[int, ...] = ()) -> dict:
    """COCO's object of a picture and its segments, each with its number and its category."""
    listed = [{"id": n, "category_id": category, "iscrowd": int(n in crowds), "area": 1} for n, category in segments]
    categories = [{"id": 5, "name": "background", "isthing": 0}, {"id": 7, "name": "cat", "isthing": 1}]
    return {
        "images": [{"id": 1, "file_name": name, "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"image_id": 1, "file_name": name.replace(".jpg", ".png"), "segments_info": listed}],
        "categories": categories,
    }


def cvat_track(*shapes: tuple[int, str], label: str = "cat", number: int = 0) -> str:
    """A track of boxes: (frame, attributes of its box)."""
    boxes = "".join(f'<box frame="{frame}" occluded="0" keyframe="1" {more}/>' for frame, more in shapes)
    return f'<track id="{number}" label="{label}" source="manual">{boxes}</track>'


CAT_BOX = 'outside="0" xtl="10.0" ytl="5.0" xbr="30.0" ybr="25.0" z_order="0"'


def cvat_video_text(*tracks: str) -> str:
    listed = "".join(f"<label><name>{name}</name></label>" for name in ("dog", "cat"))
    size = f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size>"
    meta = f"<version>1.1</version><meta><task><mode>interpolation</mode><labels>{listed}</labels>{size}</task></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?><annotations>{meta}{"".join(tracks)}</annotations>'


def cvat_video(root: pathlib.Path) -> None:
    photo(root / "images" / "frame_000003.jpg")
    (root / "annotations.xml").write_text(cvat_video_text(cvat_track((3, CAT_BOX))), encoding="utf-8")


MAKERS = {
    "coco": coco,
    "coco_panoptic": coco_panoptic,
    "labelme": labelme,
    "cvat": cvat,
    "cvat_video": cvat_video,
    "yolo": yolo,
    "supervisely": supervisely,
    "labelstudio": label_studio,
    "labelstudio_min": label_studio_min,
}
# The label of the cat: dog is declared too in some.
CAT = dict.fromkeys(MAKERS, 1) | dict.fromkeys(("cvat", "cvat_video", "yolo", "supervisely"), 2)
NAMED = [name for name in MAKERS if name != "cvat_video"]  # whose pictures may have any name
