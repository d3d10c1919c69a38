"""Keras's own files and wrappers: what Keras saves, clones and wraps is a model of ours again, and nothing is run."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from golden import golden_image

import deeplab_tf
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.model import as_network, build_model
from deeplab_tf.registration.deferred import CLASSES
from deeplab_tf.weights.loading import open_model

ROOT = pathlib.Path(__file__).parents[1]
TINY = ModelConfig(model_variant="tiny", num_classes=3, crop_size=(33, 33))
IMAGES = np.stack([golden_image(f"keras {i}", 33, 33) for i in range(2)]).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return build_model(TINY)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> pathlib.Path:
    """A folder with the model in every format of Keras, and its logits."""
    folder = tmp_path_factory.mktemp("saved")
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "model.weights.h5")
    keras.Sequential([model, keras.layers.Softmax()]).save(folder / "wrapped.keras")
    np.savez(folder / "arrays.npz", images=IMAGES, logits=model(IMAGES).numpy())
    return folder


def same(model: keras.Model, other: keras.Model) -> bool:
    return np.array_equal(as_network(other)(IMAGES).numpy(), model(IMAGES).numpy())


# ---- what Keras is told


def in_a_new_process(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


_LOADS = """
import {first}
import {second}
import sys
assert not [name for name in sys.modules if name.startswith("deeplab_tf.network")]
import numpy as np
arrays = np.load(r"{folder}/arrays.npz")
for name in ("model.keras", "model.h5"):
    model = keras.saving.load_model(rf"{folder}/{{name}}")
    assert np.array_equal(model(arrays["images"]).numpy(), arrays["logits"]), name
    assert model.config.num_classes == 3
"""


@pytest.mark.heavy
@pytest.mark.parametrize("first", ["keras", "deeplab_tf"])
def test_a_new_process_opens_the_files(first, saved):
    second = {"keras": "deeplab_tf", "deeplab_tf": "keras"}[first]
    code = _LOADS.format(first=first, second=second, folder=saved)
    result = in_a_new_process(code, TF_CPP_MIN_LOG_LEVEL="3", PATH="")
    assert result.returncode == 0, result.stderr


def test_importing_the_package_imports_neither_keras_nor_tensorflow():
    code = """
