"""Keras's own files and wrappers: what Keras saves, clones and wraps is a model of ours again, and nothing is run."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import PIL.Image
import pytest
from commands import finished
from golden import golden_image
from record_files import example_of, write_records

import deeplab_tf
from deeplab_tf.catalog.datasets import Dataset, dataset_json
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.network.wrapped import as_network
from deeplab_tf.ops.images import resize_labels, resize_longest
from deeplab_tf.registration.deferred import CLASSES
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.tools import export_model as export_tool
from deeplab_tf.tools import predict as predict_tool
from deeplab_tf.weights.describing import describe_weights
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


def test_softmax_and_upsampling_around_the_network_do_not_matter(model, tmp_path):
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
    wrappers[-1].save(tmp_path / "used.keras")  # what was found in a wrapper stays with it, and does not go into files
    np.testing.assert_array_equal(
        deeplab_tf.predict(keras.saving.load_model(tmp_path / "used.keras"), IMAGES, runtime="tf"), expected
    )
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


class Holder(keras.Model):
    """A wrapper by a class of its own."""

    def __init__(self, net, **kwargs):
        super().__init__(**kwargs)
        self.net = net

    def call(self, inputs):
        return self.net(inputs)

    def get_config(self):
        return {**super().get_config(), "net": keras.saving.serialize_keras_object(self.net)}


class Functional(keras.Model):
    """One that has layers, and another call than theirs."""

    def call(self, inputs, training=None, mask=None):
        return -super().call(inputs)


class Plain(keras.Model):
    """One that Keras runs as any functional model."""


def test_a_class_with_a_call_of_its_own_is_refused_with_the_way_to_go(model, tmp_path):
    holder = Holder(model)
    with pytest.raises(DeepLabError, match=r"its class Holder has a call of its own, .*; give that one, model\.net$"):
        as_network(holder)
    with pytest.raises(DeepLabError, match=r"class Functional has a call of its own, .*build_model or load$"):
        as_network(Functional(model.inputs, model.outputs))
    with pytest.raises(DeepLabError, match="expected one made by deeplab_tf.build_model"):
        as_network(Holder(keras.layers.ReLU()))
    images = keras.Input((33, 33, 3))
    assert same(model, Plain(images, model(images)))
    holder(IMAGES)
    holder.save(tmp_path / "held.keras")
    with pytest.raises(DeepLabError, match="needs the class Holder of another program, which is not run; there, save"):
        deeplab_tf.load(tmp_path / "held.keras")


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


# ---- names of classes, and what is known of pictures

NAMES = ("ground", "tree", "road")


@pytest.fixture(scope="module")
def named(model, tmp_path_factory) -> pathlib.Path:
    """A folder with a model that has names, in every format that keeps them."""
    folder = tmp_path_factory.mktemp("named")
    network = keras.models.clone_model(model)
    network.set_weights(model.get_weights())
    network.card = {"class_names": NAMES, "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "letterbox": 64}
    images = keras.Input((33, 33, 3))
    for name, saved in {
        "model.keras": network,
        "model.h5": network,
        "sequential.keras": keras.Sequential([network, keras.layers.Softmax()]),
        "around.keras": keras.Model(images, keras.layers.Softmax()(network(images))),
        "through.keras": keras.Model(network.input, keras.layers.Softmax()(network.output)),
        "clone.keras": keras.models.clone_model(network),
    }.items():
        saved.save(folder / name)
    return folder


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "sequential.keras", "around.keras", "through.keras"])
def test_names_and_colours_travel(name, named):
    loaded = open_model(named / name)
    assert (loaded.card.class_names, loaded.card.letterbox, loaded.card.dataset) == (NAMES, 64, None)
    assert loaded.card.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert loaded.model.class_names == NAMES and not any("assumed" in note for note in loaded.notes)
    assert describe_weights(named / name).class_names == NAMES
    segmenter = deeplab_tf.Segmenter(keras.saving.load_model(named / name, compile=False))
    assert (segmenter.class_names, segmenter.options.resize) == (NAMES, "letterbox")


def test_names_are_kept_by_clones_and_given_by_the_user(named, tmp_path):
    assert keras.saving.load_model(named / "clone.keras").class_names == NAMES
    _, network = deeplab_tf.load(named / "model.keras", class_names=["a", "b", "c", "d"])
    assert network.class_names == ("a", "b", "c", "d") and network.output_shape[-1] == 4
    assert network.receipt.new
    _, network = deeplab_tf.load(named / "model.keras", class_names=["a", "b", "c"])
    assert not network.receipt.new
    network.save(tmp_path / "again.keras")
    assert deeplab_tf.load(tmp_path / "again.keras")[1].class_names == ("a", "b", "c")
    for wrong, message in ((["a"], "1 names for a network of 3"), ("abc", "expected 3 names"), ([1, 2, 3], "3 names")):
        with pytest.raises(DeepLabError, match=message):
            network.class_names = wrong
    with pytest.raises(DeepLabError, match="--dataset=pascal_voc_seg has 21 classes"):
        open_model(named / "model.keras", dataset="pascal_voc_seg")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_names", ["a"]),
        ("class_names", [1, 2, 3]),
        ("palette", [[0, 0]] * 3),
        ("palette", [[0, 0, 256]] * 3),
        ("palette", 7),
        ("letterbox", -1),
        ("letterbox", "x"),
        ("ignore_label", None),
        ("dataset", {}),
        ("colour", 1),
        ("image", {"channels": "x"}),
    ],
)
def test_a_damaged_card_ends_in_one_line(key, value, named, tmp_path):
    config = json.loads(config_of_file(named))
    for layer in config["config"]["layers"]:
        if "card" in layer["config"]:
            layer["config"]["card"][key] = value
    file = changed(named, tmp_path / "model.keras", config=json.dumps(config).encode())
    with pytest.raises(DeepLabError, match=key) as error:
        deeplab_tf.load(file)
    assert "\n" not in str(error.value) and str(file) in str(error.value)


# ---- what evaluates, exports and runs as a command


@pytest.mark.heavy
def test_evaluate_and_export_take_what_carries_its_configuration(model, saved, named, tmp_path):
    batch = [{"image": IMAGES, "label": np.zeros((2, 33, 33), np.int32)}]
    expected = deeplab_tf.evaluate(model, batch)
    for other in (
        keras.saving.load_model(saved / "model.h5"),
        keras.saving.load_model(named / "clone.keras"),
        keras.saving.load_model(named / "sequential.keras"),
        keras.Model(model.input, keras.layers.Softmax()(model.output)),
    ):
        if not np.array_equal(as_network(other)(IMAGES), model(IMAGES)):  # a clone draws its own weights
            other.set_weights(model.get_weights())
        found = deeplab_tf.evaluate(other, batch)
        np.testing.assert_array_equal(found["confusion_matrix"], expected["confusion_matrix"])
    through = keras.saving.load_model(named / "through.keras")
    certificate = deeplab_tf.export(through, tmp_path / "net.pb")
    assert certificate["file"] == str(tmp_path / "net.pb") and (tmp_path / "net.pb").is_file()


@pytest.mark.heavy
def test_commands_take_them_as_checkpoints(model, named, tmp_path, capsys):
    image = IMAGES[0].astype(np.uint8)
    PIL.Image.fromarray(image).save(tmp_path / "photo.png")
    own = Dataset("mine", 3, 255, NAMES, ((0, 0, 0), (1, 1, 1), (2, 2, 2)), {"val": 1}, "pascal")
    records = write_records(tmp_path / "records", "val", [example_of("photo", image, np.zeros((33, 33), np.uint8))])
    (tmp_path / "records" / "dataset.json").write_text(dataset_json(own))
    # The two kinds in turns: all commands open them by one function, which the tests above give both.
    flags = (f"--checkpoint={named / 'model.h5'}", f"--output_dir={tmp_path}/plain", "--runtime=tf", "--resize=none")
    assert finished(predict_tool, *flags, "--save=raw", tmp_path / "photo.png") == 0
    with PIL.Image.open(tmp_path / "plain" / "photo_raw.png") as raw:
        np.testing.assert_array_equal(np.array(raw), deeplab_tf.predict(model, image[None], runtime="tf")[0])
    capsys.readouterr()
    flags = (f"--checkpoint_dir={named / 'model.keras'}", f"--dataset_dir={records}", f"--eval_logdir={tmp_path}/eval")
    assert finished(eval_tool, *flags) == 0
    assert "ground" in capsys.readouterr().out
    wide = golden_image("wide", 20, 40)
    PIL.Image.fromarray(wide).save(tmp_path / "wide.png")
    # The model's own rule: into the middle of a grey square of 64 pixels.
    flags = (f"--checkpoint={named / 'model.keras'}", f"--output_dir={tmp_path}/box", "--runtime=tf")
    assert finished(predict_tool, *flags, "--save=raw,cutout", tmp_path / "wide.png") == 0
    square = np.empty((64, 64, 3), np.uint8)
    square[:] = model.config.pad_pixel
    square[16:48] = resize_longest(wide, 64)
    large = build_model(dataclasses.replace(TINY, crop_size=(64, 64)), share_with=model)
    classes = resize_labels(deeplab_tf.predict(large, square[None], runtime="tf")[0][16:48], 20, 40)
    with PIL.Image.open(tmp_path / "box" / "wide_raw.png") as raw:
        np.testing.assert_array_equal(np.array(raw), classes)
    kept = (classes != 0)[..., None]
    with PIL.Image.open(tmp_path / "box" / "wide_cutout.png") as cut:
        np.testing.assert_array_equal(np.array(cut), np.concatenate([wide * kept, kept * np.uint8(255)], axis=-1))
    exported = tmp_path / "net.pb"
    assert finished(export_tool, f"--checkpoint_path={named / 'model.h5'}", f"--export_path={exported}") == 0
    assert exported.is_file()


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
