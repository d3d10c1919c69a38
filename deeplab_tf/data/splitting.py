"""The division of a data set without a validation split: the same on every machine, groups of images kept together."""

import collections
import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError

_VAL = ("val", "valid", "validation", "dev", "development", "eval")
_TRAIN = ("train", "training")
_SHOWN = 3  # examples in one message


@dataclasses.dataclass(frozen=True)
class Division:
    """How a split is divided into train and val.

    Attributes:
      val_share: the share of images that val gets, between 0 and 1.
      group_by: a regular expression; images for whose names its first group (or without one, the whole match) is the
        same stay together. None: each image by itself.
      seed: another division for each number.
    """

    val_share: float
    group_by: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises DeepLabError for a share outside 0..1 and for what is not a regular expression."""
        if not 0 < self.val_share < 1:
            raise DeepLabError(f"val_share={self.val_share}: expected a share between 0 and 1, as in 0.2")
        try:
            re.compile(self.group_by or "")
        except re.error as error:
            raise DeepLabError(f"group_by={self.group_by}: not a regular expression ({error})") from None

    def described(self) -> dict[str, Any]:
        """Returns the options by the names of their flags, for dataset.json."""
        values = {"val_share": self.val_share, "split_seed": self.seed, "group_by": self.group_by}
        return {name: value for name, value in values.items() if value is not None}


def divide(splits: Mapping[str, Sequence[Pair]], division: Division) -> tuple[dict[str, list[Pair]], str]:
    """Returns the splits with train divided into train and val, and a line on how.

    What is divided is train, or the only split with labels whatever its name. Groups go to val in the order of a digest
    of seed and group, each that brings the share of val nearer to what is wanted, so that images that are added later
    move no others.

    Args:
      splits: the pairs of each split.
      division: how to divide.

    Raises:
      DeepLabError: there is a validation split, or several splits and none is called train; or `group_by` does not
        match a name, or makes fewer than two groups.
    """
    there = [split for split in splits if split.lower() in _VAL]
    if there:
        raise DeepLabError(f"val_share={division.val_share}: there is a split {there[0]} already; leave val_share out")
    labelled = [split for split, pairs in splits.items() if any(pair.label is not None for pair in pairs)]
    trained = [split for split in labelled if split.lower() in _TRAIN]
    source = next(iter(trained or labelled), None)
    if source is None or (not trained and len(labelled) > 1):
        raise DeepLabError(
            f"val_share={division.val_share}: there are splits {', '.join(splits)} already and none is called train; "
            "leave val_share out"
        )
    groups = _groups(splits[source], division)
    chosen = _chosen(groups, division)
    parts = {
        "train": [pair for pair in splits[source] if _group(pair, division) not in chosen],
        "val": [pair for pair in splits[source] if _group(pair, division) in chosen],
    }
    others = {split: list(pairs) for split, pairs in splits.items() if split != source}
    if "train" in others:
        raise DeepLabError(f"val_share={division.val_share}: {source} cannot become train, which is another split")
    of = f" of {len(groups)} groups" if division.group_by else ""
    share = len(parts["val"]) / len(splits[source])
    told = (
        f"{source} was divided: {len(parts['train'])} images for train, {len(parts['val'])} ({share:.1%}) for val"
        f"{f', which has {len(chosen)}{of}' if of else ''}"
    )
    return {**parts, **others}, told


def _group(pair: Pair, division: Division) -> str | None:
    """Returns the group of a pair; None if the expression does not match its name."""
    if division.group_by is None:
        return pair.filename
    match = re.search(division.group_by, pair.filename)
    if match is None:
        return None
    return match[1] if match.re.groups and match[1] is not None else match[0]


def _groups(pairs: Sequence[Pair], division: Division) -> dict[str, int]:
    """Returns the number of images of each group."""
    groups = [_group(pair, division) for pair in pairs]
    without = [pair.filename for pair, group in zip(pairs, groups, strict=True) if group is None]
    if without:
        more = f" and {len(without) - _SHOWN} more" if len(without) > _SHOWN else ""
        listed = ", ".join(without[:_SHOWN])
        raise DeepLabError(
            f"group_by={division.group_by}: does not match {listed}{more}; expected a match in each name"
        )
    sizes = collections.Counter(group for group in groups if group is not None)
    if len(sizes) < 2:
        what = f"group_by={division.group_by}: all images are in one group" if division.group_by else "a single image"
        raise DeepLabError(f"val_share={division.val_share}: {what}; train and val need one each")
    return dict(sizes)


def _chosen(groups: Mapping[str, int], division: Division) -> set[str]:
    """Returns the groups for val: at least one, and not all."""

    def place(group: str) -> str:
        return hashlib.sha256(f"{division.seed}/{group}".encode()).hexdigest()

    wanted = division.val_share * sum(groups.values())
    chosen: set[str] = set()
    images = 0
    ordered = sorted(groups, key=place)
    for group in ordered:
        nearer = abs(images + groups[group] - wanted) < abs(images - wanted)
        if nearer and len(chosen) < len(groups) - 1:
            chosen.add(group)
            images += groups[group]
    return chosen or {min(ordered, key=lambda group: groups[group])}
