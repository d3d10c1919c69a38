"""ServerConfig: where a server listens, who may send requests, and their limits: the base of each server's options."""

import dataclasses
import re

from deeplab_tf.config.fields import Options, option, path_option

_LARGEST_PORT = 65535


@dataclasses.dataclass(frozen=True)
class ServerConfig(Options, group="what"):
    """Where a server listens, who may send requests, and how large and how slow they may be."""

    host: str = option("127.0.0.1", "address to listen on; the default is for this machine alone, 0.0.0.0 for all")
    port: int = option(8501, "port to listen on, TensorFlow Serving's for REST; 0: any that is free")
    max_body_mb: float = option(
        16.0, "largest body of a request in megabytes; larger ones get status 413", group="limits"
    )
    timeout_secs: float = option(
        60.0, "seconds from a whole request to its answer; longer gets status 504", group="limits"
    )
    read_timeout_secs: float = option(
        10.0, "seconds in which a request must arrive; slower ones get status 408", group="limits"
    )
    max_requests: int = option(256, "requests at a time; more get status 503, to come back later", group="limits")
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("port", 0 <= self.port <= _LARGEST_PORT, f"expected 0 to {_LARGEST_PORT}")
        self._require_at_least(1, "max_requests")
        for name in ("max_body_mb", "timeout_secs", "read_timeout_secs"):
            self._require(name, getattr(self, name) > 0, "expected a number above 0")
        for origin in self.allow_origin or ():
            good = origin == "*" or re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin) is not None
            self._require("allow_origin", good, "expected * or origins such as https://example.org")
        alone = self.tls_key is not None and self.tls_certificate is None
        self._require("tls_key", not alone, "needs tls_certificate too")
