"""The fully connected CRF that DeepLab v1 and v2 end with, and the papers' search for its parameters.

Krahenbuhl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials" (arXiv 1210.5644), as
in arXiv 1412.7062, section 4.2, and arXiv 1606.00915, section 3.3. There is no compiled code: the kernels are sparse
matrices (`deeplab_tf.ops.lattice`).

>>> import numpy as np
>>> image = np.zeros((20, 30, 3), np.uint8)
>>> image[:, 15:] = 255
>>> probabilities = np.where(image[..., :1] == 255, (0.2, 0.8), (0.8, 0.2))
>>> probabilities[5, 5] = 0.4, 0.6  # a mistake within the black half
>>> refined = deeplab_tf.crf.densecrf(image, probabilities)
>>> refined.shape, int(refined[5, 5].argmax()), int(refined[5, 25].argmax())
((20, 30, 2), 0, 1)
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from deeplab_tf.config.crf import CrfConfig
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.ops.lattice import Kernel, gaussian_kernel
from deeplab_tf.ops.metrics import confusion_matrix, mean_iou

_DEFAULTS = CrfConfig()
_LEAST_PROBABILITY = 1e-5

# The first rounds of the papers' searches (of v1's w1 the paper gives only the ends).
_Grid = Mapping[str, Sequence[float]]
_FIXED: _Grid = {"w2": (3,), "sigma_gamma": (3,)}
SEARCH_V1: _Grid = {"w1": range(5, 11), "sigma_alpha": range(50, 101, 10), "sigma_beta": range(3, 11), **_FIXED}
SEARCH_V2: _Grid = {"w1": range(3, 7), "sigma_alpha": range(30, 101, 10), "sigma_beta": range(3, 7), **_FIXED}


@dataclasses.dataclass(frozen=True, order=True)
class _Setting:
    """The parameters of the pairwise cost, in an order in which the sigmas, which cost a new lattice, vary slowest."""

    sigma_alpha: float
    sigma_beta: float
    sigma_gamma: float
    w1: float
    w2: float

    def __post_init__(self) -> None:
        # CrfConfig refuses values that are out of range.
        CrfConfig(
            crf=True,
            crf_w1=self.w1,
            crf_w2=self.w2,
            crf_sigma_alpha=self.sigma_alpha,
            crf_sigma_beta=self.sigma_beta,
            crf_sigma_gamma=self.sigma_gamma,
        )


_COSTS = {field.name: getattr(_DEFAULTS, f"crf_{field.name}") for field in dataclasses.fields(_Setting)}


def _positions(height: int, width: int) -> np.ndarray:
    """Returns the coordinates x, y of all pixels: float32 [2, height * width]."""
    rows, columns = np.indices((height, width), np.float32)
    return np.stack([columns.ravel(), rows.ravel()])


def _smoothness(shape: tuple[int, int], sigma_gamma: float) -> Kernel:
    return gaussian_kernel(_positions(*shape) / np.float32(sigma_gamma))


def _appearance(image: np.ndarray, sigma_alpha: float, sigma_beta: float) -> Kernel:
    colours = image.reshape(-1, 3).T.astype(np.float32) / np.float32(sigma_beta)
    return gaussian_kernel(np.concatenate([_positions(*image.shape[:2]) / np.float32(sigma_alpha), colours]))


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis of [n, c]; it overwrites `logits`."""
    # reduceat and einsum are several times as fast as max and sum along a short axis.
    logits -= np.maximum.reduceat(logits.ravel(), np.arange(0, logits.size, logits.shape[1]))[:, None]
    np.exp(logits, out=logits)
    logits /= np.einsum("nc->n", logits)[:, None]
    return logits


def _mean_field(logs: np.ndarray, kernels: Sequence[Kernel], iterations: int) -> np.ndarray:
    """Returns the marginals float32 [n, c] after `iterations` parallel steps from softmax(logs).

    `logs` are log probabilities float32 [n, c] (minus the unary cost); the weights are in the `kernels` already.
    """
    marginals = _softmax(logs.copy())
    for _ in range(iterations):
        # A step reads the marginals of all pixels before it writes any: in place, the order of the pixels would count.
        logits = logs.copy()
        for kernel in kernels:
            # In the Potts model a label costs the kernel's mass of all other labels around. That is the mass of all
            # labels, which is the same for each and which the softmax ignores, less its own mass: to subtract the cost
            # is to add the label's own filtered marginals. No product with a matrix of label costs is needed.
            logits += kernel(marginals)
        marginals = _softmax(logits)
    return marginals


