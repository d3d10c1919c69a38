"""The Hugging Face Hub: repositories by the name hf://owner/name[@revision], fetched and pushed."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from deeplab_tf.config.fields import HUB
from deeplab_tf.errors import DeepLabError

SCHEME = HUB
_NAME = re.compile(r"hf://(?P<repository>\w[\w.-]{0,95}/\w[\w.-]{0,95})(@(?P<revision>[\w./-]{1,200}))?", re.ASCII)
# What is read of a repository: no code, and none of the weights in other formats.
_READ = (
    *("config.json", "preprocessor_config.json", "model.safetensors", "model.safetensors.index.json"),
    *("deeplab.json", "receipt.json", "model.ckpt.index", "model.ckpt.data-*", "pytorch_model.bin"),
)


def is_hub(name: str | os.PathLike[str]) -> bool:
    """Returns whether a name is that of a repository of the Hub."""
    return os.fspath(name).startswith(SCHEME)


def _parsed(name: str) -> tuple[str, str | None]:
    """Returns the repository and the revision (None: the newest) that a name stands for."""
    match = _NAME.fullmatch(name)
    if not match:
        raise DeepLabError(f"{name}: expected hf://owner/name or hf://owner/name@revision")
    return match["repository"], match["revision"]


def _client(name: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise DeepLabError(f"{name} needs huggingface_hub: pip install 'deeplab_tf[hf]'") from None
    # The variable is read when it is used, not when the library is first imported.
    return huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="deeplab_tf")


@contextlib.contextmanager
def _asking(name: str) -> Iterator[None]:
    """Turns what the client says of a name into a DeepLabError of one line."""
    from huggingface_hub import errors

    try:
        yield
    except DeepLabError:
        raise
    except errors.RevisionNotFoundError:
        raise DeepLabError(
            f"{name}: the repository has no such revision; expected a branch, a tag or a commit"
        ) from None
    except errors.GatedRepoError:
        raise DeepLabError(f"{name}: is gated; accept its terms on its page, then run `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise DeepLabError(
            f"{name}: no such repository, or a private one; check the name, or run `hf auth login`"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise DeepLabError(
            f"{name}: the Hub cannot be reached, and the repository is not in the cache; check the network, or give a "
            "folder with a copy"
        ) from None
    except Exception as error:  # the client's own errors and those of the HTTP library that it happens to use
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise DeepLabError(
            f"{name}: the Hub cannot be asked ({reason}); check the network and `hf auth whoami`"
        ) from None


def require_name(name: str) -> None:
    """DeepLabError where `name` is not hf://owner/name[@revision], or the client is not installed."""
    _parsed(name)
    _client(name)


def fetch(name: str) -> pathlib.Path:
    """Returns the folder of a repository, which is downloaded once and kept in huggingface_hub's cache.

    Raises:
      DeepLabError: it is not a name of the Hub, there is no such repository or revision, or no network.
    """
    repository, revision = _parsed(name)
    client = _client(name)
    with _asking(name):
        return pathlib.Path(client.snapshot_download(repository, revision=revision, allow_patterns=list(_READ)))


def upload(name: str, folder: pathlib.Path, *, message: str, private: bool) -> str:
    """Makes the files of a folder those of a repository, which is made where there is none; returns its address.

    Raises:
      DeepLabError: it is not a name of the Hub, the user is not known there, or no network.
    """
    repository, revision = _parsed(name)
    client = _client(name)
    with _asking(name):
        client.create_repo(repository, private=private, exist_ok=True)
        done = client.upload_folder(
            repo_id=repository, folder_path=str(folder), commit_message=message, revision=revision
        )
        return str(getattr(done, "commit_url", "") or f"{client.endpoint}/{repository}")
