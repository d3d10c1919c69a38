"""YOLO's segmentation texts: a line `class x y x y...` for each object, in shares of width and height.

data.yaml names the classes and the folders of pictures; labels/ lies beside images/ (docs.ultralytics.com/datasets/
segment). A picture without a text, or with an empty one, has nothing on it.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

from deeplab_tf import files
from deeplab_tf.data.annotations.drawn import AnnotatedPicture, Annotations, Polygon, Shape, Unusable, attempt
from deeplab_tf.data.annotations.reading import flat_points, joined, read_yaml, shown, slashes, split_of
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS
from deeplab_tf.errors import DeepLabError

_FURTHEST = 2.0  # shares; beyond it the numbers are pixels


@dataclasses.dataclass(frozen=True)
class _Task:
    """A picture and the text that belongs to it, which need not be there."""

    picture: str
    text: str
    split: str | None


def open_yolo(places: Sequence[str]) -> Annotations:
    """Returns the annotations that a data.yaml describes, or those of the texts below a folder of labels.

    Args:
      places: data.yaml, or the folder above images/ and labels/.
    """
    described = [place for place in places if place.lower().endswith((".yaml", ".yml"))]
    root = os.path.dirname(described[0]) if described else places[0]
    values = read_yaml(described[0]) if described else {}
    names = _yaml_names(values, described[0]) if described else _text_names(root)
    tasks = _tasks(root, values, described[0]) if described else _tasks_below(root)

    def pictures() -> Iterator[AnnotatedPicture | DeepLabError]:
        for task in tasks:
            yield attempt(lambda one: _picture(one, names), task)

    lists = "none" if described else "named"
    return Annotations("yolo", "largest_first", lambda: names, pictures, others_are_background=True, lists=lists)


def _yaml_names(values: dict[str, Any], file: str) -> tuple[str, ...]:
    names = values.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DeepLabError(f"{file}: names of {shown(list(names))}; expected 0, 1, 2... without gaps")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int) for name in names):
        raise DeepLabError(f"{file}: names={shown(names)}; expected the names of the classes")
    found = tuple(str(name).strip() for name in names)
    if values.get("nc", len(found)) != len(found):
        raise DeepLabError(f"{file}: nc={shown(values['nc'])}, but there are {len(found)} names")
    return found


def _text_names(root: str) -> tuple[str, ...]:
    for name in ("classes.txt", "labels/classes.txt", "obj.names"):
        file = os.path.join(root, name)
        if files.path(file).is_file():
            lines = read_text(file).splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    raise DeepLabError(f"{root}: texts of YOLO, but neither data.yaml nor classes.txt; write the names of the classes")


def read_text(file: str) -> str:
    """Returns the text of a file, which may be empty. DeepLabError where it cannot be read."""
    try:
        return files.path(file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DeepLabError(f"{file}: not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise DeepLabError(f"{file}: cannot be read ({error.strerror or error}); expected text") from None


def _tasks(root: str, values: dict[str, Any], file: str) -> list[_Task]:
    found = []
    for key in ("train", "val", "valid", "test"):
        entries = values.get(key) or []
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise DeepLabError(f"{file}: {key}={shown(entries)}; expected a folder of pictures, or a list of them")
        for entry in entries:
            place = _place(root, values.get("path"), slashes(entry), f"{file}: {key}")
            split = split_of(key) or key
            pictures = _listed(place, root) if place.lower().endswith(".txt") else _pictures_in(place)
            if not pictures:
                raise DeepLabError(f"{place}: no pictures, but {file} names it as {key}")
            found += [_Task(picture, _text_of(picture), split) for picture in pictures]
    return found or _tasks_below(root)


def _place(root: str, path: Any, entry: str, where: str) -> str:
    """Returns the folder or list an entry of data.yaml names. `path` is often that of the machine it was written on."""
    candidates = [joined(joined(root, path), entry)] if isinstance(path, str) else []
    # Roboflow writes ../train/images for the folder train beside data.yaml.
    candidates += [joined(root, entry)]
    candidates += [joined(root, entry.lstrip("./"))] if entry.strip("./") else []
    for place in candidates:
        if f"{place}/".startswith(f"{root}/") and files.path(place).exists():
            return place
    raise DeepLabError(f"{where}={entry}: not below {root}; correct the path")


def _listed(file: str, root: str) -> list[str]:
    lines = [slashes(line) for line in read_text(file).splitlines() if line.strip()]
    return [joined(root, line) for line in lines]


def _pictures_in(folder: str) -> list[str]:
    found = sorted(str(path) for path in files.path(folder).rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS)
    return [path for path in found if not os.path.basename(path).startswith(".")]


def _tasks_below(root: str) -> list[_Task]:
    """Returns the pictures of <split>/images or of images/<split>."""
    folders = [root, *(str(path) for path in sorted(files.path(root).iterdir()) if path.is_dir())]
    found = []
    for folder in folders:
        images = os.path.join(folder, "images")
        if files.path(images).is_dir():
            found += [_Task(picture, _text_of(picture), None) for picture in _pictures_in(images)]
    if not found:
        raise DeepLabError(f"{root}: texts of YOLO, but no pictures in images/; expected images/train and labels/train")
    return found


def _text_of(picture: str) -> str:
    """Returns the text that belongs to a picture: below labels/ where that is below images/."""
    head, separator, tail = os.path.splitext(picture)[0].rpartition(f"{os.sep}images{os.sep}")
    return f"{head}{os.sep}labels{os.sep}{tail}.txt" if separator else f"{os.path.splitext(picture)[0]}.txt"


def _picture(task: _Task, names: tuple[str, ...]) -> AnnotatedPicture:
    shapes: list[Shape] = []
    if files.path(task.text).is_file():
        for number, line in enumerate(read_text(task.text).splitlines(), 1):
            if line.strip():
                shapes.append(_shape(line.split(), names, f"{task.text}: line {number}"))
    elif not files.path(task.picture).is_file():  # found by its name alone it would have nothing on it
        raise DeepLabError(
            f"{task.picture}: neither this picture nor {task.text} is there; correct the list that names it"
        )
    return AnnotatedPicture(
        task.picture,
        (os.path.dirname(task.picture),),
        task.text,
        task.text,
        tuple(shapes),
        split=task.split,
        relative=True,
    )


def _shape(words: list[str], names: tuple[str, ...], where: str) -> Shape:
    if not (words[0].isascii() and words[0].isdigit() and len(words[0]) < 6 and int(words[0]) < len(names)):
        raise DeepLabError(f"{where}: class {shown(words[0])}; expected a number from 0 to {len(names) - 1}")
    try:
        values = [float(word) for word in words[1:]]
    except ValueError:
        raise DeepLabError(f"{where}: {shown(' '.join(words))}; expected a class and numbers") from None
    label = names[int(words[0])]
    if len(values) == 4:
        return Shape(label, Unusable("boxes without a segmentation"), where)
    corners = flat_points(values, where)
    if corners.size and not -1 <= corners.min() <= corners.max() <= _FURTHEST:
        largest = corners.flat[abs(corners).argmax()]
        raise DeepLabError(f"{where}: {largest:g} is no share of the picture; expected numbers from 0 to 1")
    return Shape(label, Polygon(((corners, ()),)), where)
