"""What is given for weights and holds none that are read: each is named as what it is, at every place that takes them.

And files of these kinds that are made to do harm, beyond those of the readers' own tests: nothing of them is run.
"""

import gzip
import io
import json
import pathlib
import tarfile
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import finished, one_line
from record_files import encoded, write_shapes
from torch_files import pickled_bytes, tensor_call, zip_file

import deeplab_tf
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.evaluation.following import is_run
from deeplab_tf.tools import convert as convert_tool
from deeplab_tf.tools import export_model as export_tool
from deeplab_tf.tools import predict as predict_tool
from deeplab_tf.tools import serve as serve_tool
from deeplab_tf.weights.describing import describe_weights
from deeplab_tf.weights.initialize import initialize

PICTURE = np.zeros((8, 9, 3), np.uint8)
PATCH = b"".join(len(part).to_bytes(8, "little") + part for part in (b"{}",))


def written(content: bytes):
    def write(path: pathlib.Path) -> None:
        path.write_bytes(content)

    return write


def zipped(**entries: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "."), content)
    return stream.getvalue()


def arrays(path: pathlib.Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, w=np.zeros(3))


def tar(path: pathlib.Path) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        entry = tarfile.TarInfo("photo.png")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"12345"))


def other_keras(path: pathlib.Path) -> None:
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)


def other_h5(path: pathlib.Path) -> None:
    with h5py.File(path, "w") as content:
        content["dense/kernel"] = np.zeros((2, 2))


def records(path: pathlib.Path) -> None:
    folder = write_shapes(path.parent / f"{path.name}.records", "val", 1, (17, 17))
    (file,) = (entry for entry in pathlib.Path(folder).iterdir() if "val-" in entry.name)
    path.write_bytes(file.read_bytes())


def saved_model(path: pathlib.Path) -> None:
    module = tf.Module()
    module.run = tf.function(lambda x: x + 1.0, input_signature=[tf.TensorSpec([2], tf.float32)])
    tf.saved_model.save(module, str(path))


def folder(**entries: bytes):
    def make(path: pathlib.Path) -> None:
        path.mkdir()
        for name, content in entries.items():
            (path / name.replace("__", ".")).write_bytes(content)

    return make


def other_torch(path: pathlib.Path) -> None:
    zip_file(path, pickled_bytes({"fc.weight": tensor_call()}), {"0": np.zeros(6, np.float32).tobytes()})