def _refined(
    image: np.ndarray, probabilities: np.ndarray, settings: Iterable[_Setting], iterations: int
) -> Iterator[tuple[_Setting, np.ndarray]]:
    """Yields the marginals [h, w, c] of each setting; neighbours with the same sigmas share their lattices."""
    CrfConfig(crf=True, crf_iterations=iterations)
    # One copy, worked on in place: with many classes it is the largest array here.
    values = probabilities.reshape(-1, probabilities.shape[-1]).astype(np.float32)
    logs = np.log(np.maximum(values, _LEAST_PROBABILITY, out=values), out=values)
    for sigmas, group in itertools.groupby(settings, lambda s: (s.sigma_alpha, s.sigma_beta, s.sigma_gamma)):
        group = list(group)
        # A lattice takes longer to build than all iterations with it: none is built for a weight of 0.
        appearance = _appearance(image, *sigmas[:2]) if any(setting.w1 for setting in group) else None
        smoothness = _smoothness(image.shape[:2], sigmas[2]) if any(setting.w2 for setting in group) else None
        for setting in group:
            pairs = ((appearance, setting.w1), (smoothness, setting.w2))
            # A kernel is scaled on both sides, by the weight's square root each.
            weighted = [kernel.scaled(np.sqrt([weight])) for kernel, weight in pairs if kernel and weight]
            yield setting, _mean_field(logs, weighted, iterations).reshape(probabilities.shape)


def _check(image: np.ndarray, probabilities: np.ndarray) -> None:
    good = image.ndim == 3 and image.shape[-1] == 3 and image.size
    if not good or probabilities.ndim != 3 or probabilities.shape[:2] != image.shape[:2] or not probabilities.size:
        raise DeepLabError(
            f"densecrf: image {image.shape} and probabilities {probabilities.shape}; expected [h, w, 3] and "
            "[h, w, classes] of the same picture, neither empty"
        )
    if not (np.isfinite(probabilities).all() and np.isfinite(image).all()):
        raise DeepLabError("densecrf: image or probabilities hold NaN or infinity; expected finite numbers")
    if probabilities.min() < 0 or probabilities.max() > 1.001:
        raise DeepLabError(
            f"densecrf: probabilities of {probabilities.min():.4g} to {probabilities.max():.4g}; expected 0 to 1, as "
            "softmax gives them, not logits"
        )


def densecrf(
    image: np.ndarray, probabilities: np.ndarray, *, iterations: int = _DEFAULTS.crf_iterations, **costs: float
) -> np.ndarray:
    """Returns the class probabilities of a picture after mean field inference in a fully connected CRF.

    Two pixels of different classes, at p and q with colours I and J, cost (arXiv 1606.00915, equation 3)
    w1 exp(-|p - q|^2 / 2 sigma_alpha^2 - |I - J|^2 / 2 sigma_beta^2) + w2 exp(-|p - q|^2 / 2 sigma_gamma^2),
    each exponential normalised symmetrically over the picture; a pixel's own cost is -log of its probability, which
    counts as at least 1e-5. Memory at 500 x 375 pixels and 21 classes: 100 MB on photographs, 350 MB on noise.

    Args:
      image: [h, w, 3], RGB in 0..255, any numeric dtype.
      probabilities: [h, w, classes], in 0..1, at the size of the image.
      iterations: number of parallel mean field steps; 0 gives the normalised input.
      **costs: w1, the weight of the appearance, and w2, of the smoothness, at least 0; sigma_alpha, the distance at
        which two pixels are near to the appearance, and sigma_gamma, to the smoothness, in pixels, above 0; sigma_beta,
        the difference of colours that is small, in levels of 0..255, above 0. CrfConfig has the defaults.

    Returns:
      float32 [h, w, classes]; each pixel's sum is 1.

    Raises:
      DeepLabError: shapes that do not fit, values out of range, an unknown cost, or sigmas too small for the lattice.
    """
    image = np.asarray(image)
    probabilities = np.asarray(probabilities)
    _check(image, probabilities)
    for name in costs:
        if name not in _COSTS:
            raise unknown_name("densecrf argument", name, _COSTS)
    setting = _Setting(**{**_COSTS, **costs})
    return next(_refined(image, probabilities, [setting], iterations))[1]


