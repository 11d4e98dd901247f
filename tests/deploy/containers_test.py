"""Dockerfile and compose.yaml against each other and the real server; the image itself is built by image.sh."""

import subprocess
import sys

import deployed
import yaml
from program import Program

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from serving import arguments, check  # noqa: E402

RUN_ALIKE = ("EXPOSE", "USER", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "ARG", "RUN")


def check_stages(program):
    for kind in RUN_ALIKE:
        cpu, cuda = (program.instructions(stage, kind) for stage in ("cpu", "cuda"))
        check(cpu and cpu == cuda, f"cpu and cuda have the same {kind}")
    for stage in ("cpu", "cuda"):
        variables = dict(one.split("=", 1) for line in program.instructions(stage, "ENV") for one in line.split())
        own = {name for name in variables if name.startswith("SWITCHYARD_")}
        check(own and own <= program.variables, f"{stage}: the settings {sorted(own)} exist")
        check(f"VERSION={program.version}" in program.instructions(stage, "ARG"), f"{stage}: version {program.version}")
    check(program.exposed == program.ports and len(program.ports) == 3, f"ports {sorted(program.exposed)} are the server's")
    check(program.user and 0 not in program.user, "the user is not root")


def check_compose(program):
    file = deployed.DEPLOY / "compose.yaml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    result = subprocess.run(command, capture_output=True, text=True)
    check(result.returncode == 0, f"compose.yaml is as its schema wants it {result.stdout * bool(result.returncode)}")
    services = yaml.safe_load(file.read_text())["services"]
    server, load = services["switchyard"], services["load"]
    check({int(port.rsplit(":", 1)[1]) for port in server["ports"]} == program.exposed, "its ports are the image's")
    check(server["environment"].keys() <= program.variables, "its settings exist")
    check({server["image"], load["image"]} == {f"switchyard:{program.version}"}, "its image is that of the sources")
    check(int(server["stop_grace_period"].rstrip("s")) > program.shutdown_timeout, "it lets the server drain")
    mounts = [mount.split(":")[0] for one in services.values() for mount in one.get("volumes", ())]
    missing = [mount for mount in mounts if mount.startswith(".") and not (deployed.DEPLOY / mount).exists()]
    check(len(mounts) >= 4 and not missing, f"what it mounts exists {missing}")
    return load["command"]


def check_load(client, flags):
    """The client takes the flags of the load profile; the address is the only one that can fail."""
    flags = ["127.0.0.1:1" if flag == "switchyard:50051" else flag for flag in flags]
    result = subprocess.run([client, "bench", *flags], capture_output=True, text=True)
    check(result.returncode == 1 and "127.0.0.1:1" in result.stderr, "the client understands the flags of the load")


def main():
    args = arguments(__doc__, client_binary="")
    program = Program(args.server_binary)
    check_stages(program)
    check_load(args.client_binary, check_compose(program))


if __name__ == "__main__":
    main()
