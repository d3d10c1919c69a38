"""What the files of a data set look like together: how they are encoded, and what their faults have in common."""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.catalog.palettes import label_palette
from deeplab_tf.data.faults import Fault, fault_lines
from deeplab_tf.data.masks import BY_COLOURS, LabelRules, label_cure
from deeplab_tf.data.packing import Packed
from deeplab_tf.data.photograph_facts import described

_EXAMPLES = 3  # names of photographs in one message
_LISTED = 24  # colours in one message
_MOST_CLASSES = 64  # more unknown colours than these are not classes


@dataclasses.dataclass
class LabelSurvey:
    """What label files look like.

    Attributes:
      encodings: the kind of file in words -> number of files.
      photographs: how photographs are not stored as they were -> their number, and the names of the first.
      strange: index -> colour as a number -> the first file whose palette has it there, of colours that are not the
        data set's; two colours an index.
    """

    encodings: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter[str])
    strange: dict[int, dict[int, str]] = dataclasses.field(default_factory=dict[int, dict[int, str]])
    photographs: dict[str, tuple[int, list[str]]] = dataclasses.field(default_factory=dict[str, tuple[int, list[str]]])

    def add(self, packed: Packed) -> None:
        """Counts a label."""
        if packed.label is not None:
            self.encodings[packed.encoding] += 1
        self._add_strange((index, colour, packed.filename) for index, colour in packed.strange)
        for note in packed.notes:
            self._add_photographs(note, 1, [packed.filename])

    def update(self, other: "LabelSurvey") -> None:
        """Counts the labels of another survey."""
        self.encodings.update(other.encodings)
        for note, (count, names) in other.photographs.items():
            self._add_photographs(note, count, names)
        self._add_strange(
            (index, colour, file) for index, colours in other.strange.items() for colour, file in colours.items()
        )

    def _add_photographs(self, note: str, count: int, names: Sequence[str]) -> None:
        before, first = self.photographs.get(note, (0, []))
        self.photographs[note] = (before + count, [*first, *names][:_EXAMPLES])

    def _add_strange(self, found: Any) -> None:
        for index, colour, file in found:
            colours = self.strange.setdefault(index, {})
            if len(colours) < 2:
                colours.setdefault(colour, file)

    def notes(self, image: ImageFacts | None = None) -> list[str]:
        """Returns what a user should know, one line each. `image`: of the photographs, where they are not 8-bit RGB."""
        lines = [described(image)] if image else []
        for note, (count, names) in self.photographs.items():
            more = ", ..." if count > len(names) else ""
            lines.append(f"{count} photograph{'s' if count != 1 else ''}: {note} ({', '.join(names)}{more})")
        if len(self.encodings) > 1:
            listed = ", ".join(f"{count} {kind}" for kind, count in self.encodings.most_common())
            lines.append(f"Labels of several kinds: {listed}")
        by_colours = sum(n for kind, n in self.encodings.items() if "palette" in kind and BY_COLOURS in kind)
        if by_colours:
            lines.append(
                f"{by_colours} palette labels were read by their colours: these are the data set's, at other indices"
            )
        return lines + self.palette_notes()

    def palette_notes(self) -> list[str]:
        """Returns a line on an index that has two colours, neither of which is the data set's; or none."""
        differing = [(index, colours) for index, colours in self.strange.items() if len(colours) > 1]
        if not differing:
            return []
        index, colours = differing[0]
        (one, first), (other, second) = colours.items()
        return [
            f"The palettes of labels differ: index {index} is {_colour(one)} in {first} and {_colour(other)} in "
            f"{second}. Neither is a colour of the data set, so the indices were read; if colours count, give them "
            "in dataset.json (palette)"
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns the survey as an object of JSON."""
        strange = [[index, list(map(list, colours.items()))] for index, colours in self.strange.items()]
        return {"encodings": dict(self.encodings), "strange": strange, "photographs": self.photographs}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LabelSurvey":
        """Returns the survey that `to_json` has written."""
        strange = {index: dict(colours) for index, colours in values["strange"]}
        photographs = {note: (count, names) for note, (count, names) in values["photographs"].items()}
        return cls(collections.Counter(values["encodings"]), strange, photographs)


def _colour(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def fault_report(faults: Sequence[Fault], counts: np.ndarray, facts: Dataset, rules: LabelRules) -> str:
    """Returns the message for the faults of a data set: kind by kind, and what would mend those of the labels.

    Args:
      faults: one for each, in the order of the files.
      counts: int64 [256], pixels of each label of the files without faults.
      facts: the data set.
      rules: how its labels were read.
    """
    lines = fault_lines(faults)
    by_kind = {kind: [f for f in faults if f.kind == kind] for kind in {f.kind for f in faults}}
    if colours := by_kind.get("unknown colours"):
        pixels: collections.Counter[int] = collections.Counter()
        for fault in colours:
            pixels.update(dict(fault.amounts))
        lines += colour_lines(pixels, counts, facts)
    wrong = by_kind.get("labels that are not classes", ())
    if len(wrong) > 1:
        lines.append(_about_values(wrong, counts, rules))
    return f"{len(faults)} faults, nothing was written:\n" + "\n".join(f"  {line}" for line in lines)


def _about_values(faults: Sequence[Fault], counts: np.ndarray, rules: LabelRules) -> str:
    total = counts.copy()
    for fault in faults:
        for value, pixels in fault.amounts:
            total[value] += pixels
    present = np.flatnonzero(total).tolist()
    shares = [f"{i} {total[i] / total.sum():.2%}" for i in present[:_LISTED]]
    more = f" and {len(present) - _LISTED} others" if len(present) > _LISTED else ""
    return f"all labels together, of all pixels: {', '.join(shares)}{more}{label_cure(present, rules)}"


def colour_lines(pixels: collections.Counter[int], counts: np.ndarray, facts: Dataset) -> list[str]:
    """Returns each colour that is not in the palette once, with its share, and a dataset.json that has them.

    Args:
      pixels: of each colour (as a number) in the labels that have such colours.
      counts: int64 [256], pixels of each label in the others.
      facts: the data set.
    """
    palette = label_palette(facts.palette)
    total = pixels.total() + int(counts.sum())
    codes = {(r << 16) + (g << 8) + b for r, g, b in palette}
    unknown = [(code, n) for code, n in pixels.most_common() if code not in codes]
    shares = [f"{_colour(code)} {n / total:.2%}" for code, n in unknown[:_LISTED]]
    more = f" and {len(unknown) - _LISTED} others" if len(unknown) > _LISTED else ""
    lines = [f"colours that are not in the palette, of all pixels: {', '.join(shares)}{more}"]
    if len(unknown) > _MOST_CLASSES:
        return [*lines, f"{len(unknown)} colours: smoothed edges or photographs? Export labels without anti-aliasing"]
    seen = {code for code in pixels if code in codes} | {
        (r << 16) + (g << 8) + b for (r, g, b), n in zip(palette, counts, strict=False) if n
    }
    known = [
        (name, list(colour))
        for name, colour in zip(facts.class_names, palette, strict=True)
        if (colour[0] << 16) + (colour[1] << 8) + colour[2] in seen
    ]
    named = [*known, *((f"class_{'_'.join(map(str, _colour(code)))}", list(_colour(code))) for code, _ in unknown)]
    text = json.dumps({"class_names": [name for name, _ in named], "palette": [colour for _, colour in named]})
    return [*lines, f"to name them, write this as dataset.json, with your names in place of class_...: {text}"]
