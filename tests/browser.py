"""A page in headless Chromium, used as a person uses it: keys and clicks where things are.

The DevTools protocol is spoken over pipes (--remote-debugging-pipe): no driver, no port.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 300  # for one answer; a machine may be busy


class Page:
    """One tab. requests: the addresses that it asked for; complaints: what its console said."""

    def __init__(self, width: int, height: int, *, dark: bool = False, scale: int = 1) -> None:
        assert CHROMIUM, "no Chromium on PATH"
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
        options += f" --user-data-dir={self._folder.name} --remote-debugging-pipe about:blank"
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {CHROMIUM} {options} 3<&{commands} 4>&{answers}"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._buffer, self._id, self._session = b"", 0, ""
        (tab,) = [t for t in self._send("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attach = {"targetId": tab["targetId"], "flatten": True}
        self._session = self._send("Target.attachToTarget", **attach)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self._send("Emulation.setDeviceMetricsOverride", **size)
        self._send("Emulation.setScrollbarsHidden", hidden=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        self._process.terminate()
        self._process.wait()
        os.close(self._from)
        self._folder.cleanup()

    def open(self, file: Path) -> None:
        self._send("Page.navigate", url=file.absolute().as_uri())
        end = time.monotonic() + SECONDS
        while self.ask("location.protocol + document.readyState") != "file:complete":
            assert time.monotonic() < end, f"{file} did not load"
            time.sleep(0.05)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of the first element that matches."""
        found = f"document.querySelector({json.dumps(selector)})"
        x, y = self.ask(
            f"{found}.scrollIntoView({{block: 'center'}});"
            f"(box => [box.x + box.width / 2, box.y + box.height / 2])"
            f"({found}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            mouse = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            self._send("Input.dispatchMouseEvent", **mouse)

    def type(self, text: str) -> None:
        """Into whatever has the focus."""
        self._send("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self._send("Input.dispatchKeyEvent", **event, **text)

    def picture(self, file: Path) -> None:
        """What is in the window, as PNG."""
        file.write_bytes(base64.b64decode(self._send("Page.captureScreenshot")["data"]))

    def _send(self, method: str, **params: Any) -> Any:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._id:
                assert "error" not in answer, f"{method}: {answer['error']['message']}"
                return answer["result"]
            self._note(answer)

    def _receive(self) -> Any:
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], SECONDS)[0], "Chromium does not answer"
            read = os.read(self._from, 1 << 20)
            assert read, "Chromium has ended"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        params = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["exception"]["description"])
        elif event["method"] == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
