"""The page of a report: one HTML file with its pictures, style and script in it, which needs nothing else.

`render` makes it from the contents of metrics.json and the pictures that were chosen.
"""

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.evaluation.report.charts import calibration_chart, line_chart
from deeplab_tf.evaluation.report.elements import bar, cell, document, percent, swatch, table
from deeplab_tf.evaluation.report.learning import Learning, learning_charts
from deeplab_tf.evaluation.report.tally import ImageScores
from deeplab_tf.ops.pictures import IGNORE_COLOUR, Colour

_MOST_CLASSES = 40  # of a confusion matrix that is shown
_MOST_ROWS = 2000  # of the table of images
_BANDS = (("mean IoU", "miou"), ("pixel accuracy", "pixel_accuracy"))  # the curves of the trimap
_CARDS = {
    "miou": ("mean IoU", "as the release counts"),
    "pixel_accuracy": ("pixel accuracy", "right pixels"),
    "mean_accuracy": ("mean accuracy", "mPA, over classes"),
    "frequency_weighted_iou": ("weighted IoU", "by frequency"),
    "mean_dice": ("mean Dice", "F1, over classes"),
    "kappa": ("kappa", "0 is chance, 1 perfect"),
    "boundary_iou": ("boundary IoU", "within 2&nbsp;% of the diagonal"),
    "boundary_f": ("boundary F", "contours within 0.75&nbsp;%"),
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of an image.

    Attributes:
      caption: what it shows.
      kind: the file's kind, png or jpeg.
      content: the file.
      marks: where in it classes are named: (index, x, y), in shares of its sides.
    """

    caption: str
    kind: str
    content: bytes
    marks: Sequence[tuple[int, float, float]] = ()


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The pictures of one class.

    Attributes:
      number: the class.
      pictures: images, each with the picture of the class in it.
    """

    number: int
    pictures: Sequence[tuple[ImageScores, Picture]]


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image on the page.

    Attributes:
      group: the heading above it.
      scores: its scores.
      pictures: its pictures.
      classes: its classes: (index, labelled, predicted), in shares of its pixels.
    """

    group: str
    scores: ImageScores
    pictures: Sequence[Picture]
    classes: Sequence[tuple[int, float, float]]


def _cards(metrics: Mapping[str, Any]) -> str:
    parts: list[str] = []
    ends = metrics["intervals"]["scores"]
    for name, (title, meaning) in _CARDS.items():
        value = metrics["scores"][name]
        shown = percent(value, 2) if name != "kappa" else ("&ndash;" if value is None else f"{value:.4f}")
        low, high = ends.get(name, (None, None))
        between = "" if low is None else f"<span>{100 * low:.1f} to {100 * high:.1f}</span>"
        if low is not None and name == "kappa":
            between = f"<span>{low:.3f} to {high:.3f}</span>"
        parts.append(f'<div class="card"><span>{title}</span><b>{shown}</b>{between}<span>{meaning}</span></div>')
    return f'<div class="cards">{"".join(parts)}</div>'


def _overview(metrics: Mapping[str, Any]) -> str:
    level = metrics["intervals"]["level"]
    resamples = metrics["intervals"]["resamples"]
    alarm = f'<p class="alarm">Contaminated: {escape(metrics["contaminated"])}</p>' if metrics["contaminated"] else ""
    others = [f"{escape(name)} {percent(value, 2)}" for name, value in metrics["conventions"].items()]
    conventions = f"<p>Mean IoU by convention: {', '.join(others)}.</p>" if others[1:] else ""
    intervals = f"""Below a score: its {100 * level:.0f} % interval, from {resamples:,} draws of as many images with
replacement. It tells how far other images like these would move the score; training again moves it besides."""
    if metrics["examples"] < 2:
        intervals = "There are no intervals: of one image alone, nothing tells how far another would move the scores."
    return f"""
<p class="faint">{escape(metrics["checkpoint"])}, step {metrics["step"]:,} &middot; {metrics["examples"]:,} images</p>
{alarm}{_cards(metrics)}
<p class="faint">{intervals}</p>
{conventions}"""


def _published(metrics: Mapping[str, Any]) -> str:
    """Returns the published scores of the data set; nothing for one of one's own, which has none."""
    rows = metrics["published"]
    ours = metrics["scores"]["miou"]
    title = "<h2>Beside the published score</h2>"
    if not rows:
        none = "<p>No published score of this network on this data set and split is known here.</p>"
        return f"{title}{none}" if metrics["dataset"] in DATASETS else ""
    if rows[0]["same"]:
        heading = "The published score of this network at these settings:"
    else:
        heading = (
            "None is published of this network at these settings. The nearest, of the same backbone on the same split:"
        )
    cells = [
        (
            f'<td class="wrap">{escape(row["name"])}</td>',
            cell(row["miou"], 2),
            f'<td class="n" data-v="{ours - row["miou"]:.6g}">{100 * (ours - row["miou"]):+.2f}</td>',
            f'<td class="wrap">{escape(row["settings"])}; {escape(row["source"])}</td>',
        )
        for row in rows
    ]
    return f"{title}<p>{heading}</p>{table(('result', 'published', 'this one, points', 'settings and source'), cells)}"


def _classes(metrics: Mapping[str, Any], palette: Sequence[Colour]) -> str:
    total = sum(row["labelled"] for row in metrics["classes"]) or 1
    rows = [
        (
            f"<td>{swatch(palette[row['index']])}{escape(row['name'])}</td>",
            bar(row["iou"]),
            bar(row["accuracy"], "second"),
            *(cell(row[name]) for name in ("precision", "dice", "boundary_iou", "boundary_f")),
            cell(row["labelled"] / total, 2),
        )
        for row in metrics["classes"]
    ]
    columns = ("class", "IoU", "accuracy", "precision", "Dice", "boundary IoU", "boundary F", "labelled")
    return table(columns, rows)


def _confusion(metrics: Mapping[str, Any]) -> str:
    names = [row["name"] for row in metrics["classes"]]
    matrix = metrics["confusion_matrix"]
    total = sum(map(sum, matrix)) or 1
    rows = [
        (
            f"<td>{escape(names[pair['class']])}</td><td>{escape(names[pair['prediction']])}</td>",
            cell(pair["pixels"] / total, 2),
            cell(pair["pixels"] / sum(matrix[pair["class"]])),
        )
        for pair in metrics["most_confused"]
    ]
    pairs = table(("class", "taken for", "of all pixels", "of the class"), rows)
    if len(names) > _MOST_CLASSES:
        return f"{pairs}<p>metrics.json has the matrix of all {len(names)} classes.</p>"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body: list[str] = []
    for index, (name, row) in enumerate(zip(names, matrix, strict=True)):
        shares = [value / (sum(row) or 1) for value in row]
        cells = [_shaded(share, index == column, name, names[column]) for column, share in enumerate(shares)]
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    corner = '<th class="corner">is &darr; &nbsp; taken for &rarr;</th>'
    grid = f"<thead><tr>{corner}{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    label = "What is taken for what, of each class"
    note = "<p>Percent of the pixels of each class, row by row; the diagonal, framed, is the class's accuracy.</p>"
    scrolled = f'<div class="wide" tabindex="0" role="region" aria-label="{label}">'
    return f'{pairs}{note}{scrolled}<table class="matrix">{grid}</table></div>'


def _shaded(share: float, hit: bool, name: str, prediction: str) -> str:
    text = "" if share < 0.0005 else f"{100 * share:.1f}" if share < 0.0995 else f"{100 * share:.0f}"
    title = f"{name} taken for {prediction}: {100 * share:.2f} %"
    style = f' style="background:rgba(var(--wash),{0.75 * share**0.6:.2f})"' if text else ""
    return f'<td{" class=hit" if hit else ""} title="{escape(title)}"{style}>{text}</td>'


def _curves(metrics: Mapping[str, Any]) -> str:
    bands = metrics["trimap"]
    calibration = metrics["calibration"]
    values = [(n, [math.nan if v is None else v for v in bands[k]]) for n, k in _BANDS]
    trimap = line_chart("Scores near boundaries", bands["widths"], values, x_label="width of the band, pixels")
    text = f"Scores of the pixels in bands of several widths around {bands['around']} (the papers' trimaps)."
    if all(value is None for value in bands["miou"]):
        trimap = ""
        text = f"The labels have no {bands['around']}, around which the papers' trimaps are: no scores."
    parts = [f"<div><h2>Near boundaries</h2><p>{text}</p>{trimap}</div>"]
    if calibration:
        bins = [[math.nan if v is None else v for v in calibration[k]] for k in ("confidence", "accuracy", "share")]
        chart = calibration_chart("Accuracy by confidence", *bins)
        text = (
            "The share of right pixels among those of one confidence; on the dotted line the two are equal. Expected "
            f"calibration error {percent(calibration['ece'], 2)}, of {calibration['images']:,} images."
        )
        parts.append(f"<div><h2>Calibration</h2><p>{text}</p>{chart}</div>")
    return f'<div class="pair">{"".join(parts)}</div>'


def _pictures(shown: Sequence[Shown], names: Sequence[str], palette: Sequence[Colour]) -> str:
    parts: list[str] = []
    group = None
    for one in shown:
        if one.group != group:
            group = one.group
            parts.append(f"<h2>{escape(group)}</h2><p>Of each class: share labelled &rarr; share predicted.</p>")
        scores = one.scores
        parts.append(f'<h3 id="image-{scores.index}">{escape(_name(scores))}</h3>{_summary(scores, names)}')
        figures = [_figure(picture, _name(scores), names) for picture in one.pictures]
        entries = [
            f"<li>{swatch(palette[index])}{escape(names[index])} {percent(truth)} &rarr; {percent(predicted)}</li>"
            for index, truth, predicted in one.classes
        ]
        if scores.ignored:
            entries.append(f"<li>{swatch(IGNORE_COLOUR)}not scored {percent(scores.ignored)} of the image</li>")
        parts.append(f'<div class="four">{"".join(figures)}</div><ul class="legend">{"".join(entries)}</ul>')
    return "".join(parts)


def _figure(picture: Picture, name: str, names: Sequence[str]) -> str:
    source = f"data:image/{picture.kind};base64,{base64.b64encode(picture.content).decode()}"
    image = f'<img src="{source}" alt="{escape(f"{picture.caption} of {name}")}">'
    marks = (
        # Moved by the same share of itself as of the picture, it stays inside.
        f'<span style="left:{x:.0%};top:{y:.0%};transform:translate(-{x:.0%},-{y:.0%})">{escape(names[index])}</span>'
        for index, x, y in picture.marks
    )
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>"
    return f'<figure><div class="named">{image}{"".join(marks)}</div>{caption}</figure>'


def _galleries(galleries: Sequence[Gallery], metrics: Mapping[str, Any], palette: Sequence[Colour]) -> str:
    if not galleries:
        return ""
    parts = [
        "<h2>Class by class</h2><p>The images where a class costs most pixels, and the one where it is best: blue is "
        "right, orange is missed, orange stripes are other things taken for it.</p>"
    ]
    for gallery in galleries:
        row = metrics["classes"][gallery.number]
        figures = [
            _figure(dataclasses.replace(picture, caption=_name(scores)), row["name"], ())
            for scores, picture in gallery.pictures
        ]
        head = f"{swatch(palette[gallery.number])}{escape(row['name'])}: IoU {percent(row['iou'])}"
        parts.append(f'<details><summary>{head}</summary><div class="four">{"".join(figures)}</div></details>')
    left = len(metrics["classes"]) - len(galleries)
    return "".join(parts) + (f'<p class="faint">{left} other classes have no pictures here.</p>' if left else "")


def _name(scores: ImageScores) -> str:
    return scores.name or f"image {scores.index}"


def _summary(scores: ImageScores, names: Sequence[str]) -> str:
    numbers = {"mean IoU": scores.miou, "pixel accuracy": scores.pixel_accuracy, "boundary F": scores.boundary_f}
    text = ", ".join(f"{name} {percent(value)}" for name, value in numbers.items())
    if scores.confused:
        truth, prediction = (escape(names[index]) for index in scores.confused)
        text += f"; most of all {truth} taken for {prediction}, {percent(scores.confused_share)} of the pixels"
    return f'<p class="faint">{text}</p>'


def _images(images: Sequence[ImageScores], shown: Sequence[Shown], names: Sequence[str]) -> str:
    linked = {one.scores.index for one in shown}
    order = sorted(images, key=lambda image: (math.isnan(image.miou), image.miou))
    rows: list[tuple[str, ...]] = []
    for image in order[:_MOST_ROWS]:
        name = escape(_name(image))
        name = f'<a href="#image-{image.index}">{name}</a>' if image.index in linked else name
        pair = "" if image.confused is None else " &rarr; ".join(escape(names[index]) for index in image.confused)
        numbers = (image.miou, image.pixel_accuracy, image.boundary_iou, image.boundary_f, image.ignored)
        rows.append((f"<td>{name}</td>", *map(cell, numbers), f"<td>{pair}</td>", cell(image.confused_share)))
    columns = ("image", "mean IoU", "pixel accuracy", "boundary IoU", "boundary F", "not scored", "worst mistake")
    left = f" The {_MOST_ROWS:,} worst of {len(images):,}; per_image.csv has all." if len(images) > len(rows) else ""
    note = f"<p>Each image by itself: the mean is over the classes in it, or predicted in it.{left}</p>"
    return note + table((*columns, "its share"), rows)


def render(
    metrics: Mapping[str, Any],
    images: Sequence[ImageScores],
    shown: Sequence[Shown],
    palette: Sequence[Colour],
    *,
    galleries: Sequence[Gallery] = (),
    learning: Learning | None = None,
) -> str:
    """Returns the page, as HTML.

    Args:
      metrics: the contents of metrics.json (`report.metrics_of`): None where a score is undefined.
      images: every image, for the table.
      shown: the images with pictures, in groups.
      palette: the colour of each class.
      galleries: the pictures of each class.
      learning: how the weights were learned, where that is known.
    """
    names = [row["name"] for row in metrics["classes"]]
    subject = escape(f"{metrics['dataset']} {metrics['split']}")
    options = "\n".join(f"{name}: {value}" for name, value in metrics["configuration"].items() if value is not None)
    content = f"""<h1>{subject}: mean IoU {percent(metrics["scores"]["miou"], 2)}</h1>{_overview(metrics)}
{_published(metrics)}
<h2>Classes</h2>{_classes(metrics, palette)}
<h2>What is taken for what</h2>{_confusion(metrics)}
{_curves(metrics)}
{learning_charts(learning)}
{_pictures(shown, names, palette)}
{_galleries(galleries, metrics, palette)}
<h2>All images</h2>{_images(images, shown, names)}
<h2>How this was measured</h2>
<pre>{escape(metrics["command"] or "from Python")}</pre>
<pre>{escape(options)}</pre>
<p class="faint">deeplab_tf {escape(metrics["version"])}; metrics.json and per_image.csv have the numbers.</p>"""
    return document(f"{metrics['dataset']} {metrics['split']} - deeplab_tf report", content)
