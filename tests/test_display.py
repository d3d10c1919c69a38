"""What a training run shows on a terminal of 60, 80 and 100 columns."""

import os
import pty
import re
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent("""
    import fcntl, struct, termios
    from deeplab_tf.tools.display import Display
    from deeplab_tf.training.progress import Progress

    for columns in (60, 80, 100):
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        print("columns", columns)
        with Display() as display:
            display.expect(30000)
            for step in (10, 20):
                display.progressed(Progress(12000 + step, 30000, 0.1234, 0.1, 0.02, 7e-3, 123.4, 0.03, 83523.0))
                display.validated(0.7123)
            display.progressed(Progress(12030, 30000, 0.1234, 0.1, 0.02, 7e-3, 123.4, 0.03, 83523.0))
""")
STEP = "step 12030/30000  loss 0.1234"
LAST = {
    60: f"{STEP}  mIoU 0.7123  left 23:12:03",
    80: f"{STEP}  mIoU 0.7123  left 23:12:03",
    100: f"{STEP}  rate 7.00e-03  123.4 images/s  mIoU 0.7123  left 23:12:03",
}
HISTORY = {
    60: f"{STEP}  left 23:12:03",
    80: f"{STEP}  rate 7.00e-03  123.4 images/s  left 23:12:03",
    100: f"{STEP}  rate 7.00e-03  123.4 images/s  waiting 3 %  left 23:12:03",
}


def shown() -> dict[int, list[str]]:
    """The lines on a terminal of each width, those of the bar each time that it was drawn."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "CI"):
        environment.pop(name, None)
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as running:
        os.close(follower)
        text = b""
        try:
            while part := os.read(leader, 65536):
                text += part
        except OSError:  # how Linux ends a terminal
            pass
    assert running.returncode == 0, text.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    found = {}
    for piece in plain.split("columns ")[1:]:
        columns, *lines = re.split(r"[\r\n]+", piece)
        found[int(columns)] = [line.rstrip() for line in lines if line.strip()]
    return found


@pytest.mark.heavy
def test_a_training_run_on_a_terminal():
    found = shown()
    assert set(found) == set(LAST)
    for columns, lines in found.items():
        assert max(map(len, lines)) <= columns
        history = [line for line in lines if line.startswith("step ") and "mIoU" not in line]
        # One for each of the steps of the log, above the bar.
        assert [HISTORY[columns].replace("12030", str(step)) in history for step in (12010, 12020, 12030)] == [True] * 3
        assert lines[-1].lstrip("\u2501\u2578\u257a ") == LAST[columns]
