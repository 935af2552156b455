"""A headless Chromium, spoken to in the W3C WebDriver protocol: what a page looks and behaves like to a user."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver, section 12: the key of an element's reference


class Browser:
    """One tab."""

    def __init__(self, address: str) -> None:
        self._address = address

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"})
        request.method = method
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path) -> None:
        self.call("POST", "/url", {"url": path.as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def emulate(self, *, dark: bool, width: int, height: int = 900) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        for command, values in (
            ("Emulation.setEmulatedMedia", {"features": scheme}),
            ("Emulation.setDeviceMetricsOverride", size),
        ):
            self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": values})

    def find(self, selector: str) -> str:
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/click")

    def keys(self, selector: str, text: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def drag(self, selector: str, start: float, stop: float, kind: str = "mouse") -> None:
        """Press at ``start`` of the element's width, 0 to 1, move to ``stop`` and let go; ``kind`` mouse or touch."""
        script = "const b = document.querySelector(arguments[0]); b.scrollIntoView({block: 'center'});"
        box = self.run(script + "const r = b.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]", selector)
        y = round(box[1] + box[3] / 2)
        at = [round(box[0] + box[2] * part) for part in (start, (start + stop) / 2, stop)]
        moves = [{"type": "pointerMove", "duration": 40, "x": x, "y": y} for x in at]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": actions}
        self.call("POST", "/actions", {"actions": [pointer]})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Return what came since the last call: ``browser``, the console, or ``performance``, the protocol's events."""
        return list(self.call("POST", "/se/log", {"type": kind}))

    def requests(self) -> list[str]:
        """Return every address that the page asked for since the last call, except those that carry their data."""
        events = (json.loads(entry["message"])["message"] for entry in self.log("performance"))
        addresses = (e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent")
        return [address for address in addresses if not address.startswith("data:")]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser, and end it."""
    assert CHROMIUM
    assert DRIVER
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as driver:
        try:
            assert driver.stdout
            port = next(match[1] for line in driver.stdout if (match := re.search(r"successfully on port (\d+)", line)))
            options = {
                "binary": CHROMIUM,
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            }
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            root = Browser(f"http://127.0.0.1:{port}")
            made = root.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            tab = Browser(f"http://127.0.0.1:{port}/session/{made['sessionId']}")
            try:
                yield tab
            finally:
                tab.call("DELETE", "")
        finally:
            driver.terminate()
