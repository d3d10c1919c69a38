"""The fully connected CRF against the sum over all pairs of pixels; the search; and what it does for boundaries."""

import numpy as np
import pytest
from scipy import ndimage

from deeplab_tf.data.shapes import shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops import crf
from deeplab_tf.ops.crf import SEARCH_V1, SEARCH_V2, crf_search, densecrf

CLASSES = 9
V1 = {"w1": 5, "w2": 3, "sigma_alpha": 50, "sigma_beta": 10, "sigma_gamma": 3}
V2 = {"w1": 4, "w2": 3, "sigma_alpha": 67, "sigma_beta": 3, "sigma_gamma": 1}


def sample(index: int, side: int, *, blur: float = 3.0):
    """A picture, its label without seams, and a blurred guess with some other classes in it."""
    image, label = shapes_example(0, 1_000_000 + index, height=side, width=side)
    rows, columns = ndimage.distance_transform_edt(label == 255, return_distances=False, return_indices=True)
    truth = label[rows, columns]
    random = np.random.default_rng(index)
    guess = [ndimage.gaussian_filter((truth == c).astype(float), blur) for c in range(CLASSES)]
    guess = np.stack(guess, -1) + 0.03 * ndimage.gaussian_filter(random.random((side, side, CLASSES)), (2, 2, 0))
    return image, guess / guess.sum(-1, keepdims=True), truth


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def exact_kernel(image: np.ndarray, w1, w2, sigma_alpha, sigma_beta, sigma_gamma) -> np.ndarray:
    """The pairwise weights [n, n] of all pixels, in float64, each kernel normalised symmetrically."""
    rows, columns = np.indices(image.shape[:2]).reshape(2, -1).astype(float)
    far = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    unlike = sum((c[:, None] - c) ** 2 for c in image.reshape(-1, 3).T.astype(float))
    appearance = np.exp(-far / (2 * sigma_alpha**2) - unlike / (2 * sigma_beta**2))
    smoothness = np.exp(-far / (2 * sigma_gamma**2))
    norms = [1 / np.sqrt(kernel.sum(1)) for kernel in (appearance, smoothness)]
    weighted = zip((w1, w2), (appearance, smoothness), norms, strict=True)
    return sum(weight * kernel * norm[:, None] * norm for weight, kernel, norm in weighted)


def exact_crf(image: np.ndarray, probabilities: np.ndarray, kernel: np.ndarray, iterations: int = 10) -> np.ndarray:
    logs = np.log(probabilities).reshape(-1, probabilities.shape[-1])
    marginals = softmax(logs)
    for _ in range(iterations):
        marginals = softmax(logs + kernel @ marginals)
    return marginals.reshape(probabilities.shape)


