"""Where the data sets of the release are published, with their sums and the terms of their owners."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Download:
    """The archive of a data set.

    Attributes:
      title: of the data set.
      url: of the archive.
      kind: of archive.
      digest: its sum.
      algorithm: of the sum.
      most_bytes: that it may have.
      inside: the folder in it that the builder reads.
      parts: files and folders below that one that are unpacked.
      licence: the owners' terms, in a line.
    """

    title: str
    url: str
    kind: Literal["gzip", "zip", "tar"]
    digest: str
    algorithm: str
    most_bytes: int
    inside: str
    parts: tuple[str, ...]
    licence: str

    @property
    def file(self) -> str:
        """The name of the archive."""
        return self.url.rpartition("/")[2]


VOC = Download(
    title="PASCAL VOC 2012",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    kind="tar",
    # In tensorflow_datasets' url_checksums/voc.txt, with 1,999,639,040 bytes; torchvision has the MD5 of the same file,
    # 6cd6e144f989b92b3379bac3b3de84fd.
    digest="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    algorithm="sha256",
    most_bytes=2_000_000_000,
    inside="VOCdevkit/VOC2012",
    parts=("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
    licence="the photographs are from Flickr, whose terms of use apply to them (https://www.flickr.com/help/terms); "
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ says how to cite the data",
)
SBD = Download(
    title="SBD",
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    kind="gzip",
    digest="82b4d87ceb2ed10f6038a1cba92111cb",  # in torchvision's datasets/sbd.py; the archive has 1,419,539,633 bytes
    algorithm="md5",
    most_bytes=1_420_000_000,
    inside="benchmark_RELEASE/dataset",
    parts=("cls", "img", "train.txt", "val.txt"),
    licence="outlines by the University of California, Berkeley, of PASCAL VOC's photographs from Flickr, whose terms "
    "apply to them; http://home.bharathh.info/pubs/codes/SBD/download.html says how to cite the data",
)
ADE20K = Download(
    title="ADE20K (SceneParse150)",
    url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    kind="zip",
    digest="219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",  # in GluonCV's scripts/datasets/ade20k.py
    algorithm="sha1",
    most_bytes=1_000_000_000,
    inside="ADEChallengeData2016",
    parts=("images", "annotations"),
    licence="the photographs belong to their owners and are for non-commercial research and teaching only, the "
    "annotations are under the BSD-3-Clause licence; https://groups.csail.mit.edu/vision/datasets/ADE20K/terms/",
)
