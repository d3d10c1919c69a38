"""Every golden case of the original release: variables, end points, logits and predictions."""

import numpy as np
import pytest
from conftest import case_config, fill, golden_cases, read_case
from golden import golden_image

from deeplab_tf.inference.predict import predict
from deeplab_tf.network.backbone import build_backbone
from deeplab_tf.network.build import build_model
from deeplab_tf.weights.tf1 import variable_map

# Two builds of the original itself differ by 2e-6.
_LOGITS, _LOGITS_MOBILENET_V3, _PIXELS, _END_POINTS = 1e-5, 3e-6, 0.999, 1e-4
_HEAVY = ("resnet_v1_50", "101", "xception", "nas")

CASES = [
    pytest.param(case, marks=[pytest.mark.heavy] if any(h in case for h in _HEAVY) else []) for case in golden_cases()
]


def _difference(found, golden) -> float:
    return float(np.abs(np.asarray(found) - golden).max() / np.abs(golden).max())


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    values, golden = read_case(case)
    config = case_config(values)
    model = build_model(config, zeros=True)
    variables = variable_map(model)
    assert {n: list(v.shape) for n, v in variables.items()} == {n: s for n, s, _ in values["variables"]}
    trained = {n for n, _, kind in values["variables"] if kind == "trainable"}
    assert {n for n, v in variables.items() if v.trainable} == trained
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == values["trainable_parameters"]

    fill(model)
    image = golden_image(case, values["height"], values["width"])[None]
    logits = model(image.astype(np.float32), training=False)
    assert logits.shape == golden["logits"].shape
    bar = _LOGITS_MOBILENET_V3 if "mobilenet_v3" in case else _LOGITS
    assert _difference(logits, golden["logits"]) <= bar

    assert np.mean(predict(model, image) == golden["prediction"]) >= _PIXELS
    if "multi_scale_prediction" in golden:
        scales = values.get("multi_scale_eval_scales", (0.5, 1.0, 1.25))
        labels = predict(model, image, scales=scales, flip=True)
        assert np.mean(labels == golden["multi_scale_prediction"]) >= _PIXELS

    _check_end_points(config, image, values["end_points"], variables)


def _check_end_points(config, image, expected, variables):
    model = build_backbone(config, zeros=True)
    for name, variable in variable_map(model).items():
        variable.assign(variables[name])
    outputs = model(image.astype(np.float32), training=False)
    found = {"__features__": outputs.pop("features"), **outputs}
    assert set(found) == set(expected)
    for name, golden in expected.items():
        value = np.asarray(found[name], np.float64)
        assert list(value.shape) == golden["shape"], name
        scale = max(abs(golden["mean"]), golden["std"])
        assert abs(value.mean() - golden["mean"]) <= _END_POINTS * scale, name
        assert abs(value.std() - golden["std"]) <= _END_POINTS * golden["std"], name
        if "first" in golden:
            first = value[0, value.shape[1] // 2, value.shape[2] // 2, :4]
            assert np.allclose(first, golden["first"], rtol=1e-3, atol=_END_POINTS * scale), name
