"""The libraries that run a .tflite of float32: LiteRT, ONNX Runtime and OpenVINO, and how each opens one."""

import contextlib
import dataclasses
import importlib
import importlib.util
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from deeplab_tf.errors import DeepLabError, OptionError, first_line
from deeplab_tf.inference.onnx_graph import INPUT, onnx_of
from deeplab_tf.inference.processor import available_cores
from deeplab_tf.inference.signal_stack import kept_signal_stack
from deeplab_tf.inference.tflite.convert import LiteModel

# Images float32 [1, h, w, 3] of the file's size -> its outputs.
Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Library:
    """A library that runs converted networks.

    Attributes:
      name: to be shown.
      extra: of this package that installs it.
      packages: that it needs, by the names they are imported by, with those they are installed by.
      open: opens the bytes of a .tflite; it may raise anything.
    """

    name: str
    extra: str
    packages: Mapping[str, str]
    open: Callable[[bytes], Run]

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for module, package in self.packages.items() if not _is_here(module)]

    def require(self, runtime: str) -> None:
        """Raises OptionError if it is not installed; `runtime` is its name as an option."""
        if self.missing:
            raise OptionError(
                f"--runtime={runtime} needs {self.name}: pip install 'deeplab_tf[{self.extra}]', or choose --runtime=tf"
            )


def _is_here(module: str) -> bool:
    with contextlib.suppress(ValueError):  # a module that was put in its place without a specification
        return importlib.util.find_spec(module) is not None
    return False


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """Makes a DeepLabError of one line of whatever a library called `name` raises."""
    try:
        yield
    except DeepLabError:
        raise
    except Exception as error:  # those of the libraries have nothing in common
        raise DeepLabError(f"{name} cannot run this network ({first_line(error)})") from None


def _open_onnx(content: bytes) -> Run:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 4  # nothing but what ends it
    session = runtime.InferenceSession(onnx_of(content), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {INPUT: images})


def openvino_request(core: Any, model: Any) -> Any:
    """Returns what runs a model of OpenVINO on the processor, in float32."""
    # By default it calculates in bfloat16 where the processor can.
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": available_cores(),
    }
    with kept_signal_stack():
        return core.compile_model(model, "CPU", settings).create_infer_request()


def _open_openvino(content: bytes) -> Run:
    openvino: Any = importlib.import_module("openvino")
    core = openvino.Core()
    with tempfile.TemporaryDirectory(prefix="deeplab_tf-") as folder:
        file = pathlib.Path(folder) / "network.tflite"  # it reads this format from a file only
        file.write_bytes(content)
        request = openvino_request(core, core.read_model(file))

    def run(images: np.ndarray) -> list[np.ndarray]:
        # The array of a result is used again by the next call.
        return [np.array(value) for value in request.infer([images], share_inputs=True).values()]

    return run


LITERT = Library("LiteRT", "litert", {"ai_edge_litert": "ai-edge-litert"}, LiteModel)
LIBRARIES: Mapping[str, Library] = {
    "tflite": LITERT,
    "onnx": Library("ONNX Runtime", "onnx", {"onnxruntime": "onnxruntime", "onnx": "onnx"}, _open_onnx),
    "openvino": Library("OpenVINO", "openvino", {"openvino": "openvino"}, _open_openvino),
}
