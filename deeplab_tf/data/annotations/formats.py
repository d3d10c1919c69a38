"""The search for annotations: which format a folder holds, and in which files."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping

from deeplab_tf import files
from deeplab_tf.data.annotations import coco, coco_panoptic, cvat, cvat_video, label_studio, labelme, supervisely, yolo
from deeplab_tf.data.annotations.drawn import Annotations
from deeplab_tf.data.annotations.listing import Listing
from deeplab_tf.errors import DeepLabError, unknown_name

FORMATS = (
    *("coco", "coco_panoptic", "labelme", "cvat", "cvat_video", "yolo", "supervisely", "labelstudio"),
    "labelstudio_min",
)
_HEAD = 1 << 16  # bytes that tell a format
_NOT_INSTANCES = ("captions_", "image_info_", "person_keypoints_")
_SMALL = ("annotation_id", "polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels")  # keys of JSON-MIN
_PAIRS = (("coco", "coco_panoptic"), ("cvat", "cvat_video"), ("labelstudio", "labelstudio_min"))
_ALIKE = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
_EXPECTED = {
    "coco": "a JSON file with images, annotations and categories, as annotations/instances_train.json",
    "coco_panoptic": "a JSON file with segments_info, as annotations/panoptic_train.json, and its PNGs",
    "labelme": "a JSON file beside each picture, with shapes and imagePath",
    "cvat": "annotations.xml of 'CVAT for images 1.1'",
    "cvat_video": "annotations.xml of 'CVAT for video 1.1' and pictures frame_000000.png",
    "yolo": "data.yaml and labels/*.txt",
    "supervisely": "meta.json and folders img/ and ann/",
    "labelstudio": "a JSON file that is a list of tasks with data and annotations",
    "labelstudio_min": "a JSON-MIN file, a list of tasks with annotation_id and shapes",
}


@dataclasses.dataclass(frozen=True)
class Found:
    """Annotations of one format: their files, for YOLO data.yaml or a folder."""

    format: str
    places: tuple[str, ...]
    meta: str | None = None  # Supervisely's list of classes

    def open(self) -> Annotations:
        """Reads them as far as their format needs it. DeepLabError where a file is damaged."""
        if self.format == "supervisely":
            return supervisely.open_supervisely(self.places, self.meta)
        return _OPEN[self.format](self.places)


_OPEN: Mapping[str, Callable[..., Annotations]] = {
    "coco": coco.open_coco,
    "coco_panoptic": coco_panoptic.open_coco_panoptic,
    "labelme": labelme.open_labelme,
    "cvat": cvat.open_cvat,
    "cvat_video": cvat_video.open_cvat_video,
    "yolo": yolo.open_yolo,
    "labelstudio": label_studio.open_label_studio,
    "labelstudio_min": label_studio.open_label_studio_min,
}


def find_annotations(listing: Listing, place: str | None = None, format_name: str | None = None) -> Found | None:
    """Returns the annotations of a folder, or None where it holds none.

    Args:
      listing: the files of the folder.
      place: a file or folder that holds the annotations, if the user names one.
      format_name: one of FORMATS, if the user names one.

    Raises:
      DeepLabError: what was named holds none, or there are several formats to choose from.
    """
    if format_name is not None and format_name not in FORMATS:
        raise unknown_name("annotation format", format_name, FORMATS)
    where = place or listing.root
    if place is not None and not files.path(place).exists():
        raise DeepLabError(f"--annotations={place}: no such file or folder")
    if place is not None and files.path(place).is_file():
        found = _of_file(place, format_name)
    else:
        found = _of_folder(listing if place is None else Listing(place))
    if format_name is not None:
        # The beginning of a large file may not tell two formats of one program apart: the user does.
        one = found.get(format_name) or found.get(_ALIKE.get(format_name, ""))
        found = {format_name: dataclasses.replace(one, format=format_name)} if one else {}
    elif "coco" in found:  # COCO's own files of panoptic segmentation lie beside those of instances
        found.pop("coco_panoptic", None)
    if len(found) > 1:
        listed = "; ".join(f"{name} ({one.places[0]})" for name, one in found.items())
        raise DeepLabError(f"{where}: annotations of {len(found)} formats, {listed}; choose by --annotation_format")
    if not found and (place is not None or format_name is not None):
        wanted = [format_name] if format_name else FORMATS
        raise DeepLabError(
            f"{where}: no annotations found; expected " + ", or ".join(_EXPECTED[name] for name in wanted)
        )
    return next(iter(found.values()), None)


def _of_file(file: str, format_name: str | None) -> dict[str, Found]:
    """Returns the annotations in one file; a format that the user names is believed."""
    if format_name == "supervisely":
        raise DeepLabError(f"--annotations={file}: a project of Supervisely is a folder; name the folder")
    kind = format_name or _kind(file)
    return {kind: Found(kind, (file,))} if kind else {}


def _of_folder(listing: Listing) -> dict[str, Found]:
    """Returns format -> annotations of the files below a folder."""
    places: dict[str, list[str]] = {name: [] for name in FORMATS}
    for file in listing.files(".json", ".xml"):
        if kind := _kind(file):
            places[kind].append(file)
    places["labelme"] = _with_damaged(listing, places["labelme"])
    places["coco"] = _instances(places["coco"])
    places["yolo"] = _yolo_places(listing)
    metas = [file for file in listing.files(".json") if os.path.basename(file).lower() == "meta.json"]
    return {
        name: Found(name, tuple(found), metas[0] if metas and name == "supervisely" else None)
        for name, found in places.items()
        if found
    }


def _kind(file: str) -> str | None:
    """Returns the format that the beginning of a file has, or None."""
    try:
        with files.path(file).open("rb") as stream:
            head = stream.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return None
    ending = os.path.splitext(file)[1].lower()
    if ending == ".xml":
        return _kind_of_cvat(head)
    if ending in (".yaml", ".yml"):
        return "yolo" if re.search(rb"^names\s*:", head, re.MULTILINE) else None
    if head.startswith(b"["):
        if _has(head, "data") and _has(head, "annotations", "completions"):
            return "labelstudio"
        return "labelstudio_min" if _has(head, *_SMALL) else None
    if not head.startswith(b"{"):
        return None
    if _has(head, "shapes", "imageData") and _has(head, "imagePath", "flags", "version"):
        return "labelme"
    if _has(head, "objects") and _has(head, "size") and os.path.basename(os.path.dirname(file)).lower() == "ann":
        return "supervisely"
    if not (_has(head, "images", "annotations") and _has(head, "file_name", "image_id", "categories")):
        return None
    return "coco_panoptic" if is_panoptic(file) or _has(head, "segments_info") else "coco"


def is_panoptic(file: str) -> bool:
    """Returns whether a file is called as COCO's panoptic annotations are: panoptic_train2017.json."""
    name = os.path.basename(file).lower()
    return name.startswith("panoptic") and name.endswith(".json")


