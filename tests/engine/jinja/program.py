"""Talks to jinja_differential, our side of the comparison."""
import json
import struct
import subprocess

OK, REFUSED, FAILED = 0, 1, 2


class Program:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, template, variables):
        """(outcome, text or message)."""
        for text in (template, json.dumps(variables)):
            data = text.encode()
            self.process.stdin.write(struct.pack("<I", len(data)) + data)
        self.process.stdin.flush()
        header = self.process.stdout.read(5)
        if len(header) < 5:
            raise SystemExit(f"the program died ({self.process.wait()}) on {template!r} with {json.dumps(variables)}")
        outcome, size = struct.unpack("<BI", header)
        return outcome, self.process.stdout.read(size).decode()

    def close(self):
        self.process.stdin.close()
        return self.process.wait()
