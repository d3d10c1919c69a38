"""PyTorch's files of weights: both formats, wrapped ones, and files made to do harm, of which nothing is executed."""

import collections
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from conftest import GOLDENS
from torch_files import Call, Id, Named, pickled_bytes, storage_id, tensor_call, zip_file

from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights import pickled
from deeplab_tf.weights.pytorch import read_state_dict

TINY = GOLDENS / "torch"
EXPECTED = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "a.bias": np.zeros(2, np.float32),
    "bn.running_mean": np.ones(2, np.float32),
    "bn.num_batches_tracked": np.array(7),
    "half": np.ones(3, np.float32),
    "view": np.arange(12, dtype=np.float32).reshape(3, 4).T,
}


@pytest.mark.parametrize("name", ["tiny_zip", "tiny_legacy", "tiny_wrapped"])
def test_both_formats_and_a_wrapped_one(name):
    found = read_state_dict(TINY / f"{name}.pth")
    assert list(found.shapes) == list(EXPECTED)
    for key, value in EXPECTED.items():
        read = found.read(key)
        assert found.shapes[key] == read.shape == value.shape
        assert read.dtype == value.dtype
        np.testing.assert_array_equal(read, value)
    wrapped = ("the weights are those under 'state_dict'; left out: epoch, optimizer",)
    assert found.notes == (wrapped if name == "tiny_wrapped" else ())


FLOATS = np.arange(6, dtype="<f4")


def _refusal(path):
    with pytest.raises(DeepLabError) as caught:
        found = read_state_dict(path)
        for name in found.shapes:
            found.read(name)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message, message
    return message


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("FloatStorage", FLOATS, np.float32),
        ("DoubleStorage", FLOATS.astype("<f8"), np.float32),
        ("HalfStorage", FLOATS.astype("<f2"), np.float32),
        ("BFloat16Storage", (FLOATS.view("<u4") >> 16).astype("<u2"), np.float32),
        ("LongStorage", FLOATS.astype("<i8"), np.int64),
        ("IntStorage", FLOATS.astype("<i4"), np.int32),
        ("ByteStorage", FLOATS.astype("u1"), np.uint8),
    ],
)
def test_types(kind, values, expected, tmp_path):
    for order, stored in (("little", values), ("big", values.astype(values.dtype.newbyteorder(">")))):
        content = {"0": stored.tobytes()}
        found = read_state_dict(
            zip_file(tmp_path / "t.pth", pickled_bytes({"w": tensor_call(storage_id(kind))}), content, order=order)
        )
        read = found.read("w")
        assert read.dtype == expected
        np.testing.assert_array_equal(read, FLOATS.reshape(2, 3).astype(expected))
    rounded = ("float64 weights are rounded to float32",) if kind == "DoubleStorage" else ()
    assert found.notes == rounded


def test_wrapped_prefixed_and_parameters(tmp_path):
    parameter = Call(Named("torch._utils", "_rebuild_parameter"), tensor_call(), True, ())
    inner = {"module.w": parameter}
    content = {"ema": inner, "model": inner, "epoch": 3}
    found = read_state_dict(zip_file(tmp_path / "w.pth", pickled_bytes(content), {"0": FLOATS.tobytes()}))
    assert dict(found.shapes) == {"w": (2, 3)}
    assert found.notes == ("the weights are those under 'model'; left out: ema, epoch",)
    two = zip_file(tmp_path / "two.pth", pickled_bytes({"a": inner, "b": inner}), {"0": FLOATS.tobytes()})
    assert "several state dicts (a, b)" in _refusal(two)


