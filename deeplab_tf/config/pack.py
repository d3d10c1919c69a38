"""PackConfig: which predictions go to which evaluation server. Import it from deeplab_tf.config."""

import dataclasses
from typing import Literal, get_args

from deeplab_tf.config.fields import Options, option, path_option
from deeplab_tf.errors import unknown_name

ServerName = Literal["voc", "cityscapes", "ade20k"]
Competition = Literal["comp5", "comp6"]
Ids = Literal["auto", "train_ids", "label_ids"]
SERVERS: tuple[ServerName, ...] = get_args(ServerName)
COMPETITIONS: tuple[Competition, ...] = get_args(Competition)
ID_CHOICES: tuple[Ids, ...] = get_args(Ids)


@dataclasses.dataclass(frozen=True)
class PackConfig(Options):
    """The predictions that an archive for an evaluation server is made of, and its form."""

    server: ServerName | None = option(None, f"server: {', '.join(SERVERS)}")
    predictions: str | None = path_option(
        None, "folder of class indices, one PNG an image: raw_segmentation_results of vis, or what predict wrote"
    )
    images: str | None = path_option(
        None, "folder of the test images: which predictions must be there (unless list_file says it), and of which size"
    )
    list_file: str | None = path_option(
        None, "file with the ids of the test images, one a line, instead of all in --images"
    )
    output: str | None = path_option(None, "archive to write (default: results.tgz for voc, else <server>.zip)")
    competition: Competition = option("comp6", "voc: comp5, trained on VOC 2012 alone, or comp6, on any data")
    ids: Ids = option(
        "auto",
        "cityscapes: what the predictions hold: train_ids (0 is road), label_ids (7 is road, as vis writes them)",
    )
    dry_run: bool = option(False, "only check, write nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {"server": SERVERS, "competition": COMPETITIONS, "ids": ID_CHOICES}
        for name, choices in known.items():
            if getattr(self, name) not in (*choices, None):
                raise unknown_name(name, getattr(self, name), choices)
