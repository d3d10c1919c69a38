"""Pictures of labels: colour masks, overlays with a legend, palette PNGs, and contact sheets.

These are pure functions of NumPy arrays. They work in strips of rows that stay in the cache, so that they need hardly
any memory besides the result's.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import png_bytes

IGNORE_COLOUR = (224, 224, 192)  # of PASCAL VOC's label 255

_STRIP_PIXELS = 1 << 16
_PAPER = (250, 250, 248)
_INK = (34, 34, 38)
_FAINT = (120, 120, 126)

# Red, green, blue in 0..255.
Colour = tuple[int, int, int]
# Index, name and share of the pixels of a class.
ClassShare = tuple[int, str, float]


def colour_mask(labels: np.ndarray, palette: Sequence[Colour], *, ignore_label: int | None = None) -> np.ndarray:
    """Returns the picture of labels in the colours of a palette: uint8 [h, w, 3].

    Source: the release's utils/get_dataset_colormap.py.

    Args:
      labels: integers [h, w].
      palette: the colour of each label, in label order.
      ignore_label: a label that is drawn in IGNORE_COLOUR instead; None: none is.

    Raises:
      DeepLabError: a label beyond the palette.
    """
    table = _colour_table(palette, ignore_label)
    _check_labels(labels, len(palette), ignore_label, what="colours in the palette")
    mask = np.empty((*labels.shape, 3), np.uint8)
    for strip in _strips(labels.shape):
        # The labels have been checked; "clip" spares NumPy its own check, and a copy of the result with it.
        np.take(table, labels[strip], axis=0, out=mask[strip], mode="clip")
    return mask


def class_shares(
    labels: np.ndarray, class_names: Sequence[str], *, ignore_label: int | None = None
) -> list[ClassShare]:
    """Returns (index, name, share) of each class that is present, the largest share first.

    Shares are in (0, 1] and sum to 1.

    Args:
      labels: integers [h, w].
      class_names: the name of each label, in label order.
      ignore_label: pixels with this label do not count.

    Raises:
      DeepLabError: a label without a name.
    """
    _check_labels(labels, len(class_names), ignore_label, what="class names")
    counts = np.zeros(max(len(class_names), (ignore_label or 0) + 1), np.int64)
    for strip in _strips(labels.shape):
        counts += np.bincount(labels[strip].ravel(), minlength=len(counts))
    if ignore_label is not None:
        counts[ignore_label] = 0
    total = int(counts.sum())
    order = np.argsort(-counts, kind="stable")
    return [(i, class_names[i], float(counts[i] / total)) for i in map(int, order) if counts[i]]


def blend(
    image: np.ndarray,
    labels: np.ndarray,
    palette: Sequence[Colour],
    *,
    alpha: float = 0.55,
    ignore_label: int | None = None,
) -> np.ndarray:
    """Returns a picture tinted with the colours of its labels, a thin white line between classes: uint8 [h, w, 3].

    The line is one pixel wide up to about a megapixel and grows with the picture.

    Args:
      image: uint8 [h, w, 3].
      labels: integers [h, w].
      palette: the colour of each label, in label order.
      alpha: weight of the colour, 0..1.
      ignore_label: a label that is drawn in IGNORE_COLOUR instead; None: none is.

    Raises:
      DeepLabError: a label beyond the palette, or sizes that differ.
    """
    mixed = colour_mask(labels, palette, ignore_label=ignore_label)
    _check_image(image, labels, alpha)
    weight = round(alpha * 256)
    line = max(1, round((labels.size**0.5) / 900))
    for strip in _strips(labels.shape):
        sum_of_both = mixed[strip].astype(np.uint16) * np.uint16(weight)
        sum_of_both += image[strip].astype(np.uint16) * np.uint16(256 - weight)
        mixed[strip] = (sum_of_both + np.uint16(128)) >> 8
        mixed[strip][_borders(labels, strip, line)] = 255
    return mixed


def cut_out(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the parts of a picture that are not of class 0, the background: uint8 [h, w, 4], red, green, blue, alpha.

    The rest is transparent, and black where a program does not know of that.

    Args:
      image: uint8 [h, w, 3].
      labels: integers [h, w].
    """
    kept = np.asarray(labels) != 0
    result = np.zeros((*image.shape[:2], 4), np.uint8)
    result[kept, :3] = image[kept]
    result[kept, 3] = 255
    return result


