"""What leaves the program for a terminal or a spreadsheet: no byte of a file's names is obeyed there."""

import csv
import io
import pickle

import pytest

from deeplab_tf import files
from deeplab_tf.doctor.findings import ERROR, Finding
from deeplab_tf.errors import DeepLabError, OptionError, visible
from deeplab_tf.evaluation.report.writing import harmless_cell

HOSTILE = "a\x1b[31mred\x07\r\nnext\x9b2J\u202egnp.exe\udcff"
SHOWN = r"a\x1b[31mred\x07\r\nnext\x9b2J\u202egnp.exe\udcff"


def test_control_characters_are_escapes():
    assert visible(HOSTILE) == SHOWN
    assert visible("Zürich 東京　😀 tab") == "Zürich 東京　😀 tab", "what is only foreign stays"
    for kind in (DeepLabError, OptionError):
        error = pickle.loads(pickle.dumps(kind(f"{HOSTILE}: no such file")))
        assert str(error) == f"{SHOWN}: no such file"
    assert str(files.unwritable(HOSTILE, "x")).startswith(f"{SHOWN}: cannot be written")
    assert str(DeepLabError("2 faults:\n  a\n  b\tc")) == "2 faults:\n  a\n  b\\tc"
    finding = Finding("code", ERROR, (HOSTILE, "plain"), HOSTILE)
    assert (finding.evidence, finding.cure) == ((SHOWN, "plain"), SHOWN)


@pytest.mark.parametrize("begin", "=+-@\t\r\n")
def test_no_cell_is_a_formula(begin):
    text = f'{begin}cmd|" /C calc"!A0'
    stream = io.StringIO()
    csv.writer(stream).writerow([harmless_cell(text), harmless_cell(-0.5), harmless_cell("2007_000033.jpg")])
    assert next(csv.reader(io.StringIO(stream.getvalue(), newline=""))) == [f"'{text}", "-0.5", "2007_000033.jpg"]
