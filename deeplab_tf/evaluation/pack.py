"""Archives of predictions for the evaluation servers of PASCAL VOC, Cityscapes and ADE20K, checked before written.

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
from deeplab_tf.data.pairs import read_list
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import EXTENSIONS, FORMATS, PILLOW_ERRORS, label_png
from deeplab_tf.ops.pictures import palette_png

_ENDS = ("", "_raw", "_leftImg8bit", "_leftImg8bit_raw", "_pred")  # what may follow an id in a prediction's name
_IMAGE_END = "_leftImg8bit"
_SHOWN = 20  # faults that the error lists
_IDS = np.array(DATASETS["cityscapes"].evaluation_ids)


@dataclasses.dataclass(frozen=True)
class Server:
    """The archive that one server expects.

    Attributes:
      dataset: the catalogue's name of the data set.
      output: the archive's name, by default.
      member: the name in the archive of an id's prediction, with {id} and {competition}.
      name: the pattern of an id.
      unlike: what an error says of an id that does not match it.
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
    """An archive that can be written.

    Attributes:
      server: the server that it is for.
      predictions: id -> the file of its prediction.
      output: the archive.
      competition: VOC's.
      translate: whether train ids become label ids.
      notes: lines for the user.
    """

    server: Server
    predictions: Mapping[str, files.AnyPath]
    output: files.AnyPath
    competition: str
    translate: bool = False
    notes: tuple[str, ...] = ()

    def member(self, name: str) -> str:
        """Returns the name in the archive of an id's prediction."""
        return self.server.member.format(id=name, competition=self.competition)


def _id(file: files.AnyPath) -> str:
    return file.stem.removesuffix(_IMAGE_END)


def _size(file: files.AnyPath) -> tuple[int, int]:
    try:
        with file.open("rb") as stream, PIL.Image.open(stream, formats=FORMATS) as image:
            return image.height, image.width
    except PILLOW_ERRORS as error:
        raise DeepLabError(f"{file}: no image that can be decoded ({error})") from None


def _expected(config: PackConfig, server: Server) -> dict[str, tuple[int, int] | None]:
    """Returns id -> (height, width) of all images that the server expects; None where --images does not tell it."""
    listed = read_list(config.list_file) if config.list_file else None
    images: dict[str, files.AnyPath] = {}
    if config.images:
        folder = files.path(config.images)
        if not folder.is_dir():
            raise DeepLabError(f"--images={config.images}: no such folder; expected the test images")
        found = (file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS)
        images = {_id(file): file for file in sorted(found)}
    names = listed or list(images)
    if listed and config.images and not images.keys() & set(listed):
        raise DeepLabError(
            f"--images={config.images} would do nothing: none of the {len(listed)} images of --list_file="
            f"{config.list_file} ({listed[0]}, ...) is in it; expected the folder of the test images"
        )
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
    """Returns what to pack, after reading and checking every prediction.

    Raises:
      DeepLabError: with one line for each fault: a prediction that is missing, of another size or with values that are
        not a class, or a name that the server does not know.
    """
    if not config.server:
        raise DeepLabError(f"--server is missing; expected one of {', '.join(SERVERS)}")
    if not config.predictions:
        raise DeepLabError("--predictions is missing; expected a folder of class indices, one PNG an image")
    server = SERVERS[config.server]
    folder = files.path(config.predictions)
    if not folder.is_dir():
        raise DeepLabError(f"--predictions={folder}: no such folder; expected one PNG of class indices an image")
    sizes = _expected(config, server)
    pngs = _by_stem(folder)
    candidates = {name: next((pngs[name + end] for end in _ENDS if name + end in pngs), []) for name in sizes}
    present = {name: found[0] for name, found in candidates.items() if found}
    strange = [name for name in sizes if not re.fullmatch(server.name, name)]
    faults = [f"{name}: not what the server calls an image; {server.unlike}" for name in strange]
    faults += [f"{name}: no prediction {name}.png in {folder}" for name in sizes if name not in present]
    several = ((name, found) for name, found in candidates.items() if found[1:])
    faults += [f"{name}: both {one} and {other}; --predictions names one folder" for name, (one, other, *_) in several]
    values = np.zeros(256, np.int64)
    for name, file in present.items():
        faults += _faults(file, sizes[name], values)
    _require_none(faults)
    translate = config.server == "cityscapes" and _is_train_ids(config, values)
    _require_none(_wrong_values(server, values, translate))
    output = files.path(config.output or server.output)
    notes = tuple(_notes(config, sizes, values, len(pngs) - len(present), translate))
    return PackPlan(server, present, output, config.competition, translate, notes)


def _require_none(faults: Sequence[str]) -> None:
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        listed = "".join(f"\n  {fault}" for fault in [*faults[:_SHOWN], *more])
        raise DeepLabError(f"{len(faults)} fault{'s' if faults[1:] else ''}, nothing was packed:{listed}")


def _notes(
    config: PackConfig, sizes: Mapping[str, object], values: np.ndarray, spare: int, translate: bool
) -> Iterator[str]:
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
        with file.open("rb") as stream, PIL.Image.open(stream, formats=FORMATS) as image:
            array = np.asarray(image)
            mode = image.mode
    except PILLOW_ERRORS as error:
        raise DeepLabError(f"{file}: cannot be decoded ({error})") from None
    if mode not in ("L", "P"):
        fault = "a picture of colours" if "RGB" in mode else "not of 8 bits a pixel"
        raise DeepLabError(f"{file}: {fault} (mode {mode}); expected class indices, as vis and predict write raw")
    return array


def _faults(file: files.AnyPath, size: tuple[int, int] | None, values: np.ndarray) -> list[str]:
    """Returns the faults of one prediction, and adds the counts of its values to `values`."""
    try:
        classes = _read(file)
    except DeepLabError as error:
        return [str(error)]
    values += np.bincount(classes.ravel(), minlength=256)
    if size and classes.shape != size:
        return [f"{file}: {classes.shape[0]} x {classes.shape[1]} pixels, the image has {size[0]} x {size[1]}"]
    return []


def _is_train_ids(config: PackConfig, values: np.ndarray) -> bool:
    """Returns whether Cityscapes' predictions hold train ids (0 is road); where both are possible, --ids must say."""
    if config.ids != "auto":
        return config.ids == "train_ids"
    wrong = {translate: sum(_unknown("cityscapes", values, translate).values()) for translate in (True, False)}
    if not any(wrong.values()):
        shown = ", ".join(map(str, np.flatnonzero(values)))
        raise DeepLabError(f"values {shown} may be train ids or label ids; say which: --ids=train_ids or label_ids")
    return wrong[True] < wrong[False]


def _unknown(dataset: str, values: np.ndarray, translate: bool) -> dict[int, int]:
    """Returns value -> pixels of the values in the predictions that are not a class."""
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
    """Yields a function that adds a file, given its name and content, to a new archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            yield lambda name, content: zipped.writestr(zipfile.ZipInfo(name), content)
        return
    with tarfile.open(path, "w:gz") as tarred:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tarred.addfile(member, io.BytesIO(content))

        yield add


def pack(plan: PackPlan) -> files.AnyPath:
    """Writes the archive of a plan, which takes its name when it is complete, and returns it.

    DeepLabError where it cannot be written.
    """
    with files.written(plan.output, flag="--output", cure="choose another file") as partial, _archive(partial) as add:
        for name, file in plan.predictions.items():
            add(plan.member(name), _encoded(plan, file))
    return plan.output
