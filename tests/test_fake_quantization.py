"""Quantised training: rounding against NumPy, ranges, the delay, what is saved, and the int8 file that comes of it."""

import dataclasses
import json
import os
import signal
import types

import numpy as np
import pytest
import tensorflow as tf
from commands import finished, one_line
from golden import golden_tensor
from observers import Recorder
from record_files import write_shapes

import deeplab_tf
from deeplab_tf.config import DataConfig, Experiment, ExportConfig, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.data.shapes import shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.export import export
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tflite.convert import LiteModel, convert
from deeplab_tf.inference.tflite.file import convolutions, unpack
from deeplab_tf.inference.tflite.quantization import take_ranges
from deeplab_tf.network.build import build_model
from deeplab_tf.network.fake_quantization import FakeQuantize, fake_quantized, rounded, weights_as_used
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.tools import export_model as export_tool
from deeplab_tf.training.batch_statistics import recalibrate_batch_norm
from deeplab_tf.training.train import train
from deeplab_tf.weights.lite_format import schema
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt, variable_map

FLOAT = ModelConfig(model_variant="tiny", num_classes=9, aspp_convs_filters=16, crop_size=(33, 33))
QUANTISED = dataclasses.replace(FLOAT, quantize_delay_step=0)


def value(variable) -> float:
    """Returns a variable's one number: Keras 3.3's is none by itself."""
    return float(np.asarray(variable))


# ---- kernels


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_kernel_is_rounded_in_each_output_channel(depthwise):
    kernel = golden_tensor("a/weights", (3, 3, 5, 1) if depthwise else (3, 3, 2, 5)).copy()
    places = [(..., c, 0) if depthwise else (..., c) for c in range(5)]
    kernel[places[4]] = 0.0  # nothing to scale by
    found = rounded(kernel, depthwise=depthwise).numpy()
    for place in places:
        step = np.abs(kernel[place]).max() / 127
        expected = [round(float(w / step)) * step if step else 0.0 for w in kernel[place].ravel()]
        np.testing.assert_allclose(found[place].ravel(), expected, atol=1e-7)
    assert len(np.unique(found[places[0]])) > 5


def test_the_gradient_of_a_kernel_is_its_own():
    kernel, given = tf.constant(golden_tensor("b/weights", (3, 3, 2, 5))), golden_tensor("c/weights", (3, 3, 2, 5))
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        value = tf.reduce_sum(rounded(kernel, depthwise=False) * given)
    np.testing.assert_array_equal(tape.gradient(value, kernel), given)


def test_rounding_and_folding_commute():
    kernel = golden_tensor("d/weights", (3, 3, 4, 6))
    factors = np.array([0.01, -3.0, 1.0, 700.0, -0.5, 1e-4], np.float32)
    folded = rounded(kernel * factors, depthwise=False).numpy()
    np.testing.assert_allclose(folded, rounded(kernel, depthwise=False).numpy() * factors, rtol=1e-5)


# ---- maps


def expected_maps(maps: np.ndarray, low: float, high: float) -> np.ndarray:
    """256 values from low to high, moved so that one of them is 0."""
    step = (high - low) / 255
    first = -round(-low / step) * step
    return np.clip(np.rint((maps - first) / step), 0, 255) * step + first


def ranged(low: float, high: float) -> FakeQuantize:
    layer = FakeQuantize()
    layer.build((None, None, None, 3))
    layer.min.assign(low), layer.max.assign(high)
    return layer


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.3, 2.9), (-4.0, 0.0)])
def test_maps_are_rounded_to_256_values_with_0_among_them(low, high):
    maps = np.linspace(-7, 7, 2 * 5 * 7 * 3, dtype=np.float32).reshape(2, 5, 7, 3)
    found = ranged(low, high)(maps).numpy()
    np.testing.assert_allclose(found, expected_maps(maps, low, high), atol=1e-5)
    assert ranged(low, high)(np.zeros((1, 1, 1, 3), np.float32)).numpy().max() == 0.0


def test_the_gradient_of_maps_passes_inside_the_range_alone():
    maps = tf.constant([-3.0, -0.9, 0.0, 1.7, 2.2])
    with tf.GradientTape() as tape:
        tape.watch(maps)
        value = tf.reduce_sum(ranged(-1.0, 2.0)(maps, training=True) * 3.0)
    np.testing.assert_array_equal(tape.gradient(value, maps), [0.0, 3.0, 3.0, 3.0, 0.0])


