"""What fuzzing has found, one small input of each kind: it ends in one line of the user's."""

import io
import json
import zipfile

import numpy as np
import PIL.Image
import pytest
from golden import golden_image

from deeplab_tf import files
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.inference.clip_pieces import read_state
from deeplab_tf.inference.video_files import stored_arrays
from deeplab_tf.ops.images import read_image
from deeplab_tf.ops.photograph_files import open_photograph
from deeplab_tf.registration.backend import require_tensorflow
from deeplab_tf.serving.limits import Limits
from deeplab_tf.serving.pictures import decode_picture
from deeplab_tf.serving.refusal import Refused
from deeplab_tf.weights.run_options import changes_of


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


# ---- names of files


@pytest.mark.parametrize("name", ["a\0b.png", "\0", "gs://bucket/a\0"])
def test_a_name_with_a_character_0(name):
    with pytest.raises(DeepLabError, match="has a character 0") as error:
        files.path(name)
    one_line(error)


# ---- pictures


def pages() -> bytearray:
    """A TIFF of two pages."""
    stream = io.BytesIO()
    first, second = (PIL.Image.fromarray(golden_image("a", side, side + 1)) for side in (4, 3))
    first.save(stream, "TIFF", save_all=True, append_images=[second])
    return bytearray(stream.getvalue())


def test_pages_of_a_tiff_that_pillow_does_not_understand():
    """Its open lets some errors pass for another format; they come up where the pages are looked at later."""
    kinds, whole = set(), pages()
    for place in range(8, len(whole)):
        damaged = whole.copy()
        damaged[place] = 1 if damaged[place] != 1 else 7
        try:
            read_image(bytes(damaged))
        except DeepLabError as error:
            kinds.add(str(error).partition("(")[0])
            assert "\n" not in str(error)
    assert kinds


def array(header: bytes) -> bytes:
    """A .npy with a header of any text."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


HEADERS = {
    "deep": b"(" * 5000 + b"\n",
    "open": b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 2\n",
    "text": b"{'descr': '''\n",
    "kind": b"{'descr': [], 'fortran_order': False, 'shape': (2, 2, 2)}\n",
    "huge": b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999, 9999999999, 3)}\n",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_headers_of_arrays(header):
    from deeplab_tf.catalog.image_facts import ImageFacts

    with pytest.raises(DeepLabError, match=r"a \.npy that cannot be read|array of shape") as error:
        open_photograph(array(header)).pixels()
    one_line(error)
    facts = ImageFacts(3, "float32", ((0, 200),), (100.0,) * 3)
    with pytest.raises(Refused, match=r"a \.npy that") as error:
        decode_picture(array(header), Limits(1000), image=facts)
    one_line(error)


# ---- unfinished clips

SIZE = (4, 6)
STATE = {
    "grey": np.zeros(SIZE, np.uint8),
    "own": np.zeros(SIZE, np.int32),
    "labels": np.zeros(SIZE, np.int32),
    "probabilities": np.zeros((*SIZE, 3), np.float32),
}


def test_the_state_of_an_unfinished_clip(tmp_path):
    np.savez(tmp_path / "state.npz", **STATE)
    found = read_state(tmp_path / "state.npz", SIZE)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in STATE.items()}


OTHERS = {
    "missing": {name: value for name, value in STATE.items() if name != "own"},
    "size": {**STATE, "grey": np.zeros((5, 6), np.uint8)},
    "kind": {**STATE, "labels": np.zeros(SIZE, np.float32)},
    "sides": {**STATE, "probabilities": np.zeros(SIZE, np.float32)},
    "number": {**STATE, "grey": np.uint8(3)},
    "objects": {**STATE, "grey": np.full(SIZE, None)},
}


@pytest.mark.parametrize("arrays", OTHERS.values(), ids=OTHERS)
def test_a_state_that_is_none(arrays, tmp_path):
    np.savez(tmp_path / "state.npz", **arrays)
    with pytest.raises(DamagedError, match="begin anew") as error:
        read_state(tmp_path / "state.npz", SIZE)
    one_line(error)


def test_an_archive_of_arrays_that_is_none(tmp_path):
    file = tmp_path / "labels.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("labels", b"no array")  # of which NumPy gives the bytes
        archive.writestr("cut.npy", array(HEADERS["open"]))
    assert stored_arrays(file, "labels")["labels"].dtype.kind == "S"
    whole = file.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole):
        file.write_bytes(content)
        with pytest.raises(DamagedError, match="begin anew") as error:
            stored_arrays(file, "cut")
        one_line(error)


# ---- JSON of ours


@pytest.mark.parametrize(
    "value", [{"classes": 5}, {"classes": [1], "ignore_label": None}, {"a": {"records": []}}, [1], "x"]
)
def test_options_of_a_run_of_other_types(value, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"model": {}, "dataset": "shapes", "seed": value}))
    with pytest.raises(DeepLabError, match="belongs to another experiment") as error:
        changes_of(tmp_path, {"model": {}, "dataset": "shapes", "seed": 1, "records": {}})
    one_line(error)


def test_a_keras_json_that_is_nested_too_deep(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text("[" * 100_000)
    require_tensorflow()


def test_results_of_a_pipeline_that_are_damaged(tmp_path):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    from deeplab_tf.inference.beam import read_results

    (tmp_path / "results-00000.jsonl").write_text('{"image": "a.png"}\n[1]\n')
    results = read_results(tmp_path)
    assert next(results) == {"image": "a.png"}
    with pytest.raises(DamagedError, match="results-00000.jsonl: damaged .*predict again") as error:
        next(results)
    one_line(error)
