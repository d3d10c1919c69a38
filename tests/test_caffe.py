"""Caffe's weights: the wire format, written here by hand; names and layouts; whole networks against Caffe's rules."""

import itertools
import math

import numpy as np
import pytest
from commands import finished
from golden import golden_image

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import convert
from deeplab_tf.weights.caffe import read_caffemodel
from deeplab_tf.weights.caffe_names import tf1_variables
from deeplab_tf.weights.initialize import initialize
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.tf1 import variable_map

# ---- a writer of the wire format


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def piece(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def floats(field: int, values: np.ndarray, *, packed: bool = True) -> bytes:
    content = values.tobytes()
    if packed:
        return piece(field, content)
    size = values.itemsize
    key = varint(field << 3 | (5 if size == 4 else 1))
    return b"".join(key + content[i : i + size] for i in range(0, len(content), size))


def blob(array: np.ndarray, *, packed: bool = True, legacy: bool = False) -> bytes:
    array = np.asarray(array)
    array = array if array.dtype == np.float64 else array.astype("<f4")
    data = floats(8 if array.dtype == np.float64 else 5, array.ravel(), packed=packed)
    diff = floats(6, np.full(3, 7, "<f4"))
    if legacy:
        sizes = (1,) * (4 - array.ndim) + array.shape
        return b"".join(number(i, size) for i, size in enumerate(sizes, start=1)) + data + diff
    dims = b"".join(map(varint, array.shape))
    shape = piece(1, dims) if packed else b"".join(number(1, size) for size in array.shape)
    return data + diff + piece(7, shape)


def new_layer(name: str, arrays, **form) -> bytes:
    """LayerParameter, with a loss_weight and a convolution_param among the fields."""
    head = (
        piece(1, name.encode())
        + piece(2, b"Convolution")
        + piece(3, b"data")
        + floats(5, np.ones(1, "<f4"), packed=False)
    )
    blobs = b"".join(piece(7, blob(array, **form)) for array in arrays)
    return piece(100, head + blobs + piece(106, number(1, 64) + number(3, 1)))


def old_layer(name: str, arrays, **form) -> bytes:
    """V1LayerParameter, with blobs_lr and weight_decay, whose numbers lie beside that of the blobs."""
    head = piece(2, b"data") + piece(4, name.encode()) + number(5, 4)
    blobs = b"".join(piece(6, blob(array, **form)) for array in arrays)
    return piece(2, head + blobs + floats(7, np.array([1, 2], "<f4"), packed=False) + floats(8, np.ones(2, "<f4")))


def net(layers, layer=new_layer, **form) -> bytes:
    return (
        piece(1, b"net") + piece(3, b"data") + number(4, 1) + b"".join(layer(n, a, **form) for n, a in layers.items())
    )


def random_layers() -> dict:
    random = np.random.default_rng(0)
    shapes = {"conv1_1": [(4, 3, 3, 3), (4,)], "data": [], "fc6": [(5, 7)], "ip": [(300, 1)], "one": [(1,)]}
    return {name: [random.normal(size=s).astype("<f4") for s in sizes] for name, sizes in shapes.items()}


def same(found: dict, expected: dict):
    assert list(found) == list(expected)
    for name, arrays in expected.items():
        assert [a.shape for a in found[name]] == [a.shape for a in arrays]
        for ours, theirs in zip(found[name], arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])
@pytest.mark.parametrize("layer", [new_layer, old_layer])
def test_what_was_written_is_read(layer, packed, tmp_path):
    layers, path = random_layers(), tmp_path / "net.caffemodel"
    path.write_bytes(net(layers, layer, packed=packed))
    same(read_caffemodel(path), {name: arrays for name, arrays in layers.items() if arrays})


def test_shapes_of_the_old_form(tmp_path):
    layers, path = random_layers(), tmp_path / "net.caffemodel"
    path.write_bytes(net(layers, old_layer, legacy=True))
    four = {n: [x.reshape((1,) * (4 - x.ndim) + x.shape) for x in arrays] for n, arrays in layers.items() if arrays}
    same(read_caffemodel(path), four)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])
