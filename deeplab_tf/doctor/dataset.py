"""The check of a data set: every image and label is decoded once, and the findings follow from the tallies."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.data.build import trained_on
from deeplab_tf.data.masks import LabelRules
from deeplab_tf.data.packing import PackingRules
from deeplab_tf.data.photograph_facts import find_image_facts
from deeplab_tf.data.photographs import NO_CONTRAST, PhotographOptions, PhotographRules
from deeplab_tf.doctor.classes import class_findings
from deeplab_tf.doctor.findings import ERROR, NOTE, WARNING, Diagnosis, Finding, Severity
from deeplab_tf.doctor.likeness import alike
from deeplab_tf.doctor.samples import DatasetOnDisk, UnusableData, open_data
from deeplab_tf.doctor.split import SHOWN, SplitTally
from deeplab_tf.doctor.structure import colour_findings, structure_findings
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.sizes import LARGEST_CROP, crop_holding
from deeplab_tf.zoo.contamination import share_images

_IMAGES_AGAIN = "fetch or save them again; --skip_corrupt_records passes over records"
# Faults of single examples: code -> severity, predicate of the examples, cure.
_FAULTS: dict[str, tuple[Severity, str, str]] = {
    "missing-image": (ERROR, "have no image", "add the file, or take the id out of the list"),
    "missing-label": (ERROR, "have no label", "add the label, <id>.png, or take the id out of the list"),
    "unreadable": (ERROR, "cannot be read", _IMAGES_AGAIN),
    "truncated": (ERROR, "have an image that announces more rows than it holds", _IMAGES_AGAIN),
    "no-contrast": (
        ERROR,
        "have an image of one value everywhere",
        "save it again from the original, with all its bits, or leave it out",
    ),
    "bands": (
        ERROR,
        "have an image of other bands or bits than the set",
        "convert them to one kind; records of more than 8 bits need the dataset.json that build-data writes",
    ),
    "image-format": (ERROR, "are neither JPEG nor PNG", "build the records with deeplab-tf build-data, which converts"),
    "jpeg-label": (
        ERROR,
        "have labels whose values may not be those that were drawn, as those of JPEGs",
        "export the labels as PNG",
    ),
    "stored-colours": (
        ERROR,
        "have labels of colours in a record, where TensorFlow reads the grey of each colour as the class",
        "build the records anew with deeplab-tf build-data, which stores indices",
    ),
    "unknown-colours": (
        ERROR,
        "have labels of colours that are not in the palette",
        "give the palette, a colour a class, in dataset.json",
    ),
    "palette-contradiction": (
        ERROR,
        "have palette labels whose colours contradict their indices",
        "give all colours in dataset.json (palette), or save the labels as grey PNGs of indices",
    ),
    "transparent-label": (
        ERROR,
        "have labels with one colour in several transparencies",
        "export the labels without transparency",
    ),
    "colour-label": (
        WARNING,
        "have RGB labels (all colours are in the palette)",
        "deeplab-tf build-data turns them into indices; other programs would read their greys",
    ),
    "size-mismatch": (
        ERROR,
        "have an image and a label of different size",
        "make the label from this very image; where EXIF turns the image, save it upright",
    ),
    "exif-rotation": (
        ERROR,
        "have an image that its EXIF data turn, and nothing says whether its label is turned",
        "build with --exif=apply or --exif=ignore, as the labels were drawn; or save the images upright, without EXIF",
    ),
}
_EXIF_STORED = (
    "have an image that its EXIF data turn, which TensorFlow ignores: it is trained as stored",
    "build the records anew with deeplab-tf build-data, which turns images and checks them against their labels",
)
_ALIKE = 0.995  # the likeness of CamVid's two splits is 0.944, of a photograph at half the size and quality 40 0.9999


def check_dataset(
    dataset_dir: str | os.PathLike,
    *,
    dataset: str | None = None,
    splits: Sequence[str] = (),
    tfds_features: Sequence[str] | None = None,
    begin: Callable[[int], object] | None = None,
    advance: Callable[[], object] | None = None,
) -> Diagnosis:
    """Returns the facts about a data set in a folder, TFRecords or images and labels, and the findings on it.

    The first four arguments are those of `samples.open_data`.

    Args:
      dataset_dir: the folder.
      dataset: what the labels mean.
      splits: the splits to check; none: all.
      tfds_features: of a data set of TFDS.
      begin: called with the number of examples before the first one is read.
      advance: called after each example.

    Raises:
      DeepLabError: there is no such folder, data set or split. Anything else that is wrong becomes a finding.
    """
    try:
        data = open_data(dataset_dir, dataset=dataset, splits=splits, tfds_features=tfds_features)
    except UnusableData as error:
        cure = "build-data refuses the folder for the same reason; nothing else was looked at"
        return Diagnosis(os.fspath(dataset_dir), (Finding(error.code, ERROR, (str(error),), cure),))
    if begin:
        begin(sum(data.splits.values()))
    rules, mixed = _rules(data)
    tallies = {split: _tally(data, split, rules, advance) for split in data.splits}
    findings = [*_assumed(data), *_empty(data), *mixed, *_faults(tallies, data)]
    findings += structure_findings(data, tallies, rules.photographs.image, whole=not splits)
    findings += class_findings(tallies, data.facts, rules.labels, data.unlabelled)
    findings += [*_duplicates(tallies, data.facts.name), *_sizes(tallies), *_unused(data)]
    kind = "TFRecords" if data.in_records else "images and labels"
    counts = ", ".join(f"{count:,} in {split}" for split, count in data.splits.items())
    subject = (
        f"{os.fspath(dataset_dir)}: {kind}, {counts}; labels of {data.facts.name} ({data.facts.num_classes} classes)"
    )
    return Diagnosis(subject, tuple(findings), _figures(tallies, data), _table(tallies, data.facts))


def _rules(data: DatasetOnDisk) -> tuple[PackingRules, list[Finding]]:
    """Returns how labels and photographs are read, and a finding if the photographs are of several kinds."""
    facts = data.facts
    labels = LabelRules(facts.num_classes, facts.ignore_label, facts.palette)
    if data.pairs is None:
        return PackingRules(labels, PhotographRules(facts.image, exif="ignore")), []
    image: ImageFacts | None = facts.image
    findings: list[Finding] = []
    try:
        image = find_image_facts(trained_on(data.pairs), PhotographOptions(), facts.image)
    except DeepLabError as error:
        flat = getattr(error, "kind", "") == NO_CONTRAST
        code = "set-without-contrast" if flat else "photographs-differ"
        findings.append(Finding(code, ERROR, (str(error),), "build-data refuses them for this reason"))
        if flat:  # look at each with any range
            image = find_image_facts(trained_on(data.pairs), PhotographOptions((0.0, 65535.0)), facts.image)
    return PackingRules(labels, PhotographRules(image, data.exif)), findings


def _tally(data: DatasetOnDisk, split: str, rules: PackingRules, advance: Callable[[], object] | None) -> SplitTally:
    tally = SplitTally()
    for example in data.examples(split):
        tally.add(example, data.facts, rules, labelled=split not in data.unlabelled)
        if advance:
            advance()
    return tally


def _assumed(data: DatasetOnDisk) -> Iterator[Finding]:
    if data.assumed:
        lines = (f"nothing in the folder says what the labels mean; they are judged as {data.facts.name}",)
        yield Finding("assumed-dataset", NOTE, lines, "--dataset=NAME says it, or a dataset.json in the folder")


def _empty(data: DatasetOnDisk) -> Iterator[Finding]:
    empty = [split for split, count in data.splits.items() if not count]
    if empty:
        lines = (f"{', '.join(empty)}: not one example that can be read",)
        yield Finding("empty-split", ERROR, lines, "build or copy the files of the split again, or delete them")


def _faults(tallies: Mapping[str, SplitTally], data: DatasetOnDisk) -> Iterator[Finding]:
    for code, (severity, predicate, cure) in _FAULTS.items():
        parts = {split: tally.faults for split, tally in tallies.items() if tally.faults.counts[code]}
        if not parts:
            continue
        if code == "exif-rotation" and data.in_records:
            severity = WARNING
            predicate, cure = _EXIF_STORED
        shown = [line for faults in parts.values() for line in faults.names[code]][:SHOWN]
        first = " and ".join(f"{faults.counts[code]:,} of {split}" for split, faults in parts.items())
        colours = colour_findings(tallies, data) if code == "unknown-colours" else ()
        yield Finding(code, severity, (f"{first} {predicate}", *shown, *colours), cure)


# ---- images


def _duplicates(tallies: Mapping[str, SplitTally], dataset: str) -> Iterator[Finding]:
    """Yields a finding for each two splits that have nearly the same images, and by the catalogue should not."""
    for first, second in itertools.combinations(tallies, 2):
        one = tallies[first]
        other = tallies[second]
        if share_images(dataset, first, second) or not one.names or not other.names:
            continue
        pairs = list(alike(np.stack(one.thumbnails), np.stack(other.thumbnails), least=_ALIKE))
        if pairs:
            pairs.sort(key=lambda pair: -pair[2])
            lines = [f"{one.names[a]} and {other.names[b]} ({likeness:.2%})" for a, b, likeness in pairs[:SHOWN]]
            first_line = f"{len(pairs):,} images of {first} are nearly the same as one of {second}"
            cure = "take them out of one of the two: scores on images that were trained on are too good"
            yield Finding("near-duplicates", WARNING, (first_line, *lines), cure)


def _sizes(tallies: Mapping[str, SplitTally]) -> Iterator[Finding]:
    """Yields the crop sizes that suit the sizes of the images."""
    sizes = [size for tally in tallies.values() for size in tally.sizes.elements()]
    if not sizes:
        return
    sides = np.array(sizes)  # [n, 2]
    largest = sides.max(axis=0)
    middle = np.median(sides, axis=0)
    evaluation = ",".join(str(crop_holding(side)) for side in largest)
    training = ",".join(str(min(crop_holding(side), LARGEST_CROP)) for side in middle)
    kinds = len(set(sizes))
    first = f"{kinds:,} sizes, " if kinds > 1 else "one size, "
    first += f"largest {largest[0]} x {largest[1]}, median {middle[0]:g} x {middle[1]:g} (height x width)"
    yield Finding(
        "crop-size",
        NOTE,
        (first, f"--eval_crop_size={evaluation} holds every image; --train_crop_size={training} the median one"),
        "crops are best k * 16 + 1, and training's as large as the memory allows with a batch of 12 or more",
    )


def _unused(data: DatasetOnDisk) -> Iterator[Finding]:
    if data.unused:
        lines = (f"{len(data.unused):,} files among the labels belong to no image of a list", *data.unused[:SHOWN])
        yield Finding("unused-labels", NOTE, lines)


# ---- figures


def _figures(tallies: Mapping[str, SplitTally], data: DatasetOnDisk) -> dict:
    return {
        "dataset": data.facts.name,
        "examples": dict(data.splits),
        "histogram": {s: {str(i): int(t.counts[i]) for i in np.flatnonzero(t.counts)} for s, t in tallies.items()},
        "sizes": {s: {f"{h}x{w}": n for (h, w), n in t.sizes.most_common()} for s, t in tallies.items()},
    }


def _table(tallies: Mapping[str, SplitTally], facts: Dataset) -> str:
    """Returns the histogram of the labels: a row for each value, a column for each split."""
    total = np.sum([tally.counts for tally in tallies.values()], axis=0)
    values = [i for i in range(256) if total[i]]
    if not values or len(values) > 64:
        return f"{len(values)} label values occur (--json lists them)" if values else ""
    names = {**dict(enumerate(facts.class_names)), facts.ignore_label: "(ignored)"}
    width = max(len(names.get(i, "?")) for i in values)
    rows = [f"{'label':>5}  {'':<{width}}" + "".join(f"  {split:>12}" for split in tallies)]
    for i in values:
        shares = (f"{tally.counts[i] / max(1, tally.counts.sum()):.3%}" for tally in tallies.values())
        rows.append(f"{i:>5}  {names.get(i, '?'):<{width}}" + "".join(f"  {share:>12}" for share in shares))
    return "\n".join(rows)
