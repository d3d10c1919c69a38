"""Sound inputs of every kind, small, and how each kind is damaged."""

import gzip
import io
import json
import pathlib
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import other_seeds
import PIL.Image
from mutations import damaged, damaged_json

_EMBEDDED = pathlib.Path(__file__).parents[2] / "checkpoints" / "shapes_resnet"
_KERNELS = {"aspp0/weights": (1, 1, 8, 4), "aspp0/BatchNorm/gamma": (4,), "logits/semantic/biases": (3,)}


def _arrays() -> dict[str, np.ndarray]:
    random_numbers = np.random.default_rng(0)
    return {name: random_numbers.normal(size=shape).astype(np.float32) for name, shape in _KERNELS.items()}


def _picture(size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)


def _encoded(kind: str, array: np.ndarray | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(_picture() if array is None else array).save(stream, kind, **options)
    return stream.getvalue()


# ---- weights


def _index(folder: pathlib.Path) -> None:
    from deeplab_tf.weights.tf1 import write_tensors

    write_tensors(folder / "small" / "model.ckpt", {**_arrays(), "global_step": np.int64(3)})
    shutil.copytree(_EMBEDDED, folder / "embedded")


def _first_version(folder: pathlib.Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in _arrays().items():
            v1.get_variable(name, initializer=value, use_resource=False)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1)
        saver.save(session, str(folder / "old.ckpt"), write_meta_graph=False, write_state=False)


def _archive(folder: pathlib.Path) -> None:
    _index(folder / "made")
    with tarfile.open(folder / "small.tar.gz", "w:gz") as archive:
        archive.add(folder / "made" / "small", "small")
    shutil.rmtree(folder / "made")


def _graph(folder: pathlib.Path) -> None:
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    for name, value in _arrays().items():
        node = graph.node.add(name=name, op="Const")
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    (folder / "frozen.pb").write_bytes(graph.SerializeToString())


def _tflite(folder: pathlib.Path) -> None:
    import flatbuffers

    from deeplab_tf.weights.lite_format import schema

    names = schema()
    model, graph = names.ModelT(), names.SubGraphT()
    model.version, model.buffers, graph.tensors = 3, [names.BufferT()], []
    named = {"aspp0/weights": (4, 1, 1, 8), "aspp0/Conv2D_bias": (4,), "logits/semantic/weights": (3, 1, 1, 4)}
    for name, shape in named.items():
        tensor, buffer = names.TensorT(), names.BufferT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), len(model.buffers)
        buffer.data = np.frombuffer(np.ones(shape, np.float32).tobytes(), np.uint8)
        model.buffers.append(buffer)
        graph.tensors.append(tensor)
    model.subgraphs = [graph]
    for stem in ("named", "nameless"):
        builder = flatbuffers.Builder(1 << 12)
        builder.Finish(model.Pack(builder), b"TFL3")
        (folder / f"{stem}.tflite").write_bytes(bytes(builder.Output()))
        for number, tensor in enumerate(graph.tensors):
            tensor.name = b"t%d" % number


def _caffemodel(folder: pathlib.Path) -> None:
    from test_caffe import net, new_layer, old_layer, random_layers

    for stem, layer in (("new", new_layer), ("old", old_layer)):
        (folder / f"{stem}.caffemodel").write_bytes(net(random_layers(), layer))


def _pth(folder: pathlib.Path) -> None:
    import torch_files

    torch_files.save(folder / "small.pth", _arrays())


def _safetensors(folder: pathlib.Path) -> None:
    import safetensors.numpy

    safetensors.numpy.save_file(_arrays(), str(folder / "small.safetensors"))


def _keras(folder: pathlib.Path) -> None:
    import deeplab_tf

    config = deeplab_tf.ModelConfig(model_variant="tiny", num_classes=3, aspp_convs_filters=8)
    model = deeplab_tf.build_model(config)
    model.save(folder / "small.keras")
    model.save(folder / "small.h5")


# ---- pictures and records


def _image(folder: pathlib.Path) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    grey = _picture()[..., 0] % 3
    for name, content in {
        "a.jpg": _encoded("JPEG"),
        "a.png": _encoded("PNG"),
        "label.png": _encoded("PNG", grey),
        "a.gif": _encoded("GIF"),
        "a.bmp": _encoded("BMP"),
        "a.webp": _encoded("WEBP"),
        "a.avif": _encoded("AVIF"),
        "a.heic": _encoded("HEIF"),
        "a.tif": _encoded("TIFF", compression="tiff_lzw"),
        "deep.png": _encoded("PNG", _picture()[..., 0].astype(np.uint16) * 200),
    }.items():
        (folder / name).write_bytes(content)


