"""deploy/nginx/switchyard.conf in a real nginx, before a real server: what passes, and what it keeps off.

nginx runs as a process of this test, on free ports and in a temporary folder; a system's own nginx is not touched.
"""

import hashlib
import os
import pathlib
import secrets
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import deployed
import grpc
import openai

sys.path.insert(0, str(deployed.ROOT / "tests" / "end_to_end"))
from http_client import HttpServer, raises  # noqa: E402
from pki import Pki, secure_channel  # noqa: E402
from serving import SERVING, arguments, check, code_of, free_port  # noqa: E402
from serving import health_pb2, health_pb2_grpc, inference_service_pb2_grpc, pb  # noqa: E402

MAIN = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/switchyard.conf;
}}
"""


class Nginx:
    """The shipped file with this machine's ports and paths, and nothing else changed."""

    def __init__(self, program, folder, server, identity):
        self.folder = folder
        self.port = free_port()
        text = (deployed.DEPLOY / "nginx" / "switchyard.conf").read_text()
        for shipped, here in [
            ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            ("/etc/switchyard/tls/server.crt", str(identity.certificate)),
            ("/etc/switchyard/tls/server.key", str(identity.key)),
            ("server 127.0.0.1:50051", f"server {server.address}"),
            ("server 127.0.0.1:8000", f"server 127.0.0.1:{server.http_port}"),
            ("http://127.0.0.1:8002", f"http://127.0.0.1:{server.facts['admin_port']}"),
            ("/var/log/nginx/switchyard.log", f"{folder}/access.log"),
        ]:
            assert text.count(shipped) == 1, f"switchyard.conf has {shipped} once"
            text = text.replace(shipped, here)
        (folder / "switchyard.conf").write_text(text)
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
        command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True)
        check(tested.returncode == 0, f"nginx takes the configuration: {tested.stderr.strip().splitlines()[-1:]}")
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def text_of(self, name):
        return (self.folder / name).read_text()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)


def https(nginx, ca, path):
    context = ssl.create_default_context(cafile=ca.certificate)
    try:
        with urllib.request.urlopen(f"https://127.0.0.1:{nginx.port}{path}", context=context, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def check_calls(stub, health, server, metadata):
    check(
        health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60).status == SERVING,
        "the health check passes, without a token",
    )
    code, text = code_of(lambda: stub.GetModel(pb.GetModelRequest()))
    check(code == grpc.StatusCode.UNAUTHENTICATED and text == "authentication required", "the server asks for a token")
    check(stub.GetModel(pb.GetModelRequest(), metadata=metadata).name, "the token reaches it")
    long = pb.GenerateRequest(text="The ", max_tokens=1000, n=16, ignore_eos=True)  # seconds of work
    stream = stub.GenerateStream(long, metadata=metadata)
    next(stream)
    check(server.metric("switchyard_num_requests_running") > 0, "a stream comes as it is made")
    messages = 1 + sum(1 for _ in stream)
    check(messages > 100, f"in {messages} messages")
    code, text = code_of(lambda: stub.Generate(pb.GenerateRequest(text="x", temperature=9), metadata=metadata))
    check(code == grpc.StatusCode.INVALID_ARGUMENT and "temperature" in text, f"errors keep code and text: {text}")
    stream = stub.GenerateStream(long, metadata=metadata)
    next(stream)
    stream.cancel()
    check(server.wait_until_idle(), "a cancel reaches the engine")
    code, _ = code_of(lambda: stub.Generate(long, metadata=metadata, timeout=0.3))
    check(code == grpc.StatusCode.DEADLINE_EXCEEDED and server.wait_until_idle(), "so does a deadline")


def openai_client(nginx, ca, token):
    context = ssl.create_default_context(cafile=ca.certificate)
    url = f"https://127.0.0.1:{nginx.port}/v1"
    http = openai.DefaultHttpxClient(verify=context)
    return openai.OpenAI(base_url=url, api_key=token, max_retries=0, timeout=60, http_client=http)


