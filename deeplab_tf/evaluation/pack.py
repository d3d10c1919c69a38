"""Archives for the evaluation servers of PASCAL VOC, Cityscapes and ADE20K: checked first, then written whole.

VOC: results/VOC2012/Segmentation/<competition>_test_cls/<id>.png, palette PNGs of 0..20, in a .tgz. Cityscapes:
<city>_<sequence>_<frame>_pred.png, label ids (7 is road), in a .zip. ADE20K: <id>.png, 1..150, in a .zip.
"""

import contextlib
import dataclasses
import io
import pathlib
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import PIL.Image

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import PackConfig
from deeplab_tf.data.pairs import PILLOW_ERRORS, label_png, read_list
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import EXTENSIONS
from deeplab_tf.ops.pictures import palette_png

_ENDS = ("", "_raw", "_leftImg8bit", "_leftImg8bit_raw", "_pred")  # what may follow an id in a prediction's name
_IMAGE_END = "_leftImg8bit"
_SHOWN = 20
_IDS = np.array(DATASETS["cityscapes"].evaluation_ids)


@dataclasses.dataclass(frozen=True)
class Server:
    """What one server wants.

    Attributes:
      dataset: the catalog's name.
      output: of the archive, by default.
      member: the archive's name for an id; {id}, {competition}.
      name: what an id must look like.
      unlike: what an id that does not match most likely is.
    """

    dataset: str
    output: str
    member: str
    name: str
    unlike: str


SERVERS = {
    "voc": Server(
        "pascal_voc_seg",
        "results.tgz",
        "results/VOC2012/Segmentation/{competition}_test_cls/{id}.png",
        r"\d{4}_\d{6}",
        "VOC's ids are like 2008_000006",
    ),
    "cityscapes": Server(
        "cityscapes",
        "cityscapes.zip",
        "{id}_pred.png",
        r"[a-z-]+_\d{6}_\d{6}",
        "Cityscapes' ids are like berlin_000000_000019",
    ),
    "ade20k": Server(
        "ade20k", "ade20k.zip", "{id}.png", r"ADE_(test|val)_\d{8}", "ADE20K's ids are like ADE_test_00000001"
    ),
}


@dataclasses.dataclass(frozen=True)
class PackPlan:
    """What will be packed: id -> file; the archive; whether the values are translated; notes for the user."""

    server: Server
    files: Mapping[str, files.AnyPath]
    output: files.AnyPath
    competition: str
    translate: bool = False
    notes: tuple[str, ...] = ()

    def member(self, name: str) -> str:
        """Returns what the archive calls the prediction of an id."""
        return self.server.member.format(id=name, competition=self.competition)


def _id(file: files.AnyPath) -> str:
    return file.stem.removesuffix(_IMAGE_END)


def _size(file: files.AnyPath) -> tuple[int, int]:
    try:
        with file.open("rb") as stream, PIL.Image.open(stream) as image:
            return image.height, image.width
    except PILLOW_ERRORS as error:
        raise DeepLabError(f"{file}: no image that can be decoded ({error})") from None


def _expected(config: PackConfig, server: Server) -> dict[str, tuple[int, int] | None]:
    """Returns id -> (height, width), where --images tells it, of all that the server expects."""
    listed = read_list(config.list_file) if config.list_file else None
    images = {}
    if config.images:
        folder = files.path(config.images)
        if not folder.is_dir():
            raise DeepLabError(f"--images={config.images}: no such folder; expected the test images")
        found = (file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS)
        images = {_id(file): file for file in sorted(found)}
    names = listed or list(images)
    if not names:
        raise DeepLabError("no images are expected; give --images, the folder of the test images, or --list_file")
    return {name: _size(images[name]) if name in images else None for name in names}


def _by_stem(folder: files.AnyPath) -> dict[str, list[files.AnyPath]]:
    """Returns the PNGs in a folder and below it by their names without the ending."""
    found: dict[str, list[files.AnyPath]] = {}
    for file in sorted(folder.rglob("*.png")):
        found.setdefault(file.stem, []).append(file)
    return found


def make_plan(config: PackConfig) -> PackPlan:
    """Returns what to pack, every prediction having been looked at.

    Raises:
      DeepLabError: with all that is wrong, a line a fault: predictions that are missing, of another size, with values
        that are no classes, names that the server does not know.
    """
    for name in ("server", "predictions"):
        if not getattr(config, name):
            raise DeepLabError(
                f"--{name} is missing; expected {PackConfig.__dataclass_fields__[name].metadata['help']}"
            )
    server, folder = SERVERS[config.server], files.path(config.predictions)
    if not folder.is_dir():
        raise DeepLabError(f"--predictions={folder}: no such folder; expected one PNG of class indices an image")
    sizes, there = _expected(config, server), _by_stem(folder)
    found = {name: next((there[name + end] for end in _ENDS if name + end in there), []) for name in sizes}
    present = {name: of_name[0] for name, of_name in found.items() if of_name}
    strange = [name for name in sizes if not re.fullmatch(server.name, name)]
    faults = [f"{name}: not what the server calls an image; {server.unlike}" for name in strange]
    faults += [f"{name}: no prediction {name}.png in {folder}" for name in sizes if name not in present]
    several = ((name, of_name) for name, of_name in found.items() if of_name[1:])
    faults += [f"{name}: both {one} and {other}; --predictions names one folder" for name, (one, other, *_) in several]
    values = np.zeros(256, np.int64)
    for name, file in present.items():
        faults += _faults(file, sizes[name], values)
    _require_none(faults)
    translate = config.server == "cityscapes" and _is_train_ids(config, values)
    _require_none(_wrong_values(server, values, translate))
    output = files.path(config.output or server.output)
    notes = tuple(_notes(config, sizes, values, len(there) - len(present), translate))
    return PackPlan(server, present, output, config.competition, translate, notes)


