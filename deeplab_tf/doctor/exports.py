"""The check of exported files by their certificates.

It says what they are, whether they are still the files that were certified, and whether they hold the newest weights.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from deeplab_tf import files
from deeplab_tf.config import ExportConfig
from deeplab_tf.config.export import SUFFIXES
from deeplab_tf.doctor.findings import ERROR, NOTE, WARNING, Diagnosis, Finding
from deeplab_tf.documents.json_files import JSONError, read_json, typed
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.formats import FORMATS
from deeplab_tf.weights.exported import files_of
from deeplab_tf.weights.kinds import CERTIFICATE
from deeplab_tf.weights.loading import weights_path
from deeplab_tf.weights.sources import MODEL_FILE, open_source, sha256_of


class _Options(TypedDict, total=False):
    format: str
    precision: str


class _Model(TypedDict):
    model_variant: str


class _Scores(TypedDict):
    keras: float
    exported: float


_Stride = TypedDict("_Stride", {"from": str, "exported": int, "trained": int | None})


class _Certificate(TypedDict):
    """The fields of a certificate that the findings tell of."""

    options: _Options
    checkpoint: str
    checkpoint_sha256: str
    sha256: str
    model: _Model
    input_shape: list[int | None]
    class_names: list[str]
    dataset: str | None
    versions: dict[str, str]
    bytes: int
    output_stride: _Stride
    agreement: float
    miou: _Scores | None
    images: int


_LOST = 0.01  # of mean IoU
_CURE = "export again: deeplab-tf export --checkpoint_path={} --export_path=..."


def certificates_in(path: str | os.PathLike) -> dict[files.AnyPath, files.AnyPath]:
    """Returns the exports at `path`, a file or a folder: exported file or folder -> its certificate."""
    root = files.path(path).absolute()
    if root.is_file():
        beside = root.with_name(f"{root.name}.{CERTIFICATE}")
        return {root: beside} if beside.is_file() else {}
    own = {root: root / CERTIFICATE} if (root / CERTIFICATE).is_file() else {}
    suffix = f".{CERTIFICATE}"
    return own | {file.with_name(file.name.removesuffix(suffix)): file for file in sorted(root.glob(f"*{suffix}"))}


def is_export(path: str | os.PathLike) -> bool:
    """Returns whether `path` is an exported file or folder with its certificate, and not a model directory."""
    return bool(certificates_in(path)) and not (files.path(path) / MODEL_FILE).is_file()


def check_exports(path: str | os.PathLike, *, checkpoint: str | None = None) -> Diagnosis:
    """Returns the facts about the exports at `path` and the findings on them.

    Args:
      path: an exported file, a folder that is an export, or a folder that holds exported files.
      checkpoint: the weights that they should hold; None: those that each certificate names.

    Raises:
      DeepLabError: nothing is there. Anything else that is wrong becomes a finding.
    """
    root = files.path(path).absolute()
    if not root.exists():
        raise DeepLabError(f"--export_dir={path}: nothing is there; expected an exported file or folder")
    exports = certificates_in(root)
    certificates = {exported: _read(file) for exported, file in exports.items()}
    findings = [
        finding
        for exported, certificate in certificates.items()
        for finding in _check_export(exported, certificate, checkpoint)
    ]
    facts = {exported.name: dict(certificate) for exported, certificate in certificates.items()}
    return Diagnosis(str(path), (*findings, *_uncertified(root, exports)), facts)


def _read(file: files.AnyPath) -> Mapping:
    """Returns the fields of a certificate; none if it cannot be read."""
    try:
        return read_json(file, dict[str, Any])
    except (OSError, JSONError):
        return {}


def _check_export(path: files.AnyPath, certificate: Mapping, checkpoint: str | None) -> Iterator[Finding]:
    """Yields the findings on the export at `path`; only one if a field of the certificate is missing or wrong."""
    try:
        typed(certificate, _Certificate)
        inside = FORMATS[certificate["options"]["format"]].file if path.is_dir() else None
        yield from _findings(path / (inside or ""), certificate, checkpoint)
    except (KeyError, TypeError, AttributeError, DeepLabError) as error:
        lines = (f"{path.name}: its certificate is damaged, or not of deeplab-tf export ({error!r})",)
        yield Finding("unreadable-certificate", ERROR, lines, _CURE.format("..."))


def _uncertified(root: files.AnyPath, exports: Mapping) -> Iterator[Finding]:
    """Yields a finding on files that look exported and have no certificate."""
    files = [root] if root.is_file() else sorted(root.iterdir())
    bare = [file for file in files if file.suffix in SUFFIXES and file.name != "saved_model.pb" and file not in exports]
    if bare and root in exports:  # the certificate of the folder is that of the file in it
        return
    if bare or not exports:
        names = ", ".join(file.name for file in bare[:3]) or str(root)
        lines = (f"{names}: no certificate says what it is and that it does what the model does",)
        yield Finding("uncertified", WARNING, lines, _CURE.format("..."))


def _findings(exported: files.AnyPath, certificate: Mapping, checkpoint: str | None) -> Iterator[Finding]:
    yield _identity(exported, certificate)
    if not exported.exists():
        lines = (f"{exported.name} is missing, but its certificate is there",)
        yield Finding("artefact-changed", ERROR, lines, _CURE.format(certificate["checkpoint"]))
    elif sha256_of(*files_of(exported)) != certificate["sha256"]:
        lines = (f"{exported.name} is not the file that was certified: its SHA-256 differs",)
        yield Finding("artefact-changed", ERROR, lines, _CURE.format(certificate["checkpoint"]))
    yield from _stride(exported, certificate)
    yield from _agreement(exported, certificate)
    yield from _weights(exported, certificate, checkpoint)


def _identity(exported: files.AnyPath, certificate: Mapping) -> Finding:
    options = certificate["options"]
    kind = " ".join([options.get("format", "export"), *([options["precision"]] if "precision" in options else [])])
    model = certificate["model"]
    shape = " x ".join("any" if side is None else str(side) for side in certificate["input_shape"])
    network = f"{model['model_variant']} for {len(certificate['class_names'])} classes of {certificate['dataset']}"
    made = ", ".join(f"{name} {value}" for name, value in certificate["versions"].items() if name != "python")
    lines = [
        f"{exported.name}: {kind}, {network}, images {shape}, {certificate['bytes'] / 1e6:.2f} MB",
        f"of {certificate['checkpoint']}; made by {made}",
    ]
    return Finding("what-it-is", NOTE, tuple(lines))


def _stride(exported: files.AnyPath, certificate: Mapping) -> Iterator[Finding]:
    """Yields a finding if the file's output stride is not the trained one, or if that is unknown."""
    origin = certificate["output_stride"]["from"]
    stride = certificate["output_stride"]["exported"]
    trained = certificate["output_stride"]["trained"]
    if trained is None:
        lines = (f"{exported.name}: output stride {stride} ({origin}); nothing says which was trained",)
        yield Finding("export-stride", NOTE, lines, f"evaluate with --output_stride={stride}, the file's")
    elif stride != trained:
        lines = (f"{exported.name}: output stride {stride} ({origin}), trained and by default scored at {trained}",)
        cure = f"export with --output_stride={trained}, or evaluate with --output_stride={stride} too"
        yield Finding("export-stride", WARNING, lines, cure)