def test_ranges_are_means_over_the_batches_then_moving_averages():
    layer, batches = ranged(-6.0, 6.0), [(-1.0, 4.0), (0.5, 2.0), (-3.0, -1.0)]
    for number, ends in enumerate(batches):
        layer.batches = tf.constant(number, tf.int64)
        layer(tf.constant(ends), training=True)
    lows, highs = [min(low, 0.0) for low, _ in batches], [max(high, 0.0) for _, high in batches]
    assert value(layer.min) == pytest.approx(np.mean(lows)) and value(layer.max) == pytest.approx(np.mean(highs))
    layer.batches = tf.constant(50_000, tf.int64)
    layer(tf.constant([-1.0, 102.0]), training=True)
    assert value(layer.max) == pytest.approx(np.mean(highs) * 0.999 + 0.102, rel=1e-5)
    before = value(layer.max)
    layer(tf.constant([-1.0, 102.0]))
    layer.batches = None
    layer(tf.constant([-1.0, 102.0]), training=True)
    assert value(layer.max) == before, "only a training step moves them"


# ---- the network


def batch(count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    pairs = [shapes_example(0, number, height=33, width=33) for number in range(count)]
    images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
    return images.astype(np.float32), labels.astype(np.int32)


def twin(model, config: ModelConfig):
    """Another model with the weights that both have."""
    other = build_model(config)
    names = variable_map(other)
    for name, variable in variable_map(model).items():
        if name in names:
            names[name].assign(variable)
    return other


def step_of(model, **options):
    update = {"base_learning_rate": 0.02, "training_number_of_steps": 10, "dropout": False, **options}
    return deeplab_tf.make_train_step(model, TrainConfig(**update))


@pytest.fixture(scope="module")
def untrained():
    return build_model(FLOAT)


def test_only_ranges_are_added_and_their_names_tell(untrained):
    plain, found = variable_map(untrained), variable_map(build_model(QUANTISED))
    added = set(found) - set(plain)
    assert set(plain) < set(found) and all(name.endswith(("_quant/min", "_quant/max")) for name in added)
    assert {"Tiny/preprocess_quant/min", "Tiny/Conv/act_quant/max", "Tiny/block_1/project/conv_quant/min"} <= added
    assert "Tiny/Conv/conv_quant/min" not in added, "the activation is part of the convolution"
    assert {"Tiny/block_2/add_quant/min", "aspp/concat_quant/max", "logits/semantic/conv_quant/max"} <= added
    assert not any(found[name].trainable for name in added)
    shared = build_model(dataclasses.replace(QUANTISED, crop_size=(65, 65)), share_with=build_model(QUANTISED))
    assert set(variable_map(shared)) == set(found)
    assert set(variable_map(build_model(dataclasses.replace(QUANTISED, crop_size=None)))) == set(found), "any size"


def test_the_delay(untrained):
    """Before it losses are those of the plain network, from it on they are not; ranges follow from the start."""
    images, labels = batch()
    plain = twin(untrained, FLOAT)
    late = twin(untrained, dataclasses.replace(FLOAT, quantize_delay_step=2))
    steps = [step_of(model) for model in (plain, late)]
    losses = np.array([[float(step(images, labels)["total_loss"]) for step in steps] for _ in range(4)])
    np.testing.assert_allclose(losses[:2, 0], losses[:2, 1], rtol=1e-6)
    assert np.all(np.abs(losses[2:, 0] - losses[2:, 1]) > 1e-6)
    assert all(layer.started is None and layer.batches is None for layer in late.layers if type(layer) is FakeQuantize)
    largest = images.max() * 2 / 255 - 1
    assert value(variable_map(late)["Tiny/preprocess_quant/max"]) == pytest.approx(largest, abs=1e-5)


def test_the_first_step_is_that_of_rounded_weights(untrained):
    """With statistics of the batch, and up to what the rounding of the maps does."""
    images, labels = batch()
    quantised, plain = twin(untrained, QUANTISED), twin(untrained, FLOAT)
    for layer in quantised.layers:
        if "kernel" in (values := weights_as_used(layer)):
            plain.get_layer(layer.name).kernel.assign(values["kernel"])
    found, expected = (float(step_of(model)(images, labels)["cross_entropy"]) for model in (quantised, plain))
    exact = float(step_of(twin(untrained, FLOAT))(images, labels)["cross_entropy"])
    assert found == pytest.approx(expected, rel=0.02) and found != exact


@pytest.mark.heavy
def test_xla_compiles_the_step(untrained):
    images, labels = batch()
    models = [twin(untrained, dataclasses.replace(FLOAT, quantize_delay_step=1)) for _ in range(2)]
    losses = []
    for model, compile_it in zip(models, (False, True), strict=True):
        step = step_of(model, jit_compile=compile_it, fine_tune_batch_norm=False)
        losses.append([float(step(images, labels)["total_loss"]) for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
    first, second = (variable_map(model) for model in models)
    for name in first:
        if name.endswith("_quant/max"):
            assert value(second[name]) == pytest.approx(value(first[name]), rel=0.02, abs=1e-3), name


@pytest.mark.heavy
def test_parts_of_a_batch_are_batches_of_their_own(untrained):
    images, labels = batch()
    model = twin(untrained, QUANTISED)
    step_of(model, gradient_accumulation_steps=2)(images, labels)
    halves = [np.maximum(images[part].max() * 2 / 255 - 1, 0) for part in (slice(0, 2), slice(2, 4))]
    assert value(variable_map(model)["Tiny/preprocess_quant/max"]) == pytest.approx(np.mean(halves), rel=1e-5)


def test_what_cannot_be_trained_quantised():
    with pytest.raises(DeepLabError, match="mixed_precision=bfloat16 with quantize_delay_step=0.*expected none"):
        step_of(build_model(QUANTISED), mixed_precision="bfloat16")
    devices = types.SimpleNamespace(worker_devices=("/device:CPU:0", "/device:CPU:1"))
    several = types.SimpleNamespace(num_replicas_in_sync=2, extended=devices)
    with pytest.raises(DeepLabError, match="quantize_delay_step=0 on several devices: expected one.*--num_clones=1"):
        deeplab_tf.make_train_step(build_model(QUANTISED), TrainConfig(), strategy=several)
    with pytest.raises(DeepLabError, match="quantize_delay_step: the NAS cells cannot be trained quantised"):
        build_model(ModelConfig(model_variant="nas_hnasnet", output_stride=8, quantize_delay_step=0))
    with pytest.raises(DeepLabError, match="quantize_delay_step=0: expected -1 with an image pyramid"):
        ModelConfig(image_pyramid=(0.5, 1.0), quantize_delay_step=0)


# ---- a run, and what comes of it

STEPS = 40


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("records")
    write_shapes(folder, "val", 4, (33, 33))
    return write_shapes(folder, "train", 24, (49, 41))


def run(records: str, folder, *, steps=STEPS, report=None, delay=5, **options):
    update = TrainConfig(optimizer="adam", training_number_of_steps=steps, adam_learning_rate=0.003)
    data = DataConfig(dataset="shapes", dataset_dir=records, crop_size=(33, 33), batch_size=4)
    options = {"train_logdir": str(folder), "log_steps": 1, "deterministic": True, **options}
    model = dataclasses.replace(FLOAT, quantize_delay_step=delay)
    observer = Recorder(report)
    return train(Experiment(model, update, data, RunConfig(**options)), observer=observer), observer.lines


@pytest.fixture(scope="module")
def trained(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised") / "run"
    outcome, _ = run(records, folder, recalibrate_batch_norm=10)
    assert outcome.step == STEPS
    return folder


@pytest.mark.heavy
def test_an_interrupted_run_goes_on_bit_for_bit(records, trained, tmp_path):
    def stop(progress):
        if progress.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped, _ = run(records, tmp_path / "cut", report=stop, recalibrate_batch_norm=10)
    assert stopped.stopped and stopped.step == 7
    resumed, _ = run(records, tmp_path / "cut", recalibrate_batch_norm=10)
    assert resumed.step == STEPS
    first, second = (
        tf.train.load_checkpoint(str(folder / f"model.ckpt-{STEPS}")) for folder in (trained, tmp_path / "cut")
    )
    names = set(first.get_variable_to_shape_map())
    assert names == set(second.get_variable_to_shape_map()) and "Tiny/Conv/act_quant/max" in names
    assert all(np.array_equal(first.get_tensor(name), second.get_tensor(name)) for name in names)


@pytest.mark.heavy
def test_a_checkpoint_without_ranges_may_start_a_run(untrained, records, tmp_path):
    card = ModelCard(FLOAT)
    save_model(tmp_path / "plain", untrained, Receipt("tests", "0" * 64, {}, {}), card=card)
    outcome, lines = run(records, tmp_path / "run", steps=1, tf_initial_checkpoint=str(tmp_path / "plain"))
    assert outcome.step == 1
    counted = dict(line.split()[:2] for line in "\n".join(lines).splitlines() if line.startswith("  "))
    ranges = [name for name in variable_map(build_model(QUANTISED)) if "_quant/" in name]
    slots = sum(2 for v in untrained.trainable_variables)
    assert int(counted["missing"]) == len(ranges)
    assert int(counted["new"]) == slots + 2  # and the two powers of Adam
    with pytest.raises(DeepLabError, match="variables are missing.*leave --quantize_delay_step out, or train with it"):
        open_model(tmp_path / "plain", {"quantize_delay_step": 0})


@pytest.mark.heavy
def test_a_run_is_read_as_it_was_trained(trained):
    images, _ = batch()
    assert json.loads((trained / "deeplab.json").read_text())["config"]["quantize_delay_step"] == 5
    opened, plain = open_model(trained), open_model(trained, {"quantize_delay_step": -1})
    assert any(isinstance(layer, FakeQuantize) for layer in opened.model.layers)
    assert not any(isinstance(layer, FakeQuantize) for layer in plain.model.layers)
    reasons = {entry["reason"] for name, entry in plain.receipt.skipped.items() if "_quant/" in name}
    assert reasons == {"range of quantised training"}
    asked = open_model(trained, {"quantize_delay_step": 0})
    found, again, exact = (predictor_of(o.model).probabilities(images) for o in (opened, asked, plain))
    np.testing.assert_array_equal(found, again)
    assert 1e-4 < np.abs(found - exact).mean() < 0.1
    by_hand = build_model(dataclasses.replace(QUANTISED, crop_size=(33, 33)), share_with=asked.model)
    scores = tf.nn.softmax(resize_bilinear(by_hand(images, training=False), (33, 33)))
    np.testing.assert_allclose(found, scores, atol=1e-6)


@pytest.mark.heavy
def test_the_ranges_stay_where_training_is_not(trained):
    opened = open_model(trained)
    before = {name: v.numpy() for name, v in variable_map(opened.model).items() if "_quant/" in name}
    images, _ = batch()
    recalibrate_batch_norm(opened.model, [images * 0.5])
    after = variable_map(opened.model)
    assert all(np.array_equal(after[name], value) for name, value in before.items())


# ---- exports


def test_ranges_are_taken_out_of_a_file():
    first, second = golden_tensor("a/weights", (3, 3, 3, 8)), golden_tensor("b/weights", (1, 1, 8, 4))

    @tf.function(input_signature=[tf.TensorSpec((1, 9, 9, 3))])
    def run(x):
        x = fake_quantized(x, -1.0, 1.0)
        x = fake_quantized(tf.nn.relu(tf.nn.conv2d(x, first, 2, "SAME")), 0.0, 3.0)
        return fake_quantized(tf.nn.conv2d(x, second, 1, "SAME"), -2.0, 5.0)

    model = unpack(convert(run.get_concrete_function()))
    ranges = take_ranges(model)
    (graph,), kinds = model.subgraphs, schema().BuiltinOperator
    assert [model.operatorCodes[op.opcodeIndex].builtinCode for op in graph.operators] == [kinds.CONV_2D] * 2
    chain = [graph.inputs[0], graph.operators[0].outputs[0], graph.outputs[0]]
    assert [op.inputs[0] for op in graph.operators] == chain[:2] and graph.operators[1].outputs[0] == chain[2]
    for index, (low, high) in zip(chain, [(-1.0, 1.0), (0.0, 3.0), (-2.0, 5.0)], strict=True):
        step = (high - low) / 255  # the ends move by less than that, to have 0 among the values
        np.testing.assert_allclose(ranges[int(index)], (-round(-low / step) * step, high), atol=step)
        assert ranges[int(index)][1] - ranges[int(index)][0] == pytest.approx(high - low)
    assert len(ranges) == 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    """A folder of pictures the network was not trained on."""
    import PIL.Image

    folder = tmp_path_factory.mktemp("pictures")
    for number in range(100, 112):
        PIL.Image.fromarray(shapes_example(0, number, height=33, width=33)[0]).save(folder / f"{number}.png")
    return str(folder)


def test_int8_agrees_better_than_after_training(trained, pictures, tmp_path):
    """No pictures give the ranges; the file does what the network that was trained does."""
    options = ExportConfig(precision="int8", images=(pictures,), num_images=12, min_agreement=0.5)
    learned = export(trained, tmp_path / "learned.tflite", options)
    later = dataclasses.replace(options, representative_images=(pictures,))
    observed = export(trained, tmp_path / "observed.tflite", later, quantize_delay_step=-1)
    assert learned["model"]["quantize_delay_step"] == 5 and "quantize_delay_step" not in observed["model"]
    assert learned["agreement"] >= observed["agreement"] and learned["agreement"] > 0.98
    assert learned["largest_probability_difference"] < 0.5 * observed["largest_probability_difference"]
    file, kinds = unpack((tmp_path / "learned.tflite").read_bytes()), schema().TensorType
    for graph, operation, _ in convolutions(file):
        places = (*operation.inputs[:2], operation.outputs[0])
        assert {graph.tensors[index].type for index in places} == {kinds.INT8}
    assert graph.tensors[graph.inputs[0]].type == kinds.UINT8


def test_logits_of_int8_are_those_of_the_network(trained, tmp_path):
    """Most to the step: the file rounds where the network does, but its sums are whole numbers."""
    options = ExportConfig(precision="int8", export_upsample="none", uint8_io=False, num_images=1, min_agreement=0.5)
    export(trained, tmp_path / "a.tflite", options)
    opened = open_model(trained)
    ranges = variable_map(opened.model)
    low, high = (value(ranges[f"logits/semantic/conv_quant/{leaf}"]) for leaf in ("min", "max"))
    lite = LiteModel((tmp_path / "a.tflite").read_bytes())
    images, _ = batch(6)
    expected = opened.model(images, training=False).numpy()
    found = np.concatenate([lite(image[None])[0] for image in images])
    difference = np.abs(found - expected) / ((high - low) / 255)
    assert np.mean(difference < 1.5) > 0.85 and difference.max() < 8


@pytest.mark.parametrize("name", ["saved", "a.tflite"])
def test_other_formats_calculate_as_the_network_does(name, trained, tmp_path):
    made = export(trained, tmp_path / name, ExportConfig(num_images=2, min_agreement=0.99))
    assert made["agreement"] >= 0.99


@pytest.mark.heavy
def test_hard_sigmoids_are_eight_bits_throughout(tmp_path):
    """They are rounded at their end, and known to be in 0..6 before."""
    config = dataclasses.replace(QUANTISED, model_variant="mobilenet_v3_small_seg", crop_size=(65, 65))
    card, receipt = ModelCard(config), Receipt("tests", "0" * 64, {}, {})
    save_model(tmp_path / "model", build_model(config), receipt, card=card)
    options = ExportConfig(precision="int8", num_images=1, min_agreement=0.0)
    made = export(tmp_path / "model", tmp_path / "a.tflite", options)
    assert not {"DEQUANTIZE", "HARD_SWISH"} & set(made["operations"])  # the logits are of eight bits too


def test_ranges_from_two_sides_are_refused(trained, pictures, tmp_path, capsys):
    flags = (f"--checkpoint_path={trained}", f"--export_path={tmp_path / 'a.tflite'}", "--precision=int8")
    assert finished(export_tool.run, *flags, f"--representative_images={pictures}") == 1
    assert "quantised training has given the network its ranges" in one_line(capsys.readouterr().err)
    assert finished(export_tool.run, *flags, "--quantize_delay_step=-1") == 1
    assert "--precision=int8 needs them" in one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
