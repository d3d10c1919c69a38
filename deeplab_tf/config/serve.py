"""ServeConfig: where the server listens and which requests it takes. Import it from deeplab_tf.config."""

import dataclasses
import re
from typing import Literal, get_args

from deeplab_tf.config.fields import option, path_option
from deeplab_tf.config.inference import LONGEST_SIDE, Exactness
from deeplab_tf.errors import unknown_name

Runtime = Literal["auto", "tf", "tf_frozen", "tflite", "onnx", "openvino"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
_LARGEST_PORT = 65535


@dataclasses.dataclass(frozen=True)
class ServeConfig(Exactness, group="what"):
    """How a model is served over HTTP, and the limits of a client's requests."""

    host: str = option("127.0.0.1", "address to listen on; the default is for this machine alone, 0.0.0.0 for all")
    port: int = option(8501, "port to listen on, TensorFlow Serving's for REST; 0: any that is free")
    model_name: str = option("deeplab", "the model's name in /v1/models/<name>")
    runtime: Runtime = option(
        "auto",
        "what runs the network: tf, tf_frozen, tflite (LiteRT), onnx, openvino, or auto: the fastest",
        group="devices",
    )
    longest_side: int = option(LONGEST_SIDE, "the page's photographs are shrunk or enlarged to this longest side first")
    max_body_mb: float = option(
        16.0, "largest body of a request in megabytes; larger ones get status 413", group="limits"
    )
    max_pixels: int = option(
        25_000_000,
        "most pixels of a request's images, decoded and padded for the network; more get status 413",
        group="limits",
    )
    max_images: int = option(64, "most images of a request; more get status 413", group="limits")
    timeout_secs: float = option(
        60.0, "seconds from a whole request to its answer; longer gets status 504", group="limits"
    )
    read_timeout_secs: float = option(
        10.0, "seconds in which a request must arrive; slower ones get status 408", group="limits"
    )
    max_requests: int = option(256, "requests at a time; more get status 503, to come back later", group="limits")
    max_batch_size: int = option(
        8, "images of one size that run together where that is faster (in TensorFlow)", group="devices"
    )
    batch_wait_ms: float = option(
        2.0, "milliseconds that an image waits for others of its size to come", group="devices"
    )
    allow_origin: tuple[str, ...] | None = option(
        None,
        "origins whose pages may send requests too, as https://example.org; * for all; unset: the page's own alone",
        group="access",
    )
    token_file: str | None = path_option(
        None, "file with a token a line, one of which a request has to bring; unset: requests need none", group="access"
    )
    tls_certificate: str | None = path_option(
        None,
        "PEM file with the certificate, and those between it and its authority, for https; unset: http",
        group="access",
    )
    tls_key: str | None = path_option(
        None, "PEM file with the key of --tls_certificate; unset: it is in that file", group="access"
    )
    log_requests: bool = option(True, "a line for each request on standard error, with its id", group="logging")
    examples: str | None = path_option(
        None,
        "folder of photographs that the page offers, the first six; empty: none; unset: six of the pictures that the "
        "model's run is scored on, where only this machine can see the page (drawn shapes for a model of these)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runtime not in RUNTIMES:
            raise unknown_name("runtime", self.runtime, RUNTIMES)
        self._require("port", 0 <= self.port <= _LARGEST_PORT, f"expected 0 to {_LARGEST_PORT}")
        good = re.fullmatch(r"[A-Za-z0-9_.-]+", self.model_name) is not None
        self._require("model_name", good, "expected letters, digits, _, - and . only")
        self._require_at_least(1, "longest_side", "max_pixels", "max_images", "max_requests", "max_batch_size")
        for name in ("max_body_mb", "timeout_secs", "read_timeout_secs"):
            self._require(name, getattr(self, name) > 0, "expected a number above 0")
        for origin in self.allow_origin or ():
            good = origin == "*" or re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin) is not None
            self._require("allow_origin", good, "expected * or origins such as https://example.org")
        alone = self.tls_key is not None and self.tls_certificate is None
        self._require("tls_key", not alone, "needs tls_certificate too")
        self._require("batch_wait_ms", self.batch_wait_ms >= 0, "expected 0 or more")
