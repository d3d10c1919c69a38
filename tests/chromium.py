"""Drives Debian's chromium without windows over a pipe, by its DevTools protocol; needs no package."""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from collections.abc import Iterator

NAMES = ("chromium-headless-shell", "chromium")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int):
        self._to, self._from, self._rest, self._number, self._session = to_browser, from_browser, b"", 0, None
        self.events: list[dict] = []  # what the browser said unasked, oldest first
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _read(self, seconds: float) -> dict:
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, end - time.monotonic()))
            part = os.read(self._from, 1 << 16) if ready else b""
            if not part:
                raise TimeoutError("chromium does not answer")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, **parameters) -> dict:
        """Returns the result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(60)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def run(self, script: str):
        """Returns the value of an expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 60):
        """Waits until an expression is true, and returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(condition)):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.05)
        return value

    def open(self, address: str, ready: str = "document.readyState === 'complete'"):
        self.call("Page.navigate", url=address)
        self.wait(ready)

    def press(self, key: str, code: int):
        """Presses and lets go of a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def size(self, width: int, height: int, *, dark: bool = False):
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: pathlib.Path):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What went wrong in the page, as its console would show it."""
        said = [(event.get("method"), event.get("params", {})) for event in self.events]
        found = [str(what) for how, what in said if how == "Runtime.exceptionThrown"]
        found += [str(what) for how, what in said if how == "Log.entryAdded" and what["entry"]["level"] == "error"]
        calls = [what for how, what in said if how == "Runtime.consoleAPICalled"]
        return found + [str(what) for what in calls if what["type"] in ("error", "warning")]


@contextlib.contextmanager
def chromium(folder: pathlib.Path, *more: str) -> Iterator[Page]:
    """Starts a browser whose profile and downloads lie in `folder`, with more flags, and ends it."""
    (read_commands, write_commands), (read_answers, write_answers) = os.pipe(), os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    flags += [f"--user-data-dir={folder / 'profile'}", "--no-first-run", "--disable-background-networking", *more]
    # The browser reads descriptor 3 and writes 4.
    command = ["bash", "-c", f'exec "$@" 3<&{read_commands} 4>&{write_answers}', "bash", find_chromium(), *flags]
    log = (folder / "chromium.log").open("wb")
    process = subprocess.Popen(command, pass_fds=(read_commands, write_answers), stdout=log, stderr=log)
    os.close(read_commands)
    os.close(write_answers)
    try:
        page = Page(write_commands, read_answers)
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)
        yield page
    finally:
        process.terminate()
        process.wait()
        os.close(write_commands)
        os.close(read_answers)
        log.close()
