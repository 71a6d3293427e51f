"""A headless Chromium, spoken to over two pipes: no port, no library. CDP is its own protocol for debuggers."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--hide-scrollbars", "--no-first-run",
           "--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-pipe")  # fmt: skip


class Chromium:
    """One page in a browser of its own. `events` holds everything that the browser reported, in order."""

    def __init__(self, profile: Path) -> None:
        assert FOUND
        ours, theirs = os.pipe(), os.pipe()  # what it reads, what it writes
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours[0], theirs[1])]  # away from 3 and 4

        def place() -> None:
            os.dup2(ends[0], 3)  # where Chromium looks for them
            os.dup2(ends[1], 4)

        self.log = profile / "chromium.log"
        command = [FOUND, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, preexec_fn=place, pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        for fd in (*ends, ours[0], theirs[1]):
            os.close(fd)
        self.to, self.back = os.fdopen(ours[1], "wb", buffering=0), os.fdopen(theirs[0], "rb", buffering=0)
        self.events: list[dict[str, Any]] = []
        self.rest, self.last, self.session = b"", 0, ""
        (page,) = (t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """A command's result. Raises RuntimeError with what the browser says where it fails."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        self.to.write(json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while (answer := self._next()).get("id") != self.last:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = self.back.read(1 << 16)
            if not more:
                raise RuntimeError(f"Chromium has ended: {self.log.read_text(errors='replace')[-2000:]}")
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int, height: int = 800, scheme: str = "light") -> None:
        """Shows a file in a window of that size, and waits until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What an expression gives in the page. Raises RuntimeError where it throws."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])

    def close(self) -> None:
        self.to.close()
        self.back.close()
        self.process.terminate()
        self.process.wait(timeout=20)
