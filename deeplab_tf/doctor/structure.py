"""The findings on a data set as a whole: number of classes, splits, dataset.json, videos, and how files are stored."""

from collections.abc import Iterator, Mapping

import numpy as np

from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.data.label_survey import LabelSurvey, colour_lines
from deeplab_tf.data.masks import BY_COLOURS
from deeplab_tf.data.photograph_facts import described
from deeplab_tf.data.photographs import FLAT, TURNED
from deeplab_tf.doctor.findings import ERROR, NOTE, WARNING, Finding
from deeplab_tf.doctor.frames import frames_apart
from deeplab_tf.doctor.samples import DatasetOnDisk
from deeplab_tf.doctor.split import SHOWN, SplitTally, Tellings, merged
from deeplab_tf.zoo.contamination import share_images

_SCORED = ("val", "dev", "eval", "test", "hold")  # beginnings of the names of splits that scores are of
_PLAIN = ("8-bit grey PNG", "palette PNG", f"RGB PNG {BY_COLOURS}", "SBD annotation")
_DIVIDE = "deeplab-tf build-data --val_share=0.2 makes a val; --group_by=REGEX keeps what belongs together on one side"


def structure_findings(
    data: DatasetOnDisk, tallies: Mapping[str, SplitTally], image: ImageFacts | None, *, whole: bool
) -> Iterator[Finding]:
    """Yields the findings on a data set as a whole.

    Args:
      data: the data set.
      tallies: split -> its tally.
      image: what its photographs are; None: 8-bit RGB.
      whole: whether all splits are looked at.
    """
    if data.notes:
        yield Finding("told", NOTE, data.notes)
    yield from _class_numbers(data)
    if whole:
        yield from _without_val(data)
        yield from _stated(data, tallies)
    yield from _videos(data, tallies)
    encodings = merged(tally.encodings for tally in tallies.values())
    yield from _encodings(encodings)
    survey = LabelSurvey()
    for tally in tallies.values():
        survey.update(tally.survey)
    if lines := survey.palette_notes():
        yield Finding("palettes-differ", WARNING, tuple(lines), "give the colours in dataset.json, or save grey PNGs")
    yield from _photographs(image, merged(tally.photographs for tally in tallies.values()))


def _class_numbers(data: DatasetOnDisk) -> Iterator[Finding]:
    names = data.facts.class_names
    if len(names) == 1:
        lines = (f"a single class, {names[0]!r}: every answer is right, so the loss is 0 and nothing is learned",)
        yield Finding("one-class", ERROR, lines, "name background as the first class, and label things with 1")
    ignored = data.facts.ignore_label
    if len(names) == 256:
        lines = (f"256 classes: {names[ignored]!r} is the ignore label {ignored} as well, and is not counted",)
        yield Finding("ignored-class", WARNING, lines, "leave a label for what is ignored: at most 255 classes")


def _without_val(data: DatasetOnDisk) -> Iterator[Finding]:
    labelled = [split for split in data.splits if split not in data.unlabelled]
    if labelled and not any(split.lower().startswith(_SCORED) for split in labelled):
        others = "".join(f"; {split} has no labels" for split in data.unlabelled)
        lines = (f"no split to score: {', '.join(labelled)} {'are' if labelled[1:] else 'is'} all there is{others}",)
        yield Finding("no-val-split", WARNING, lines, _DIVIDE)


def _stated(data: DatasetOnDisk, tallies: Mapping[str, SplitTally]) -> Iterator[Finding]:
    """Yields what the dataset.json beside records says and they contradict."""
    if data.stated is None:
        return
    stated = data.stated.splits
    lines: list[str] = []
    for split in dict.fromkeys([*stated, *data.splits] if stated else ()):
        there = data.splits.get(split)
        if there != stated.get(split):
            said = f"{stated[split]:,} examples" if split in stated else "no such split"
            found = f"{there:,}" if there is not None else "no"
            lines.append(f"{split}: dataset.json says {said}, there are {found} records")
    for split in data.stated.unlabelled:
        if split not in data.splits:
            lines.append(f"{split}: dataset.json says that it has no labels, there are no records of it")
        elif count := tallies[split].stored_labels:
            lines.append(f"{split}: dataset.json says that it has no labels, {count:,} records hold one")
    for split, tally in tallies.items():
        lacking = tally.faults.counts["missing-label"]
        if lacking and not tally.stored_labels:
            lines.append(f"{split}: none of its records holds a label, and dataset.json does not say so (unlabelled)")
    if lines:
        cure = "build the records again, or copy all of them with their own dataset.json"
        yield Finding("dataset-json", ERROR, (f"{len(lines)} contradictions", *lines[:SHOWN]), cure)


