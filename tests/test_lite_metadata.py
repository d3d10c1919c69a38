"""What a .tflite says of itself: read back by hand, passed over by LiteRT and our readers, and run by MediaPipe."""

import dataclasses
import io
import re
import zipfile

import flatbuffers
import numpy as np
import PIL.Image
import pytest
from commands import finished
from exports import certificate_of, exported
from golden import golden_image

from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example, write_shapes
from deeplab_tf.exporting.lite_metadata import mediapipe
from deeplab_tf.inference.tflite.convert import LiteModel
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.tools import predict as predict_tool
from deeplab_tf.weights.lite_format import schema
from deeplab_tf.weights.model_directory import ModelCard

SIZE = (97, 129)
CROP = "--crop_size=97,129"


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """The embedded network as it is exported where nothing but the size is said."""
    return exported(tmp_path_factory.mktemp("lite"), "net.tflite", CROP)


# ---- the fields, by their numbers in metadata_schema.fbs


class Table:
    """A table of a FlatBuffer, read field by field."""

    def __init__(self, content: bytes, place: int | None = None) -> None:
        start = int.from_bytes(content[:4], "little") if place is None else place
        self._content, self._table = content, flatbuffers.table.Table(bytearray(content), start)

    def _at(self, field: int) -> int:
        offset = self._table.Offset(4 + 2 * field)
        return offset and self._table.Pos + offset

    def text(self, field: int) -> str:
        return self._table.String(self._at(field)).decode()

    def byte(self, field: int) -> int:
        place = self._at(field)
        return self._table.Get(flatbuffers.number_types.Int8Flags, place) if place else 0

    def integer(self, field: int) -> int:
        return self._table.Get(flatbuffers.number_types.Uint32Flags, self._at(field))

    def table(self, field: int) -> "Table":
        return Table(self._content, self._table.Indirect(self._at(field)))

    def tables(self, field: int) -> list["Table"]:
        if not self._at(field):
            return []
        offset = self._at(field) - self._table.Pos
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return [Table(self._content, self._table.Indirect(start + 4 * number)) for number in range(count)]

    def data(self, field: int, dtype: str = "u1") -> np.ndarray:
        offset = self._at(field) - self._table.Pos
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return np.frombuffer(self._content, dtype, count, start)


def metadata_of(content: bytes) -> Table:
    model = schema().Model.GetRootAs(content)
    entries = {model.Metadata(n).Name(): model.Metadata(n).Buffer() for n in range(model.MetadataLength())}
    found = model.Buffers(entries[b"TFLITE_METADATA"]).DataAsNumpy().tobytes()
    assert found[4:8] == b"M001"
    return Table(found)


