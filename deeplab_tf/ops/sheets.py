"""Sheets: a picture with the legend of its classes, and several pictures in rows with captions."""

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.pictures import ClassShare, Colour, as_colour

_PAPER = (250, 250, 248)
_INK = (34, 34, 38)
_FAINT = (120, 120, 126)


def with_legend(picture: np.ndarray, shares: Sequence[ClassShare], palette: Sequence[Colour]) -> np.ndarray:
    """Returns `picture` above a legend of the `shares` that `class_shares` gives: uint8 [h + legend, at least w, 3].

    The letters grow with the picture, uint8 [h, w, 3], and are never below 12 pixels: a picture that is too narrow for
    one entry of the legend is placed at the left of a wider sheet.
    """
    entries = [(name, as_colour(palette[index]), _percent(share)) for index, name, share in shares]
    height, width = picture.shape[:2]
    size = max(12, round((height * width) ** 0.5 / 55))
    return _stack([picture, _legend_strip(entries, width, size)])


def picture_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    column_titles: Sequence[str] = (),
    row_captions: Sequence[str] = (),
    legend: Sequence[tuple[str, Colour]] = (),
    title: str = "",
    tile: int = 240,
) -> np.ndarray:
    """Returns one picture of tiles in rows, such as photo | label | prediction | overlay: uint8 [height, width, 3].

    Args:
      rows: equally long rows of pictures, uint8 [h, w, 3] of any size.
      column_titles: above the columns.
      row_captions: below the rows.
      legend: entries (name, colour) at the foot.
      title: at the top.
      tile: side in pixels (64..1024) of the squares that the pictures are scaled to fit.

    Raises:
      DeepLabError: rows, titles or captions that do not match in number, or a picture of another shape.
    """
    _check_sheet(rows, column_titles, row_captions, tile)
    size = max(12, tile // 16)
    gap = max(6, tile // 24)
    width = len(rows[0]) * (tile + gap) - gap
    parts: list[np.ndarray] = []
    if title:
        parts.append(_text_strip([title], width, round(size * 1.5), _INK))
    if column_titles:
        parts.append(_text_strip(column_titles, tile, size, _INK, gap=gap))
    for number, row in enumerate(rows):
        parts.append(_tile_row([_fitted(picture, tile) for picture in row], tile, gap))
        if row_captions:
            parts.append(_text_strip([row_captions[number]], width, size, _FAINT))
        parts.append(_paper(gap, width))
    if legend:
        parts.append(_legend_strip([(name, as_colour(colour), "") for name, colour in legend], width, size))
    return np.pad(_stack(parts), ((gap, gap), (gap, gap), (0, 0)), constant_values=_PAPER[0])


@functools.lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=1024)
def _text_width(text: str, size: int) -> int:
    return int(_font(size).getlength(text)) + 1


def _shortened(text: str, size: int, width: int) -> str:
    """Returns `text`; if it is wider than `width` pixels, dots replace its end."""
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + "...", size) > width:
        text = text[:-1]
    return text + "..."


def _percent(share: float) -> str:
    return "<0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def _paper(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the pictures one below the other, at the left of a sheet as wide as the widest."""
    width = max(part.shape[1] for part in parts)
    sheet = _paper(sum(part.shape[0] for part in parts), width)
    top = 0
    for part in parts:
        sheet[top : top + part.shape[0], : part.shape[1]] = part
        top += part.shape[0]
    return sheet


def _text_strip(texts: Sequence[str], width: int, size: int, colour: Colour, *, gap: int = 0) -> np.ndarray:
    """Returns a strip of texts, each in its own column of `width` pixels with `gap` between."""
    strip = Image.fromarray(_paper(round(size * 1.8), len(texts) * (width + gap) - gap))
    draw = ImageDraw.Draw(strip)
    for i, text in enumerate(texts):
        position = (i * (width + gap), strip.height // 2)
        draw.text(position, _shortened(text, size, width), fill=colour, font=_font(size), anchor="lm")
    return np.asarray(strip)


def _legend_strip(entries: Sequence[tuple[str, Colour, str]], width: int, size: int) -> np.ndarray:
    """Returns swatches with name and value, in as many equal columns as `width` takes: uint8 [h, width or more, 3]."""
    line, pad = round(size * 1.7), size // 2
    name_width = max((_text_width(name, size) for name, _, _ in entries), default=0)
    value_width = max((_text_width(value, size) for _, _, value in entries if value), default=-pad)
    column = 2 * pad + size + name_width + pad + value_width + 2 * pad
    across = max(1, min(len(entries), (width - pad) // column))
    down = -(-len(entries) // across)
    strip = Image.fromarray(_paper(down * line + 2 * pad, max(width, across * column + pad)))
    draw = ImageDraw.Draw(strip)
    for number, (name, colour, value) in enumerate(entries):
        # Column by column, as a list is read.
        left = pad + number // down * column
        middle = pad + number % down * line + line // 2
        swatch = (left, middle - size // 2, left + size, middle - size // 2 + size)
        draw.rectangle(swatch, fill=colour, outline=_FAINT, width=max(1, size // 16))
        text = left + size + pad
        draw.text((text, middle), name, fill=_INK, font=_font(size), anchor="lm")
        draw.text((text + name_width + pad + value_width, middle), value, fill=_FAINT, font=_font(size), anchor="rm")
    return np.asarray(strip)


def _check_sheet(
    rows: Sequence[Sequence[np.ndarray]], column_titles: Sequence[str], row_captions: Sequence[str], tile: int
) -> None:
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise DeepLabError(f"rows of {sorted(lengths)} pictures: expected one or more rows of equal length")
    if column_titles and len(column_titles) != len(rows[0]):
        raise DeepLabError(f"{len(column_titles)} column titles for {len(rows[0])} columns")
    if row_captions and len(row_captions) != len(rows):
        raise DeepLabError(f"{len(row_captions)} row captions for {len(rows)} rows")
    if not 64 <= tile <= 1024:
        raise DeepLabError(f"tile={tile}: expected 64 to 1024 pixels")
    for picture in (picture for row in rows for picture in row):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise DeepLabError(f"a tile is {picture.dtype} {picture.shape}: expected uint8 [height, width, 3]")


def _fitted(picture: np.ndarray, tile: int) -> np.ndarray:
    """Returns `picture` scaled so that its longer side is `tile`: down with a filter, up as plain pixels."""
    height, width = picture.shape[:2]
    scale = tile / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale >= 1:
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def _tile_row(pictures: Sequence[np.ndarray], tile: int, gap: int) -> np.ndarray:
    """Returns the pictures side by side, each at the top left of its column of `tile` pixels."""
    height = max(picture.shape[0] for picture in pictures)
    row = _paper(height, len(pictures) * (tile + gap) - gap)
    for i, picture in enumerate(pictures):
        left = i * (tile + gap)
        row[: picture.shape[0], left : left + picture.shape[1]] = picture
    return row