def _records(folder: pathlib.Path) -> None:
    from record_files import write_shapes

    write_shapes(folder / "set", "val", 3, (17, 19))


def _list(folder: pathlib.Path) -> None:
    root = folder / "set"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for number in range(2):
        (root / "images" / f"p{number}.jpg").write_bytes(_encoded("JPEG"))
        (root / "labels" / f"p{number}.png").write_bytes(_encoded("PNG", _picture()[..., number] % 3))
    (root / "train.txt").write_text("p0\n")
    (root / "val.txt").write_text("p1\n")
    (root / "class_names.txt").write_text("background\ncat\ndog\n")


# ---- JSON of ours and of others


def _card() -> dict[str, Any]:
    from deeplab_tf.config import ModelConfig
    from deeplab_tf.weights.model_directory import ModelCard

    config = ModelConfig(model_variant="tiny", num_classes=2, aspp_convs_filters=8, atrous_rates=(6, 12))
    card = ModelCard(config, dataset="shapes", class_names=("a", "b"), palette=((0, 0, 0), (1, 2, 3)), output_stride=16)
    return card.to_json()


def _run() -> dict[str, Any]:
    from deeplab_tf.config import DataConfig, RunConfig, TrainConfig

    values = {**vars(RunConfig()), **vars(TrainConfig()), **vars(DataConfig())}
    more = {
        "model": _card()["config"],
        "records": {
            "classes": ["a", "b"],
            "ignore_label": 255,
            "splits": {"train": {"records": 3, "digest": "abc" * 9}},
        },
        "places": {"training_number_of_steps": 10, "train_logdir": "x"},
        "changes": [{"step": 3, "base_learning_rate": [0.1, 0.2]}],
        "evaluation": {"eval_split": "val"},
        "dataset": "shapes",
    }
    return json.loads(json.dumps({**values, **more}, default=str))


def _certificate() -> dict[str, Any]:
    return {
        "checkpoint": "nowhere",
        "checkpoint_sha256": "0" * 64,
        "sha256": "0" * 64,
        "options": {"format": "tflite", "precision": "int8"},
        "model": _card()["config"],
        "output_stride": {"exported": 16, "trained": 8, "from": "the flag"},
        "dataset": "shapes",
        "class_names": ["a", "b"],
        "input_shape": [None, 33, 33, 3],
        "bytes": 1000,
        "versions": {"python": "3", "deeplab_tf": "1"},
        "agreement": 0.99,
        "miou": {"keras": 0.5, "exported": 0.4},
        "images": 3,
    }


