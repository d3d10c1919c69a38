"""Where XLA keeps what it compiles for GPUs from one process to the next (`keep_compilations`).

To be called before TensorFlow starts, which reads the flags of its variable TF_XLA_FLAGS once; so nothing here imports
it, and GPUs are found by what their driver says.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import tempfile

from deeplab_tf.errors import DeepLabError
from deeplab_tf.zoo.download import CACHE_VARIABLE, cache_folder

VARIABLE = "TF_XLA_FLAGS"
_FOLDER = "tf_xla_persistent_cache_directory"
_DEVICES = "tf_xla_persistent_cache_device_types"
_DRIVER = pathlib.Path("/proc/driver/nvidia")
_OF_GPUS = "GPU,XLA_GPU_JIT"  # the device, and the name under which XLA compiles for it: TensorFlow compares either
_PACKAGES = ("tensorflow", "tf-nightly", "tensorflow-cpu")


def _gpus(driver: pathlib.Path) -> list[str]:
    """Returns the names of the GPUs of NVIDIA's driver; [] where there is none."""
    found = []
    for file in sorted(driver.glob("gpus/*/information")):
        with contextlib.suppress(OSError):
            found += re.findall(r"^Model:\s*(.+?)\s*$", file.read_text(encoding="utf-8", errors="replace"), re.M)
    if not found:  # a driver without /proc, as under Windows
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
            told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
            found = [line.strip() for line in told.splitlines() if line.strip()]
    return found


def _version() -> str:
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return "unknown"


def _for(gpus: list[str]) -> str:
    """Returns the name of the folder for these GPUs; TensorFlow compares neither them nor its own version."""
    machine = (*sorted(set(gpus)), platform.machine(), platform.processor(), _version())
    return f"{_version()}-{hashlib.sha256(repr(machine).encode()).hexdigest()[:12]}"


def _require_writable(folder: pathlib.Path) -> None:
    """Makes the folder, and a file in it for a moment: TensorFlow ends the process where it cannot write there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder):
        pass


def keep_compilations(driver: pathlib.Path = _DRIVER) -> str | None:
    """Has XLA keep what it compiles for GPUs in <cache>/xla/compiled; returns a line where it cannot.

    Nothing is changed where there is no GPU, or where TF_XLA_FLAGS names such a folder already. What it says otherwise
    is kept. CPUs are left out, where XLA compiles in seconds.

    driver: the folder in which NVIDIA's driver tells of its GPUs.
    """
    gpus = _gpus(driver)
    given = os.environ.get(VARIABLE, "").strip()
    if not gpus or _FOLDER in given:
        return None
    cannot = "Note: what XLA compiles is not kept from one run to the next"
    if given and not given.startswith("-"):
        return f"{cannot}: {VARIABLE}={given} is a file of flags; expected --{_FOLDER} in it"
    try:
        folder = cache_folder() / "xla" / "compiled" / _for(gpus)
        _require_writable(folder)
    except OSError as error:
        place = error.filename or "the cache folder"
        return f"{cannot}: {place}: {error.strerror}; set ${CACHE_VARIABLE} to another folder"
    except DeepLabError as error:
        return f"{cannot}: {error}"
    if re.search(r"[\s'\"\\]", str(folder)):
        return f"{cannot}: {folder}: {VARIABLE} takes no spaces and quotes; set ${CACHE_VARIABLE} to another folder"
    devices = "" if _DEVICES in given else f" --{_DEVICES}={_OF_GPUS}"
    os.environ[VARIABLE] = f"{given} --{_FOLDER}={folder}{devices}".strip()
    return None