def _require_none(faults: Sequence[str]):
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        listed = "".join(f"\n  {fault}" for fault in [*faults[:_SHOWN], *more])
        raise DeepLabError(f"{len(faults)} fault{'s' if faults[1:] else ''}, nothing was packed:{listed}")


def _notes(config: PackConfig, sizes: Mapping, values: np.ndarray, spare: int, translate: bool) -> Iterator[str]:
    if spare:
        yield f"{spare:,} other PNGs in {config.predictions} are left out"
    if not all(sizes.values()):
        yield "sizes are not checked: --images gives the folder of the test images"
    if config.server == "ade20k" and values[0]:
        yield "label 0 (other) occurs, which the server counts as wrong"
    if translate:
        yield "train ids become label ids"


def _read(file: files.AnyPath) -> np.ndarray:
    """Returns a prediction, uint8 [h, w]: grey levels, or indices of a palette. DeepLabError for anything else."""
    try:
        with file.open("rb") as stream, PIL.Image.open(stream) as image:
            array, mode = np.asarray(image), image.mode
    except PILLOW_ERRORS as error:
        raise DeepLabError(f"{file}: cannot be decoded ({error})") from None
    if mode not in ("L", "P"):
        what = "a picture of colours" if "RGB" in mode else "not of 8 bits a pixel"
        raise DeepLabError(f"{file}: {what} (mode {mode}); expected class indices, as vis and predict write raw")
    return array


def _faults(file: files.AnyPath, size: tuple[int, int] | None, values: np.ndarray) -> list[str]:
    """Returns what is wrong with one prediction, and adds its values to `values`."""
    try:
        found = _read(file)
    except DeepLabError as error:
        return [str(error)]
    values += np.bincount(found.ravel(), minlength=256)
    if size and found.shape != size:
        return [f"{file}: {found.shape[0]} x {found.shape[1]} pixels, the image has {size[0]} x {size[1]}"]
    return []


def _is_train_ids(config: PackConfig, values: np.ndarray) -> bool:
    """Whether Cityscapes' predictions hold train ids (0 is road). Where all values could be either, --ids must say."""
    if config.ids != "auto":
        return config.ids == "train_ids"
    wrong = {translate: sum(_unknown("cityscapes", values, translate).values()) for translate in (True, False)}
    if not any(wrong.values()):
        shown = ", ".join(map(str, np.flatnonzero(values)))
        raise DeepLabError(f"values {shown} may be train ids or label ids; say which: --ids=train_ids or label_ids")
    return wrong[True] < wrong[False]


def _unknown(dataset: str, values: np.ndarray, translate: bool) -> dict[int, int]:
    """Returns value -> pixels of what the predictions hold and is no class."""
    allowed = _IDS if dataset == "cityscapes" and not translate else range(DATASETS[dataset].num_classes)
    return {i: int(values[i]) for i in map(int, np.flatnonzero(values)) if i not in allowed}


def _wrong_values(server: Server, values: np.ndarray, translate: bool) -> list[str]:
    label_ids = server.dataset == "cityscapes" and not translate
    wrong = [f"{i} ({pixels} pixels)" for i, pixels in _unknown(server.dataset, values, translate).items()]
    expected = (
        "the label ids 7 to 33 of the 19 classes" if label_ids else f"0 to {DATASETS[server.dataset].num_classes - 1}"
    )
    return [f"the predictions hold {', '.join(wrong[:5])}; expected {expected}"] if wrong else []


# ---- writing


def _encoded(plan: PackPlan, file: files.AnyPath) -> bytes:
    classes = _read(file)
    if plan.server.dataset == "pascal_voc_seg":
        return palette_png(classes, DATASETS["pascal_voc_seg"].palette)
    return label_png(_IDS[classes].astype(np.uint8) if plan.translate else np.array(classes))


@contextlib.contextmanager
def _archive(path: pathlib.Path) -> Iterator[Callable[[str, bytes], None]]:
    """Gives a function that adds a file."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            yield lambda name, content: archive.writestr(zipfile.ZipInfo(name), content)
        return

    def add(name: str, content: bytes):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))

    with tarfile.open(path, "w:gz") as archive:
        yield add


def pack(plan: PackPlan) -> files.AnyPath:
    """Writes the archive of a plan, which takes its name when it is complete, and returns it.

    DeepLabError where it cannot be written.
    """
    with files.written(plan.output, flag="--output", cure="choose another file") as partial, _archive(partial) as add:
        for name, file in plan.files.items():
            add(plan.member(name), _encoded(plan, file))
    return plan.output
