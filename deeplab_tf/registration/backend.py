"""`require_tensorflow`: Keras runs on TensorFlow, JAX or PyTorch, and these networks on TensorFlow alone."""

import json
import os
import pathlib
import sys

from deeplab_tf.errors import DeepLabError


def _configured() -> tuple[str, str]:
    """Returns the backend that Keras has or will have, and what says so (keras/src/backend/config.py)."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        backend = str(keras.config.backend())
        return backend, f"KERAS_BACKEND={backend}"
    if named := os.environ.get("KERAS_BACKEND"):
        return named, f"KERAS_BACKEND={named}"
    folder = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path("~/.keras").expanduser())
    try:
        backend = json.loads((folder / "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # Keras makes it anew
        return "tensorflow", ""
    return str(backend), f"{folder / 'keras.json'}: backend={backend}"


def require_tensorflow() -> None:
    """Raises DeepLabError where Keras is set to another backend than TensorFlow; imports neither."""
    backend, origin = _configured()
    if backend != "tensorflow":
        raise DeepLabError(
            f"{origin}: these networks need tensorflow; set KERAS_BACKEND=tensorflow before Keras is imported, in a "
            "process of its own"
        )
