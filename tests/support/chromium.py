"""Open pages in headless Chromium, and return the document and the console messages.

The pages of a test process are opened one after the other in one tab: starting a browser takes as long as opening a
page, and a tab keeps the compiled code of script files that several pages share.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest


REQUIRED = "AIOCOPYAI_REQUIRE_CHROMIUM"
"""If this variable is set, a missing browser fails the test instead of skipping it."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe"),
)
CONNECT = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null'
"""A shell command: with its pipe option the browser reads commands from descriptor 3, and writes to descriptor 4."""
PATIENCE = 50
"""Seconds until the browser is considered stuck."""
DOCUMENT = """
    new Promise((done) => requestAnimationFrame(() => setTimeout(done))).then(() => {
        for (const script of document.scripts) if (script.text.length > 1e6) script.text = "";
        return document.documentElement.outerHTML;
    })
"""
"""Returns the document after the page was painted, without the code of plotly, which is most of it."""


class Opened(NamedTuple):
    """A page after its scripts have run."""

    dom: str
    """The document as HTML, after the scripts have run; without plotly's code."""
    console: list[str]
    """Console messages: errors, violations of the page's content security policy, warnings."""

    def chart(self, name: str) -> str:
        """Return the plot in an element."""
        start = self.dom.index(f'id="{name}"')
        return self.dom[start : self.dom.index("</figure>", start)]

    def drawn(self, name: str) -> int:
        """Return the number of bars that plotly has drawn in an element."""
        return self.chart(name).count('<g class="point">')


def open_page(path: Path) -> Opened:
    """Open a file in a browser without network access."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and REQUIRED in os.environ:
        pytest.fail(f"{REQUIRED} is set, but none of these is installed: {', '.join(NAMES)}")
    if found is None:
        pytest.skip("needs Chromium: install Debian's package chromium, or Chrome")
    browser = _start(found)
    try:
        return browser.open(path)
    except BaseException:
        _start.cache_clear()  # the next page gets a new browser
        raise


@cache
def _start(program: str) -> Browser:
    browser = Browser(program)
    atexit.register(browser.close)
    return browser


class Browser:
    """A browser process, controlled by the DevTools protocol: JSON messages that end with a zero byte."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = Path(self._profile.name, "stderr")
        as_root = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
        arguments = [program, *FLAGS, *as_root, f"--user-data-dir={self._profile.name}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own command)
                ["/bin/sh", "-c", CONNECT, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        self._received = bytearray()
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        self._last_id = 0
        self._deadline = 0.0

    def open(self, path: Path) -> Opened:
        """Open a file in the browser's tab."""
        self._deadline = time.monotonic() + PATIENCE
        if self._session is None:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self._call(f"{domain}.enable")
        self._events.clear()
        self._call("Page.navigate", url=path.absolute().as_uri())
        while all(event["method"] != "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())
        dom: str = self._call("Runtime.evaluate", expression=DOCUMENT, awaitPromise=True)["result"]["value"]
        return Opened(dom, [message for event in self._events if (message := _message(event)) is not None])

    def close(self) -> None:
        """End the process, and delete its files."""
        try:
            self._process.communicate(timeout=PATIENCE / 10)  # it ends when the pipe is closed
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._profile.cleanup()

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        """Send a command to the tab, or to the browser before there is one, and return its result."""
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\0")
        self._process.stdin.flush()
        while (message := self._receive()).get("id") != self._last_id:
            self._events.append(message)
        assert "result" in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        """Return the next message; fail if there is none in time."""
        assert self._process.stdout is not None
        while (end := self._received.find(b"\0")) < 0:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0, self._deadline - time.monotonic()))
            chunk = os.read(self._process.stdout.fileno(), 2**20) if readable else b""
            if not chunk:
                state = "ended" if readable else f"did not respond within {PATIENCE} s"
                pytest.fail(f"the browser {state}: {self._log.read_text(errors='replace')[-2_000:]}")
            self._received += chunk
        message: dict[str, Any] = json.loads(self._received[:end])
        del self._received[: end + 1]
        return message


def _message(event: dict[str, Any]) -> str | None:
    """Return an event's console message; None if it is another event."""
    params = event.get("params")
    match event["method"], params:
        case "Runtime.exceptionThrown", {"exceptionDetails": details}:
            return str(details.get("exception", {}).get("description", details["text"]))
        case "Log.entryAdded", {"entry": {"text": text}}:
            return str(text)
        case "Runtime.consoleAPICalled", {"args": arguments}:
            return " ".join(str(argument.get("value", argument)) for argument in arguments)
        case _:
            return None
