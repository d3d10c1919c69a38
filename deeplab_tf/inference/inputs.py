"""Which image files a command is given, and how what is written of each is called."""

import collections
import glob
import os
import pathlib
from collections.abc import Iterator, Sequence

from deeplab_tf.config import PredictConfig
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS
from deeplab_tf.errors import DeepLabError
from deeplab_tf.files import AnyPath, clean, path

# What is saved -> the end of its file's name.
SUFFIXES = {
    "mask": "mask.png",
    "overlay": "overlay.jpg",
    "raw": "raw.png",
    "cutout": "cutout.png",
    "probabilities": "probabilities.npy",
}


def _entries(folder: AnyPath) -> list[AnyPath]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DeepLabError(f"{folder}: cannot be read ({error.strerror or error}); expected a folder") from None


def _is_photograph(name: str) -> bool:
    """Returns whether a file of a folder is one to segment; arrays that an earlier run has written there are not."""
    return name.lower().endswith(IMAGE_EXTENSIONS) and not name.endswith(f"_{SUFFIXES['probabilities']}")


def matching(item: str) -> list[str]:
    """Returns the files that match a glob; its folders that are there mean themselves, run [2]/*.jpg for instance."""
    place = path(item)
    folder = next((parent for parent in place.parents if parent.is_dir()), place.parent)
    pattern = str(place.relative_to(folder))
    if isinstance(folder, pathlib.Path):
        start = "" if str(folder) == "." else glob.escape(str(folder))
        found = glob.glob(os.path.join(start, pattern), recursive=True)
    else:
        found = map(str, folder.glob(pattern))
    return sorted(file for file in found if path(file).is_file())


def expand_inputs(inputs: Sequence[str]) -> list[str]:
    """Returns the image files of `inputs`: files, folders (their images, by extension), globs, "-" (standard input).

    Raises:
      DeepLabError: nothing matches one of them.
    """
    files: dict[str, None] = {}
    for item in inputs:
        item = clean(item)
        if item == "-" or path(item).is_file():
            found = [item]
        elif item and path(item).is_dir():
            entries = _entries(path(item))
            found = [str(entry) for entry in entries if _is_photograph(entry.name) and entry.is_file()]
            if not found:
                raise DeepLabError(f"{item}: no images in this folder; expected {', '.join(IMAGE_EXTENSIONS)}")
        else:
            found = matching(item)
            if not found:
                raise DeepLabError(f"{item}: no such file, and nothing matches it; expected image files or a folder")
        files |= dict.fromkeys(found)
    return list(files)


def stems(files: Sequence[str]) -> Iterator[str]:
    """Yields a stem for each file; the second of a name gets -2, so that none overwrites another's output."""
    used: set[str] = set()
    numbers: collections.Counter[str] = collections.Counter()
    for file in files:
        stem = base = "stdin" if file == "-" else pathlib.PurePath(file).stem
        while stem in used:
            numbers[base] += 1
            stem = f"{base}-{numbers[base] + 1}"
        used.add(stem)
        yield stem


def require_apart(files: Sequence[str], output_dir: str | os.PathLike, options: PredictConfig) -> None:
    """Raises DeepLabError where what `predict_files` writes of one picture would take the place of another."""
    folder = path(output_dir).resolve()
    places = [path(file) for file in files]
    folders = {parent: parent.resolve() for parent in {place.parent for place in places}}
    inputs = {place.name for place in places if folders[place.parent] == folder}
    for file, stem in zip(files, stems(files), strict=True) if inputs else ():
        for name in (f"{stem}_{SUFFIXES[choice]}" for choice in options.save):
            if name in inputs:
                raise DeepLabError(
                    f"--output_dir={output_dir}: {name} would be written of {file}, and is one of the images itself; "
                    "choose another folder"
                )