def test_doubles(packed, tmp_path):
    path, value = tmp_path / "net.caffemodel", np.linspace(0, 1, 12).reshape(3, 4)
    path.write_bytes(net({"a": [value]}, packed=packed))
    (found,) = read_caffemodel(path)["a"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, value)


def test_data_in_several_pieces_is_joined(tmp_path):
    values = np.arange(6, dtype="<f4")
    data = floats(5, values[:2]) + floats(5, values[2:5], packed=False) + floats(5, values[5:])
    path = tmp_path / "net.caffemodel"
    path.write_bytes(piece(100, piece(1, b"a") + piece(7, data + piece(7, piece(1, varint(2) + varint(3))))))
    np.testing.assert_array_equal(read_caffemodel(path)["a"][0], values.reshape(2, 3))


def test_a_layer_written_twice(tmp_path):
    path, value = tmp_path / "net.caffemodel", np.arange(3.0, dtype="<f4")
    path.write_bytes(net({"a": [value]}) + net({"a": [value]}))
    same(read_caffemodel(path), {"a": [value]})
    path.write_bytes(net({"a": [value]}) + net({"a": [value + 1]}))
    with pytest.raises(DeepLabError, match="two layers 'a' with different weights"):
        read_caffemodel(path)


# ---- damage


def test_a_file_cut_anywhere_is_refused_or_ends_between_layers(tmp_path):
    layers, path = random_layers(), tmp_path / "net.caffemodel"
    del layers["ip"]
    full = {name: arrays for name, arrays in layers.items() if arrays}
    whole, ends = net(layers), 0
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        try:
            found = read_caffemodel(path)
        except DamagedError as error:
            assert str(path) in str(error) and "fetch or copy it again" in str(error)
        except DeepLabError as error:
            assert "holds no layers with weights" in str(error)
        else:
            ends += 1
            same(found, dict(itertools.islice(full.items(), len(found))))
    assert ends == len(full)  # one of them behind the layer without weights


def test_damaged_bytes_never_give_another_error(tmp_path):
    path, whole, random = tmp_path / "net.caffemodel", net(random_layers()), np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            content[place] = random.integers(256)
        path.write_bytes(content)
        try:
            read_caffemodel(path)
        except DeepLabError:
            refused += 1
    assert refused > 20


def lone_blob(content: bytes) -> bytes:
    return piece(100, piece(1, b"a") + piece(7, content))