def with_legend(picture: np.ndarray, shares: Sequence[ClassShare], palette: Sequence[Colour]) -> np.ndarray:
    """Returns `picture` above a legend of the `shares` that `class_shares` gives: uint8 [h + legend, at least w, 3].

    The letters grow with the picture, uint8 [h, w, 3], and are never below 12 pixels: a picture that is too narrow for
    one entry of the legend is placed at the left of a wider sheet.
    """
    entries = [(name, _colour(palette[index]), _percent(share)) for index, name, share in shares]
    height, width = picture.shape[:2]
    size = max(12, round((height * width) ** 0.5 / 55))
    return _stack([picture, _legend_strip(entries, width, size)])


def palette_png(labels: np.ndarray, palette: Sequence[Colour]) -> bytes:
    """Returns a PNG (mode P) whose palette indices are the labels.

    np.array(PIL.Image.open(...)) gives them back, as uint8. Other decoders may expand the palette to colours; use a
    grey PNG where they must not.

    Args:
      labels: integers [h, w] in 0..255; those beyond the palette (255, say) are kept, and shown in IGNORE_COLOUR.
      palette: the colour of each label, in label order; from the 257th on they are left out.

    Raises:
      DeepLabError: a label beyond 255.
    """
    _check_labels(labels, 256, None, what="entries in the palette of a PNG")
    colours = [_colour(colour) for colour in palette[:256]]
    colours += [IGNORE_COLOUR] * (256 - len(colours))
    return png_bytes(labels.astype(np.uint8), bytes(channel for colour in colours for channel in colour))


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
        parts.append(_legend_strip([(name, _colour(colour), "") for name, colour in legend], width, size))
    return np.pad(_stack(parts), ((gap, gap), (gap, gap), (0, 0)), constant_values=_PAPER[0])


# ---- labels


def _colour(channels: Sequence[int]) -> Colour:
    red, green, blue = channels
    return red, green, blue


def _check_labels(labels: Any, count: int, ignore_label: int | None, *, what: str) -> None:
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        shape = getattr(labels, "shape", "no shape")
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise DeepLabError(f"labels are {kind} {shape}: expected an array of integers [height, width]")
    if not labels.size:
        raise DeepLabError(f"labels are empty, {labels.shape}: expected at least one pixel")
    if labels.min() >= 0 and labels.max() < count:
        return
    for strip in _strips(labels.shape):
        part = labels[strip]
        wrong = (part < 0) | (part >= count)
        if ignore_label is not None:
            wrong &= part != ignore_label
        if wrong.any():
            raise DeepLabError(f"label {part[wrong].max()} in a map of 0..{count - 1}: there are {count} {what}")


def _check_image(image: np.ndarray, labels: np.ndarray, alpha: float) -> None:
    if image.dtype != np.uint8 or image.shape != (*labels.shape, 3):
        expected = f"uint8 {(*labels.shape, 3)}, to match the labels"
        raise DeepLabError(f"the image is {image.dtype} {image.shape}: expected {expected}")
    if not 0 <= alpha <= 1:
        raise DeepLabError(f"alpha={alpha}: expected 0 (photo only) to 1 (colours only)")


def _colour_table(palette: Sequence[Colour], ignore_label: int | None) -> np.ndarray:
    table = np.asarray(palette)
    if table.ndim != 2 or table.shape[1] != 3 or table.min() < 0 or table.max() > 255:
        raise DeepLabError(f"a palette of shape {table.shape}: expected [colours, 3] with values 0..255")
    table = table.astype(np.uint8)
    if ignore_label is not None:
        missing = max(0, ignore_label + 1 - len(table))
        table = np.concatenate([table, np.zeros((missing, 3), np.uint8)])
        table[ignore_label] = IGNORE_COLOUR
    return table


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yields slices of rows of about _STRIP_PIXELS each."""
    rows = max(1, _STRIP_PIXELS // shape[1])
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def _borders(labels: np.ndarray, strip: slice, line: int) -> np.ndarray:
    """Returns the pixels of `strip` with the end of a class within `line` pixels right or below: bool [rows, w]."""
    part = labels[strip.start : strip.stop + line]
    edge = np.zeros(part.shape, bool)
    edge[:, :-1] = part[:, 1:] != part[:, :-1]
    edge[:-1] |= part[1:] != part[:-1]
    thick = edge.copy()
    for step in range(1, line):
        thick[:, step:] |= edge[:, :-step]
    edge = thick.copy()
    for step in range(1, line):
        edge[:-step] |= thick[step:]
    return edge[: strip.stop - strip.start]


# ---- text and layout


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


# ---- sheets


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