def _kind_of_cvat(head: bytes) -> str | None:
    if not re.search(rb"<annotations[\s>/]", head):
        return None
    # A video that is exported as pictures says that it was interpolated, too.
    tracks = re.search(rb"<track\s", head) or re.search(rb"<mode>\s*interpolation", head)
    return "cvat_video" if tracks and not re.search(rb"<image\s", head) else "cvat"


def _has(head: bytes, *keys: str) -> bool:
    return any(re.search(rb'"%s"\s*:' % key.encode(), head) for key in keys)


def _with_damaged(listing: Listing, found: list[str]) -> list[str]:
    """Returns LabelMe's files, and those of their folders that are named for a picture but do not look like it.

    Such a file is damaged; that must be said, and not become a picture without annotations.
    """
    folders = {os.path.dirname(file) for file in found}
    stems = {os.path.splitext(file)[0] for file in listing.photographs()}
    more = [f for f in listing.files(".json") if os.path.dirname(f) in folders and os.path.splitext(f)[0] in stems]
    return sorted({*found, *more})


def _instances(found: list[str]) -> list[str]:
    """Returns COCO's files of instances where other kinds lie beside them."""
    names = {file: os.path.basename(file).lower() for file in found}
    instances = [file for file in found if names[file].startswith("instances")]
    return instances or [file for file in found if not names[file].startswith(_NOT_INSTANCES)]


def _yolo_places(listing: Listing) -> list[str]:
    """Returns data.yaml, or the root, where texts lie below a folder called labels."""
    texts = [
        f for f in listing.files(".txt") if "labels" in os.path.dirname(f[len(listing.root) :]).lower().split(os.sep)
    ]
    if not [file for file in texts if os.path.basename(file).lower() != "classes.txt"]:
        return []
    described = [file for file in listing.files(".yaml", ".yml") if _kind(file)]
    described = [file for file in described if os.path.dirname(file) == listing.root] or described
    return described[:1] or [listing.root]