def labels_of(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        return archive.read(entry).decode().splitlines()


def test_a_file_says_what_it_takes_and_gives(default):
    content, names = default.read_bytes(), certificate_of(default)["class_names"]
    found = metadata_of(content)
    assert "resnet" in found.text(0) and found.text(2).startswith("deeplab_tf ") and found.text(7) == "1.5.0"
    (graph,) = found.tables(3)
    (image,), (masks,), (custom,) = (graph.tables(field) for field in (2, 3, 9))
    assert (image.text(0), image.table(3).byte(0), image.table(3).table(1).byte(0)) == ("image", 2, 1)  # RGB
    size = image.table(3).table(1).table(1)
    assert (size.integer(1), size.integer(0)) == SIZE
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1 and [list(unit.table(1).data(field, "<f4")) for field in (0, 1)] == [[0.0], [1.0]]
    assert [list(image.table(5).data(field, "<f4")) for field in (0, 1)] == [[255.0], [0.0]]
    (file,) = masks.tables(6)
    assert (masks.text(0), file.text(0), file.byte(2)) == ("segmentation_masks", "labels.txt", 2)  # by channels
    segmenter = custom.data(1).tobytes()
    assert (custom.text(0), segmenter[4:8]) == ("SEGMENTER_METADATA", b"V001")
    assert (Table(segmenter).byte(0), Table(segmenter).text(1)) == (2, "1.0.0")  # a softmax makes probabilities
    assert labels_of(content) == names and len(names) == 9


def test_constants_lie_where_the_format_asks(default):
    content = default.read_bytes()
    model = schema().Model.GetRootAs(content)
    whole = np.frombuffer(content, np.uint8)
    for number in range(model.BuffersLength()):
        data = model.Buffers(number).DataAsNumpy()
        if isinstance(data, np.ndarray):
            assert (data.__array_interface__["data"][0] - whole.__array_interface__["data"][0]) % 16 == 0


def test_a_file_of_classes_says_so(tmp_path):
    path = exported(tmp_path, "net.tflite", CROP, "--export_upsample=argmax", "--num_images=1")
    (graph,) = metadata_of(path.read_bytes()).tables(3)
    (masks,), (custom,) = graph.tables(3), graph.tables(9)
    (file,) = masks.tables(6)
    assert file.byte(2) == 3 and Table(custom.data(1).tobytes()).byte(0) == 0  # labels by values, no activation
    found = certificate_of(path)["mediapipe"]
    assert found.startswith("does not read it: it gives classes") and "--export_upsample=logits" in found
    (classes,) = LiteModel(path.read_bytes())(golden_image("lite", *SIZE)[None])
    assert (classes.dtype, classes.shape) == (np.int32, (1, *SIZE))


@pytest.mark.heavy
def test_our_own_readers_pass_over_it(default, tmp_path):
    """The file is its certificate's to the bit, runs in LiteRT, and predicts."""
    picture = golden_image("lite", *SIZE)
    PIL.Image.fromarray(picture).save(tmp_path / "a.png")
    flags = (f"--checkpoint={default}", f"--input={tmp_path}/a.png", f"--output_dir={tmp_path}/out", "--save=raw")
    assert finished(predict_tool, *flags) == 0
    (logits,) = LiteModel(default.read_bytes())(picture[None])
    found = np.asarray(PIL.Image.open(tmp_path / "out/a_raw.png"))
    np.testing.assert_array_equal(found, logits[0].argmax(-1))
    assert certificate_of(default)["mediapipe"] == "reads it"
    again = exported(tmp_path, "net.tflite", CROP, "--num_images=1")
    assert again.read_bytes() == default.read_bytes()  # no time, no place is in it


CARD = ModelCard(ModelConfig("tiny", num_classes=3))
REFUSED = {
    "classes": (CARD, {"export_upsample": "argmax"}, "it gives classes.*--export_upsample=logits"),
    "averaged": (CARD, {"add_flipped_images": True}, "it averages scales or flips"),
    "bands": (
        dataclasses.replace(CARD, image=ImageFacts(5, "uint16", ((0, 200),), (100.0,) * 5)),
        {},
        "other images than RGB",
    ),
    "many": (dataclasses.replace(CARD, config=ModelConfig("tiny", num_classes=300)), {}, "it has 300 classes"),
}


@pytest.mark.parametrize(("card", "options", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_mediapipe_does_not_read(card, options, expected):
    found = mediapipe(b"", card, ExportConfig(uint8_io=False, **options).for_path("net.tflite"))
    assert found.startswith("does not read it: ")
    assert re.search(expected, found)


# ---- MediaPipe itself


def segmented(path, picture: np.ndarray):
    """Returns MediaPipe's classes and probabilities of a picture, and its names of the classes."""
    mp = pytest.importorskip("mediapipe", reason="the extra `mediapipe` is not installed")
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_path=str(path)),
        output_category_mask=True,
        output_confidence_masks=True,
    )
    with vision.ImageSegmenter.create_from_options(options) as segmenter:
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
        result = segmenter.segment(image)
        classes = result.category_mask.numpy_view().reshape(picture.shape[:2]).copy()
        shares = [mask.numpy_view().reshape(picture.shape[:2]).copy() for mask in result.confidence_masks]
        return classes, np.stack(shares, -1), list(segmenter.labels)


def compare(path, at_least: float, *, whole: bool = True) -> None:
    """Compares MediaPipe with the file as LiteRT runs it, on drawn shapes; `whole`: its scores are of all pixels."""
    for number in range(2):
        picture, _ = shapes_example(0, FIRST_INDEX["test"] + number, height=SIZE[0], width=SIZE[1])
        (logits,) = LiteModel(path.read_bytes())(picture[None])
        logits = logits if whole else resize_bilinear(logits, SIZE).numpy()
        exponents = np.exp(logits[0] - logits[0].max(-1, keepdims=True))
        classes, shares, names = segmented(path, picture)
        assert names == certificate_of(path)["class_names"]
        assert np.mean(classes == logits[0].argmax(-1)) >= at_least
        if whole:
            np.testing.assert_allclose(shares, exponents / exponents.sum(-1, keepdims=True), atol=2e-3)


def test_mediapipe_gives_the_classes_of_the_default_file(default):
    """Issue 17, acceptance 3."""
    compare(default, 0.999)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "flags",
    ["--uint8_io=false", "--precision=float16", "--precision=dynamic", "--precision=int8", "--export_upsample=none"],
)
def test_mediapipe_gives_the_classes_of_other_files(flags, tmp_path):
    pytest.importorskip("mediapipe", reason="the extra `mediapipe` is not installed")
    more = [f"--representative_images={write_shapes(tmp_path / 'data', splits={'val': 4})}/JPEGImages"]
    path = exported(tmp_path, "net.tflite", CROP, "--num_images=1", flags, *(more if "=int8" in flags else []))
    whole = "none" not in flags
    assert certificate_of(path)["mediapipe"].startswith("reads it" if whole else "reads its classes")
    compare(path, 0.999, whole=whole)
