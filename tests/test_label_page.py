"""The labelling page in a browser, as a person uses it; needs Debian's package chromium or chromium-headless-shell."""

import json

import numpy as np
import PIL.Image
import pytest
from axe import violations
from chromium import chromium, find_chromium
from commands import finished
from test_label import Client

from deeplab_tf.config import LabelConfig
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.ops.images import write_png
from deeplab_tf.tools import build_data, train
from deeplab_tf.weights.loading import open_model

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_chromium() is None, reason="no chromium: apt-get install chromium-headless-shell"),
]
READY = "document.getElementById('name')?.textContent.endsWith('.png')"
SAVED = "document.getElementById('saved').textContent === 'Saved'"
STAR = 4


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def server(tmp_path):
    from deeplab_tf.labelling.app import build_label_app
    from deeplab_tf.labelling.labeller import Labeller
    from deeplab_tf.serving.server import serving

    for number in range(4):
        image, _ = shapes_example(0, FIRST_INDEX["test"] + number, height=97, width=129)
        (tmp_path / "photos").mkdir(exist_ok=True)
        write_png(image, tmp_path / "photos" / f"p {number}.png")
    options = LabelConfig(images=str(tmp_path / "photos"), output=str(tmp_path / "out"), port=0, runtime="tf")
    labeller = Labeller(open_model("shapes_resnet", {}), options)
    with labeller.running(), serving(labeller, build_label_app) as address:
        Client(address).rows()
        yield address


@pytest.fixture
def page(browser, server):
    browser.open("about:blank")
    browser.events.clear()
    browser.size(1280, 900)
    browser.open(server, READY)
    browser.run("localStorage.clear()")
    yield browser
    assert browser.complaints() == []


def at(page, x: float, y: float) -> tuple[float, float]:
    """Where a point of the picture is on the screen."""
    script = f"""import("/shared.js").then(({{ view, board }}) => {{
        const box = board.getBoundingClientRect(), [x, y] = view.onScreen([{x}, {y}]);
        return [box.left + x, box.top + y];
    }})"""
    return tuple(page.run(script))


def mouse(page, kind: str, x: float, y: float, buttons: int = 1):
    button = "none" if kind == "mouseMoved" else "left"
    page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1)


def drag(page, *points: tuple[float, float]):
    places = [at(page, *point) for point in points]
    mouse(page, "mouseMoved", *places[0], buttons=0)
    mouse(page, "mousePressed", *places[0])
    for place in places[1:]:
        mouse(page, "mouseMoved", *place)
    mouse(page, "mouseReleased", *places[-1], buttons=0)


def touch(page, kind: str, *points: tuple[float, float]):
    page.call(
        "Input.dispatchTouchEvent",
        type=kind,
        touchPoints=[{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)],
    )


def mask(page) -> np.ndarray:
    script = 'import("/shared.js").then(({ app }) => [app.mask.height, app.mask.width, [...app.mask.data]])'
    height, width, values = page.run(script)
    return np.array(values, np.uint8).reshape(height, width)


def name(page) -> str:
    return page.run("document.getElementById('name').textContent")


def press(page, key: str, code: str = "", modifiers: int = 0):
    numbers = {"Enter": 13, " ": 32, "Escape": 27, "Backspace": 8, "ArrowRight": 39, "ArrowDown": 40, "PageDown": 34}
    number = numbers.get(key, ord(key.upper()) if len(key) == 1 else 0)
    for kind in ("rawKeyDown", "keyUp"):
        page.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key=key,
            code=code or (f"Digit{key}" if key.isdigit() else ""),
            windowsVirtualKeyCode=number,
            modifiers=modifiers,
        )


def saved_label(tmp_path, picture: str) -> np.ndarray:
    with PIL.Image.open(tmp_path / "out" / "labels" / picture) as image:
        return np.asarray(image)


def test_correct_reload_build_and_train(page, tmp_path, capsys):
    first, before = name(page), mask(page)
    page.run(f"document.querySelector('#classes input[value=\"{STAR}\"]').click()")
    drag(page, (10, 10), (40, 10), (40, 30))
    painted = mask(page)
    assert (painted[10, 10:40] == STAR).all() and (painted[10:30, 40] == STAR).all() and page.wait(SAVED)
    press(page, "z")
    np.testing.assert_array_equal(mask(page), before)
    press(page, "Z", modifiers=8)
    np.testing.assert_array_equal(mask(page), painted)

    press(page, "p")
    for point in ((60, 50), (90, 50), (90, 80), (60, 80)):
        drag(page, point)
    press(page, "Enter")
    square = mask(page)
    assert (square[50:80, 60:90] == STAR).all() and (
        np.delete(square, np.s_[49:81], 0) == np.delete(painted, np.s_[49:81], 0)
    ).all()
    press(page, "f")
    press(page, "2")
    drag(page, (75, 65))
    assert (mask(page)[50:80, 60:90] == 1).all()
    page.wait(SAVED)
    np.testing.assert_array_equal(saved_label(tmp_path, first), mask(page))

    # A reload goes on where one was.
    final = mask(page)
    page.run("window.before = true; location.reload()")
    page.wait(f"!window.before && {READY}")
    assert name(page) == first
    np.testing.assert_array_equal(mask(page), final)

    for left in (3, 2, 1, 0):
        was = name(page)
        page.run("document.getElementById('done').click()")
        page.wait(f"document.getElementById('progress').textContent.startsWith('{4 - left} of 4 done')")
        if left:
            page.wait(f"document.getElementById('name').textContent !== {json.dumps(was)}")
    records, run = tmp_path / "records", tmp_path / "run"
    line = ("--dataset=folder", f"--root={tmp_path / 'out'}", f"--output_dir={records}", "--num_processes=1")
    assert finished(build_data, *line, "--num_shards=1") == 0
    assert "4 images" in capsys.readouterr().out
    steps = ("--training_number_of_steps=10", "--train_crop_size=65,65", "--train_batch_size=2", "--log_steps=1")
    small = ("--model_variant=tiny", "--aspp_convs_filters=8", "--train_split=train", "--jit_compile=false")
    assert finished(train, f"--dataset_dir={records}", f"--train_logdir={run}", *steps, *small) == 0
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 10


