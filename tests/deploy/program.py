"""What the server says of itself, and the Dockerfile of the image: what manifests are held against."""

import re
import subprocess

import deployed


class Program:
    """`binary` is the server."""

    def __init__(self, binary):
        text = subprocess.run([binary, "--help"], capture_output=True, text=True).stdout
        flags = re.findall(r"^  --(?:\[no-\])?([a-z-]+)", text, re.M)
        assert len(flags) > 30, "--help is not written as this test reads it"
        self.version = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.split()[-1]
        self.flags = {"--" + flag for flag in flags}
        self.variables = {"SWITCHYARD_" + flag.upper().replace("-", "_") for flag in flags}
        self.port, self.admin_port, self.shutdown_timeout = (
            int(re.search(rf"--{flag} .*\((\d+)\)", text)[1]) for flag in ("port", "admin-port", "shutdown-timeout")
        )
        # The stages that are run: each `FROM ... AS name` with its instructions, lines that go on joined.
        dockerfile = re.sub(r"\\\n\s*", "", (deployed.ROOT / "Dockerfile").read_text())
        stages = re.split(r"^FROM \S+ AS (\S+)$", dockerfile, flags=re.M)[1:]
        self.stages = {
            name: re.findall(r"^([A-Z]+) (.*)$", body.split("\nFROM ")[0], re.M)
            for name, body in zip(stages[::2], stages[1::2])
        }
        self.http_ports = {int(port) for port in re.findall(r"^ENV SWITCHYARD_HTTP_PORT=(\d+)$", dockerfile, re.M)}
        self.ports = {self.port, self.admin_port} | self.http_ports
        self.user = {int(user.split(":")[0]) for user in self.instructions("cpu", "USER")}
        self.exposed = {int(port) for ports in self.instructions("cpu", "EXPOSE") for port in ports.split()}

    def instructions(self, stage, kind):
        return [arguments for name, arguments in self.stages[stage] if name == kind]