# ---- the search


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The outcome of `crf_search`.

    Attributes:
      best: w1, w2, sigma_alpha, sigma_beta, sigma_gamma of the highest score, the first of several; for `densecrf`.
      miou: that score.
      table: every setting tried, in order, as a dictionary of the five and "miou".
    """

    best: dict[str, float]
    miou: float
    table: tuple[dict[str, float], ...]


# A picture [h, w, 3], its probabilities [h, w, classes] and its label [h, w].
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def _scores(
    samples: Iterable[Sample], settings: Sequence[_Setting], iterations: int, ignore_label: int
) -> dict[_Setting, float]:
    """Returns the mean IoU over all samples for each setting."""
    totals = dict.fromkeys(settings, np.zeros((), np.int64))
    for image, probabilities, label in samples:
        image = np.asarray(image)
        probabilities = np.asarray(probabilities)
        label = np.asarray(label)
        _check(image, probabilities)
        classes = probabilities.shape[-1]
        for setting, marginals in _refined(image, probabilities, settings, iterations):
            predicted = marginals.argmax(-1)
            try:
                totals[setting] = totals[setting] + confusion_matrix(
                    label, predicted, classes, ignore_label=ignore_label
                )
            except ValueError as error:
                raise DeepLabError(f"crf_search: {error}; expected a label of each picture at its size") from None
    if not all(np.any(total) for total in totals.values()):
        raise DeepLabError("crf_search: no labelled pixel in the samples; expected a part of the validation split")
    return {setting: mean_iou(total) for setting, total in totals.items()}


def _around(best: _Setting, steps: Mapping[str, float]) -> dict[str, list[float]]:
    """Returns the values to try of each parameter: that of `best` and those a step below and above, if above 0."""
    values: dict[str, list[float]] = {}
    for name, step in steps.items():
        centre: float = getattr(best, name)
        neighbours = {value for value in (centre - step, centre + step) if value > 0}
        values[name] = sorted({centre, *neighbours})
    return values


def _best(scores: Mapping[_Setting, float]) -> _Setting:
    """Returns the setting with the highest score, the first of several."""
    return max(scores, key=lambda setting: scores[setting])


def crf_search(
    samples: Iterable[Sample],
    *,
    grid: _Grid = SEARCH_V2,
    rounds: int = 2,
    iterations: int = 10,
    ignore_label: int = 255,
) -> SearchResult:
    """Returns the CRF parameters with the highest mean IoU on a sample of the validation split, coarse to fine.

    The first round tries every combination of `grid`; each further one halves the step and tries the neighbours of the
    best so far. Source: arXiv 1412.7062, section 5 and 1606.00915, section 4.1 (100 images, `SEARCH_V1`, `SEARCH_V2`;
    the papers do not give the later steps). Each setting takes one `densecrf` for each image: at 500 x 375 and 21
    classes about a second, so v2's 128 + 26 settings on 100 images take some hours.

    Args:
      samples: tuples (image [h, w, 3], probabilities [h, w, classes], label [h, w]). They are read once in each round,
        so they must not be an iterator: give a list, or an object that loads them anew.
      grid: values to try of w1, w2, sigma_alpha, sigma_beta and sigma_gamma, evenly spaced if several. A parameter that
        is left out has the default of `densecrf`.
      rounds: number of rounds, at least 1.
      iterations: number of mean field steps of each `densecrf`.
      ignore_label: pixels with this label do not count.

    Raises:
      DeepLabError: a sample that `densecrf` refuses, an unknown parameter, labels that do not fit, or none at all.
    """
    known = {field.name: (getattr(_DEFAULTS, f"crf_{field.name}"),) for field in dataclasses.fields(_Setting)}
    for name in grid:
        if name not in known:
            raise unknown_name("parameter of the CRF's grid", name, known)
    if iter(samples) is samples or rounds < 1:
        raise DeepLabError(
            "crf_search: expected a list of samples (an iterator is used up at once), rounds of 1 or more"
        )
    values = {name: sorted(map(float, grid.get(name, known[name]))) for name in known}
    steps = {name: v[1] - v[0] if len(v) > 1 else 0.0 for name, v in values.items()}
    scores: dict[_Setting, float] = {}
    for _ in range(rounds):
        settings = [_Setting(*combination) for combination in itertools.product(*values.values())]
        scores |= _scores(samples, [s for s in settings if s not in scores], iterations, ignore_label)
        steps = {name: step / 2 for name, step in steps.items()}
        values = _around(_best(scores), steps)
    best = _best(scores)
    table = tuple({**dataclasses.asdict(setting), "miou": score} for setting, score in scores.items())
    return SearchResult(dataclasses.asdict(best), scores[best], table)