import importlib.util, sys
import deeplab_tf
importlib.util.find_spec("keras")
print({"keras", "tensorflow"} & set(sys.modules))
"""
    assert in_a_new_process(code, PATH="").stdout == "set()\n"


def test_every_class_of_ours_is_announced():
    for module in set(CLASSES.values()):
        __import__(f"deeplab_tf.{module}")
    registry = keras.saving.get_custom_objects()
    ours = {
        name.removeprefix("deeplab_tf>"): value for name, value in registry.items() if name.startswith("deeplab_tf>")
    }
    assert {name: getattr(value, "__module__", "") for name, value in ours.items()} == {
        name: f"deeplab_tf.{module}" for name, module in CLASSES.items()
    }


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_is_refused_in_one_line(backend):
    code = "import deeplab_tf; deeplab_tf.ModelConfig(); deeplab_tf.load"
    result = in_a_new_process(code, KERAS_BACKEND=backend, PATH="")
    assert result.stderr.splitlines()[-1] == (
        f"deeplab_tf.errors.DeepLabError: KERAS_BACKEND={backend}: these networks need tensorflow; set "
        "KERAS_BACKEND=tensorflow before Keras is imported, in a process of its own"
    )


def test_completion_shows_public_names_alone():
    shown = {name for name in dir(deeplab_tf) if not name.startswith("__")}
    assert shown == set(deeplab_tf.__all__) - {"__version__"}


# ---- clones and wrappers


def test_softmax_and_upsampling_around_the_network_do_not_matter(model):
    softmax = keras.layers.Softmax()
    images = keras.Input((33, 33, 3))
    wrappers = [
        keras.Sequential([model, keras.layers.Softmax()]),
        keras.Sequential([keras.Sequential([model])]),
        keras.Model(images, keras.layers.UpSampling2D(8, interpolation="bilinear")(model(images))),
        keras.Model(model.input, softmax(model.output)),
    ]
    expected = deeplab_tf.predict(model, IMAGES, runtime="tf")
    for wrapper in wrappers:
        np.testing.assert_array_equal(deeplab_tf.predict(wrapper, IMAGES, runtime="tf"), expected)
    assert as_network(wrappers[-1]) is as_network(wrappers[-1])
    clone = keras.models.clone_model(wrappers[0])
    clone.set_weights(wrappers[0].get_weights())
    assert same(model, clone)


def test_a_wrapper_that_changes_pixels_or_classes_is_refused(model):
    images = keras.Input((33, 33, 3))
    wrappers = {
        "Rescaling": keras.Sequential([keras.layers.Rescaling(255.0), model]),
        "Multiply": keras.Model(images, model(images * 2.0)),
        "Conv2D": keras.Model(images, keras.layers.Conv2D(3, 1)(model(images))),
    }
    for kind, wrapper in wrappers.items():
        with pytest.raises(DeepLabError, match=f"{kind} .* changes what the network in it reads or gives"):
            as_network(wrapper)
    with pytest.raises(DeepLabError, match=r"lacks logits\.semantic of its tiny network"):
        as_network(keras.Model(model.input, model.layers[-3].output))


def test_logits_at_the_size_of_the_images(model):
    upsampled = build_model(TINY, share_with=model, upsample_logits=True)
    assert upsampled.output_shape == (None, 33, 33, 3) and upsampled.config == TINY
    classes = upsampled(IMAGES).numpy().argmax(-1)
    np.testing.assert_array_equal(classes, deeplab_tf.predict(upsampled, IMAGES, runtime="tf"))
    free = build_model(ModelConfig(model_variant="tiny", num_classes=3), upsample_logits=True)
    assert free(np.zeros((1, 40, 51, 3), np.float32)).shape == (1, 40, 51, 3)


def test_pixels_stay_exact_under_mixed_precision(model):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build_model(TINY)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    assert mixed(IMAGES).dtype == "bfloat16"
    expected = deeplab_tf.predict(model, IMAGES, runtime="tf")
    np.testing.assert_array_equal(deeplab_tf.predict(mixed, IMAGES, runtime="tf"), expected)


# ---- load


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "wrapped.keras", "MODEL.KERAS"])
def test_load_takes_whole_models(name, model, saved, tmp_path):
    file = saved / name.lower()
    if name != name.lower():
        file = shutil.copy(file, tmp_path / name)
    config, loaded = deeplab_tf.load(file)
    assert config == TINY and same(model, loaded)
    assert loaded.receipt.summary() == f"{len(loaded.receipt.loaded)} variables loaded, none missing"


def test_load_takes_weights_alone_with_their_network(model, saved):
    options = {"model_variant": "tiny", "num_classes": 3, "crop_size": (33, 33)}
    assert same(model, deeplab_tf.load(saved / "model.weights.h5", **options)[1])
    with pytest.raises(DeepLabError, match="holds weights without their network; give --model_variant"):
        deeplab_tf.load(saved / "model.weights.h5")
    with pytest.raises(DeepLabError, match="does not fit a tiny of these options"):
        deeplab_tf.load(saved / "model.weights.h5", **{**options, "num_classes": 4})


def test_a_contradiction_is_refused_by_commands(saved):
    with pytest.raises(DeepLabError, match="--num_classes=5 contradicts .*model.keras, which has num_classes=3"):
        open_model(saved / "model.keras", {"num_classes": 5})


def test_other_classes_keep_what_fits(model, saved):
    config, other = deeplab_tf.load(saved / "model.keras", num_classes=5)
    assert config.num_classes == 5 and other.output_shape[-1] == 5
    assert set(other.receipt.new) == {"logits/semantic/weights", "logits/semantic/biases"}
    assert set(other.receipt.skipped) == set(other.receipt.new)
    kept = [layer for layer in other.layers if layer.weights and layer.name != "logits.semantic"]
    for layer in kept:
        for mine, theirs in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_the_backbone_alone(model, saved):
    config, backbone = deeplab_tf.load_backbone(saved / "model.keras")
    assert config == TINY and "features" in backbone.output
    for layer in backbone.layers:
        for mine, theirs in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


# ---- hostile files


def changed(saved: pathlib.Path, target: pathlib.Path, **members: bytes | None) -> pathlib.Path:
    """Writes the archive with other, more or fewer members: `config` stands for config.json, and so on."""
    names = {"config": "config.json", "weights": "model.weights.h5", "outside": "../outside", "absolute": "/etc/x"}
    with zipfile.ZipFile(saved / "model.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= {names[name]: value for name, value in members.items()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, value in content.items():
            if value is not None:
                archive.writestr(name, value)
    return target


def config_of_file(saved: pathlib.Path) -> bytes:
    with zipfile.ZipFile(saved / "model.keras") as archive:
        return archive.read("config.json")


HOSTILE = {
    "out of the archive": (lambda saved: {"outside": b"x"}, "leads out of the archive"),
    "an absolute path": (lambda saved: {"absolute": b"x"}, "leads out of the archive"),
    "a Lambda": (
        lambda saved: {"config": config_of_file(saved).replace(b'"class_name": "ReLU"', b'"class_name": "Lambda"')},
        "holds a Lambda, which is code",
    ),
    "another model": (
        lambda saved: {"config": b'{"class_name": "Functional", "module": "keras", "config": {}}'},
        r"a model of Keras \(Functional\), and not one of deeplab_tf",
    ),
    "nested too deep": (lambda saved: {"config": b"[" * 100_000}, "its configuration is damaged"),
    "not JSON": (lambda saved: {"config": b"\xff\xfe"}, "its configuration is damaged"),
    "without weights": (lambda saved: {"weights": None}, "has 0 entries 'model.weights.h5'"),
    "cut off weights": (lambda saved: {"weights": b"\x89HDF\r\n\x1a\n"}, "Keras cannot open it"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_end_in_one_line(kind, saved, tmp_path):
    members, message = HOSTILE[kind]
    with pytest.raises(DeepLabError, match=message) as error:
        deeplab_tf.load(changed(saved, tmp_path / "model.keras", **members(saved)))
    assert "\n" not in str(error.value) and str(tmp_path / "model.keras") in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe" * 40, b"PK\x03\x04 and no more"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_what_is_no_file_of_keras_ends_in_one_line(suffix, content, tmp_path):
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    with pytest.raises(DeepLabError, match=f"model{suffix}: ") as error:
        deeplab_tf.load(file)
    assert "\n" not in str(error.value)


def external_link(content: h5py.File, other: str) -> None:
    content["model_weights/more"] = h5py.ExternalLink(other, "/x")


def soft_link(content: h5py.File, other: str) -> None:
    content["model_weights/more"] = h5py.SoftLink("/x")


def external_values(content: h5py.File, other: str) -> None:
    content["model_weights"].create_dataset("more", (4,), "u1", external=[(other, 0, 4)])


def circle(content: h5py.File, other: str) -> None:
    content["model_weights/more"] = content["model_weights"]


def huge_shape(content: h5py.File, other: str) -> None:
    content["model_weights"].create_dataset("more", (1 << 20, 1 << 20), "f4", chunks=(1, 1 << 10))


EDITS = [external_link, soft_link, external_values, circle, huge_shape]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_links_of_hdf5_are_not_followed(edit, saved, tmp_path):
    (tmp_path / "secret").write_bytes(b"1234")
    file = shutil.copy(saved / "model.h5", tmp_path / "model.h5")
    with h5py.File(file, "a") as content:
        edit(content, str(tmp_path / "secret"))
    with pytest.raises(DeepLabError, match="link of HDF5|lie in another file|are larger than the file"):
        deeplab_tf.load(file)
