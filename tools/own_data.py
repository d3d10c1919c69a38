"""The part of build-data for one's own data: its flags, and the data that they describe."""

from typing import TYPE_CHECKING

from absl import flags

from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import help_pages, options

if TYPE_CHECKING:
    from deeplab_tf.data.folder import FolderData
    from deeplab_tf.data.photographs import PhotographOptions


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of divisions, photographs and annotations."""
    with help_pages.grouped(values, "division"):
        _define_division(values)
    with help_pages.grouped(values, "photographs"):
        _define_photographs(values)
    with help_pages.grouped(values, "annotations"):
        _define_annotations(values)


def _define_division(values: flags.FlagValues) -> None:
    text = "where there is no val, the share of images that become val, as 0.2 (default: none)"
    flags.DEFINE_float("val_share", None, text, flag_values=values)
    text = "for --val_share: a regular expression whose first group (else the whole match) in an image's name is what "
    text += "stays together, for instance the video: (.*)_frame (default: each image by itself)"
    flags.DEFINE_string("group_by", None, text, flag_values=values)
    text = "for --val_share: another division for each number (default: 0)"
    flags.DEFINE_integer("split_seed", None, text, flag_values=values)


def _define_photographs(values: flags.FlagValues) -> None:
    text = (
        "low,high of the photographs' values, which become 0 and 255, or low,high of each band in turn (default: 0.1 "
    )
    text += "and 99.9 % of the values of a sample of the training split; 8-bit photographs: 0,255)"
    flags.DEFINE_list("value_range", [], text, flag_values=values)
    text = "names of the photographs' bands; four names keep the fourth channel of RGBA pictures (default: none)"
    flags.DEFINE_list("bands", [], text, flag_values=values)
    text = "three bands that pictures show as red, green and blue, from 0 (default: 0,1,2)"
    flags.DEFINE_list("shown_bands", [], text, flag_values=values)
    text = "photographs with an EXIF orientation: apply: store them upright; ignore: as they are; auto: upright where "
    text += "the label has the upright size, a fault where that does not show it (default: auto)"
    flags.DEFINE_enum("exif", "auto", ["auto", "apply", "ignore"], text, flag_values=values)
    text = "most pixels of a photograph; beyond the default it is taken for damaged (default: 178956970)"
    flags.DEFINE_integer("max_image_pixels", None, text, lower_bound=1, flag_values=values)


def _define_annotations(values: flags.FlagValues) -> None:
    text = "folder: the file or folder of the annotations, COCO, LabelMe, CVAT... (default: found below --root)"
    options.define_path(values, "annotations", None, text)
    names = ["coco", "coco_panoptic", "labelme", "cvat", "cvat_video", "yolo", "supervisely", "labelstudio"]
    names += ["labelstudio_min"]
    text = "annotations: their format (default: by what the files hold)"
    flags.DEFINE_enum("annotation_format", None, names, text, flag_values=values)
    text = (
        "annotations: of shapes that overlap, draw the largest first, or draw them as listed, in CVAT by z_order "
        "(default: largest_first for COCO and YOLO, whose order means nothing; as_listed for the others)"
    )
    flags.DEFINE_enum("drawing_order", None, ["largest_first", "as_listed"], text, flag_values=values)
    text = "annotations: pixels on either side of a boundary between two classes to ignore (default: 0)"
    flags.DEFINE_integer("border_ignore", 0, text, lower_bound=0, flag_values=values)
    text = (
        "annotations: pictures without a shape become background, are left out, or refused (default: background where "
        "the annotations name them and in YOLO, else leave_out)"
    )
    flags.DEFINE_enum("unannotated", None, ["background", "leave_out", "refuse"], text, flag_values=values)


def photograph_options(values: flags.FlagValues) -> "PhotographOptions":
    """Returns what the flags say of the photographs."""
    from deeplab_tf.data.photographs import PhotographOptions

    def numbers(flag: str, kind: type) -> tuple:
        given = values[flag].value or []
        try:
            return tuple(kind(number) for number in given)
        except ValueError:
            example = "0,1,2" if kind is int else "100,4000"
            raise DeepLabError(f"--{flag}={','.join(given)}: expected numbers, as in {example}") from None

    return PhotographOptions(
        value_range=numbers("value_range", float),
        bands=tuple(name.strip() for name in values.bands),
        shown=numbers("shown_bands", int),
        exif=values.exif,
        max_pixels=values.max_image_pixels,
    )


def read_own_data(values: flags.FlagValues, scratch: str) -> "FolderData":
    """Returns the data in --root, of labels or of annotations, and prints what the user should know of them.

    scratch: a folder that lives as long as the build, for labels drawn from annotations.
    """
    from deeplab_tf.data import folder, splitting

    options.require(values, "root")
    given = values.val_share is not None
    division = splitting.Division(values.val_share, values.group_by, values.split_seed or 0) if given else None
    data = folder.divided(_annotated(values, scratch) or folder.read_folder(values.root), division)
    for note in data.notes:
        print(f"Note: {note}")
    return data


def _annotated(values: flags.FlagValues, scratch: str) -> "FolderData | None":
    """Returns the data of a folder of annotations, whose labels are drawn into `scratch`; None for one of masks."""
    from deeplab_tf.data.annotations.conversion import Conversion, Converted
    from deeplab_tf.data.annotations.folder import Choice, annotated_folder
    from deeplab_tf.data.class_names import class_notes, named_classes
    from deeplab_tf.data.folder import FolderData

    upright = values.exif != "ignore"
    limit = values.max_image_pixels
    conversion = Conversion(values.drawing_order, values.border_ignore, values.unannotated, upright, limit)
    choice = Choice(values.annotations, values.annotation_format, conversion)
    found = annotated_folder(values.root, named_classes(values.root), choice, scratch)
    if not isinstance(found, Converted):
        if found:
            print(f"Note: {found}")
        return None
    if values.beam_runner:
        where = "labels drawn from annotations lie on this machine, where other machines do not see them"
        raise DeepLabError(f"--beam_runner={values.beam_runner}: {where}; build without it")
    if upright:
        values.exif = "apply"  # the labels were drawn for upright pictures
    return FolderData(found.facts, found.splits, [*class_notes(found.facts), *found.notes])
