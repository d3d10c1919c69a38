"""Sound inputs that are no weights and no JSON of ours: bands, annotations, clips, caches, requests, logs of state."""

import base64
import io
import json
import pathlib
from typing import Any

import numpy as np
import PIL.Image


def _pixels(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(2).integers(0, 200, shape).astype(dtype)


def _picture(kind: str) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(_pixels(20, 30, 3, dtype="uint8")).save(stream, kind)
    return stream.getvalue()


def bands(folder: pathlib.Path) -> None:
    """Photographs of many bands or bits."""
    import tifffile

    np.save(folder / "five.npy", _pixels(20, 30, 5))
    np.save(folder / "grey.npy", _pixels(20, 30, dtype="float32"))
    for name, compression in (("plain", None), ("lzw", "lzw"), ("deflate", "zlib"), ("packbits", "packbits")):
        tifffile.imwrite(folder / f"{name}.tif", _pixels(20, 30, 5), compression=compression, planarconfig="contig")
    tifffile.imwrite(folder / "tiles.tif", _pixels(40, 40, 5), tile=(16, 16), photometric="minisblack")
    tifffile.imwrite(folder / "pages.tif", _pixels(5, 20, 30), photometric="minisblack")
    tifffile.imwrite(folder / "float.tif", _pixels(20, 30, dtype="float32"), predictor=True, compression="zlib")


def annotations(folder: pathlib.Path) -> None:
    """A data set in every format of annotations."""
    import annotated

    for name, make in annotated.MAKERS.items():
        make(folder / name)


def clip(folder: pathlib.Path) -> None:
    """Clips of a few frames."""
    import av

    frames = [PIL.Image.fromarray(_pixels(32, 48, 3, dtype="uint8") // (1 + n)) for n in range(3)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "mpeg4"), ("a.avi", "mjpeg")):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = 48, 32
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_image(frame)))
            container.mux(stream.encode(None))


def decoded(folder: pathlib.Path) -> None:
    """A picture of the cache of decoded ones."""
    from deeplab_tf.data.decoded_cache import DecodedCache

    (folder / "cache").mkdir()
    cache = DecodedCache(str(folder / "cache"))
    cache._write(
        0, _pixels(4, 6, 3, dtype="uint8"), _pixels(4, 6, 1, dtype="uint8"), b"a", np.array([4, 6]), np.int32(0)
    )


def pieces(folder: pathlib.Path) -> None:
    """What a clip that was broken off leaves, and arrays where weights are expected."""
    weights: Any = {"logits/semantic/weights": _pixels(1, 1, 8, 3, dtype="float32")}
    np.savez(folder / "weights.npz", **weights)
    place = folder / "piece"
    place.mkdir()
    kinds = {"grey": ("uint8",), "own": ("int32",), "labels": ("int32",), "probabilities": ("float32", 3)}
    state: Any = {name: _pixels(16, 20, *rest, dtype=kind) for name, (kind, *rest) in kinds.items()}
    np.savez(place / "state.npz", **state)


def request(folder: pathlib.Path) -> None:
    """Bodies of the server's requests."""
    encoded = {"b64": base64.b64encode(_picture("PNG")).decode()}
    jpeg = {"b64": base64.b64encode(_picture("JPEG")).decode()}
    rows = _pixels(3, 4, 3, dtype="uint8").tolist()
    for name, values in {
        "encoded": {"signature_name": "image_bytes", "instances": [encoded, {"image_bytes": jpeg}]},
        "columns": {"inputs": {"image_bytes": [encoded, jpeg]}},
        "pixels": {"instances": [{"ImageTensor": rows}]},
        "lists": {"signature_name": "serving_default", "inputs": [rows, rows]},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    (folder / "picture.jpg").write_bytes(_picture("JPEG"))
    (folder / "picture.webp").write_bytes(_picture("WEBP"))


def tokens(folder: pathlib.Path) -> None:
    """The server's file of tokens."""
    (folder / "tokens.txt").write_text("# mine\n0123456789abcdef0123\nABCDEFGHIJKLMNOPqrst\n")


MAKERS = {
    "bands": bands,
    "annotations": annotations,
    "clip": clip,
    "decoded": decoded,
    "pieces": pieces,
    "request": request,
    "tokens": tokens,
}