def _json(folder: pathlib.Path) -> None:
    picture = {"name": "photo.jpg", "size": {"width": 30, "height": 20}}
    shape = {"label": "cat", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon", "group_id": None}
    labelme = {"imagePath": "p.jpg", "imageHeight": 20, "imageWidth": 30, "imageData": None, "shapes": [shape]}
    coco = {
        "images": [{"id": 1, "file_name": "p.jpg", "height": 20, "width": 30}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"size": [20, 30], "counts": [5, 10, 585]}},
        ],
    }
    supervisely = {"description": "", "size": picture["size"], "tags": [], "objects": []}
    scalar = {
        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
        "image": {"shape": {"dimensions": ["-1", "-1", "3"]}},
    }
    mask = {"image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "1"]}}}
    contents: dict[str, Any] = {
        "card/deeplab.json": _card(),
        "run/run.json": _run(),
        "dataset/dataset.json": {"name": "x", "class_names": ["a", "b"], "splits": {"train": 3}, "label_map": [[1, 2]]},
        "certificate/x.tflite.certificate.json": _certificate(),
        "cell/cell.json": [{"kernel": 3, "rate": [6, 6], "input": -1}, {"kernel": 1, "input": 0}],
        "hub/config.json": {"model_type": "mobilenet_v2", "num_labels": 2, "output_stride": 8, "hidden_act": "relu6"},
        "hub/preprocessor_config.json": {"do_resize": True, "size": {"shortest_edge": 513}, "crop_size": {"height": 5}},
        "scores/metrics.json": {"miou": 0.5, "pixel_accuracy": 0.9, "classes": [{"name": "a", "iou": 0.4}]},
        "log/metrics.jsonl": {"step": 3, "miou": 0.5, "cross_entropy": 1.5},
        "labelme/p.json": labelme,
        "coco/instances.json": coco,
        "supervisely/ann/p.jpg.json": supervisely,
        "supervisely/meta.json": {"classes": [{"title": "cat", "shape": "polygon", "color": "#FF0000"}]},
        "tfds/x/1.0.0/dataset_info.json": {"name": "x", "splits": [{"name": "train", "shardLengths": ["3"]}]},
        "tfds/x/1.0.0/features.json": {"featuresDict": {"features": {"image": scalar, "label": mask}}},
    }
    for name, values in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    for name in ("labelme", "coco"):
        (folder / name / "p.jpg").write_bytes(_encoded("JPEG"))
    (folder / "supervisely" / "img").mkdir()
    (folder / "supervisely" / "img" / "p.jpg").write_bytes(_encoded("JPEG"))
    (folder / "certificate" / "x.tflite").write_bytes(b"x")


MAKERS: dict[str, Callable[[pathlib.Path], None]] = {
    "index": _index,
    "first_version": _first_version,
    "archive": _archive,
    "graph": _graph,
    "tflite": _tflite,
    "caffemodel": _caffemodel,
    "pth": _pth,
    "safetensors": _safetensors,
    "keras": _keras,
    "image": _image,
    "records": _records,
    "list": _list,
    "json": _json,
    **other_seeds.MAKERS,
}


def make(root: pathlib.Path, kinds: Sequence[str] = ()) -> list[tuple[str, pathlib.Path]]:
    """Writes the seeds to <root>/<kind>/<name>; returns kind and place of each, a file or a folder."""
    unknown = [kind for kind in kinds if kind not in MAKERS]
    if unknown:
        raise SystemExit(f"--kinds={','.join(unknown)}: expected some of {', '.join(MAKERS)}")
    for kind in kinds or MAKERS:
        (root / kind).mkdir(parents=True)
        MAKERS[kind](root / kind)
    return listed(root)


def listed(root: pathlib.Path) -> list[tuple[str, pathlib.Path]]:
    """Returns kind and place of each seed below a folder."""
    return [(folder.name, seed) for folder in sorted(root.iterdir()) for seed in sorted(folder.iterdir())]


# ---- damage


def _forged_index(content: bytes, draw: random.Random) -> bytes:
    """Returns an index whose entries are damaged and whose checksums are right."""
    import tables

    from deeplab_tf.weights.sorted_table import read_table

    pairs = list(read_table(io.BytesIO(content), len(content)))
    for _ in range(draw.choice((1, 1, 3))):
        number = draw.randrange(len(pairs))
        key, value = pairs[number]
        pairs[number] = (
            (key, damaged(value, draw)) if draw.randrange(8) else (damaged(key, draw) if key else key, value)
        )
    return tables.table(sorted(pairs) if draw.randrange(8) else pairs)


def _inner(content: bytes, draw: random.Random) -> bytes:
    """Returns a ZIP archive with a damaged member in whole form."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(stream, "w") as after:
        members = before.namelist()
        victim = draw.choice(members)
        for name in members:
            value = before.read(name)
            change = damaged_json if name.endswith(".json") else damaged
            after.writestr(name, change(value, draw) if name == victim else value)
    return stream.getvalue()


def _damaged_file(kind: str, file: pathlib.Path, draw: random.Random) -> bytes:
    content = file.read_bytes()
    forged = draw.randrange(2)
    if forged and (file.suffix == ".index" or kind == "first_version"):
        return _forged_index(content, draw)
    if forged and file.suffix == ".gz":
        return gzip.compress(damaged(gzip.decompress(content), draw), 1)
    if forged and file.suffix in (".keras", ".pth", ".npz"):
        return _inner(content, draw)
    if file.suffix in (".json", ".jsonl"):
        return damaged_json(content, draw)
    return damaged(content, draw)


def damage(kind: str, seed: pathlib.Path, place: pathlib.Path, draw: random.Random) -> pathlib.Path:
    """Writes a damaged copy of a seed into a new folder, and returns its path; of a folder a file is damaged."""
    place.mkdir(parents=True)
    copy = place / seed.name
    (shutil.copytree if seed.is_dir() else shutil.copyfile)(seed, copy)
    victim = draw.choice(sorted(path for path in copy.rglob("*") if path.is_file())) if copy.is_dir() else copy
    victim.write_bytes(_damaged_file(kind, victim, draw))
    return copy
