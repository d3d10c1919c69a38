"""The lists beside annotated pictures, train.txt and val.txt, that say which picture belongs to which split."""

import dataclasses
from collections.abc import Mapping

from deeplab_tf.data.annotations.listing import Listing
from deeplab_tf.data.annotations.reading import split_of
from deeplab_tf.data.file_tree import key, without_extension
from deeplab_tf.data.pairs import split_name
from deeplab_tf.data.split_lists import Images, listed_splits


@dataclasses.dataclass(frozen=True)
class Lists:
    """What the lists of a folder say.

    Attributes:
      splits: picture -> the splits that it is in; empty where there are no lists.
      missing: a line for each name in a list that no picture has.
      notes: lines for the user.
    """

    splits: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_lists(listing: Listing, *, named: bool = False) -> Lists:
    """Returns what the lists of a folder say, which are those that `split_lists` finds beside masks.

    Args:
      listing: the files of the folder.
      named: only lists called train.txt, val.txt, test.txt and the like are read.

    Raises:
      DeepLabError: a list cannot be read, is empty, or names a picture twice.
    """
    beginning = len(listing.root.rstrip("/")) + 1
    names: dict[str, list[str]] = {}
    for picture in listing.photographs():
        path = picture[beginning:]
        parts = path.split("/")
        # A list names pictures by their path, or as it is below a folder of pictures: images/train/a.jpg, a.jpg.
        for ending in ("/".join(parts[start:]) for start in range(len(parts))):
            for name in dict.fromkeys((key(ending), without_extension(ending))):
                names.setdefault(name, []).append(picture)
    images = Images(listing.root, {}, names, {})
    texts = [text[beginning:] for text in listing.files(".txt")]
    texts = [text for text in texts if not named or split_of(split_name(text))]
    found, notes = listed_splits(images, texts)
    pictures = {picture for several in names.values() for picture in several}
    splits: dict[str, tuple[str, ...]] = {}
    missing = []
    for split, pairs in found.items():
        for pair in pairs:
            if pair.image in pictures:
                splits[pair.image] = (*splits.get(pair.image, ()), split)
            else:
                missing.append(f"{split}.txt: missing image {pair.image.removeprefix(listing.root).lstrip('/')}")
    return Lists(splits, tuple(missing), tuple(notes))
