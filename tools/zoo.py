"""Lists the released checkpoints: data set, training split, published scores with their settings, cached or not.

Each name is a valid --checkpoint of the other commands, which download and convert it once.
"""

from collections.abc import Sequence

from absl import flags

from deeplab_tf.tools import options


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    flags.DEFINE_boolean("markdown", False, "print the table as Markdown, as in the documentation", flag_values=values)
    text = "for developers: write <name>.json, the variables each archive must have, to this folder"
    options.define_path(values, "write_manifests", None, text)


def _write_manifests(folder: str) -> None:
    import json

    from deeplab_tf import files

    options.start_tensorflow()
    from deeplab_tf.weights.loading import manifest_of
    from deeplab_tf.zoo.lookup import CHECKPOINTS

    for entry in CHECKPOINTS.values():
        if entry.file:
            rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in manifest_of(entry).items())
            with files.written(files.path(folder) / f"{entry.name}.json", flag="--write_manifests") as file:
                file.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
            print(entry.name)


def main(values: flags.FlagValues) -> None:
    """Prints the table of released checkpoints, or writes their manifests."""
    from deeplab_tf.zoo import lookup

    if values.write_manifests:
        _write_manifests(values.write_manifests)
        return
    if values.markdown:
        print(lookup.zoo_markdown(), end="")
        return
    import rich.box
    import rich.console
    import rich.table

    rows = lookup.zoo_table()
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "cached", "size"))
    for row in rows:
        table.add_row(*row.values())
    console = rich.console.Console()
    # A pipe has no width, so give it one that fits each row on a line.
    (console if console.is_terminal else rich.console.Console(width=200)).print(table)


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
