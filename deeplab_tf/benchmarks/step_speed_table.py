"""The figures of `benchmark --what=train_step --networks=...` as a Markdown table."""

from collections.abc import Sequence
from typing import Any

_HEAD = (
    "| network | precision | by | images/s | ms a step (middle half) | of the card's peak | GMAC an image "
    "| peak MB, warm | first step, s |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _line(row: dict[str, Any]) -> str:
    start = f"| {row['network']} | {row['precision']} |"
    if "error" in row:
        torch = "PyTorch, torch.compile" if row["compiled"] else "PyTorch, eager"
        by = "TensorFlow" if row["program"] == "tensorflow_step" else torch
        return f"{start} {by} | not measured: {_cell(row['error'])} | | | | | |"
    low, high = row["step_ms_middle_half"]
    share = row["no_share"] if row["share_of_peak"] is None else f"{100 * row['share_of_peak']:.1f} %"
    return (
        f"{start} {row['by']} | {row['images_per_s']:.2f} | {row['step_ms']:.1f} ({low:.1f} to {high:.1f}) | {share} "
        f"| {row['gmac']:.1f} | {row['peak_mb']:.0f}, {row['warm_peak_mb']:.0f} | {row['first_step_s']:.1f} |"
    )


def _comparisons(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a line for each row of PyTorch's that has one of the project's to compare."""
    ours = {
        (row["network"], row["precision"]): row["images_per_s"]
        for row in rows
        if row["program"] == "tensorflow_step" and "error" not in row
    }
    lines = []
    for row in rows:
        key = row["network"], row["precision"]
        if row["program"] == "torch_step" and "error" not in row and key in ours:
            ratio = ours[key] / row["images_per_s"]
            lines.append(f"* {key[0]}, {key[1]}: {ratio:.2f} of the images/s of {row['by']}")
    return lines


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows of `step_speed.measure` as a Markdown table, with what was measured above it."""
    devices = {row["device"] for row in rows if row.get("device")}
    where = ", ".join(sorted(devices)) or ("the GPU" if rows[0]["on"] == "gpu" else "CPU")
    height, width = rows[0]["size"]
    title = f"Training steps on {where}, batch {rows[0]['batch']} at {height} x {width}, batches that lie there already"
    comparisons = _comparisons(rows)
    return "\n".join([title, "", *_HEAD, *map(_line, rows), *([""] if comparisons else []), *comparisons])