def check_openai(client, server):
    name = client.models.list().data[0].id
    long = {"model": name, "prompt": "The ", "max_tokens": 1000, "n": 16, "stream": True}
    long["extra_body"] = {"ignore_eos": True}
    stream = client.completions.create(**long)
    next(stream)
    check(server.metric("switchyard_num_requests_running") > 0, "a stream over HTTP comes as it is made")
    check(sum(1 for _ in stream) > 100, "in many events")
    stream = client.completions.create(**long)
    next(stream)
    stream.close()
    check(server.wait_until_idle(), "a client that leaves ends its work")
    wrong = {"model": name, "prompt": "x", "temperature": 9}
    raises(openai.BadRequestError, lambda: client.completions.create(**wrong), "temperature")
    raises(openai.AuthenticationError, client.with_options(api_key="wrong").models.list, "authentication required")
    error = raises(
        openai.APIStatusError, lambda: client.completions.create(model=name, prompt="x" * (9 << 20)), "body is larger"
    )
    check(error.status_code == 413 and error.code == "body_too_large", "of nginx, as the server's own would be")
    check(error.type == "invalid_request_error" and error.param is None, "with all of its fields")


def check_limits(stub, metadata):
    code, text = code_of(lambda: stub.Generate(pb.GenerateRequest(text="x" * (9 << 20)), metadata=metadata))
    check(code == grpc.StatusCode.RESOURCE_EXHAUSTED, f"a message of 9 MiB: {code.name} {text}")
    code, text = code_of(lambda: stub.GetModel(pb.GetModelRequest(), metadata=[*metadata, ("x-large", "x" * 70000)]))
    check(code != grpc.StatusCode.OK, f"headers of 70 KB: {code.name}")
    # All are begun before one is read, so that none can end before the last is there.
    request = pb.GenerateRequest(text="The ", max_tokens=1000, ignore_eos=True)
    calls = [stub.GenerateStream(request, metadata=metadata) for _ in range(80)]
    codes = [code_of(lambda: next(call))[0] for call in calls]
    for call in calls:
        call.cancel()
    refused = codes.count(grpc.StatusCode.UNAVAILABLE)
    check(
        refused >= 80 - 64 and codes.count(grpc.StatusCode.OK) == 80 - refused,
        f"of 80 calls at once from one address {refused} are told to come again, and the others get their first token",
    )


def main():
    args = arguments(__doc__)
    os.environ["PATH"] += ":/usr/sbin"
    program = deployed.tool("nginx", "nginx")
    token = secrets.token_hex(32)
    with Pki() as pki:
        ca, stranger = pki.authority("ca"), pki.authority("stranger")
        tokens = pki.folder / "tokens"
        tokens.write_text(hashlib.sha256(token.encode()).hexdigest() + "\n")
        metadata = [("authorization", f"Bearer {token}")]
        folder = pathlib.Path(pki.folder)
        with HttpServer(args, f"--api-key-file={tokens}") as server:
            with Nginx(program, folder, server, pki.issue("edge", ca)) as nginx:
                address = f"127.0.0.1:{nginx.port}"
                with secure_channel(address, ca) as channel:
                    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
                    check_calls(stub, health_pb2_grpc.HealthStub(channel), server, metadata)
                    check_openai(openai_client(nginx, ca, token), server)
                    check_limits(stub, metadata)
                    check(https(nginx, ca, "/readyz") == (200, "ok\n"), "/readyz answers over HTTPS")
                    check(https(nginx, ca, "/metrics")[0] != 200, "/metrics does not")
                    with secure_channel(address, stranger) as wrong:
                        other = inference_service_pb2_grpc.InferenceServiceStub(wrong)
                        code, _ = code_of(lambda: other.GetModel(pb.GetModelRequest(), metadata=metadata, timeout=60))
                        check(code == grpc.StatusCode.UNAVAILABLE, "a client that trusts another CA does not connect")
                    server.process.kill()
                    server.process.wait()
                    code, _ = code_of(lambda: stub.GetModel(pb.GetModelRequest(), metadata=metadata, timeout=60))
                    check(code == grpc.StatusCode.UNAVAILABLE, "with the server gone, calls get UNAVAILABLE")
                    raises(openai.InternalServerError, openai_client(nginx, ca, token).models.list, "502")
                logs = nginx.text_of("access.log") + nginx.text_of("error.log")
                check('"grpc_status":"16"' in logs and '"grpc_status":"0"' in logs, "its log has gRPC's status")
                check(token not in logs, "and no token")


if __name__ == "__main__":
    main()