FIVE = floats(5, np.ones(5, "<f4"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no layers"),
        (b'name: "VGG_ILSVRC_16_layers"\nlayers {', "not a .caffemodel"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5.*BINARYPROTO"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a .caffemodel"),
        (net({"data": []}), "holds no layers"),
        (lone_blob(FIVE + piece(7, piece(1, b"\x06"))), r"layer 'a': 5 weights for the shape \[6\]"),
        (lone_blob(FIVE), r"layer 'a': 5 weights for the shape \[0, 0, 0, 0\]"),
        (lone_blob(number(5, 3) + number(1, 1)), "weights that are not floats"),
        (lone_blob(piece(5, b"\0\0\0") + number(1, 1)), "layer 'a'"),
        (lone_blob(number(7, 3)), "shape that is a number"),
        (piece(100, piece(1, b"\xff") + piece(7, blob(np.ones(1)))), "utf-8"),
        (b"\xff" * 30, "number has no end"),
        (piece(100, b"\x00\x00"), "field number 0"),
        (piece(100, b"\x0a\x05ab"), "beyond the end"),
        (piece(100, b"\x2d\x05ab"), "ends within a number"),
    ],
)
def test_files_that_are_something_else(content, message, tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(DeepLabError, match=message) as caught:
        read_caffemodel(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DeepLabError, match="cannot be read .*No such file"):
        read_caffemodel(tmp_path / "none.caffemodel")


# ---- names and layouts


def conv(out: int, inputs: int, kernel: int, key: str, *, bias: bool = True) -> list[np.ndarray]:
    random = np.random.default_rng(sum(map(ord, key)))
    weights = random.normal(0, math.sqrt(2 / (inputs * kernel**2)), (out, inputs, kernel, kernel)).astype("<f4")
    return [weights, *([random.normal(0, 0.1, out).astype("<f4")] if bias else [])]


VGG = ((1, 2, 8), (2, 2, 16), (3, 3, 32), (4, 3, 64), (5, 3, 64))  # block, convolutions, channels
FC, CLASSES = 12, 6


def vgg_layers(branches: int = 0, *, experiment: str = "voc12") -> dict:
    """VGG-16 of an eighth of the width; LargeFOV, or so many branches of ASPP."""
    layers, inputs = {}, 3
    for block, count, channels in VGG:
        for n in range(1, count + 1):
            layers[f"conv{block}_{n}"] = conv(channels, inputs, 3, f"conv{block}_{n}")
            inputs = channels
    for end in [f"_{i}" for i in range(1, branches + 1)] or [""]:
        layers[f"fc6{end}"] = conv(FC, inputs, 3, f"fc6{end}")
        layers[f"fc7{end}"] = conv(FC, FC, 1, f"fc7{end}")
        layers[f"fc8_{experiment}{end}"] = conv(CLASSES, FC, 1, f"fc8{end}")
    return layers


def test_names_of_v1():
    found, variant, notes = tf1_variables(vgg_layers())
    assert (variant, notes) == ("vgg16", ())
    scopes = [f"vgg_16/conv{b}/conv{b}_{n}" for b, count, _ in VGG for n in range(1, count + 1)]
    scopes += ["vgg_16/fc6", "vgg_16/fc7", "logits/semantic"]
    assert set(found) == {f"{scope}/{leaf}" for scope in scopes for leaf in ("weights", "biases")}
    assert all(value.dtype == np.float32 for value in found.values())


@pytest.mark.parametrize("experiment", ["voc12", "pascal", "coco_largefov", "person_part"])
def test_names_of_v2(experiment):
    layers = vgg_layers(4, experiment=experiment)
    found, *_ = tf1_variables(layers)
    for i, scope in enumerate(("logits/semantic", *(f"logits/semantic_{k}" for k in (1, 2, 3))), start=1):
        np.testing.assert_array_equal(found[f"{scope}/biases"], layers[f"fc8_{experiment}_{i}"][1])
        np.testing.assert_array_equal(found[f"vgg_16/fc6_{i}/biases"], layers[f"fc6_{i}"][1])
        np.testing.assert_array_equal(found[f"vgg_16/fc7_{i}/weights"][0, 0].T, layers[f"fc7_{i}"][0][..., 0, 0])


def test_layouts():
    layers = vgg_layers()
    found, *_ = tf1_variables(layers)
    for out, inputs, row, column in ((0, 0, 0, 1), (5, 2, 1, 0), (7, 1, 2, 2)):
        # Caffe's input 0 is blue.
        assert (
            found["vgg_16/conv1/conv1_1/weights"][row, column, 2 - inputs, out]
            == layers["conv1_1"][0][out, inputs, row, column]
        )
        assert (
            found["vgg_16/conv1/conv1_2/weights"][row, column, inputs, out]
            == layers["conv1_2"][0][out, inputs, row, column]
        )


@pytest.mark.parametrize("legacy", [False, True])
def test_inner_products_of_imagenet_become_convolutions(legacy):
    layers = vgg_layers()
    random = np.random.default_rng(0)
    layers = {name: arrays for name, arrays in layers.items() if not name.startswith("fc")}
    layers["fc6"] = [random.normal(size=(9, 64 * 49)), random.normal(size=9)]
    layers["fc7"], layers["fc8"] = (
        [random.normal(size=(9, 9)), np.zeros(9)],
        [random.normal(size=(1000, 9)), np.zeros(1000)],
    )
    stored = {
        n: [a.reshape((1,) * (4 - a.ndim) + a.shape) for a in arrays] if legacy else arrays
        for n, arrays in layers.items()
    }
    found, *_ = tf1_variables(stored)
    features = random.normal(size=(7, 7, 64))
    flat = layers["fc6"][0] @ features.transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(
        np.einsum("hwi,hwio->o", features, found["vgg_16/fc6/weights"]), flat, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(found["vgg_16/fc7/weights"][0, 0], layers["fc7"][0].T, rtol=1e-6)
    assert found["vgg_16/fc8/weights"].shape == (1, 1, 9, 1000) and found["vgg_16/fc8/biases"].shape == (1000,)
    with pytest.raises(DeepLabError, match="'fc6' reads 100 values"):
        tf1_variables({**layers, "fc6": [np.zeros((9, 100))]})


def resnet_units(depth: int):
    for block, count in zip("2345", {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth], strict=True):
        many = depth == 101 and block in "34"
        names = ["a", *(f"b{i}" for i in range(1, count))] if many else "abcdefgh"[:count]
        yield from ((block, name, unit) for unit, name in enumerate(names, start=1))


def norm(channels: int, key: str, *, factor: float = 0.9) -> dict:
    """Caffe's pair bn<key> and scale<key>: the statistics are stored times the factor."""
    random = np.random.default_rng(sum(map(ord, key)))
    mean, variance = random.normal(0, 0.3, channels), random.uniform(0.5, 2, channels)
    pair = {f"bn{key}": [mean * factor, variance * factor, np.array([factor])]}
    pair[f"scale{key}"] = [random.uniform(0.5, 1.5, channels), random.normal(0, 0.3, channels)]
    return {name: [array.astype("<f4") for array in arrays] for name, arrays in pair.items()}


def resnet_layers(depth: int, width: int) -> dict:
    """A ResNet of DeepLab-v2 with `width` channels in its stem (64: the real one), four branches of logits."""
    layers = {"conv1": conv(width, 3, 7, "conv1", bias=False), **norm(width, "_conv1")}
    inputs = width
    for block, name, unit in resnet_units(depth):
        inner = width * 2 ** (int(block) - 2)
        parts = {"1": (4 * inner, inputs, 1)} if unit == 1 else {}
        parts |= {"2a": (inner, inputs, 1), "2b": (inner, inner, 3), "2c": (4 * inner, inner, 1)}
        for part, (out, into, kernel) in parts.items():
            key = f"{block}{name}_branch{part}"
            layers[f"res{key}"] = conv(out, into, kernel, key, bias=False)
            layers |= norm(out, key)
        inputs = 4 * inner
    return {**layers, **{f"fc1_voc12_c{i}": conv(CLASSES, inputs, 3, f"fc1{i}") for i in range(4)}}


@pytest.mark.parametrize(("depth", "variant"), [(101, "resnet_v1_101_caffe"), (50, None)])
def test_names_of_resnet(depth, variant):
    layers = resnet_layers(depth, 2)
    found, told, _ = tf1_variables(layers)
    assert told == variant
    scope = f"resnet_v1_{depth}"
    expected = {f"{scope}/conv1": "_conv1"}
    parts = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
    for block, name, unit in resnet_units(depth):
        for part, leaf in parts.items():
            if f"res{block}{name}_branch{part}" in layers:
                place = f"{scope}/block{int(block) - 1}/unit_{unit}/bottleneck_v1/{leaf}"
                expected[place] = f"{block}{name}_branch{part}"
    leaves = ("weights", *(f"BatchNorm/{leaf}" for leaf in ("gamma", "beta", "moving_mean", "moving_variance")))
    logits = {f"logits/semantic{end}/{leaf}" for end in ("", "_1", "_2", "_3") for leaf in ("weights", "biases")}
    assert set(found) == {f"{place}/{leaf}" for place in expected for leaf in leaves} | logits
    for place, key in expected.items():
        gamma, beta = layers[f"scale{key}"]
        mean, variance, factor = layers[f"bn{key}"]
        np.testing.assert_array_equal(found[f"{place}/BatchNorm/gamma"], gamma)
        np.testing.assert_array_equal(found[f"{place}/BatchNorm/beta"], beta)
        np.testing.assert_allclose(found[f"{place}/BatchNorm/moving_mean"], mean / factor, rtol=1e-6)
        np.testing.assert_allclose(found[f"{place}/BatchNorm/moving_variance"], variance / factor, rtol=1e-6)
    for i, end in enumerate(("", "_1", "_2", "_3")):
        np.testing.assert_array_equal(found[f"logits/semantic{end}/biases"], layers[f"fc1_voc12_c{i}"][1])


def test_a_bias_before_the_batch_norm_moves_the_mean():
    layers = resnet_layers(50, 2)
    plain, *_ = tf1_variables(layers)
    layers["conv1"] = [*layers["conv1"], np.array([0.5, -1.0], "<f4")]
    found, *_ = tf1_variables(layers)
    name = "resnet_v1_50/conv1/BatchNorm/moving_mean"
    np.testing.assert_allclose(found[name], plain[name] - [0.5, -1.0], rtol=1e-5)
    assert set(found) == set(plain)


def test_statistics_that_were_never_gathered():
    layers = resnet_layers(50, 2)
    layers["bn_conv1"][2][:] = 0  # Caffe takes them for zeros then
    found, *_ = tf1_variables(layers)
    assert not found["resnet_v1_50/conv1/BatchNorm/moving_variance"].any()


def test_imagenet_s_classifier_and_largefov():
    layers = {n: a for n, a in resnet_layers(101, 2).items() if not n.startswith("fc1_")}
    found, *_ = tf1_variables({**layers, "fc1000": [np.ones((1000, 64)), np.ones(1000)]})
    assert found["resnet_v1_101/logits/weights"].shape == (1, 1, 64, 1000)
    found, *_ = tf1_variables({**layers, "fc1_voc12": conv(CLASSES, 64, 3, "x")})
    assert found["logits/semantic/weights"].shape == (3, 3, 64, CLASSES)


def test_copies_of_the_scaled_branches():
    layers = vgg_layers(4)
    copies = {f"{name}_res{scale}": arrays for name, arrays in layers.items() for scale in ("075", "05")}
    found, _, (note,) = tf1_variables({**layers, **copies})
    plain, *_ = tf1_variables(layers)
    assert set(found) == set(plain)
    assert note.startswith("50 layers of the scaled branches") and "differ" not in note
    copies["conv1_1_res05"] = [layers["conv1_1"][0] + 1, layers["conv1_1"][1]]
    found, _, (note,) = tf1_variables({**layers, **copies})
    np.testing.assert_array_equal(found["vgg_16/conv1/conv1_1/weights"], plain["vgg_16/conv1/conv1_1/weights"])
    assert "1 of them differ, such as conv1_1_res05: scale 1 was taken" in note


def test_a_layer_without_a_place_keeps_its_name():
    found, *_ = tf1_variables({**vgg_layers(), "upscore": [np.ones((2, 2, 4, 4))], "bn_x": [np.ones(2), np.zeros(2)]})
    assert {name for name in found if not name.startswith(("vgg_16/", "logits/"))} == {
        "upscore/blob_0",
        "bn_x/blob_0",
        "bn_x/blob_1",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1_1": None}, r"neither VGG-16's.*nor those of a ResNet"),
        ({"conv1_1": [np.ones((8, 4, 3, 3))]}, "'conv1_1' reads 4 channels"),
        ({"conv2_1": [np.ones(8)]}, r"'conv2_1' has weights of shape \[8\]"),
    ],
)
def test_vgg_that_cannot_be(change, message):
    layers = {name: blobs for name, blobs in {**vgg_layers(), **change}.items() if blobs}
    with pytest.raises(DeepLabError, match=message):
        tf1_variables(layers)


def test_batch_norm_that_cannot_be():
    layers = resnet_layers(50, 2)
    for name, blobs in (("scale2a_branch1", None), ("bn2a_branch1", layers["bn2a_branch1"][:2])):
        broken = {n: b for n, b in {**layers, name: blobs}.items() if b}
        with pytest.raises(DeepLabError, match="bn2a_branch1 has . blobs and scale2a_branch1 .; expected 3"):
            tf1_variables(broken)


# ---- whole networks, by Caffe's rules, channels first, blue green red


def caffe_image(image: np.ndarray) -> np.ndarray:
    return (image[..., ::-1].astype(float) - (104.008, 116.669, 122.675)).transpose(2, 0, 1)


def caffe_conv(x: np.ndarray, blobs: list, *, hole: int = 1, stride: int = 1) -> np.ndarray:
    """Convolution with pad (kernel - 1) * hole / 2."""
    weights, kernel = blobs[0].astype(float), blobs[0].shape[2]
    pad = (kernel - 1) * hole // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    height, width = (size - (kernel - 1) * hole for size in x.shape[1:])
    total = 0
    for i, j in itertools.product(range(kernel), repeat=2):
        part = x[:, i * hole : i * hole + height : stride, j * hole : j * hole + width : stride]
        total = total + np.einsum("ihw,oi->ohw", part, weights[:, :, i, j])
    return total + blobs[1].astype(float)[:, None, None] if len(blobs) > 1 else total


def caffe_max_pool(x: np.ndarray, *, stride: int) -> np.ndarray:
    """Pooling over 3 x 3, pad 1; sizes rounded up; what is outside does not count."""
    sizes = [math.ceil((size + 2 - 3) / stride) + 1 for size in x.shape[1:]]
    out = np.empty((len(x), *sizes))
    for i, j in itertools.product(*map(range, sizes)):
        top, left = i * stride - 1, j * stride - 1
        out[:, i, j] = x[:, max(top, 0) : top + 3, max(left, 0) : left + 3].max((1, 2))
    return out


def caffe_average_pool(x: np.ndarray) -> np.ndarray:
    """pool5a: 3 x 3, stride 1, pad 1; always divided by nine."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    height, width = x.shape[1:]
    return sum(padded[:, i : i + height, j : j + width] for i, j in itertools.product(range(3), repeat=2)) / 9


def caffe_vgg(image: np.ndarray, layers: dict, holes: tuple[int, ...]) -> np.ndarray:
    """Logits [classes, h / 8, w / 8] of DeepLab v1's LargeFOV (one hole) or v2's ASPP."""
    x = caffe_image(image)
    for block, count, _ in VGG:
        for n in range(1, count + 1):
            x = np.maximum(caffe_conv(x, layers[f"conv{block}_{n}"], hole=2 if block == 5 else 1), 0)
        x = caffe_max_pool(x, stride=2 if block <= 3 else 1)
    if len(holes) == 1:
        x = caffe_average_pool(x)
    total = 0
    for i, hole in enumerate(holes, start=1):
        end = f"_{i}" if len(holes) > 1 else ""
        y = np.maximum(caffe_conv(x, layers[f"fc6{end}"], hole=hole), 0)
        y = np.maximum(caffe_conv(y, layers[f"fc7{end}"]), 0)
        total = total + caffe_conv(y, layers[f"fc8_voc12{end}"])
    return total


@pytest.mark.parametrize(("branches", "holes"), [(0, (12,)), (4, (6, 12, 18, 24))], ids=["v1", "v2"])
def test_a_converted_vgg_computes_what_caffe_computes(branches, holes, tmp_path):
    layers, path = vgg_layers(branches), tmp_path / "train_iter_8000.caffemodel"
    path.write_bytes(net(layers, old_layer if branches == 0 else new_layer, legacy=branches == 0))
    loaded = open_model(path, {"crop_size": (41, 57)})
    config = loaded.card.config
    assert (config.model_variant, config.output_stride, config.num_classes) == ("vgg16", 8, CLASSES)
    assert (config.atrous_rates, config.fc_filters) == (holes, FC)
    image = golden_image("caffe", 41, 57)
    found = loaded.model(image[None].astype(np.float32), training=False)[0].numpy()
    expected = caffe_vgg(image, layers, holes).transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(expected, (0, 1)).min() > 1e-2 * np.abs(expected).max()


@pytest.mark.heavy
def test_a_whole_resnet_101(tmp_path):
    layers, path = resnet_layers(101, 64), tmp_path / "train2_iter_20000.caffemodel"
    path.write_bytes(net(layers))
    loaded = open_model(path, {"crop_size": (65, 65)})
    config = loaded.card.config
    assert (config.model_variant, config.output_stride) == ("resnet_v1_101_caffe", 8)
    assert (config.atrous_rates, config.logits_kernel_size) == ((6, 12, 18, 24), 3)
    image = golden_image("caffe", 65, 65)
    found = loaded.model(image[None].astype(np.float32), training=False)[0].numpy()
    expected = caffe_resnet(image, layers).transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def caffe_resnet(image: np.ndarray, layers: dict) -> np.ndarray:
    """Logits of DeepLab-v2's ResNet-101: stride 2 on the first 1x1 of res3a, holes 2 in res4 and 4 in res5."""

    def part(x, key, **options):
        mean, variance, factor = (array.astype(float) for array in layers[f"bn{key}"])
        gamma, beta = layers[f"scale{key}"]
        name = "conv1" if key == "_conv1" else f"res{key}"
        x = caffe_conv(x, layers[name], **options).transpose(1, 2, 0)
        return ((x - mean / factor) / np.sqrt(variance / factor + 1e-5) * gamma + beta).transpose(2, 0, 1)

    x = caffe_max_pool(np.maximum(part(caffe_image(image), "_conv1", stride=2), 0), stride=2)
    for block, name, unit in resnet_units(101):
        stride = 2 if (block, unit) == ("3", 1) else 1
        key, hole = f"{block}{name}_branch", {"4": 2, "5": 4}.get(block, 1)
        shortcut = part(x, f"{key}1", stride=stride) if unit == 1 else x
        y = np.maximum(part(x, f"{key}2a", stride=stride), 0)
        y = np.maximum(part(y, f"{key}2b", hole=hole), 0)
        x = np.maximum(shortcut + part(y, f"{key}2c"), 0)
    return sum(caffe_conv(x, layers[f"fc1_voc12_c{i}"], hole=hole) for i, hole in enumerate((6, 12, 18, 24)))


# ---- where weights are taken


def test_imagenet_s_vgg_is_a_backbone(tmp_path):
    layers, path = vgg_layers(), tmp_path / "VGG_ILSVRC_16_layers.caffemodel"
    layers = {name: arrays for name, arrays in layers.items() if not name.startswith("fc")}
    classifier = {"fc6": [np.ones((16, 64 * 49)), np.ones(16)], "fc7": [np.ones((16, 16)), np.ones(16)]}
    path.write_bytes(net({**layers, **classifier, "fc8": [np.ones((10, 16)), np.ones(10)]}, old_layer))
    loaded = open_model(path)
    assert (loaded.card.kind, loaded.card.config.model_variant) == ("backbone", "vgg16")
    assert (len(loaded.receipt.loaded), len(loaded.receipt.skipped)) == (26, 6)
    weights = variable_map(loaded.model)["vgg_16/conv3/conv3_1/weights"].numpy()
    np.testing.assert_array_equal(weights[1, 2], layers["conv3_1"][0][:, :, 1, 2].T)


def test_training_starts_from_a_caffemodel(tmp_path):
    layers, path = vgg_layers(), tmp_path / "init.caffemodel"
    path.write_bytes(net(layers))
    config = ModelConfig(
        model_variant="vgg16",
        output_stride=8,
        aspp_with_batch_norm=False,
        atrous_rates=(12,),
        depth_multiplier=0.125,
        fc_filters=FC,
        num_classes=3,
    )
    variables = variable_map(build_model(config))
    with pytest.raises(DeepLabError, match="initialize_last_layer"):
        initialize(variables, path)
    done = initialize(variables, path, excluded_scopes=("logits",))
    assert (len(done.loaded), len(done.excluded), done.missing) == (30, 2, ())
    np.testing.assert_array_equal(variables["vgg_16/fc7/biases"].numpy(), layers["fc7"][1])


def test_the_command_converts(tmp_path, capsys):
    path, out = tmp_path / "train_iter_20000.caffemodel", tmp_path / "model"
    path.write_bytes(net({**vgg_layers(4), **{f"{n}_res05": a for n, a in vgg_layers(4).items()}}))
    status = finished(convert, f"--checkpoint={path}", f"--output_dir={out}")
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert "25 layers of the scaled branches" in printed.out and "vgg16" in printed.out
    assert (out / "deeplab.json").is_file() and (out / "receipt.json").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upscore": [np.ones((2, 2, 4, 4))]}, "upscore/blob_0"),
        ({"fc7_2": None}, "2 variables are missing: vgg_16/fc7_2/"),
        ({"conv5_3": None}, "neither"),
    ],
)
def test_a_caffemodel_that_does_not_fit_is_refused(change, message, tmp_path):
    path = tmp_path / "x.caffemodel"
    path.write_bytes(net({name: blobs for name, blobs in {**vgg_layers(4), **change}.items() if blobs}))
    with pytest.raises(DeepLabError, match=message) as caught:
        open_model(path)
    assert str(path) in str(caught.value)