@pytest.mark.parametrize("settings", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("index", [0, 1])
def test_it_agrees_with_the_sum_over_all_pairs(index, settings):
    image, guess, _ = sample(index, 48)
    truth = exact_crf(image, guess, exact_kernel(image, **settings))
    found = densecrf(image, guess, **settings)
    assert found.dtype == np.float32 and found.shape == guess.shape
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    assert np.abs(found - truth).mean() < 0.002
    assert (found.argmax(-1) == truth.argmax(-1)).mean() > 0.995
    # The CRF changed something, so agreement is no accident.
    assert np.abs(truth - guess).mean() > 0.01


# Every eighth pixel of the case below by pydensecrf2 1.1, which wraps the authors' C++.
ORIGINAL = """
    .00032 .99843 .00089 .00037  .00163 .99757 .00050 .00030  .91563 .03501 .01073 .03863  .06751 .00638 .00541 .92070
    .00022 .99838 .00091 .00049  .94953 .04236 .00351 .00461  .03326 .00325 .00383 .95965  .01656 .00195 .00217 .97931
    .94281 .04010 .01002 .00707  .99296 .00159 .00088 .00458  .91619 .00264 .00318 .07798  .99348 .00071 .00068 .00513
"""


def test_it_gives_what_the_authors_code_gives():
    rows, columns = np.indices((24, 32))
    image = np.stack([5 * columns + rows // 8 * 40 + c * 30 + rows * columns % 9 for c in range(3)], -1) % 256
    guess = softmax(np.stack([np.sin(columns / (3 + c) + c) + np.cos(rows / (4 + c)) for c in range(4)], -1))
    found = densecrf(image, guess, iterations=5, w1=5, w2=3, sigma_alpha=12, sigma_beta=10, sigma_gamma=2)
    expected = np.array(ORIGINAL.split(), np.float64).reshape(3, 4, 4)
    np.testing.assert_allclose(found[::8, ::8], expected, atol=2e-5)


@pytest.mark.parametrize("settings", [V1, V2], ids=["v1", "v2"])
def test_the_energy_never_rises(settings):
    # The mean field's free energy with the exact kernel: what the lattice leaves out is a millionth of it.
    image, guess, _ = sample(2, 48)
    kernel, logs, energies = exact_kernel(image, **settings), np.log(guess).reshape(-1, CLASSES), []
    for iterations in range(11):
        found = densecrf(image, guess, iterations=iterations, **settings).reshape(-1, CLASSES).astype(float)
        entropy = -(found * np.log(np.maximum(found, 1e-30))).sum()
        energies.append(-(found * logs).sum() - (found * (kernel @ found)).sum() / 2 - entropy)
    assert np.diff(energies).max() < 1e-5 * abs(energies[-1])
    assert energies[-1] < energies[0] - 100


def edges(labels: np.ndarray) -> np.ndarray:
    found = np.zeros(labels.shape, bool)
    found[1:] |= labels[1:] != labels[:-1]
    found[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return found


def boundary_f(labels: np.ndarray, truth: np.ndarray) -> float:
    """Of boundary pixels: the harmonic mean of the share of found ones near true ones, and the other way round."""
    found, true = edges(labels), edges(truth)
    near = [ndimage.distance_transform_edt(~line) <= 1 for line in (found, true)]
    precision, recall = near[1][found].mean(), near[0][true].mean()
    return 2 * precision * recall / (precision + recall)


def test_it_raises_the_boundary_score_of_a_blurred_prediction():
    for index in range(4):
        image, guess, truth = sample(index, 129, blur=4.0)
        before, after = (boundary_f(p.argmax(-1), truth) for p in (guess, densecrf(image, guess)))
        assert before < 0.92 and after > before + 0.08 and after > 0.96


def test_no_step_gives_the_input_back():
    image, guess, _ = sample(0, 24)
    np.testing.assert_allclose(densecrf(image, 0.5 * guess, iterations=0), guess, atol=2e-5)
    np.testing.assert_allclose(densecrf(image, guess, w1=0, w2=0), guess, atol=2e-5)


def test_probabilities_of_zero_count_as_a_hundred_thousandth():
    image, guess = np.zeros((1, 1, 3)), np.array([[[1.0, 0.0]]])
    np.testing.assert_allclose(densecrf(image, guess, iterations=0)[0, 0, 1], 1e-5, rtol=1e-3)


def test_each_kernel_does_its_part():
    # A lone wrong pixel in the middle of an even area, and in the middle of an area of another colour.
    guess = np.full((21, 21, 2), 0.5)
    guess[..., 0], guess[..., 1] = 0.7, 0.3
    guess[10, 10] = (0.3, 0.7)
    even, spot = np.full((21, 21, 3), 80), np.full((21, 21, 3), 80)
    spot[8:13, 8:13] = 200
    alone = {"w1": 0, "w2": 3, "sigma_gamma": 3}
    assert not densecrf(even, guess, **alone).argmax(-1).any()
    guess[8:13, 8:13] = (0.3, 0.7)
    found = densecrf(spot, guess, w1=5, w2=0, sigma_alpha=20, sigma_beta=10).argmax(-1)
    assert found[8:13, 8:13].all() and found.sum() == 25
    assert not densecrf(even, guess, w1=5, w2=0, sigma_alpha=20, sigma_beta=10).argmax(-1).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float64])
def test_any_numeric_picture_gives_the_same(dtype):
    image, guess, _ = sample(1, 32)
    expected = densecrf(image.astype(np.float32), guess.astype(np.float32))
    # Without a change of its arguments.
    given, before = image.astype(dtype), guess.copy()
    np.testing.assert_array_equal(densecrf(given, guess.astype(np.float32)), expected)
    np.testing.assert_array_equal(given, image)
    np.testing.assert_array_equal(guess, before)


def test_what_does_not_fit_is_refused():
    image, guess, _ = sample(0, 16)
    for bad, message in (
        ((image[:8], guess), r"\(8, 16, 3\).*expected \[h, w, 3\]"),
        ((image[..., 0], guess), "expected"),
        ((image[:0], guess[:0]), "empty"),
        ((image, np.log(guess)), "not logits"),
        ((image, np.full_like(guess, np.nan)), "NaN"),
    ):
        with pytest.raises(DeepLabError, match=message):
            densecrf(*bad)
    for name, value in (("w1", -1), ("sigma_alpha", 0), ("sigma_beta", float("nan")), ("iterations", -1)):
        with pytest.raises(DeepLabError, match=f"crf_{name}={value}.*expected a number"):
            densecrf(image, guess, **{name: value})
    with pytest.raises(DeepLabError, match="densecrf argument.*sigma_alhpa.*sigma_alpha"):
        densecrf(image, guess, sigma_alhpa=60)
    with pytest.raises(DeepLabError, match="larger sigmas"):
        densecrf(image, guess, sigma_alpha=1e-5, sigma_beta=1e-5)


# ---- the search


def test_the_papers_grids():
    assert list(SEARCH_V1["sigma_alpha"]) == [50, 60, 70, 80, 90, 100] and len(SEARCH_V1["sigma_beta"]) == 8
    assert list(SEARCH_V2["w1"]) == [3, 4, 5, 6] and len(SEARCH_V2["sigma_alpha"]) == 8
    for grid in (SEARCH_V1, SEARCH_V2):
        assert (grid["w2"], grid["sigma_gamma"]) == ((3,), (3,))


def miou(labels: list, truths: list) -> float:
    found, true = np.concatenate([x.ravel() for x in labels]), np.concatenate([x.ravel() for x in truths])
    seen = true != 255
    union = [((found == c) | (true == c))[seen].sum() for c in range(CLASSES)]
    both = [((found == c) & (true == c))[seen].sum() for c in range(CLASSES)]
    return float(np.mean([b / u for b, u in zip(both, union, strict=True) if u]))


def test_the_search_scores_every_setting_as_densecrf_would():
    samples = [sample(index, 40) for index in range(2)]
    samples[0][2][:10] = 255
    grid = {"w1": (2, 6), "sigma_beta": (3, 13), "sigma_alpha": (20,)}
    found = crf_search(samples, grid=grid, rounds=1, iterations=4)
    assert len(found.table) == 4
    for row in found.table:
        settings = {name: value for name, value in row.items() if name != "miou"}
        assert (settings["w2"], settings["sigma_gamma"], settings["sigma_alpha"]) == (3.0, 1.0, 20.0)
        labels = [densecrf(image, guess, iterations=4, **settings).argmax(-1) for image, guess, _ in samples]
        assert row["miou"] == pytest.approx(miou(labels, [truth for *_, truth in samples]), abs=1e-12)
    assert found.miou == max(row["miou"] for row in found.table)
    assert {**found.best, "miou": found.miou} in found.table


def test_the_search_goes_from_coarse_to_fine(monkeypatch):
    # A score with its peak at w1 = 3.3, sigma_beta = 5.
    def scores(samples, settings, iterations, ignore_label):
        return {s: -((s.w1 - 3.3) ** 2) - (s.sigma_beta - 5) ** 2 for s in settings}

    monkeypatch.setattr(crf, "_scores", scores)
    found = crf_search([], grid={"w1": (2, 4, 6), "sigma_beta": (1, 5)}, rounds=3)
    assert (found.best["w1"], found.best["sigma_beta"]) == (3.5, 5.0)
    rounds = [{(row["w1"], row["sigma_beta"]) for row in part} for part in np.split(np.array(found.table), [6, 14])]
    assert rounds[0] == {(w, s) for w in (2, 4, 6) for s in (1, 5)}
    assert rounds[1] == {(w, s) for w in (3, 4, 5) for s in (3, 5, 7)} - {(4, 5)}
    assert rounds[2] == {(w, s) for w in (2.5, 3, 3.5) for s in (4, 5, 6)} - {(3, 5)}


def test_the_search_tries_nothing_at_or_below_zero(monkeypatch):
    monkeypatch.setattr(crf, "_scores", lambda samples, settings, *rest: {s: -s.w1 for s in settings})
    found = crf_search([], grid={"w1": (0, 4)}, rounds=2)
    assert [row["w1"] for row in found.table] == [0, 4, 2]


def test_a_search_that_cannot_be_is_refused():
    image, guess, truth = sample(0, 16)
    one = {"w1": (3,)}
    with pytest.raises(DeepLabError, match="iterator is used up"):
        crf_search(iter([(image, guess, truth)]))
    with pytest.raises(DeepLabError, match="no labelled pixel"):
        crf_search([(image, guess, np.full_like(truth, 255))], grid=one, rounds=1)
    with pytest.raises(DeepLabError, match="no labelled pixel"):
        crf_search([], grid=one, rounds=1)
    with pytest.raises(DeepLabError, match="differ in shape"):
        crf_search([(image, guess, truth[:8])], grid=one, rounds=1)
    with pytest.raises(DeepLabError, match="did you mean sigma_alpha"):
        crf_search([(image, guess, truth)], grid={"sigma_alfa": (1,)})
