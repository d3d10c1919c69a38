"""What the data of a run are, by their content: the same wherever they lie and whatever they are called."""

import hashlib
from typing import Any

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.data.locate import Located


def records_identity(facts: Dataset, split: str, located: Located) -> dict[str, Any]:
    """Returns the identity of a data set as run.json holds it.

    Args:
      facts: of the data set.
      split: the split whose records count.
      located: its records.

    Returns:
      "classes" (their names), "ignore_label", and "splits": split -> the number of its records and a digest of their
      checksums in order, which stays the same when they are moved, renamed or divided into other files.
    """
    return {
        "classes": list(facts.class_names),
        "ignore_label": facts.ignore_label,
        "splits": {split: {"records": len(located.index), "digest": records_digest(located)}},
    }


def records_digest(located: Located) -> str:
    """Returns a digest of the checksums of records, in their order."""
    checksums = located.index.checksum.astype("<u4").tobytes()
    return hashlib.sha256(checksums).hexdigest()[:32]