def _videos(data: DatasetOnDisk, tallies: Mapping[str, SplitTally]) -> Iterator[Finding]:
    names = {split: tally.stems for split, tally in tallies.items()}
    pictures = {split: tally.thumbnails for split, tally in tallies.items()}
    found = [
        (one, two)
        for one, two in frames_apart(names, pictures)
        if not share_images(data.facts.name, one.split, two.split)
    ]
    if found:
        first = f"{len(found):,} neighbours of numbered frames lie in different splits: one video is on both sides"
        lines = [f"{one.name} in {one.split}, {two.name} in {two.split}" for one, two in found[:SHOWN]]
        cure = "divide by video: without lists and val, build-data --val_share=0.2 --group_by=REGEX keeps each together"
        yield Finding("video-across-splits", WARNING, (first, *lines), cure)


def _encodings(encodings: Tellings) -> Iterator[Finding]:
    """Yields how label files are stored, where that is not one usual kind."""
    kinds = encodings.counts.most_common()
    lines = [f"{count:,} {kind}: {_examples(encodings, kind)}" for kind, count in kinds]
    by_colours = [kind for kind, _ in kinds if kind.startswith("palette") and BY_COLOURS in kind]
    if by_colours:
        count = sum(encodings.counts[kind] for kind in by_colours)
        first = f"{count:,} palette labels hold the data set's colours at other indices; build-data goes by the colours"
        shown = [name for kind in by_colours for name in encodings.names[kind]][:SHOWN]
        cure = "build the records with deeplab-tf build-data; other programs would read the indices"
        yield Finding("palette-by-colours", WARNING, (first, *shown), cure)
    if len(kinds) > 1:
        cure = "all of them are read; is one of the kinds a mistake?"
        yield Finding("mixed-encodings", NOTE, (f"labels of {len(kinds)} kinds", *lines), cure)
    elif kinds and kinds[0][0] not in _PLAIN:
        yield Finding("label-encoding", NOTE, tuple(lines), "")


def _examples(told: Tellings, kind: str) -> str:
    names = told.names[kind]
    return ", ".join(names) + (", ..." if told.counts[kind] > len(names) else "")


def _photographs(image: ImageFacts | None, told: Tellings) -> Iterator[Finding]:
    if image:
        yield Finding("bit-depth", NOTE, (described(image),))
    if FLAT in told.counts:
        lines = (f"{told.counts[FLAT]:,} photographs {FLAT}", _examples(told, FLAT))
        yield Finding("outside-range", WARNING, lines, "--value_range=low,high of build-data, or leave them out")
    if TURNED in told.counts:
        lines = (f"{told.counts[TURNED]:,} photographs are {TURNED}", _examples(told, TURNED))
        yield Finding("exif-turned", NOTE, lines)
    others = [kind for kind in told.counts if kind not in (FLAT, TURNED)]
    if others:
        lines = tuple(f"{told.counts[kind]:,} photographs: {kind} ({_examples(told, kind)})" for kind in others)
        yield Finding("photographs", NOTE, lines)


def colour_findings(tallies: Mapping[str, SplitTally], data: DatasetOnDisk) -> tuple[str, ...]:
    """Returns lines on colours that are not in the palette: each with its share, and a dataset.json that names them."""
    codes = [tally.colours for tally in tallies.values()]
    pixels = sum(codes[1:], codes[0].copy()) if codes else None
    if not pixels:
        return ()
    counts = np.sum([tally.counts for tally in tallies.values()], axis=0)
    return tuple(colour_lines(pixels, counts, data.facts))
