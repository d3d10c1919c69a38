"""The server's page in a browser, as a person uses it; needs Debian's package chromium or chromium-headless-shell."""

import base64
import json
import subprocess
import time

import numpy as np
import PIL.Image
import pytest
from axe import violations
from chromium import chromium, find_chromium
from golden import golden_image
from networks import TINY, lively
from record_files import encoded
from test_serving import NAMES

from deeplab_tf.catalog.palettes import default_palette
from deeplab_tf.config import PredictConfig, ServeConfig
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tiles import segment
from deeplab_tf.weights.model_directory import ModelCard

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium: apt-get install chromium-headless-shell")

IMAGE = golden_image("lively", 129, 129)  # of it the network gives several classes
OPTIONS = PredictConfig(longest_side=129)
DONE = "!document.getElementById('result').hidden && document.getElementById('message').className === ''"


@pytest.fixture(scope="module")
def model():
    return lively(TINY)


@pytest.fixture(scope="module")
def address(model):
    from deeplab_tf.serving.engine import Engine
    from deeplab_tf.serving.server import serving

    options = ServeConfig(port=0, runtime="tf", longest_side=129, max_pixels=1_000_000)
    with serving(Engine(model, ModelCard(config=TINY, class_names=NAMES, dataset="shapes"), options)) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    with chromium(folder) as page:
        page.folder = folder
        yield page


@pytest.fixture
def page(browser, address):
    browser.events.clear()
    browser.size(1280, 900)
    browser.open(address, "document.querySelectorAll('#examples button').length === 3")
    yield browser
    assert browser.complaints() == []


def drop(page, content: bytes, name: str = "photo.png", kind: str = "image/png"):
    """Drops a file on the page."""
    data = json.dumps(base64.b64encode(content).decode())
    page.run(f"""(() => {{
        const bytes = Uint8Array.from(atob({data}), (c) => c.charCodeAt(0));
        const dropped = new DataTransfer();
        dropped.items.add(new File([bytes], {json.dumps(name)}, {{ type: {json.dumps(kind)} }}));
        document.dispatchEvent(new DragEvent("drop", {{ dataTransfer: dropped, bubbles: true, cancelable: true }}));
    }})()""")


def pixels(page, canvas: str) -> np.ndarray:
    """The content of a canvas, uint8 [h, w, 4]."""
    script = f"""(() => {{
        const canvas = document.getElementById({json.dumps(canvas)});
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return [canvas.height, canvas.width, [...data].map((v) => v.toString(16).padStart(2, "0")).join("")];
    }})()"""
    height, width, text = page.run(script)
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(height, width, 4)


def downloaded(page, button: str, name: str) -> np.ndarray:
    file = page.folder / name
    page.run(f"document.getElementById({json.dumps(button)}).click()")
    end = time.monotonic() + 20
    while not (file.exists() and file.stat().st_size):
        page.run("1")  # what the browser says of its downloads is read meanwhile
        assert time.monotonic() < end, f"{name} was not downloaded"
        time.sleep(0.05)
    return np.asarray(PIL.Image.open(file))


