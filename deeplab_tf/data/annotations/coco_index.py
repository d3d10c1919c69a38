"""The index of pictures and categories that COCO's two kinds of files share (cocodataset.org/#format-data)."""

import abc
import dataclasses
from typing import Any, TypeVar

from deeplab_tf import files
from deeplab_tf.data.annotations.reading import checked, field, shown
from deeplab_tf.data.annotations.streamed_json import Element, elements, parse_element
from deeplab_tf.errors import DeepLabError

Id = int | str
_OneIndex = TypeVar("_OneIndex", bound="CocoIndex")


def identity_of(values: dict[str, Any], key: str, place: str) -> Id:
    """Returns the number or name at `key`. DeepLabError where it is neither; `place` says where that is."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DeepLabError(f"{place}: {key}={shown(value)}; expected a whole number")
    return value


@dataclasses.dataclass
class CocoIndex(abc.ABC):
    """What is kept of a file: its pictures, its categories and, in a subclass, where the annotations are."""

    file: str
    pictures: dict[Id, dict[str, Any]] = dataclasses.field(default_factory=dict)
    categories: dict[Id, str] = dataclasses.field(default_factory=dict)
    parents: set[str] = dataclasses.field(default_factory=set)  # names of supercategories

    @classmethod
    def read(cls: type[_OneIndex], file: str) -> _OneIndex:
        """Returns the index of a file. DeepLabError where it cannot be read or refers to what it lacks."""
        index = cls(file)
        try:
            with files.path(file).open("rb") as stream:
                for element in elements(stream, file, ("images", "annotations", "categories")):
                    index._add(element)
        except OSError as error:
            what = f"cannot be read ({error.strerror or error}); expected COCO annotations"
            raise DeepLabError(f"{file}: {what}") from None
        index.require_whole()
        if not index.pictures:
            raise DeepLabError(f"{file}: no images; expected a list images, with file_name, height and width")
        return index

    @abc.abstractmethod
    def add_annotation(self, element: Element, place: str) -> None:
        """Keeps what is needed of an annotation. DeepLabError where it is not one; `place` says where that is."""

    @abc.abstractmethod
    def require_whole(self) -> None:
        """Raises DeepLabError where annotations refer to pictures or categories that the file lacks."""

    def ordered_categories(self) -> list[str]:
        """Returns the names of the categories in the order of their ids, numbers first."""
        return [self.categories[one] for one in sorted(self.categories, key=lambda one: (isinstance(one, str), one))]

    def _add(self, element: Element) -> None:
        place = f"{self.file}: {element.key} at byte {element.start}"
        if element.key == "annotations":
            self.add_annotation(element, place)
            return
        values = checked(parse_element(element.content, place), dict, place)
        known = self.pictures if element.key == "images" else self.categories
        one = identity_of(values, "id", place)
        require_new(one, known, element, place)
        if element.key == "images":
            self.pictures[one] = {key: values.get(key) for key in ("file_name", "height", "width")}
        else:
            self.categories[one] = field(values, "name", str, place).strip()
            parent = values.get("supercategory")
            self.parents |= {parent} if isinstance(parent, str) else set()


def require_new(one: Id, known: dict[Id, Any], element: Element, place: str) -> None:
    """Raises DeepLabError where an id is among `known`."""
    if one in known:
        raise DeepLabError(f"{place}: id {shown(one)} occurs twice among the {element.key}; expected one each")