class _Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_is_refused_and_not_run(tmp_path):
    mark = tmp_path / "made"
    for value in (_Harm(mark), {"w": _Harm(mark)}, collections.OrderedDict(w=[_Harm(mark)])):
        for protocol in (0, 2, 4):
            content = pickle.dumps(value, protocol)
            expected = "mkdir"
            assert expected in _refusal(zip_file(tmp_path / f"z{protocol}.pth", content))
            legacy = tmp_path / f"l{protocol}.pth"
            header = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
            legacy.write_bytes(header + content)
            assert expected in _refusal(legacy)
            (tmp_path / "plain.pth").write_bytes(content)
            assert expected in _refusal(tmp_path / "plain.pth")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"w": Call(Named("os", "system"), "true")}, "'os.system', which is code"),
        ({"w": Call(Named("nets.deeplab", "DeepLab"))}, "torch.save(model.state_dict()"),
        ({"w": Call(Named("numpy.core.multiarray", "scalar"), 1)}, "numpy.core.multiarray.scalar"),
        ({"w": Call(Named("torch", "FloatStorage"), 1)}, "makes no tensor"),
        ({"w": tensor_call(shape=(2, -3))}, "not a number of elements"),
        ({"w": tensor_call(strides=(-3, 1))}, "not a number of elements"),
        ({"w": tensor_call(shape=(1 << 61, 1 << 61), strides=(0, 0))}, "in a storage of 6 elements"),
        ({"w": tensor_call(offset=1)}, "ends at element 6 of a storage of 6"),
        ({"w": tensor_call(strides=(1 << 40, 1))}, "of a storage of 6"),
        ({"w": tensor_call(shape=(2, 3, 1))}, "3 sides and 2 strides"),
        ({"w": tensor_call(shape=(2.0, 3))}, "not a number of elements"),
        ({"w": tensor_call(shape=(True, 3))}, "not a number of elements"),
        ({"w": tensor_call(storage_id(elements=1 << 50))}, "should have 4503599627370496 bytes, and has 24"),
        ({"w": tensor_call(storage_id(key="../../etc/passwd"))}, "and has none"),
        ({"w": tensor_call(storage_id(kind="QUInt8Storage"))}, "torch.QUInt8Storage"),
        ({"w": tensor_call(Id("file", "name"))}, "not a storage"),
        ({"w": 1, "n": {"v": 2}}, "holds no tensors by name (its entries: n, w)"),
        ([1, 2], "holds a list, not a state dict"),
        (tensor_call(), "holds a tensor without a name"),
        ({(1, 2): tensor_call()}, "a key of type tuple"),
        ({"w": 1.5, "v": 10**5000}, "holds no tensors"),
    ],
)
def test_what_is_no_state_dict(value, expected, tmp_path):
    assert expected in _refusal(zip_file(tmp_path / "bad.pth", pickled_bytes(value), {"0": FLOATS.tobytes()}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x80\x02" + b"(" * 5000 + b".", "nested more than 1000 deep"),
        (b"\x80\x02r\xff\xff\xff\xff.", "damaged"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "no tensors"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".", "damaged"),
        (b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}.", "no tensors"),
        (b"\x80\x02" + b"]" * 200_000 + b".", "a list"),
        (b"\x80\x02" + b")\x85" * 200_000 + b".", "a tuple"),
        (b"", "damaged"),
        (b"\x80\x02}q", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02}u.", "damaged"),
        (b"\x80\x02}h\x09.", "damaged"),
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02c__builtin__\neval\n.", "__builtin__.eval"),
    ],
)
def test_pickles_made_by_hand(content, expected, tmp_path):
    assert expected in _refusal(zip_file(tmp_path / "hand.pth", content))


def test_too_many_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "_MOST_INSTRUCTIONS", 1000)
    assert "more than 1000 pickle instructions" in _refusal(
        zip_file(tmp_path / "many.pth", b"\x80\x02" + b"N" * 2000 + b".")
    )


def test_archives_that_are_none_of_pytorchs(tmp_path):
    good = pickled_bytes({"w": tensor_call()})
    bytes_ = {"0": FLOATS.tobytes()}
    assert "is compressed" in _refusal(zip_file(tmp_path / "c.pth", good, bytes_, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "text")
    assert "a ZIP archive, not PyTorch's" in _refusal(tmp_path / "other.pth")
    with zipfile.ZipFile(tmp_path / "script.pth", "w") as archive:
        archive.writestr("net/data.pkl", good)
        archive.writestr("net/constants.pkl", b"")
    assert "a TorchScript program" in _refusal(tmp_path / "script.pth")
    whole = zip_file(tmp_path / "whole.pth", good, bytes_).read_bytes()
    damaged = whole.replace(FLOATS.tobytes(), FLOATS[::-1].tobytes())
    (tmp_path / "damaged.pth").write_bytes(damaged)
    assert "not those that were written" in _refusal(tmp_path / "damaged.pth")
    for end in range(0, len(whole), 37):
        (tmp_path / "cut.pth").write_bytes(whole[:end])
        _refusal(tmp_path / "cut.pth")
    legacy = (TINY / "tiny_legacy.pth").read_bytes()
    for end in range(0, len(legacy), 61):
        (tmp_path / "cut.pth").write_bytes(legacy[:end])
        _refusal(tmp_path / "cut.pth")
    assert "cannot be read" in _refusal(tmp_path / "missing.pth")
