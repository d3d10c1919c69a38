"""The lists of a JSON object read element by element, so that a file of any size takes the memory of one element."""

import dataclasses
import json
from collections.abc import Collection, Iterator
from typing import IO, Any

from deeplab_tf.data.annotations.reading import no_constant, parse_json
from deeplab_tf.errors import DeepLabError

_CHUNK = 1 << 20  # bytes
_SPACE = " \t\r\n"
# A text of Latin-1 has a character for each byte, so positions in it are positions in the file; what is JSON in UTF-8
# is JSON in it too. Texts are decoded again, as UTF-8, by whoever wants them.
_DECODER = json.JSONDecoder(parse_constant=no_constant)


@dataclasses.dataclass(frozen=True)
class Element:
    """One element of the list of a key: its bytes, and where they begin in the file."""

    key: str
    start: int
    content: bytes
    rough: Any  # the value, whose texts are not decoded


def elements(stream: IO[bytes], where: str, wanted: Collection[str]) -> Iterator[Element]:
    """Yields the elements of the lists that the keys `wanted` of an object hold; other values are passed over.

    Raises:
      DeepLabError: the file is not an object, is damaged, or a wanted value is not a list.
    """
    window = _Window(stream, where)
    window.expect("{", "an object with " + ", ".join(wanted))
    if window.next_is("}"):
        return
    while True:
        key, _ = window.value()
        if not isinstance(key, str):
            raise window.damaged("a key that is not a text")
        window.expect(":", "a colon")
        if key in wanted:
            yield from _list_elements(window, key)
        else:
            window.value()
        if not window.next_is(","):
            break
    window.expect("}", "a comma or the end of the object")


def list_elements(stream: IO[bytes], where: str) -> Iterator[Element]:
    """Yields the elements of a file that is a list. DeepLabError where it is another thing, or damaged."""
    yield from _list_elements(_Window(stream, where), "")


def _list_elements(window: "_Window", key: str) -> Iterator[Element]:
    window.expect("[", f"a list as the value of {key!r}" if key else "a list")
    if window.next_is("]"):
        return
    while True:
        window.skip_space()
        start = window.offset
        value, text = window.value()
        yield Element(key, start, text.encode("latin-1"), value)
        if not window.next_is(","):
            break
    window.expect("]", "a comma or the end of the list")


def parse_element(content: bytes, where: str) -> Any:
    """Returns the value of an element's bytes, with its texts decoded."""
    return parse_json(content, where)


class _Window:
    """A piece of the file, which moves along as values are taken."""

    def __init__(self, stream: IO[bytes], where: str):
        self._stream = stream
        self._where = where
        self._text = ""
        self._position = 0
        self._passed = 0  # bytes of the file before the piece
        self._ended = False
        self._read(_CHUNK)
        if self._text.startswith("\xef\xbb\xbf"):
            self._position = 3

    @property
    def offset(self) -> int:
        return self._passed + self._position

    def damaged(self, reason: str) -> DeepLabError:
        return DeepLabError(
            f"{self._where}: damaged JSON ({reason} at byte {self.offset}); copy or export the annotations again"
        )

    def _read(self, size: int) -> None:
        try:
            more = self._stream.read(size)
        except OSError as error:
            raise DeepLabError(f"{self._where}: cannot be read ({error.strerror or error})") from None
        self._ended = not more
        self._text = self._text[self._position :] + more.decode("latin-1")
        self._passed += self._position
        self._position = 0

    def skip_space(self) -> None:
        while True:
            while self._position < len(self._text) and self._text[self._position] in _SPACE:
                self._position += 1
            if self._position < len(self._text) or self._ended:
                return
            self._read(_CHUNK)

    def next_is(self, character: str) -> bool:
        """Passes `character` if it comes next."""
        self.skip_space()
        found = self._text.startswith(character, self._position)
        self._position += found
        return found

    def expect(self, character: str, words: str) -> None:
        if not self.next_is(character):
            found = "the end" if self._ended else repr(self._text[self._position])
            raise self.damaged(f"{found} where {words} was expected")

    def value(self) -> tuple[Any, str]:
        """Returns the next value and its text."""
        self.skip_space()
        size = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                at_end = len(self._text) - error.pos < 64 or error.msg.startswith("Unterminated string")
                if self._ended or not at_end:
                    raise self.damaged(error.msg) from None
            except RecursionError:
                raise self.damaged("nested too deeply") from None
            except ValueError as error:
                raise self.damaged(str(error)) from None
            else:
                # A number at the end of the piece may go on.
                if end < len(self._text) or self._ended:
                    text = self._text[self._position : end]
                    self._position = end
                    return value, text
            self._read(size)
            size *= 2