def edges(labels: np.ndarray) -> np.ndarray:
    """Where the page draws lines: at pixels whose right or lower neighbour is of another class."""
    found = np.zeros(labels.shape, bool)
    found[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    found[:-1] |= labels[1:] != labels[:-1]
    return found


def test_drop_look_toggle_and_download(page, model):
    labels = segment(predictor_of(model), IMAGE, OPTIONS)
    classes, palette = np.unique(labels), np.array(default_palette(NAMES), np.uint8)
    assert len(classes) >= 2
    drop(page, encoded(IMAGE))
    page.wait(DONE)
    np.testing.assert_array_equal(pixels(page, "photo")[..., :3], IMAGE)
    mask, lines = pixels(page, "mask"), edges(labels)
    np.testing.assert_array_equal(mask[~lines][:, :3], palette[labels][~lines])
    assert (mask[lines] == 255).all() and (mask[..., 3] == 255).all()

    # The legend: names and shares, the largest first.
    legend = page.run("[...document.querySelectorAll('#legend label')].map((l) => l.innerText.split('\\n'))")
    shares = {NAMES[index]: f"{100 * (labels == index).mean():.1f} %" for index in classes}
    assert dict(legend) == shares
    assert "129 × 129" in page.run("document.getElementById('timing').textContent")

    # Off with the first class, by keyboard.
    first = int(page.run("document.querySelector('#legend input').value"))
    page.run("document.querySelector('#legend input').focus()")
    page.press(" ", 32)
    mask = pixels(page, "mask")
    hidden = (labels == first) & ~lines
    assert (mask[hidden][:, 3] == 0).all() and (mask[~hidden & ~lines][:, 3] == 255).all()
    page.run("document.getElementById('all').click()")
    assert (pixels(page, "mask")[..., 3] == 255).all()

    # The slider.
    page.run("document.getElementById('opacity').focus()")
    page.press("End", 35)
    assert page.run("document.getElementById('mask').style.opacity") == "1"
    page.press("Home", 36)
    assert page.run("document.getElementById('mask').style.opacity") == "0"

    np.testing.assert_array_equal(downloaded(page, "save-raw", "photo_raw.png"), labels)
    np.testing.assert_array_equal(downloaded(page, "save-mask", "photo_mask.png")[..., :3], palette[labels])
    np.testing.assert_array_equal(downloaded(page, "save-overlay", "photo_overlay.png")[..., :3], IMAGE)  # opacity 0


def test_an_example_by_keyboard(page):
    order = []
    for _ in range(4):
        page.press("Tab", 9)
        order.append(page.run("document.activeElement.id || document.activeElement.title"))
    assert order == ["file", "camera", "Try the example: drawn shapes 1", "Try the example: drawn shapes 2"]
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    page.wait(DONE)
    assert page.run("document.getElementById('photo').width") == 321


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone(page, dark):
    page.size(360, 740, dark=dark)
    drop(page, encoded(IMAGE))
    page.wait(DONE)
    assert page.run("document.documentElement.scrollWidth") == 360
    assert page.run("document.getElementById('drop').innerText").startswith(
        "Choose a photograph"
    )  # none is dropped here
    script = "[...document.querySelectorAll('button, #legend label')].filter((b) => b.getClientRects().length)"
    assert page.run(f"Math.min(...{script}.map((b) => b.getBoundingClientRect().height))") >= 40  # for a thumb
    paper, ink = (
        page.run(f"getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
        for name in ("backgroundColor", "color")
    )
    assert (sum(paper) < sum(ink)) == dark and abs(sum(paper) - sum(ink)) > 400


def test_a_large_photograph_is_shrunk_before_it_is_sent(page):
    drop(page, encoded(np.repeat(np.repeat(IMAGE, 20, 0), 4, 1), "JPEG"), "tall.jpg", "image/jpeg")
    page.wait(DONE)
    assert page.run("[document.getElementById('photo').height, document.getElementById('photo').width]") == [2048, 410]


@pytest.mark.parametrize(("width", "dark"), [(390, True), (940, False)])
def test_axe_finds_nothing(page, width, dark):
    page.size(width, 900, dark=dark)
    drop(page, encoded(IMAGE))
    page.wait(DONE)
    assert violations(page) == []
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


def test_before_and_after_by_keyboard(page):
    drop(page, encoded(IMAGE))
    page.wait(DONE)
    page.run("document.getElementById('divide').focus()")
    page.press("ArrowRight", 39)
    clipped = "[document.getElementById('mask').style.clipPath, document.getElementById('line').hidden]"
    assert page.run(clipped) == ["inset(0px 0px 0px 1%)", False]
    page.press("End", 35)
    assert page.run(clipped) == ["inset(0px 0px 0px 100%)", True]


def test_the_command_of_the_shell_gets_the_classes(page, model, address, tmp_path):
    name = 'it\'s a "photo" $(touch x).png'
    (tmp_path / name).write_bytes(encoded(IMAGE))
    drop(page, encoded(IMAGE), name)
    page.wait(DONE)
    command = page.run("document.getElementById('command').textContent")
    assert address in command and "YOUR_TOKEN" not in command
    page.run(
        "Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (t) => { window.got = t; } } })"
    )
    page.run("document.getElementById('curl').click()")
    assert page.wait("window.got") == command
    answer = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=True, timeout=60).stdout
    assert list(json.loads(answer)) == ["predictions"] and not (tmp_path / "x").exists()
    page.run("state.info.needs_token = true")
    assert "-H 'authorization: Bearer YOUR_TOKEN'" in page.run("command()")


def test_what_only_the_browser_reads_is_sent_as_jpeg(page):
    drop(page, encoded(IMAGE, "AVIF"), "photo.avif", "image/avif")
    page.wait(DONE)
    assert np.abs(pixels(page, "photo")[..., :3].astype(int) - IMAGE).mean() < 16


def test_a_bad_file_is_told(browser, address):
    browser.size(1280, 900)
    browser.open(address, "document.querySelectorAll('#examples button').length === 3")
    drop(browser, b"no picture", "x.jpg", "image/jpeg")
    browser.wait("document.getElementById('message').className === 'bad'")
    message = browser.run("document.getElementById('message').textContent")
    assert message.startswith("x.jpg: not an image")
    assert browser.run("document.getElementById('result').hidden")
    drop(browser, encoded(IMAGE))
    browser.wait(DONE)
