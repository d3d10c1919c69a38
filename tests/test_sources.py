"""Weights wherever they are: folders, archives, frozen graphs, TFLite; and files that are none of these."""

import tarfile

import numpy as np
import pytest
import tensorflow as tf
from conftest import case_config
from golden import golden_tensor

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.weights.lite_format import schema
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.tf1 import load_source, load_tf1_checkpoint, variable_map, write_tensors

v1 = tf.compat.v1
SMALL = ModelConfig(depth_multiplier=0.25, num_classes=3, aspp_convs_filters=16)


@pytest.fixture(scope="module")
def model():
    return build_model(SMALL)


@pytest.fixture(scope="module")
def tensors(model):
    return {name: golden_tensor(name, tuple(v.shape)) for name, v in variable_map(model).items()}


@pytest.fixture
def folder(tmp_path, tensors):
    write_tensors(tmp_path / "deeplabv3_small" / "model.ckpt-30000", tensors)
    return tmp_path / "deeplabv3_small"


def _archive(folder, path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return path


def test_every_way_to_name_a_checkpoint(folder, tmp_path, model, tensors):
    prefix = folder / "model.ckpt-30000"
    archive = _archive(folder, tmp_path / "small.tar.gz")
    ways = [prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00001", folder, tmp_path / "deeplabv3_small", archive]
    for way in ways:
        with open_source(way) as source:
            assert dict(source.shapes) == {n: v.shape for n, v in tensors.items()}, way
            assert np.array_equal(source.read("aspp0/weights"), tensors["aspp0/weights"])
        assert load_tf1_checkpoint(model, way).source == str(way)


def test_the_hash_is_the_archives_or_the_files(folder, tmp_path):
    with open_source(folder) as by_folder, open_source(folder / "model.ckpt-30000") as by_prefix:
        assert by_folder.sha256 == by_prefix.sha256
    with open_source(_archive(folder, tmp_path / "small.tar.gz")) as by_archive:
        assert by_archive.sha256 != by_prefix.sha256


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing", None, "no such file"),
        ("text.ckpt", b"not a checkpoint at all", "damaged"),
        ("empty.ckpt", b"", "damaged"),
        ("text.tar.gz", b"not an archive", "archive"),
        ("text.pb", b"not a graph \xff\xff", "damaged"),
        ("empty.pb", b"", "no weights"),
        ("text.tflite", b"not a model", "not a TFLite model"),
        ("short.tflite", b"\x1c\0\0\0TFL3\0\0\0\0", "damaged"),
    ],
)
def test_files_that_are_no_weights(name, content, expected, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeepLabError, match=expected) as caught, open_source(path):
        pass
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_index_without_its_data_is_named(folder):
    (folder / "model.ckpt-30000.data-00000-of-00001").unlink()
    for way in (folder, folder / "model.ckpt-30000"):
        with pytest.raises(DeepLabError, match="model.ckpt-30000"), open_source(way):
            pass


def test_an_archive_with_a_path_outside_is_refused(folder, tmp_path):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / "model.ckpt-30000.index", arcname="../model.ckpt.index")
    with pytest.raises(DeepLabError, match="outside"), open_source(path):
        pass
    assert not (tmp_path.parent / "model.ckpt.index").exists()


def _frozen(tensors) -> bytes:
    """A graph as the release's freeze_graph leaves it: the variables as constants behind their reads."""
    with tf.Graph().as_default() as graph, v1.Session() as session:
        reads = []
        for name, value in tensors.items():
            variable = v1.get_variable(name, initializer=value, use_resource=False)
            reads.append(tf.reduce_sum(variable))
        output = tf.add_n(reads, name="SemanticPredictions")
        tf.constant(3, name="other/shape")
        session.run(v1.global_variables_initializer())
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [output.op.name])
    return frozen.SerializeToString()


def test_frozen_graph(tmp_path, model, tensors):
    path = tmp_path / "frozen_inference_graph.pb"
    path.write_bytes(_frozen(tensors))
    loaded = open_model(path)
    assert loaded.card.config.num_classes == 3 and loaded.card.config.depth_multiplier == 0.25
    for name, variable in variable_map(loaded.model).items():
        assert np.array_equal(variable.numpy(), tensors[name]), name
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DeepLabError, match="frozen_inference_graph"):
        open_model(path)


