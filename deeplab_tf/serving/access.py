"""Who may send requests: names of the host, origins of pages, tokens; and the certificate that the server shows."""

import base64
import binascii
import contextlib
import hmac
import pathlib
import re
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from deeplab_tf import files
from deeplab_tf.config.server import ServerConfig
from deeplab_tf.errors import DeepLabError

LOCAL = ("127.0.0.1", "localhost", "::1")
_SHORTEST_TOKEN = 16  # characters
_LARGEST_FILE = 1 << 20  # bytes of a file of tokens
_DEFAULT_PORTS = {"http": 80, "https": 443}


def read_tokens(place: str) -> tuple[bytes, ...]:
    """Returns the tokens of a file, one a line; empty lines, and those that begin with #, are left out.

    Raises:
      DeepLabError: the file cannot be read, has no token, or one that is too short or could not be sent.
    """
    where = f"--token_file={place}"
    try:
        content = files.path(place).read_bytes()
    except OSError as error:
        raise DeepLabError(f"{where}: cannot be read ({error.strerror or error}); expected a token a line") from None
    if len(content) > _LARGEST_FILE:
        raise DeepLabError(f"{where}: {len(content)} bytes; expected a token a line")
    lines = [line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").splitlines()]
    tokens = [line for line in lines if line and not line.startswith(b"#")]
    for number, token in enumerate(tokens, 1):
        if len(token) < _SHORTEST_TOKEN or not re.fullmatch(rb"[A-Za-z0-9._~+/=-]+", token):
            raise DeepLabError(
                f"{where}: token {number} is not one of at least {_SHORTEST_TOKEN} letters, digits and -._~+/=; make "
                "one "
                "with: openssl rand -hex 32"
            )
    if not tokens:
        raise DeepLabError(f"{where}: no token in it; expected a token a line")
    return tuple(tokens)


@contextlib.contextmanager
def _here(place: str) -> Iterator[pathlib.Path]:
    """Gives a file of this machine with what is in `place`: the library of TLS opens its files itself."""
    found = files.path(place)
    if isinstance(found, pathlib.Path):
        yield found
        return
    with tempfile.NamedTemporaryFile(prefix="deeplab_tf-") as copy:  # which nobody else may read
        copy.write(found.read_bytes())
        copy.flush()
        yield pathlib.Path(copy.name)


def tls_context(options: ServerConfig) -> ssl.SSLContext | None:
    """Returns what a server shows who it is with; None: without --tls_certificate.

    Raises:
      DeepLabError: certificate and key cannot be read, are none, or do not belong together.
    """
    if options.tls_certificate is None:
        return None
    key = options.tls_key or options.tls_certificate
    where = f"--tls_certificate={options.tls_certificate}" + (f" --tls_key={key}" if options.tls_key else "")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def no_password() -> str:
        raise DeepLabError(f"{where}: the key is encrypted; expected one without a password")

    try:
        with _here(options.tls_certificate) as certificate_file, _here(key) as key_file:
            context.load_cert_chain(certificate_file, key_file, password=no_password)
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or error
        raise DeepLabError(f"{where}: not a certificate with its key, in PEM ({reason})") from None
    return context


def _host_and_port(text: str, scheme: str) -> tuple[str, int | None]:
    """Returns the host, in lower case, and the port of what stands in a header; ("", None) where it is not one."""
    try:
        parts = urlsplit(f"//{text}")
        return (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(scheme)
    except ValueError:
        return "", None


class Access:
    """Decides which requests are let in.

    Args:
      options: of the server.
    """

    def __init__(self, options: ServerConfig) -> None:
        self._tokens = read_tokens(options.token_file) if options.token_file is not None else ()
        self._local = options.host in LOCAL
        self._origins = frozenset(origin.lower().rstrip("/") for origin in options.allow_origin or ())

    def knows_host(self, headers: Mapping[str, str]) -> bool:
        """Returns whether a request is meant for this server.

        One that listens on this machine alone accepts only the machine's own names, so that no page elsewhere can reach
        it through a name that it lets point here.
        """
        return not self._local or _host_and_port(headers.get("host", ""), "http")[0] in LOCAL

    def allows_origin(self, origin: str) -> bool:
        """Returns whether the pages of an origin may send requests, and read the answers."""
        return "*" in self._origins or origin.lower() in self._origins

    def is_foreign(self, headers: Mapping[str, str]) -> bool:
        """Returns whether a request comes from a page of another origin, which is not allowed.

        Browsers say so in Origin, and in Sec-Fetch-Site; what is not a browser says neither.
        """
        origin = headers.get("origin")
        if origin is not None:
            scheme, _, rest = origin.partition("://")
            own = _host_and_port(headers.get("host", ""), scheme.lower())
            is_own = own[0] != "" and _host_and_port(rest, scheme.lower()) == own
            return not is_own and not self.allows_origin(origin)
        return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and "*" not in self._origins

    def token_of(self, headers: Mapping[str, str]) -> int | None:
        """Returns the number of the token that a request brings; None where none is needed.

        As Authorization: Bearer, or as the password of Basic, for which a browser asks by itself.

        Raises:
          PermissionError: it brings none that is in the file.
        """
        if not self._tokens:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        brought = given.strip().encode("latin-1", "replace")
        if kind.lower() == "basic":
            try:
                brought = base64.b64decode(brought, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                brought = b""
        elif kind.lower() != "bearer":
            brought = b""
        # All are compared, each in a time that does not tell how much of it was right.
        found = [number for number, token in enumerate(self._tokens) if hmac.compare_digest(token, brought)]
        if not found:
            raise PermissionError
        return found[0]


def for_this_machine_alone(options: ServerConfig) -> bool:
    """Returns whether the server listens where only this machine reaches it."""
    return options.host in LOCAL or options.host.startswith("127.")


def exposure(options: ServerConfig) -> str | None:
    """Returns what the user should know of a server that others reach; None where it is for this machine alone."""
    missing = []
    if options.token_file is None:
        missing.append("without --token_file everybody who reaches it may send requests")
    if options.tls_certificate is None:
        missing.append("without --tls_certificate photographs and tokens are sent in the clear")
    if for_this_machine_alone(options) or not missing:
        return None
    return f"--host={options.host}: others than this machine reach it; {', and '.join(missing)}"
