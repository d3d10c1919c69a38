"""The check of a data set: every image and label is decoded once, and the findings follow from the tallies."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.doctor.findings import ERROR, NOTE, WARNING, Diagnosis, Finding, Severity
from deeplab_tf.doctor.labels import explain_values, wrong_values
from deeplab_tf.doctor.likeness import alike
from deeplab_tf.doctor.samples import DatasetOnDisk, open_data
from deeplab_tf.doctor.split import SplitTally
from deeplab_tf.zoo.contamination import share_images

# Faults of single examples: code -> severity, predicate of the examples, cure.
_FAULTS: dict[str, tuple[Severity, str, str]] = {
    "missing-image": (ERROR, "have no image", "add the file, or take the id out of the list"),
    "missing-label": (ERROR, "have no label", "add the label, <id>.png, or take the id out of the list"),
    "unreadable": (ERROR, "cannot be read", "fetch or save them again; --skip_corrupt_records passes over records"),
    "image-format": (ERROR, "are neither JPEG nor PNG", "convert the images: records hold these two"),
    "jpeg-label": (ERROR, "have JPEG labels, whose values are no longer exact", "export the labels as PNG"),
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
        WARNING,
        "have an image that its EXIF data turns, which TensorFlow ignores: it is trained as stored",
        "save the images upright, without EXIF, if the labels are upright",
    ),
}
_ALIKE = 0.995  # the likeness of CamVid's two splits is 0.944, of a photograph at half the size and quality 40 0.9999
_SHOWN = 5  # places that a finding lists
_MOSTLY_IGNORED = 0.5  # the share of ignored pixels above which a finding is a warning
_LARGEST_CROP = 769  # the release's largest, for Cityscapes
_BINARY = (
    "deeplab-tf build-data --label_map=255:1 makes them 0 and 1; or train with --label_policy=map --label_map=255:1"
)


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

    Args:
      dataset_dir: the folder.
      dataset: what the labels mean, as --dataset of the other commands; None: what the folder says, else the release's
        default.
      splits: the splits to check; none: all.
      tfds_features: as --tfds_features of the other commands.
      begin: called with the number of examples before the first one is read.
      advance: called after each example.

    Raises:
      DeepLabError: there is no such folder, data set or split, or nothing in it. Anything else that is wrong becomes a
        finding.
    """
    data = open_data(dataset_dir, dataset=dataset, splits=splits, tfds_features=tfds_features)
    if begin:
        begin(sum(data.splits.values()))
    tallies = {split: _tally(data, split, advance) for split in data.splits}
    training = [split for split in tallies if split.startswith("train")]
    counted = training or list(tallies)
    total = np.sum([tallies[split].counts for split in counted], axis=0)
    around = np.sum([tallies[split].around for split in counted], axis=0)
    values = list(_values(tallies, data.facts))
    findings = [*_assumed(data), *_empty(data), *_faults(tallies), *values]
    strange = sum(wrong_values(total, data.facts.num_classes, data.facts.ignore_label).values())
    # Shares of classes mean nothing if most values are not classes.
    if not values or (values[0].code == "labels-out-of-range" and 2 * strange < total.sum()):
        findings += [*_classes(total, around, data.facts, counted, bool(training)), *_ignored(tallies, data.facts)]
    findings += [*_duplicates(tallies, data.facts.name), *_sizes(tallies), *_unused(data)]
    kind = "TFRecords" if data.in_records else "images and labels"
    counts = ", ".join(f"{count:,} in {split}" for split, count in data.splits.items())
    subject = (
        f"{os.fspath(dataset_dir)}: {kind}, {counts}; labels of {data.facts.name} ({data.facts.num_classes} classes)"
    )
    return Diagnosis(subject, tuple(findings), _figures(tallies, data), _table(tallies, data.facts))


def _tally(data: DatasetOnDisk, split: str, advance: Callable[[], object] | None) -> SplitTally:
    tally = SplitTally()
    for example in data.examples(split):
        tally.add(example, data.facts, in_record=data.in_records)
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


def _faults(tallies: Mapping[str, SplitTally]) -> Iterator[Finding]:
    for code, (severity, predicate, cure) in _FAULTS.items():
        parts = [f"{tally.faults[code]:,} of {split}" for split, tally in tallies.items() if tally.faults[code]]
        if parts:
            shown = [line for tally in tallies.values() for line in tally.shown[code]][:_SHOWN]
            yield Finding(code, severity, (f"{' and '.join(parts)} {predicate}", *shown), cure)


def _values(tallies: Mapping[str, SplitTally], facts: Dataset) -> Iterator[Finding]:
    """Yields a finding if labels are out of range, or if they are all 0 and 255."""
    total = np.sum([tally.counts for tally in tallies.values()], axis=0)
    if set(np.flatnonzero(total)) == {0, 255}:
        ignored = " (ignored)" if facts.ignore_label == 255 else ""
        share = total[255] / total.sum()
        yield Finding("binary-mask", ERROR, (f"all labels are 0 or 255{ignored}: {share:.1%} are 255",), _BINARY)
        return
    parts = {split: tally for split, tally in tallies.items() if tally.faults["labels-out-of-range"]}
    if not parts:
        return
    wrong = wrong_values(total, facts.num_classes, facts.ignore_label)
    code, cure = explain_values(total, facts.palette, facts.evaluation_ids)
    where = " and ".join(f"{tally.faults['labels-out-of-range']:,} of {split}" for split, tally in parts.items())
    values = ", ".join(map(str, list(wrong)[:8])) + (f" and {len(wrong) - 8} more" if len(wrong) > 8 else "")
    expected = f"0 to {facts.num_classes - 1}, or {facts.ignore_label} for what is ignored"
    first = f"{where} have labels out of range: {values or 'beyond 255'}; {facts.name} has {expected}"
    shown = [line for tally in parts.values() for line in tally.shown["labels-out-of-range"]]
    yield Finding(code, ERROR, (first, *shown[:_SHOWN]), cure)