def test_by_keys_alone(page, tmp_path):
    first, before = name(page), mask(page)
    for _ in range(40):
        press_tab(page)
        if page.run("document.activeElement.id") == "board":
            break
    assert page.run("document.activeElement.id") == "board"
    press(page, "5")
    press(page, " ")
    for _ in range(6):
        press(page, "ArrowRight", modifiers=8)
    assert "star at" in page.run("document.getElementById('under').textContent")
    press(page, " ")
    changed = mask(page) != before
    rows, columns = np.nonzero(changed)
    assert (mask(page)[changed] == STAR).all() and np.ptp(columns) > np.ptp(rows)
    press(page, "p")
    for key in ("ArrowRight", "ArrowDown", ""):
        press(page, " ")
        for _ in range(4 if key else 0):
            press(page, key, modifiers=8)
    page.wait("!document.getElementById('pending').hidden")
    press(page, "Enter")
    page.wait(SAVED)
    np.testing.assert_array_equal(saved_label(tmp_path, first), mask(page))
    press(page, "Enter")
    page.wait(f"document.getElementById('name').textContent !== {json.dumps(first)}")
    assert "1 of 4 done" in page.run("document.getElementById('progress').textContent")


def press_tab(page):
    page.press("Tab", 9)


def test_two_fingers_zoom_and_one_paints(page):
    page.size(390, 844)
    before = mask(page)
    page.run("document.getElementById('board').scrollIntoView()")
    scale = "import('/shared.js').then(({ view }) => view.scale)"
    page.wait(f"{scale[:-1]} * 129 <= 390)")  # the picture, of 129 pixels, fits the screen anew after its event
    was = page.run(scale)
    (x, y), (right, _) = at(page, 40, 40), at(page, 80, 40)
    touch(page, "touchStart", (x, y))
    touch(page, "touchStart", (x, y), (right, y))
    for more in (10, 20, 30):
        touch(page, "touchMove", (x - more, y), (right + more, y))
    touch(page, "touchEnd")
    assert page.run(scale) > 1.2 * was
    np.testing.assert_array_equal(mask(page), before)  # the first finger has painted nothing
    page.run("document.getElementById('whole').click()")
    place = at(page, 64, 48)
    page.run(f"document.querySelector('#classes input[value=\"{STAR}\"]').click()")
    touch(page, "touchStart", place)
    touch(page, "touchMove", (place[0] + 20, place[1]))
    touch(page, "touchEnd")
    assert mask(page)[48, 64] == STAR
    page.wait(SAVED)


def test_two_tabs_do_not_overwrite_each_other(page, server):
    drag(page, (10, 10), (20, 10))
    page.wait(SAVED)
    client = Client(server)
    row = client.rows()[name(page)]
    theirs = np.full((97, 129), 2, np.uint8)
    assert client.save(row["id"], theirs, 1)[0] == 200
    drag(page, (50, 50), (60, 50))
    page.wait("!document.getElementById('conflict').hidden")
    np.testing.assert_array_equal(client.mask(row["id"])[0], theirs)
    mine = mask(page)
    page.run("document.getElementById('mine').click()")
    page.wait(SAVED)
    np.testing.assert_array_equal(client.mask(row["id"])[0], mine)
    assert client.save(row["id"], theirs, 3)[0] == 200
    drag(page, (50, 70), (60, 70))
    page.wait("!document.getElementById('conflict').hidden")
    page.run("document.getElementById('theirs').click()")
    page.wait("document.getElementById('conflict').hidden")
    page.wait("import('/shared.js').then(({ app }) => app.mask.data.every((value) => value === 2))")
    page.events.clear()  # the browser logs each 409


@pytest.mark.parametrize(("width", "dark"), [(390, True), (940, False), (1280, True)])
def test_axe_finds_nothing(page, width, dark):
    page.size(width, 900, dark=dark)
    press(page, "p")
    page.run("document.getElementById('board').focus()")
    press(page, " ")
    page.wait("!document.getElementById('pending').hidden")
    page.run("document.getElementById('keys').open = true")
    assert violations(page) == []
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    least = "[...document.querySelectorAll('button, #classes label')].filter((b) => b.getClientRects().length)"
    if width < 500:
        assert page.run(f"Math.min(...{least}.map((b) => b.getBoundingClientRect().height))") >= 40  # for a thumb
