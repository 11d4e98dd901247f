"""A headless Chromium, driven over a pair of pipes: https://chromedevtools.github.io/devtools-protocol.

    with Browser(tool("chromium", "chromium")) as browser:
        browser.open("http://127.0.0.1:8002/")
        browser.evaluate("document.title")
"""

import base64
import collections
import fcntl
import json
import os
import subprocess
import tempfile

ARGUMENTS = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe"]
SANDBOX = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has none for root


class Browser:
    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        # Chromium reads from 3 and writes to 4. A shell puts them there: Python could only in a fork of this process,
        # where the threads of a gRPC client may be in the way.
        pipes = [fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in (commands, answers)]
        start = 'exec "$@" 3<&{} 4>&{}'.format(*pipes)
        self.process = subprocess.Popen(
            ["bash", "-c", start, "bash", program, *ARGUMENTS, *SANDBOX, f"--user-data-dir={self.profile.name}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=pipes,
        )
        for pipe in (commands, answers, *pipes):
            os.close(pipe)
        self.received = b""
        self.num_commands = 0
        self.session = None
        self.complaints = []  # errors of the page, and what its policy refused
        self.events = collections.Counter()
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def read(self):
        while b"\0" not in self.received:
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise EOFError("Chromium has ended")
            self.received += part
        message, self.received = self.received.split(b"\0", 1)
        return json.loads(message)

    def note(self, event):
        name, of = event.get("method", ""), event.get("params", {})
        self.events[name] += 1
        if name == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(of["exceptionDetails"]))
        if name == "Log.entryAdded" and of["entry"]["level"] == "error":
            self.complaints.append(f"{of['entry']['text']} {of['entry'].get('url', '')}")

    def command(self, method, **parameters):
        self.num_commands += 1
        message = {"id": self.num_commands, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.num_commands:
            self.note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, url):
        loaded = self.events["Page.loadEventFired"]
        self.command("Page.navigate", url=url)
        while self.events["Page.loadEventFired"] == loaded:
            self.note(self.read())

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def show_as(self, width, scheme):
        """`scheme`: light or dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self.command("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def point(self, selector):
        """Moves the mouse over the middle of an element."""
        found = f"document.querySelector('{selector}')"
        self.evaluate(f"{found}.scrollIntoView({{ block: 'center' }})")
        box = self.evaluate(f"{found}.getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key)

    def screenshot(self):
        """PNG of the page as far as it goes."""
        width = self.evaluate("innerWidth")
        height = self.evaluate("scrollY + document.body.getBoundingClientRect().bottom")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        answer = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(answer["data"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)
        self.profile.cleanup()