def other_safetensors(path: pathlib.Path) -> None:
    header = json.dumps({"fc.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


def graph(path: pathlib.Path) -> None:
    with tf.Graph().as_default() as content:
        tf.constant(np.ones(3, np.float32), name="w")
    path.write_bytes(content.as_graph_def().SerializeToString())


TEXT = b"names: 3\n"
# Name of the file -> what makes it, and how it is named.
KINDS = {
    "other.pth": (other_torch, "unknown network|no backbone|belongs to this network"),
    "other.safetensors": (other_safetensors, "unknown network|no backbone|belongs to this network"),
    "net.onnx": (written(b"\x08\x08\x12\x07pytorch"), "an ONNX model, .* no certificate.json of deeplab-tf export"),
    "saved": (saved_model, "a SavedModel, .* no certificate.json of deeplab-tf export"),
    "other.keras": (other_keras, r"a model of Keras \(Sequential\), and not one of deeplab_tf"),
    "other.h5": (other_h5, "holds weights of Keras without their network"),
    "other.pb": (graph, "holds no weights under the release's names"),
    "photo.png": (written(encoded(PICTURE)), "a PNG image; pictures are given to --input"),
    "photo.jpg": (written(encoded(PICTURE, "JPEG")), "a JPEG image; pictures are given to --input"),
    "photo.tflite": (written(encoded(PICTURE)), "a PNG image"),
    "photo.h5": (written(encoded(PICTURE, "BMP")), "a BMP image"),
    "some.zip": (written(zipped(readme__txt=b"text")), "a ZIP archive; unpack it"),
    "keras.zip": (written(zipped(config__json=b"{}")), "a model of Keras's; give it the ending .keras"),
    "photos.tar.gz": (tar, "no checkpoint; expected <prefix>.index"),
    "photos.tar": (tar, "a tar archive; unpack it"),
    "model.gz": (written(gzip.compress(b"x")), "a gzip archive; give it the ending .tar.gz"),
    "arrays.npz": (arrays, r"arrays of NumPy \(.npz\)"),
    "array.npy": (written(b"\x93NUMPY\x01\x00"), "an array of NumPy"),
    "val-00000-of-00001.tfrecord": (records, r"records of a data set \(TFRecord\); they are given to --dataset_dir"),
    "names.yaml": (written(TEXT), "a YAML file, without weights"),
    "deeplab.json": (written(b"{}"), "a JSON file, without weights; give the folder"),
    "net.engine": (written(b"ptrt"), "a TensorRT engine"),
    "hdf": (written(b"\x89HDF\r\n\x1a\n and more"), "an HDF5 file; give it the ending .h5"),
    "lite": (written(b"\x1c\0\0\0TFL3"), "a TFLite model; give it the ending .tflite"),
    "page.tar.gz": (written(b"\n<!DOCTYPE HTML><p>no"), "a web page and not the file"),
    "pointer.pth": (written(b"version https://git-lfs.github.com/spec/v1\noid"), "a pointer of Git LFS"),
    "empty": (folder(), "is an empty folder; expected a checkpoint in it"),
    "photos": (folder(a__png=b"1", b__jpg=b"2"), "a folder with images"),
    "torch": (folder(net__pth=b"1", log__txt=b""), "a folder with net.pth, .* give the file itself"),
    "diffusers": (folder(model_index__json=b"{}"), "a pipeline of diffusers"),
    "bert": (folder(config__json=b'{"model_type": "bert"}', model__safetensors=b"1"), 'model_type="bert"|damaged'),
    "unknown": (written(bytes(range(1, 200))), "holds no weights of a kind that is known here"),
}
COMMANDS = {
    "predict": (predict_tool, "--checkpoint", "--input=x.png", "--output_dir=out"),
    "serve": (serve_tool, "--checkpoint", "--port=0"),
    "convert": (convert_tool, "--checkpoint", "--output_dir=out"),
    "export": (export_tool, "--checkpoint_path", "--export_path=out"),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_named_everywhere(name, tmp_path, monkeypatch, capsys):
    make, expected = KINDS[name]
    path = tmp_path / name
    make(path)
    (tmp_path / "x.png").write_bytes(encoded(PICTURE))
    monkeypatch.chdir(tmp_path)
    functions = (
        deeplab_tf.load,
        deeplab_tf.load_backbone,
        deeplab_tf.Segmenter,
        describe_weights,
        lambda place: initialize({"logits/semantic/weights": tf.Variable([1.0])}, place),
    )
    for function in functions:
        with pytest.raises(DeepLabError, match=expected) as error:
            function(path)
        message = str(error.value)
        assert "\n" not in message and name in message
        assert "damaged" not in message or name in ("unknown", "bert")
    for tool, flag, *flags in COMMANDS.values():
        assert finished(tool, f"{flag}={path}", *flags) == 1
        message = one_line(capsys.readouterr().err)
        assert name in message
        with pytest.raises(DeepLabError, match=expected):
            raise DeepLabError(message)
    assert not (tmp_path / "out").exists()
    # eval waits for the checkpoints of a run, and for those of nothing else.
    assert is_run(str(path)) == (name in ("empty", "photos", "diffusers"))


def test_only_damage_is_called_damaged(tmp_path):
    whole = tmp_path / "whole.keras"
    other_keras(whole)
    for name, content in {
        "cut.keras": whole.read_bytes()[:-100],
        "cut.safetensors": b"\x40\0\0\0\0\0\0\0{",
        "nothing.ckpt": b"",
        "nothing.onnx": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DamagedError, match="damaged"):
            deeplab_tf.load(tmp_path / name)
