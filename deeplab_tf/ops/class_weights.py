"""Weights of the classes in a loss, from the numbers of their pixels."""

import numpy as np


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