def test_frozen_graphs_that_say_more_than_they_hold(tmp_path):
    graph = v1.GraphDef()
    node = graph.node.add(name="aspp0/weights", op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.ones(3, np.float32)))
    path = tmp_path / "odd.pb"
    for sizes, expected in (((1 << 30,), "repeated into more than"), ((-3,), r"has the shape \[-3\]")):
        changed = v1.GraphDef.FromString(graph.SerializeToString())
        proto = changed.node[0].attr["value"].tensor
        proto.ClearField("tensor_content")
        proto.float_val.append(1.0)
        proto.tensor_shape.ClearField("dim")
        for size in sizes:
            proto.tensor_shape.dim.add().size = size
        path.write_bytes(changed.SerializeToString())
        with pytest.raises(DeepLabError, match=expected), open_source(path):
            pass
    graph.node.add().CopyFrom(graph.node[0])
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(DeepLabError, match="the node 'aspp0/weights' is there twice"), open_source(path):
        pass


def test_float_tflite_gives_the_checkpoint_bit_for_bit(shared):
    """The published float model and the checkpoint made from it hold the same weights."""
    with (
        open_source(shared / "real" / "deeplabv3_257_mv_gpu.tflite") as lite,
        open_source(shared / "real" / "deeplabv3_mnv2_dm05_pascal") as checkpoint,
    ):
        assert set(lite.shapes) == set(checkpoint.shapes) - {"global_step"}
        for name in lite.shapes:
            assert lite.read(name).tobytes() == checkpoint.read(name).tobytes(), name
        model = build_model(ModelConfig(depth_multiplier=0.5))
        assert len(load_source(model, lite).loaded) == 272


def test_quantised_tflite_gives_kernels_biases_and_ranges(shared):
    with open_source(shared / "real" / "deeplabv3_mnv2_pascal_quant.tflite") as source:
        assert source.shapes["MobilenetV2/Conv/weights"] == (3, 3, 3, 32)
        assert source.read("MobilenetV2/preprocess_quant/max") == np.float32(127 / 128)
        assert source.known["quantize_as_file"] and source.known["crop_size"] == (513, 513)
        levels = source.read("logits/semantic/weights") / 0.0040087
        np.testing.assert_allclose(levels, np.rint(levels), atol=0.01)


def test_folded_tflite_of_another_head(tmp_path):
    """A converted MobileNetV3 head (gate and decoder with biases, no logits scope) comes back by its names."""
    flags = {
        "model_variant": "mobilenet_v3_small_seg",
        "aspp_with_concat_projection": False,
        "aspp_with_squeeze_and_excitation": True,
        "decoder_use_sum_merge": True,
        "decoder_filters": 19,
        "decoder_output_is_logits": True,
        "decoder_output_stride": ["8"],
        "aspp_convs_filters": 128,
    }
    values = {"flags": flags, "atrous_rates": None, "output_stride": 32, "num_classes": 19, "height": 65, "width": 65}
    variables = variable_map(build_model(case_config(values)))
    folded = {n: golden_tensor(n, tuple(v.shape)) for n, v in variables.items() if n.endswith("weights")}
    biases = {n: golden_tensor(n, tuple(v.shape)) for n, v in variables.items() if n.endswith(("biases", "beta"))}
    path = tmp_path / "v3.tflite"
    path.write_bytes(_tflite(folded, biases))
    with open_source(path) as source:
        assert dict(source.shapes) == {n: tuple(v.shape) for n, v in variables.items()}
        for name, value in {**folded, **biases}.items():
            assert np.array_equal(source.read(name), value), name
        assert np.all(source.read("aspp0/BatchNorm/moving_variance") == np.float32(1 - 1e-5))
        assert np.all(source.read("MobilenetV3/Conv/BatchNorm/moving_variance") == np.float32(1 - 1e-3))


def _tflite(weights, biases) -> bytes:
    """A flatbuffer that holds nothing but constants, named as the release's converter names them."""
    import flatbuffers

    names = schema()
    model, graph = names.ModelT(), names.SubGraphT()
    model.version, model.buffers, graph.tensors = 3, [names.BufferT()], []
    named = {n: v.transpose(3, 0, 1, 2) for n, v in weights.items()}
    for name, value in biases.items():
        scope = name.removesuffix("/biases").removesuffix("/BatchNorm/beta")
        named[f"{scope}/{'depthwise' if scope.endswith('depthwise') else 'Conv2D'}_bias"] = value
    for name, value in named.items():
        tensor, buffer = names.TensorT(), names.BufferT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(value.shape), len(model.buffers)
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        model.buffers.append(buffer)
        graph.tensors.append(tensor)
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
