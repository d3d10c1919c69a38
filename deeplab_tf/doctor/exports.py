"""The doctor's look at exported files, by their certificates: what they are, whether they are still what was certified,
and whether they are of the weights as these are now."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping

from deeplab_tf.config import ExportConfig
from deeplab_tf.config.export import SUFFIXES
from deeplab_tf.doctor.findings import ERROR, NOTE, WARNING, Diagnosis, Finding
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.certificate import CERTIFICATE
from deeplab_tf.exporting.formats import FORMATS, files_of
from deeplab_tf.weights.loading import weights_path
from deeplab_tf.weights.sources import MODEL_FILE, open_source, sha256_of

_LOST = 0.01  # of mean IoU
_CURE = "export again: deeplab-tf export --checkpoint_path={} --export_path=..."


def certificates_in(path: str | os.PathLike) -> dict[pathlib.Path, pathlib.Path]:
    """Returns the exports at `path`, a file or a folder, and the certificate of each: exported file -> certificate."""
    found = pathlib.Path(path).expanduser().absolute()
    if found.is_file():
        beside = found.with_name(f"{found.name}.{CERTIFICATE}")
        return {found: beside} if beside.is_file() else {}
    own = {found: found / CERTIFICATE} if (found / CERTIFICATE).is_file() else {}
    end = f".{CERTIFICATE}"
    return own | {file.with_name(file.name.removesuffix(end)): file for file in sorted(found.glob(f"*{end}"))}


def is_export(path: str | os.PathLike) -> bool:
    """Returns whether `path` is an exported file or folder with its certificate, and no model directory."""
    return bool(certificates_in(path)) and not (pathlib.Path(path).expanduser() / MODEL_FILE).is_file()


def check_exports(path: str | os.PathLike, *, checkpoint: str | None = None) -> Diagnosis:
    """Returns what is odd about the exports at `path`.

    Args:
      path: an exported file, a folder that is an export, or one that holds such files.
      checkpoint: the weights that they should be of; None: those that each certificate names.

    Raises:
      DeepLabError: there is nothing. What can be found is a finding.
    """
    found = pathlib.Path(path).expanduser().absolute()
    if not found.exists():
        raise DeepLabError(f"--export_dir={path}: nothing is there; expected an exported file or folder")
    exports = certificates_in(found)
    certificates = {artefact: _read(file) for artefact, file in exports.items()}
    findings = [finding for artefact, read in certificates.items() for finding in _judged(artefact, read, checkpoint)]
    facts = {artefact.name: dict(read) for artefact, read in certificates.items()}
    return Diagnosis(str(path), (*findings, *_uncertified(found, exports)), facts)


def _read(file: pathlib.Path) -> Mapping:
    """The certificate; without fields where it cannot be read."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _judged(given: pathlib.Path, certificate: Mapping, checkpoint: str | None) -> Iterator[Finding]:
    """Yields the findings on the export at `given`; one where the certificate lacks what ours have."""
    try:
        inside = FORMATS[certificate["options"]["format"]].file if given.is_dir() else None
        yield from _findings(given / (inside or ""), certificate, checkpoint)
    except (KeyError, TypeError, AttributeError) as error:
        lines = (f"{given.name}: its certificate is damaged, or not of deeplab-tf export ({error!r})",)
        yield Finding("unreadable-certificate", ERROR, lines, _CURE.format("..."))


def _uncertified(found: pathlib.Path, exports: Mapping) -> Iterator[Finding]:
    """Yields a finding of what looks exported and has no certificate."""
    files = [found] if found.is_file() else sorted(found.iterdir())
    bare = [file for file in files if file.suffix in SUFFIXES and file.name != "saved_model.pb" and file not in exports]
    if bare and found in exports:  # the folder's certificate is that of the file in it
        return
    if bare or not exports:
        names = ", ".join(file.name for file in bare[:3]) or str(found)
        lines = (f"{names}: no certificate says what it is and that it does what the model does",)
        yield Finding("uncertified", WARNING, lines, _CURE.format("..."))