def _agreement(exported: files.AnyPath, certificate: Mapping) -> Iterator[Finding]:
    """Yields the agreement of the file with the model, as a warning if it is below the default requirement."""
    options = certificate["options"]
    share = certificate["agreement"]
    scores = certificate["miou"]
    pictures = "" if "images" in options or certificate["dataset"] == "shapes" else " of drawn shapes, not photographs"
    line = (
        f"{exported.name}: the model's class in {share:.3%} of the pixels of {certificate['images']} pictures{pictures}"
    )
    usual = ExportConfig(precision=options.get("precision", "float32")).required_agreement
    lost = scores["keras"] - scores["exported"] if scores else 0.0
    lines = [line, *([f"mean IoU {scores['keras']:.4f}, exported {scores['exported']:.4f}"] if scores else [])]
    if share < usual:
        lines.append(f"by default {usual:.2%} are required")
    poor = share < usual or lost > _LOST
    cure = "more --representative_images, another --precision, or live with it" if poor else ""
    yield Finding("low-agreement" if poor else "agreement", WARNING if poor else NOTE, tuple(lines), cure)


def _weights(exported: files.AnyPath, certificate: Mapping, checkpoint: str | None) -> Iterator[Finding]:
    """Yields a finding if the weights have changed since the export, or cannot be read."""
    path = checkpoint or certificate["checkpoint"]
    try:
        with open_source(weights_path(path)) as source:
            now = source.sha256
    except DeepLabError as error:
        lines = (f"{exported.name}: cannot tell whether it has the newest weights: {error}",)
        yield Finding("weights-unknown", NOTE, lines, "--checkpoint names the weights to compare with")
        return
    if now != certificate["checkpoint_sha256"]:
        lines = (f"{exported.name}: the weights of {path} have changed since the export",)
        yield Finding("stale-export", WARNING, lines, _CURE.format(path))
