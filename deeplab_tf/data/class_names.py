"""The classes of a folder of the user's own data, from whichever of the usual files names them.

dataset.json, class_names.txt, classes.txt, labels.txt and obj.names (a name a line), CVAT's labelmap.txt
(name:red,green,blue:parts:actions, a label a line) and data.yaml (`names`, a list or numbers with names).
"""

import dataclasses
import os
import re
from collections.abc import Sequence

from deeplab_tf import files
from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.catalog.palettes import Colour
from deeplab_tf.data.faults import FileError
from deeplab_tf.errors import DeepLabError

CLASS_NAMES_FILE = "class_names.txt"
TOO_MANY = "more than 256 classes"
_TEXTS = (CLASS_NAMES_FILE, "classes.txt", "labels.txt", "obj.names")
_LABEL_MAP = "labelmap.txt"
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
NAME_FILES = frozenset((*_TEXTS, _LABEL_MAP))  # in small letters
_MOST = 256
_NUMBERED = re.compile(r"(\d+)\s*[:,;\s]\s*(\S.*)")
_LEFT_OUT = "__ignore__"  # LabelMe's first line of labels.txt, which stands for -1


@dataclasses.dataclass(frozen=True)
class _Named:
    """The classes that a file names; `colours` by name; `in_order` whether the order is that of the labels."""

    file: str
    names: tuple[str, ...]
    colours: dict[str, Colour] = dataclasses.field(default_factory=dict[str, Colour])
    in_order: bool = True


def named_classes(root: str | os.PathLike) -> datasets.Dataset | None:
    """Returns the classes of the data in `root`, or None where no file names them.

    Raises:
      DeepLabError: a file cannot be read, names no or more than 256 classes or one twice, or two files disagree.
    """
    place = files.path(root)
    there = {entry.name.lower(): str(entry) for entry in sorted(place.iterdir())} if place.is_dir() else {}
    facts = None
    found: list[_Named] = []
    if datasets.DATASET_FILE in there:
        file = os.path.join(root, datasets.DATASET_FILE)
        facts = datasets.parse_dataset(files.path(there[datasets.DATASET_FILE]).read_bytes(), file)
        colours = {} if palettes.is_default(facts.palette) else dict(zip(facts.class_names, facts.palette, strict=True))
        found.append(_Named(file, facts.class_names, colours))
    found += [
        _Named(there[name], _checked(there[name], _names_of_text(there[name]))) for name in _TEXTS if name in there
    ]
    if _LABEL_MAP in there:
        found.append(_label_map(there[_LABEL_MAP]))
    found += [_Named(there[name], names) for name in _YAML if name in there and (names := _names_of_yaml(there[name]))]
    if not found:
        return None
    for other in found[1:]:
        _require_agreement(found[0], other)
    names = next((one.names for one in found if one.in_order), None) or _background_first(found[0].names)
    colours = next((one.colours for one in found if one.colours), {})
    palette = tuple(colours[name] for name in names) if colours else palettes.default_palette(names)
    if facts:
        return dataclasses.replace(facts, palette=palette) if colours else facts
    return datasets.Dataset(
        name=files.path(root).resolve().name,
        num_classes=len(names),
        ignore_label=255,
        class_names=names,
        palette=palette,
        splits={},
        colour_map="pascal",
    )


def class_notes(facts: datasets.Dataset) -> list[str]:
    """Returns what a user should know of the number of classes, one line each."""
    names = facts.class_names
    if len(names) == 1:
        return [
            f"a single class, {names[0]!r}: one class cannot be learned, because every answer is right. Is background "
            "missing? Name it as the first class"
        ]
    if len(names) == _MOST and facts.ignore_label == _MOST - 1:
        return [f"256 classes: the last, {names[-1]!r}, is the ignore label 255 as well, so its pixels are not counted"]
    return []


