"""Segmenter: pictures of every kind give the classes of their file; polygons give the classes back."""

import http.server
import io
import json
import threading

import keras
import numpy as np
import PIL.Image
import pytest
from networks import SMALL, lively

import deeplab_tf
from deeplab_tf.catalog.palettes import default_palette
from deeplab_tf.config import PredictConfig
from deeplab_tf.data.annotations.drawn import AnnotatedPicture
from deeplab_tf.data.shapes import shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.segmenter import Segmenter
from deeplab_tf.ops.given_pictures import picture_of_array
from deeplab_tf.ops.polygons import rings

OPTIONS = PredictConfig(runtime="tf", resize="none")
IMAGE = shapes_example(3, index=0, height=50, width=70)[0]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(lively(SMALL), OPTIONS)


@pytest.fixture(scope="module")
def expected(segmenter) -> np.ndarray:
    return deeplab_tf.predict(segmenter.model, IMAGE[None], runtime="tf")[0]


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    PIL.Image.fromarray(image).save(content, format="PNG")
    return content.getvalue()


FORMS = {
    "uint8": lambda image: image,
    "int64": lambda image: image.astype(np.int64),
    "floats up to 255": lambda image: image.astype(np.float32),
    "floats up to 1": lambda image: image.astype(np.float32) / 255,
    "doubles up to 1": lambda image: image / 255,
    "an image of Pillow's": PIL.Image.fromarray,
    "one with a palette": lambda image: PIL.Image.open(io.BytesIO(png(image))),
    "one with transparency": lambda image: PIL.Image.fromarray(image).convert("RGBA"),
    "bytes": png,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_classes(form, segmenter, expected):
    result = segmenter(FORMS[form](IMAGE))
    np.testing.assert_array_equal(result.classes, expected)
    np.testing.assert_array_equal(result.image, IMAGE)


def test_an_orientation_is_applied_as_of_files(segmenter, tmp_path):
    turned = PIL.Image.fromarray(np.rot90(IMAGE).copy())
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    by_file = segmenter(tmp_path / "turned.png")
    with PIL.Image.open(tmp_path / "turned.png") as image:
        by_pillow = segmenter(image)
    np.testing.assert_array_equal(by_file.image, by_pillow.image)
    np.testing.assert_array_equal(by_file.image, IMAGE)


def test_a_batch(segmenter, expected):
    batch = segmenter(np.stack([IMAGE, np.zeros_like(IMAGE)]) / 255.0)
    assert len(batch) == 2 and batch.classes.shape == (2, 50, 70)
    np.testing.assert_array_equal(batch[0].classes, expected)
    assert batch.probabilities.shape == (2, 50, 70, 6) and len(batch.shares) == 2


def test_a_list_of_pictures_and_open_files(segmenter, expected, tmp_path):
    (tmp_path / "a.png").write_bytes(png(IMAGE))
    with (tmp_path / "a.png").open("rb") as stream:
        batch = segmenter([tmp_path / "a.png", IMAGE / 255, PIL.Image.fromarray(IMAGE), stream, IMAGE[:33, :34]])
    for result in batch[:4]:
        np.testing.assert_array_equal(result.classes, expected)
    assert batch[4].classes.shape == (33, 34)
    with pytest.raises(DeepLabError, match=r"several sizes, 33 x 34 and 50 x 70 among them; take \[image\.colours"):
        _ = batch.colours
    with pytest.raises(DeepLabError, match=r"shape \(0, 9, 9, 3\): holds no images"):
        segmenter(np.zeros((0, 9, 9, 3), np.uint8))


def test_an_address(segmenter, expected):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 (the name is the standard library's)
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            if self.path == "/a.png":
                self.wfile.write(png(IMAGE))

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        np.testing.assert_array_equal(segmenter(f"{address}/a.png").classes, expected)
        with pytest.raises(DeepLabError, match="/b.png: the server answers 404"):
            segmenter(f"{address}/b.png")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(DeepLabError, match="cannot be fetched"):
        segmenter(f"{address}/a.png")


REFUSED = {
    "channels first": (np.moveaxis(IMAGE, -1, 0), r"np\.moveaxis\(image, 0, -1\)"),
    "transparency": (np.zeros((9, 9, 4), np.uint8), r"image\[\.\.\., :3\]"),
    "grey": (np.zeros((9, 9), np.uint8), r"np\.stack"),
    "grey with an axis": (np.zeros((9, 9, 1), np.uint8), r"np\.repeat\(image, 3, -1\)"),
    "no pixels": (np.zeros((0, 9, 3), np.uint8), r"shape \(0, 9, 3\)"),
    "text": (np.full((9, 9, 3), "a"), "expected uint8 or floats"),
    "truths": (np.ones((9, 9, 3), bool), "expected uint8 or floats"),
    "not numbers": (np.full((9, 9, 3), np.nan), "not finite"),
    "between the ranges": (IMAGE / 255 * 1.1, r"may be of 0\.\.1 or of 0\.\.255; give value_range"),
    "negative": (IMAGE / 127.5 - 1, "holds values from -0.95.* to 0.81.*; expected .*value_range"),
    "16 bits": (IMAGE.astype(np.uint16) * 257, "from 1542 to 59624; expected .*value_range"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_told_is_refused(kind):
    array, message = REFUSED[kind]
    with pytest.raises(DeepLabError, match=message) as error:
        picture_of_array(array, None)
    assert "\n" not in str(error.value)


def test_a_range_that_is_given(segmenter, expected):
    np.testing.assert_array_equal(segmenter(IMAGE / 127.5 - 1, value_range=(-1, 1)).classes, expected)
    sixteen = IMAGE.astype(np.uint16) * 257
    np.testing.assert_array_equal(segmenter(sixteen, value_range=(0, 65535)).classes, expected)
    with pytest.raises(DeepLabError, match=r"beyond value_range=\(0, 1\); clip them"):
        segmenter(IMAGE.astype(np.float32), value_range=(0, 1))
    with pytest.raises(DeepLabError, match="black below white"):
        segmenter(IMAGE, value_range=(1, 1))
    with pytest.raises(DeepLabError, match="is for arrays"):
        segmenter(png(IMAGE), value_range=(0, 1))


def test_the_result(segmenter, expected, tmp_path):
    result = segmenter(IMAGE)
    assert len(segmenter.class_names) == len(segmenter.palette) == 6
    assert result.probabilities.shape == (50, 70, 6) and result.probabilities is result.probabilities
    np.testing.assert_array_equal(result.probabilities.argmax(-1), expected)
    counts = np.bincount(expected.ravel(), minlength=6) / expected.size
    order = np.argsort(-counts, kind="stable")
    assert list(result.shares.items()) == [(segmenter.class_names[i], counts[i]) for i in order if counts[i]]
    np.testing.assert_array_equal(result.colours, np.array(segmenter.palette, np.uint8)[expected])
    assert result.overlay().shape == result.outlines().shape == IMAGE.shape
    assert result.overlay(legend=True).shape[0] > 50
    kinds = ["mask", "overlay", "raw", "probabilities", "outlines", "coco"]
    written = result.save(tmp_path / "out", stem="a", kinds=kinds)
    assert [file.name.partition("_")[2].partition(".")[0] for file in written] == kinds
    with PIL.Image.open(tmp_path / "out" / "a_raw.png") as raw:
        np.testing.assert_array_equal(np.array(raw), expected)
    with pytest.raises(DeepLabError, match="unknown kind of file 'masks'; did you mean mask"):
        result.save(tmp_path / "other", kinds=["masks"])
    assert not (tmp_path / "other").exists()


def drawn_again(values: dict, folder) -> np.ndarray:
    """Returns the label that build-data draws of a COCO file."""
    from deeplab_tf.data.annotations.coco import open_coco
    from deeplab_tf.data.annotations.raster import Painting, paint

    (folder / "train.json").write_text(json.dumps(values))
    (picture,) = open_coco([str(folder / "train.json")]).pictures()
    assert isinstance(picture, AnnotatedPicture)
    size = values["images"][0]["height"], values["images"][0]["width"]
    names = {category["name"]: category["id"] for category in values["categories"]}
    told = []
    label = paint(picture.shapes, size, Painting(names, 254, 255, "largest_first"), lambda *what: told.append(what))
    assert not told
    return label


def test_polygons_give_the_classes_back(segmenter, tmp_path):
    pytest.importorskip("pycocotools")
    result = segmenter(IMAGE)
    np.testing.assert_array_equal(drawn_again(result.to_coco(), tmp_path), result.classes)


@pytest.mark.parametrize("seed", range(4))
def test_rings_cover_masks_exactly(seed):
    draws = np.random.default_rng(seed)
    coarse = draws.random((6, 7)) < (0.3, 0.5, 0.6, 0.8)[seed]
    for mask in (coarse, np.kron(coarse, np.ones((3, 2), bool)), np.ones((4, 5), bool), np.zeros((3, 3), bool)):
        covered = np.zeros(mask.shape, int)
        for ring in rings(mask):
            across = ring[ring[:, 0] == np.roll(ring[:, 0], -1)]  # where upright edges begin
            nexts = np.roll(ring, -1, axis=0)[ring[:, 0] == np.roll(ring[:, 0], -1)]
            for (x, y), (_, to) in zip(across, nexts, strict=True):
                # Downward edges have the pixels on their left in the picture: they open what upward ones close.
                covered[min(y, to) : max(y, to), :x] += 1 if to > y else -1
        np.testing.assert_array_equal(covered, mask)


def test_it_takes_names_files_and_models(tmp_path):
    model = deeplab_tf.build_model(deeplab_tf.ModelConfig(model_variant="tiny", num_classes=3, crop_size=(33, 33)))
    model.save(tmp_path / "model.keras")
    by_file, by_model = Segmenter(tmp_path / "model.keras", OPTIONS), Segmenter(keras.Sequential([model]), OPTIONS)
    assert by_file.class_names == ("class 0", "class 1", "class 2")
    assert by_file.palette == default_palette(by_file.class_names)
    np.testing.assert_array_equal(by_file(IMAGE[:33, :33]).classes, by_model(IMAGE[:33, :33]).classes)