def _findings(artefact: pathlib.Path, certificate: Mapping, checkpoint: str | None) -> Iterator[Finding]:
    yield _identity(artefact, certificate)
    if not artefact.exists():
        lines = (f"{artefact.name} is not there, its certificate is",)
        yield Finding("artefact-changed", ERROR, lines, _CURE.format(certificate["checkpoint"]))
    elif sha256_of(*files_of(artefact)) != certificate["sha256"]:
        lines = (f"{artefact.name} is another file than the one that was certified: its SHA-256 differs",)
        yield Finding("artefact-changed", ERROR, lines, _CURE.format(certificate["checkpoint"]))
    yield from _stride(artefact, certificate)
    yield from _agreement(artefact, certificate)
    yield from _weights(artefact, certificate, checkpoint)


def _identity(artefact: pathlib.Path, certificate: Mapping) -> Finding:
    options, sides = certificate["options"], certificate["input_shape"]
    kind = " ".join([options.get("format", "export"), *([options["precision"]] if "precision" in options else [])])
    model, shape = certificate["model"], " x ".join("any" if side is None else str(side) for side in sides)
    network = f"{model['model_variant']} for {len(certificate['class_names'])} classes of {certificate['dataset']}"
    made = ", ".join(f"{name} {value}" for name, value in certificate["versions"].items() if name != "python")
    lines = [
        f"{artefact.name}: {kind}, {network}, images {shape}, {certificate['bytes'] / 1e6:.2f} MB",
        f"of {certificate['checkpoint']}; made by {made}",
    ]
    return Finding("what-it-is", NOTE, tuple(lines))


def _stride(artefact: pathlib.Path, certificate: Mapping) -> Iterator[Finding]:
    stride = certificate["output_stride"]
    exported, trained = stride["exported"], stride["trained"]
    if trained is None:
        lines = (f"{artefact.name}: output stride {exported} ({stride['from']}); nothing says which was trained",)
        yield Finding("export-stride", NOTE, lines, f"evaluate with --output_stride={exported}, the file's")
    elif exported != trained:
        lines = (
            f"{artefact.name}: output stride {exported} ({stride['from']}), trained and by default scored at {trained}",
        )
        cure = f"export with --output_stride={trained}, or evaluate with --output_stride={exported} too"
        yield Finding("export-stride", WARNING, lines, cure)


def _agreement(artefact: pathlib.Path, certificate: Mapping) -> Iterator[Finding]:
    """Yields how far the file agrees with the model, and whether that is less than is asked by default."""
    options, share, scores = certificate["options"], certificate["agreement"], certificate["miou"]
    pictures = "" if "images" in options or certificate["dataset"] == "shapes" else " of drawn shapes, not photographs"
    line = (
        f"{artefact.name}: the model's class in {share:.3%} of the pixels of {certificate['images']} pictures{pictures}"
    )
    usual = ExportConfig(precision=options.get("precision", "float32")).required_agreement
    lost = scores["keras"] - scores["exported"] if scores else 0.0
    lines = [line, *([f"mean IoU {scores['keras']:.4f}, exported {scores['exported']:.4f}"] if scores else [])]
    if share < usual:
        lines.append(f"by default {usual:.2%} are asked for")
    poor = share < usual or lost > _LOST
    cure = "more --representative_images, another --precision, or live with it" if poor else ""
    yield Finding("low-agreement" if poor else "agreement", WARNING if poor else NOTE, tuple(lines), cure)


def _weights(artefact: pathlib.Path, certificate: Mapping, checkpoint: str | None) -> Iterator[Finding]:
    """Yields a finding where the weights are others by now than those that were exported, or cannot be looked at."""
    path = checkpoint or certificate["checkpoint"]
    try:
        with open_source(weights_path(path)) as source:
            now = source.sha256
    except DeepLabError as error:
        lines = (f"{artefact.name}: whether it is of the newest weights cannot be told: {error}",)
        yield Finding("weights-unknown", NOTE, lines, "--checkpoint names the weights to compare with")
        return
    if now != certificate["checkpoint_sha256"]:
        lines = (f"{artefact.name}: the weights of {path} are others now than those that were exported",)
        yield Finding("stale-export", WARNING, lines, _CURE.format(path))
