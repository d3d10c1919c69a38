"""Clips and cameras on the server's page, in a browser; needs Debian's package chromium or chromium-headless-shell."""

import time

import numpy as np
import pytest
from axe import violations
from chromium import chromium, find_chromium
from record_files import encoded
from test_page import DONE, drop, pixels

from deeplab_tf.config import ServeConfig
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.weights.loading import open_model

av = pytest.importorskip("av", reason="the extra `video` is not installed")
pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_chromium() is None, reason="no chromium: apt-get install chromium-headless-shell"),
]
FRAMES, RATE, SIZE = 60, 10, (96, 128)  # six seconds: one picture for three of them, then another
PICTURES = [shapes_example(0, FIRST_INDEX["test"] + number, height=SIZE[0], width=SIZE[1])[0] for number in (0, 1)]
FAKE_CAMERA = "--use-fake-device-for-media-stream"
COUNT = "Number(document.getElementById('rate').textContent.match(/\\d+/)?.[0] ?? 0)"
PLAYS = "!live.video.paused"
STANDS = "live.video.paused && !live.runs && live.shown === live.video.currentTime"


def click(page, identity: str):
    page.run(f"document.getElementById('{identity}').click()")


def message(page) -> str:
    return page.run("document.getElementById('message').textContent")


def hidden(page, identity: str) -> bool:
    return not page.run(f"document.getElementById('{identity}').getClientRects().length")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("clip") / "clip.webm"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libvpx", rate=RATE, options={"crf": "4", "b": "2M", "g": "5"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(FRAMES):
            picture = PICTURES[number >= FRAMES // 2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return file.read_bytes()


@pytest.fixture(scope="module")
def address():
    from deeplab_tf.serving.engine import Engine
    from deeplab_tf.serving.server import serving

    loaded = open_model("shapes_resnet", {})
    with serving(Engine(loaded.model, loaded.card, ServeConfig(port=0, runtime="tf"))) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser"), FAKE_CAMERA, "--use-fake-ui-for-media-stream") as page:
        yield page


@pytest.fixture
def page(browser, address):
    browser.open("about:blank")
    browser.events.clear()
    browser.size(1280, 900)
    browser.open(address, "document.querySelectorAll('#examples button').length === 3")
    yield browser
    assert browser.complaints() == []


@pytest.fixture
def opened(page, clip):
    """The page with a clip that stands still somewhere."""
    drop(page, clip, "clip.webm", "video/webm")
    page.wait(f"{COUNT} >= 1")
    page.run("live.video.pause()")
    page.wait(STANDS)
    return page


def seek(page, seconds: float):
    page.run(f"document.getElementById('seek').value = {seconds}")
    page.run("document.getElementById('seek').dispatchEvent(new Event('input', { bubbles: true }))")
    page.wait(f"{STANDS} && Math.abs(live.shown - {seconds}) < 0.01")


def test_a_clip_plays_and_pauses(page, clip):
    drop(page, clip, "clip.webm", "video/webm")
    page.wait(f"{COUNT} >= 3")
    assert page.run(PLAYS) and page.run("document.getElementById('play').textContent") == "Pause"
    click(page, "play")
    page.wait(STANDS)
    assert page.run("document.getElementById('play').textContent") == "Play"
    count = page.run(COUNT)
    time.sleep(0.5)
    assert page.run(COUNT) == count
    assert page.run("document.getElementById('rate').textContent").endswith(" frames/s")
    click(page, "play")
    page.wait(f"{COUNT} > {count}")
    page.wait(f"live.video.ended && {STANDS}")
    assert page.run("document.getElementById('time').textContent") == "0:06 / 0:06"
    assert page.run("document.getElementById('play').textContent") == "Play"


def test_what_is_found_follows_the_place(opened):
    masks = []
    for seconds, picture in ((1, PICTURES[0]), (5, PICTURES[1])):
        seek(opened, seconds)
        shown = pixels(opened, "photo")[..., :3]
        assert np.abs(shown.astype(int) - picture).mean() < 12  # VP8 halves the colours' resolution
        masks.append(pixels(opened, "mask"))
        assert masks[-1][..., 3].any()
        assert opened.run("document.getElementById('photo').ariaLabel").startswith(f"The frame at 0:0{seconds}, in")
    assert (masks[0] != masks[1]).any(-1).mean() > 0.05
    assert opened.run("document.getElementById('seek').getAttribute('aria-valuetext')") == "0:05 of 0:06"


def test_what_is_chosen_in_the_legend_stays(opened):
    seek(opened, 1)
    opened.run("window.box = [...document.querySelectorAll('#legend input')].find((each) => each.checked)")
    opened.run("window.box.focus()")
    opened.press(" ", 32)
    seek(opened, 5)
    assert opened.run("document.activeElement === window.box && !window.box.checked")
    assert not opened.run("state.visible.has(Number(window.box.value))")
    shares = opened.run("[...document.querySelectorAll('#legend .share')].map((each) => parseFloat(each.textContent))")
    assert abs(sum(shares) - 100) < 1
    click(opened, "none")
    seek(opened, 1)
    assert not pixels(opened, "mask")[..., 3].any()


def test_by_keyboard(opened):
    opened.run("document.getElementById('play').focus()")
    opened.press(" ", 32)
    opened.wait(PLAYS)
    opened.press(" ", 32)
    opened.wait(STANDS)
    opened.press("Tab", 9)
    assert opened.run("document.activeElement.id") == "seek"
    opened.press("Home", 36)
    opened.wait(f"{STANDS} && live.shown === 0")
    opened.press("ArrowRight", 39)
    opened.wait(f"{STANDS} && live.shown > 0")


@pytest.mark.parametrize("status", [413, 429, 503, 504, 0])
def test_a_request_that_fails_ends_it(opened, status):
    opened.run(f"""(() => {{
        window.asked = 0;
        window.real = window.fetch;
        window.fetch = async () => {{
            window.asked++;
            if (!{status}) throw new TypeError("no network");
            return new Response({status} === 429 ? "<html>" : '{{"error": "come back later"}}', {{ status: {status} }});
        }};
    }})()""")
    click(opened, "play")
    opened.wait("document.getElementById('message').className === 'bad'")
    told = {0: "The server cannot be reached.", 429: "The server answers 429."}.get(status, "come back later")
    assert message(opened) == told
    time.sleep(0.5)
    assert opened.run("window.asked") == 1 and not opened.run(PLAYS)
    opened.run("window.fetch = window.real")
    count = opened.run(COUNT)
    click(opened, "play")  # somebody tries again
    opened.wait(f"{COUNT} > {count}")
    assert message(opened) == ""


def test_a_hidden_page_asks_nothing(page, clip):
    drop(page, clip, "clip.webm", "video/webm")
    page.wait(f"{COUNT} >= 1")
    page.run("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.run("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait("live.video.paused && !live.runs")
    count = page.run(COUNT)
    time.sleep(0.5)
    assert page.run(COUNT) == count
    page.run("delete document.hidden")
    page.run("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait(STANDS)


def test_a_photograph_after_a_clip(opened):
    opened.run("""(() => {
        window.revoked = [];
        const real = URL.revokeObjectURL.bind(URL);
        URL.revokeObjectURL = (url) => { window.revoked.push(url); real(url); };
        window.url = live.url;
    })()""")
    assert hidden(opened, "shell") and not hidden(opened, "player")
    drop(opened, encoded(PICTURES[0]))
    opened.wait(f"{DONE} && live === null")
    opened.wait("document.getElementById('message').textContent.startsWith('Found')")
    assert opened.run("window.revoked.includes(window.url)")
    assert not hidden(opened, "shell") and hidden(opened, "player") and hidden(opened, "rate")
    assert opened.run("document.getElementById('photo').ariaLabel").startswith("The photograph, in which")


def test_a_clip_that_the_browser_cannot_decode(page):
    drop(page, b"no clip", "my clip.mp4", "video/mp4")
    page.wait("document.getElementById('message').className === 'bad'")
    assert message(page) == (
        "This browser cannot decode my clip.mp4. From a shell: deeplab-tf predict --input='my clip.mp4'"
    )
    assert page.run("live === null") and hidden(page, "result")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (940, True), (1280, True)])
def test_axe_finds_nothing(opened, width, dark):
    opened.size(width, 900, dark=dark)
    assert violations(opened) == []
    assert opened.run("document.documentElement.scrollWidth <= innerWidth")


# ---- the camera


def test_a_camera_by_keyboard(page):
    page.run("document.getElementById('camera').focus()")
    page.press(" ", 32)
    page.wait(f"{COUNT} >= 3")
    assert page.run("document.getElementById('camera').innerText") == "Stop camera"
    assert hidden(page, "play") and hidden(page, "seek") and hidden(page, "shell")
    assert len(np.unique(pixels(page, "photo")[..., :3].reshape(-1, 3), axis=0)) > 2  # chromium's moving picture
    page.run("window.tracks = live.stream.getTracks()")
    page.run("document.getElementById('stop').focus()")
    page.press(" ", 32)
    assert page.run("window.tracks.every((each) => each.readyState === 'ended') && live === null")
    assert message(page) == "The camera is off."
    assert page.run("document.activeElement.id") == "camera"
    assert page.run("document.getElementById('camera').innerText") == "Camera"
    count = page.run(COUNT)
    time.sleep(0.5)
    assert page.run(COUNT) == count and hidden(page, "player") and not hidden(page, "result")


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_axe_finds_nothing_while_a_camera_runs(page, width, dark):
    page.size(width, 900, dark=dark)
    click(page, "camera")
    page.wait(f"{COUNT} >= 2")
    assert violations(page) == []
    assert page.run("live.stream !== null && document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("end", ["picture", "clip", "hidden", "failure", "again"])
def test_what_ends_a_camera(page, clip, end):
    click(page, "camera")
    page.wait(f"{COUNT} >= 1")
    page.run("window.tracks = live.stream.getTracks()")
    if end == "picture":
        drop(page, encoded(PICTURES[0]))
    elif end == "clip":
        drop(page, clip, "clip.webm", "video/webm")
    elif end == "hidden":
        page.run("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
        page.run("document.dispatchEvent(new Event('visibilitychange'))")
    elif end == "failure":
        page.run("window.fetch = async () => { throw new TypeError(); }; 0")
    else:
        click(page, "camera")
    page.wait("window.tracks.every((each) => each.readyState === 'ended') && !live?.stream")
    if end == "failure":
        assert message(page) == "The server cannot be reached."


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            (FAKE_CAMERA, "--use-fake-ui-for-media-stream=deny"),
            "The camera was refused; the browser's settings of this",
        ),
        ((), "No camera was found."),
    ],
    ids=["refused", "none"],
)
def test_no_camera_is_told(tmp_path, address, flags, told):
    with chromium(tmp_path, *flags) as page:
        page.open(address, "document.querySelectorAll('#examples button').length === 3")
        click(page, "camera")
        page.wait("document.getElementById('message').className === 'bad'")
        assert message(page).startswith(told) and page.run("live === null")
        assert page.complaints() == []


def test_a_camera_that_another_program_uses(page):
    page.run("navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotReadableError'); }; 0")
    click(page, "camera")
    page.wait("document.getElementById('message').className === 'bad'")
    assert "another program" in message(page)


def test_no_camera_without_https(page):
    page.run("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    click(page, "camera")
    assert "https" in message(page) and "--tls_certificate" in message(page)


def test_a_camera_that_comes_too_late_is_released(page):
    page.run("""(() => {
        const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            await new Promise((done) => (window.go = done));
            return (window.stream = await real(wanted));
        };
    })()""")
    click(page, "camera")
    drop(page, encoded(PICTURES[0]))
    page.run("window.go()")
    page.wait("window.stream?.getTracks().every((each) => each.readyState === 'ended')")
    assert page.run("live === null")
