"""A headless Chromium through chromedriver's W3C protocol, with the standard library alone."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def missing():
    """Why there is no browser here; None when there is one."""
    for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)):
        if not any(shutil.which(name) for name in names):
            return (
                f"no {names[0]} (apt-get install --no-install-recommends chromium chromium-driver)"
            )
    return None


class Browser:
    """One session. Use as a context manager; the network is off from the start."""

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.profile = tempfile.mkdtemp(prefix="chromium")
        self.driver = subprocess.Popen(
            [shutil.which("chromedriver"), f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.session = ""
        try:
            self._wait_until_ready()
            binary = next(
                filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
            )
            options = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={self.profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self.session = f"/session/{answer['sessionId']}"
            self.devtools("Network.enable", {})
            offline = {
                "offline": True,
                "latency": 0,
                "downloadThroughput": 0,
                "uploadThroughput": 0,
            }
            self.devtools("Network.emulateNetworkConditions", offline)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        try:
            if self.session:
                self._call("DELETE", self.session)
        except OSError:
            pass
        finally:
            self.driver.terminate()
            self.driver.wait(20)
            shutil.rmtree(self.profile, ignore_errors=True)

    def size(self, width, height=900, dense=1, dark=False):
        """Set the viewport, as a phone's when it is narrow."""
        metrics = {
            "width": width,
            "height": height,
            "deviceScaleFactor": dense,
            "mobile": width < 600,
        }
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", {"features": scheme})

    def open(self, path):
        self._call("POST", f"{self.session}/url", {"url": Path(path).resolve().as_uri()})

    def script(self, source, *arguments):
        """Run JavaScript, `return` gives the result; promises are awaited."""
        body = {"script": source, "args": list(arguments)}
        return self._call("POST", f"{self.session}/execute/sync", body)

    def wait(self, condition, seconds=20):
        """Until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.script(f"return Boolean({condition})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {condition}; console: {self.console()}")

    def console(self):
        """What the page printed since the last call, warnings and errors alone."""
        entries = self._call("POST", f"{self.session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def mouse(self, selector, x, y):
        """A real click at a share of an element's width and height."""
        box = self.script(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center', "
            "behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "return [b.left, b.top, b.width, b.height]",
            selector,
        )
        place = {"x": box[0] + x * box[2], "y": box[1] + y * box[3]}
        self.devtools("Input.dispatchMouseEvent", {"type": "mouseMoved", **place})
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "button": "left", "clickCount": 1, **place}
            self.devtools("Input.dispatchMouseEvent", event)

    def key(self, name):
        """Press a named key, such as ArrowRight, on what has the focus."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
            self.devtools("Input.dispatchKeyEvent", event)

    def screenshot(self, path, selector=None):
        """The whole page, or one element, as PNG or JPEG."""
        box = self.script(
            "const e = document.querySelector(arguments[0] || 'html');"
            "const b = e.getBoundingClientRect();"
            "return [b.left + scrollX, b.top + scrollY, b.width, b.height]",
            selector,
        )
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True), scale=1)
        kind = "jpeg" if str(path).endswith(".jpg") else "png"
        wanted = {"format": kind, "clip": clip, "captureBeyondViewport": True}
        if kind == "jpeg":
            wanted["quality"] = 82
        shot = self.devtools("Page.captureScreenshot", wanted)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def devtools(self, command, parameters):
        body = {"cmd": command, "params": parameters}
        return self._call("POST", f"{self.session}/goog/cdp/execute", body)

    def _wait_until_ready(self):
        for _ in range(200):
            try:
                if self._call("GET", "/status")["ready"]:
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("chromedriver did not start")

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from error