# ---- classes


def label_weights(counts: np.ndarray, around: np.ndarray) -> dict[str, list[float]]:
    """Returns weights of the classes by two rules; a class without pixels gets 1.

    median_frequency: the median over the classes of f, over the class's own f, where f is its share of the pixels in
    the images that have it (Eigen and Fergus 2015). inverse_log: 1 / ln(1.02 + its share of all pixels) (ENet).

    Args:
      counts: int64 [classes], pixels of each class.
      around: int64 [classes], pixels of the images that have the class.
    """
    present = counts > 0
    if not present.any():
        return {}
    frequency = counts / np.maximum(around, 1)
    median = np.median(frequency[present]) / np.where(present, frequency, 1)
    inverse = 1 / np.log(1.02 + counts / counts.sum())
    rules = {"median_frequency": median, "inverse_log": inverse}
    return {name: [float(f"{w:.3g}") for w in np.where(present, values, 1.0)] for name, values in rules.items()}


def _of_classes(values: np.ndarray, facts: Dataset) -> np.ndarray:
    """Returns the figures of the classes from those of all labels; 0 for an ignored class (ADE20K ignores 0)."""
    part = values[: facts.num_classes].copy()
    if facts.ignore_label < facts.num_classes:
        part[facts.ignore_label] = 0
    return part


def _classes(
    total: np.ndarray, around: np.ndarray, facts: Dataset, counted: Sequence[str], training: bool
) -> Iterator[Finding]:
    """Yields findings on classes without pixels, and on the shares of the classes, in the splits `counted`."""
    counts = _of_classes(total, facts)
    if not counts.any():
        return
    where = ", ".join(counted)
    ignored = facts.ignore_label
    empty = [f"{i} {name}" for i, name in enumerate(facts.class_names) if not counts[i] and i != ignored]
    if empty:
        shown = ", ".join(empty[:12]) + (f" and {len(empty) - 12} more" if len(empty) > 12 else "")
        severity = WARNING if training else NOTE
        yield Finding(
            "empty-class",
            severity,
            (f"{len(empty)} of {facts.num_classes} classes have no pixel in {where}: {shown}",),
            "a class that is never shown is never learned, and not scored without labels" if training else "",
        )
    weights = label_weights(counts, _of_classes(around, facts))
    order = np.argsort(counts)
    rare = next(i for i in order if counts[i])
    shares = [f"{facts.class_names[i]} {counts[i] / counts.sum():.2%}" for i in (rare, order[-1])]
    lines = [f"{name.replace('_', ' ')}: --label_weights={','.join(map(str, w))}" for name, w in weights.items()]
    yield Finding("class-shares", NOTE, (f"from {shares[0]} to {shares[1]} of the labelled pixels of {where}", *lines))


def _ignored(tallies: Mapping[str, SplitTally], facts: Dataset) -> Iterator[Finding]:
    """Yields the share of the ignored label, as a warning if most pixels are ignored."""
    counts = {split: tally.counts for split, tally in tallies.items() if tally.counts.any()}
    shares = {split: values[facts.ignore_label] / values.sum() for split, values in counts.items()}
    if not shares:
        return
    lines = [
        f"label {facts.ignore_label} has " + ", ".join(f"{share:.1%} of {split}" for split, share in shares.items())
    ]
    lines += [
        f"{tallies[split].unlabelled:,} examples of {split} have no other"
        for split in counts
        if tallies[split].unlabelled
    ]
    high = max(shares.values()) > _MOSTLY_IGNORED
    cure = "most pixels teach nothing: is this label meant to be ignored?" if high else ""
    yield Finding("ignored-share", WARNING if high else NOTE, tuple(lines), cure)


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
            lines = [f"{one.names[a]} and {other.names[b]} ({likeness:.2%})" for a, b, likeness in pairs[:_SHOWN]]
            first_line = f"{len(pairs):,} images of {first} are nearly the same as one of {second}"
            cure = "take them out of one of the two: scores on images that were trained on are too good"
            yield Finding("near-duplicates", WARNING, (first_line, *lines), cure)


def _crop(side: float, stride: int = 16) -> int:
    """Returns the smallest k * stride + 1 that is at least `side`."""
    return int(-(-(side - 1) // stride)) * stride + 1


def _sizes(tallies: Mapping[str, SplitTally]) -> Iterator[Finding]:
    """Yields the crop sizes that suit the sizes of the images."""
    sizes = [size for tally in tallies.values() for size in tally.sizes.elements()]
    if not sizes:
        return
    sides = np.array(sizes)  # [n, 2]
    largest = sides.max(axis=0)
    middle = np.median(sides, axis=0)
    evaluation = ",".join(str(_crop(side)) for side in largest)
    training = ",".join(str(min(_crop(side), _LARGEST_CROP)) for side in middle)
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
        lines = (f"{len(data.unused):,} files among the labels belong to no image of a list", *data.unused[:3])
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
