"""deeplab-tf describe: the numbers of a network by hand, and of weights, recipes and flags."""

import keras
import pytest
from commands import finished, one_line

from deeplab_tf.network.receptive_field import receptive_fields
from deeplab_tf.tools import describe


def rows(out: str) -> dict[str, str]:
    lines = (line.strip().split("  ", 1) for line in out.splitlines() if "  " in line.strip())
    return {name: value.strip() for name, value in lines}


def test_flags_describe_a_network(capsys):
    assert finished(describe, "--model_variant=tiny", "--num_classes=3", "--crop_size=65,65") == 0
    found = rows(capsys.readouterr().out)
    assert found["kind"] == "segmentation" and found["image"] == "65 x 65 x 3"
    whole, backbone, head = (
        int(found[name].split()[0].replace(",", "")) for name in ("parameters", "backbone", "head")
    )
    assert whole == backbone + head > head > 0
    assert found["multiply-adds"].endswith("M)") and found["weights"].endswith("MiB in float32")


def test_a_name_of_the_zoo_and_one_of_nothing(capsys):
    assert finished(describe, "shapes_resnet", "--crop_size=65,65") == 0
    assert rows(capsys.readouterr().out)["model_variant"] == "small_resnet"
    assert finished(describe, "nothing") == 1
    assert "nothing" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([(3, 1, 1)], 3),
        ([(3, 2, 1), (3, 1, 1)], 7),
        ([(3, 2, 1), (3, 2, 1), (3, 1, 2)], 23),
        ([(1, 1, 1), (5, 1, 3)], 13),
    ],
)
def test_receptive_fields_by_hand(layers, expected):
    """Each adds (kernel - 1) x rate x the strides before it."""
    images = x = keras.Input((65, 65, 3))
    for kernel, stride, rate in layers:
        x = keras.layers.Conv2D(1, kernel, strides=stride, dilation_rate=rate, padding="same")(x)
    assert max(receptive_fields(keras.Model(images, x)).values()) == expected
