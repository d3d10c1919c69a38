"""Class names of annotations as labels: the background first where nobody names one, and what is to be ignored."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from deeplab_tf.data.annotations.drawn import Shape
from deeplab_tf.errors import DeepLabError

BACKGROUND = "background"
_IGNORED = "ignore"


def _bare(name: str) -> str:
    """Returns a name without the marks of LabelMe, whose lists begin with __ignore__ and _background_."""
    return name.strip("_").lower()


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """The classes of a data set, in label order.

    Attributes:
      names: the classes, background among them.
      background: the label of what no shape covers.
      label_of: name -> label; what is to be ignored has the ignore label.
    """

    names: tuple[str, ...]
    background: int
    label_of: Mapping[str, int]


def class_table(names: Sequence[str], ignore_label: int, where: str) -> ClassTable:
    """Returns the labels of class names. A background is put first where none is among them.

    Raises:
      DeepLabError: there are none, one occurs twice, or there are more than labels.
    """
    kept = [name for name in names if not (name.startswith("_") and _bare(name) == _IGNORED)]
    spellings = [number for number, name in enumerate(kept) if _bare(name) == BACKGROUND]
    if len(spellings) > 1:
        raise DeepLabError(f"{where}: {len(spellings)} classes called background; expected one")
    if not spellings:
        kept = [BACKGROUND, *kept]
    twice = [name for name, count in collections.Counter(kept).items() if count > 1 or not name]
    if twice:
        raise DeepLabError(f"{where}: class name {twice[0]!r} is empty or occurs twice; expected different names")
    if len(kept) < 2:
        raise DeepLabError(f"{where}: no class besides the background; write the names into class_names.txt")
    free = [label for label in range(256) if label != ignore_label]
    if len(kept) > len(free) or ignore_label < len(kept):
        most = min(len(free), ignore_label)
        cure = f"name up to {most - 1} of them in class_names.txt" if most > 1 else "choose ignore_label 255"
        raise DeepLabError(f"{where}: {len(kept)} classes with the background; expected at most {most}; {cure}")
    background = spellings[0] if spellings else 0
    labels = {name: label for label, name in enumerate(kept)}
    labels |= dict.fromkeys(("background", "_background_", "__background__"), background)
    labels |= dict.fromkeys(("__ignore__", "_ignore_"), ignore_label)
    return ClassTable(tuple(kept), background, labels)


@dataclasses.dataclass
class Unknown:
    """Labels that are not among the classes: name -> (shapes, where the first is)."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    first: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, shape: Shape) -> None:
        """Counts a shape."""
        self.counts[shape.label] = self.counts.get(shape.label, 0) + 1
        self.first.setdefault(shape.label, shape.where)

    def lines(self, table: ClassTable) -> list[str]:
        """Returns a line for each name."""
        classes = ", ".join(table.names[:10]) + ("..." if len(table.names) > 10 else "")
        return [
            f"{self.first[name]}: label {name!r} ({count} shapes) is not among the classes ({classes}); "
            f"add it to their list, or rename it"
            for name, count in self.counts.items()
        ]
