"""The findings on classes: values that are none, shares, weights, and what is ignored."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.catalog.palettes import label_palette
from deeplab_tf.data.masks import LabelRules, label_cure
from deeplab_tf.doctor.findings import ERROR, NOTE, WARNING, Finding
from deeplab_tf.doctor.labels import explain_values, wrong_values
from deeplab_tf.doctor.split import SHOWN, SplitTally
from deeplab_tf.ops.class_weights import label_weights

_MOSTLY_IGNORED = 0.5  # the share of ignored pixels above which a finding is a warning
_BINARY = (
    "deeplab-tf build-data --label_map=255:1 makes them 0 and 1; or train with --label_policy=map --label_map=255:1"
)


def class_findings(
    tallies: Mapping[str, SplitTally], facts: Dataset, rules: LabelRules, unlabelled: Sequence[str]
) -> Iterator[Finding]:
    """Yields the findings on label values and classes.

    Args:
      tallies: split -> its tally.
      facts: what the labels mean.
      rules: by which they are read.
      unlabelled: the splits without labels.
    """
    labelled = {split: tally for split, tally in tallies.items() if split not in unlabelled}
    if not labelled:
        return
    training = {split: tally for split, tally in labelled.items() if split.startswith("train")}
    counted = training or labelled
    total = np.sum([tally.counts for tally in counted.values()], axis=0)
    around = np.sum([tally.around for tally in counted.values()], axis=0)
    values = list(_values(labelled, facts, rules))
    yield from values
    strange = sum(wrong_values(total, facts.num_classes, facts.ignore_label).values())
    # Shares of classes mean nothing if most values are not classes.
    if not values or (values[0].code == "labels-out-of-range" and 2 * strange < total.sum()):
        yield from _classes(total, around, facts, list(counted), bool(training))
        yield from _ignored(labelled, facts)


def _values(tallies: Mapping[str, SplitTally], facts: Dataset, rules: LabelRules) -> Iterator[Finding]:
    """Yields a finding if labels are out of range, or if they are all 0 and 255."""
    total = np.sum([tally.counts for tally in tallies.values()], axis=0)
    if set(np.flatnonzero(total)) == {0, 255}:
        ignored = " (ignored)" if facts.ignore_label == 255 else ""
        share = total[255] / total.sum()
        yield Finding("binary-mask", ERROR, (f"all labels are 0 or 255{ignored}: {share:.1%} are 255",), _BINARY)
        return
    code = "labels-out-of-range"
    parts = {split: tally for split, tally in tallies.items() if tally.faults.counts[code]}
    if not parts:
        return
    wrong = wrong_values(total, facts.num_classes, facts.ignore_label)
    where = " and ".join(f"{tally.faults.counts[code]:,} of {split}" for split, tally in parts.items())
    values = ", ".join(map(str, list(wrong)[:8])) + (f" and {len(wrong) - 8} more" if len(wrong) > 8 else "")
    expected = f"0 to {facts.num_classes - 1}, or {facts.ignore_label} for what is ignored"
    first = f"{where} have labels out of range: {values or 'beyond 255'}; {facts.name} has {expected}"
    shown = [line for tally in parts.values() for line in tally.faults.names[code]]
    found, cure = explain_values(total, label_palette(facts.palette), facts.evaluation_ids)
    if found == code and facts.num_classes == 2:  # of masks more can be said
        cure = label_cure(np.flatnonzero(total).tolist(), rules).removeprefix("; ") or cure
    yield Finding(found, ERROR, (first, *shown[:SHOWN]), cure)


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