def _lines(file: str) -> list[str]:
    try:
        text = files.path(file).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DeepLabError(f"{file}: cannot be read ({error.strerror}); expected the names of classes") from None
    except UnicodeDecodeError as error:
        raise DeepLabError(f"{file}: not UTF-8 text ({error}); expected the names of classes") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _checked(file: str, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names, of which there are 1 to 256 different ones."""
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(names) <= 10 * _MOST else []
    if repeated:
        raise DeepLabError(f"{file}: {repeated[0]!r} is named twice; expected different names, one a class")
    if not names:
        raise DeepLabError(f"{file}: no names; expected those of the classes, in label order")
    if len(names) > _MOST:
        raise FileError(
            f"{file}: {len(names)} classes; a label has 8 bits, so at most 256 (255 beside the ignore label 255)",
            TOO_MANY,
        )
    return tuple(names)


def _names_of_text(file: str) -> list[str]:
    """Returns the names of a text of a name a line; of "0 road", "1 sky"... those after the numbers."""
    lines = _lines(file)
    if os.path.basename(file).lower() == CLASS_NAMES_FILE:
        return lines
    lines = lines[1:] if lines[:1] == [_LEFT_OUT] else lines
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    matched = [match for match in numbered if match]
    if len(matched) == len(lines) and [int(match[1]) for match in matched] == [*range(len(lines))]:
        return [match[2] for match in matched]
    return lines


def _label_map(file: str) -> _Named:
    """Returns the labels and colours of CVAT's label map (docs.cvat.ai: Segmentation mask 1.1)."""
    colours: dict[str, Colour] = {}
    names: list[str] = []
    for line in _lines(file):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        numbers = rest.partition(":")[0].split(",")
        if len(numbers) != 3 or not all(number.strip().isdecimal() and int(number) <= 255 for number in numbers):
            raise DeepLabError(f"{file}: {line!r}; expected name:red,green,blue:parts:actions with numbers of 0..255")
        names.append(name.strip())
        red, green, blue = map(int, numbers)
        colours[name.strip()] = (red, green, blue)
    _checked(file, names)
    shared = [name for name, colour in colours.items() if [*colours.values()].count(colour) > 1]
    if shared:
        raise DeepLabError(f"{file}: {' and '.join(shared[:2])} have one colour; expected a colour for each label")
    return _Named(file, tuple(names), colours, in_order=False)


def _background_first(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of an unordered file, background first, as label 0 is elsewhere."""
    return tuple(sorted(names, key=lambda name: name.strip("_").lower() != "background"))


def _names_of_yaml(file: str) -> tuple[str, ...]:
    """Returns the entry `names` of a data.yaml; nothing if it has none."""
    import yaml

    try:
        values = yaml.safe_load("\n".join(_lines_as_they_are(file)))
    except (yaml.YAMLError, ValueError) as error:
        raise DeepLabError(f"{file}: not YAML ({' '.join(str(error).split())})") from None
    names = values.get("names") if isinstance(values, dict) else None
    if names is None:
        return ()
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DeepLabError(f"{file}: names of {sorted(names, key=str)[:5]}; expected 0, 1, 2... without gaps")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise DeepLabError(f"{file}: names={names!r}; expected a list of the names of the classes")
    return _checked(file, [str(name).strip() for name in names])


def _lines_as_they_are(file: str) -> list[str]:
    _lines(file)
    return files.path(file).read_bytes().decode("utf-8-sig").splitlines()


def _require_agreement(first: _Named, other: _Named) -> None:
    """Raises DeepLabError if two files name different classes, in another order or with other colours.

    A data.yaml names things alone; the file before may begin with the background.
    """
    without_background = other.file.lower().endswith((".yaml", ".yml")) and first.names[1:] == other.names
    in_order = first.in_order and other.in_order
    same = first.names == other.names if in_order else sorted(first.names) == sorted(other.names)
    if not same and not without_background:
        raise DeepLabError(
            f"{first.file} and {other.file} name different classes: {_shown(first.names)}; {_shown(other.names)}. "
            "Remove or mend one of them"
        )
    for name, colour in first.colours.items():
        if other.colours.get(name, colour) != colour:
            raise DeepLabError(
                f"{first.file} and {other.file} give {name!r} different colours: {colour}; {other.colours[name]}. "
                "Remove or mend one of them"
            )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
