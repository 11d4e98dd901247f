"""Bearer tokens: who is let in, that everybody else gets the same answer from every method, and exchanging them."""

import hashlib
import pathlib
import re
import subprocess
import tempfile

import grpc
from serving import ROOT, SERVING, Server, arguments, check, code_of, health_pb2, pb, until

REFUSED = (grpc.StatusCode.UNAUTHENTICATED, "authentication required")
FOR_ALL = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"}
# Of services that are not among our .proto files.
FOREIGN_METHODS = {"grpc.reflection.v1alpha.ServerReflection": ["ServerReflectionInfo"]}


def bearer(*tokens, scheme="Bearer"):
    return [("authorization", f"{scheme} {token}") for token in tokens]


def make_token(args, name):
    """(token, line of the file) by `switchyard token`."""
    made = subprocess.run([args.client_binary, "token", name], capture_output=True, text=True, check=True)
    token = made.stderr.strip().split(": ")[1]
    check(
        made.stdout == f"{hashlib.sha256(token.encode()).hexdigest()} {name}\n" and len(token) > 60,
        "`switchyard token` prints a token and, apart from it, its line for the file",
    )
    return token, made.stdout


def check_start_refusals(args, file, token, line):
    def refusal(text, *flags):
        file.write_text(text)
        result = subprocess.run(
            [args.server_binary, "--model", args.model, "--port=0", "--admin-port=0", f"--api-key-file={file}", *flags],
            capture_output=True,
            text=True,
            timeout=60,
        )
        check(token not in result.stderr, "what the file holds is not shown")
        return result.returncode, result.stderr.strip().splitlines()[-1]

    local = "--host=127.0.0.1"
    for what, text, flags, words in [
        ("plaintext that others can reach", line, ["--host=0.0.0.0"], ["--api-key-file without --ssl-certfile"]),
        ("a token itself", f"# ours\n{token} alice\n", [local], ["line 2", "SHA-256"]),
        ("a hash twice", line + "\n" + line, [local], ["line 3", "line 1 again"]),
        ("no token", "# none\n", [local], ["has no token"]),
        ("too many tokens", "".join(f"{i:064x}\n" for i in range(1025)), [local], ["1025 tokens", "at most 1024"]),
    ]:
        code, said = refusal(text, *flags)
        check(code == 2 and all(word in said for word in words), f"{what}: refused at the start: {said[:140]}")
    file.unlink()
    result = subprocess.run(
        [args.server_binary, "--model", args.model, local, "--port=0", "--admin-port=0", f"--api-key-file={file}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    check(result.returncode == 2 and "No such file" in result.stderr, "a missing file: refused at the start")
    file.write_text(line)
    with Server(args, "--host=0.0.0.0", "--allow-insecure-tokens", f"--api-key-file={file}") as server:
        check(server.health.Check(health_pb2.HealthCheckRequest()).status == SERVING, "unless it is asked for by name")


def check_answers(server, token):
    """The same code, text and trailers for everything that is wrong."""
    get_model = lambda metadata: server.inference.GetModel(pb.GetModelRequest(), metadata=metadata, timeout=60)
    check(code_of(lambda: get_model(bearer(token)))[0] == grpc.StatusCode.OK, "the right token passes")
    check(
        code_of(lambda: get_model(bearer(token, scheme="bearer")))[0] == grpc.StatusCode.OK, "in any case of the scheme"
    )
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    trailers = set()
    cases = {
        "none": [],
        "wrong": bearer(wrong),
        "wrong from its first byte on": bearer("0" + token[1:]),
        "empty": bearer(""),
        "too short": bearer(token[:-1]),
        "too long by one": bearer(token + "0"),
        "huge": bearer("x" * 9000),
        "right at the beginning, then huge": bearer(token + "x" * 9000),
        "twice": bearer(token, token),
        "right and wrong": bearer(token, wrong),
        "wrong and right": bearer(wrong, token),
        "two in one header": [("authorization", f"Bearer {token},Bearer {token}")],
        "another scheme": bearer(token, scheme="Basic"),
        "no scheme": [("authorization", token)],
        "in another header": [("x-api-key", token)],
        "its hash": bearer(hashlib.sha256(token.encode()).hexdigest()),
    }
    for what, metadata in cases.items():
        try:
            get_model(metadata)
            check(False, f"token {what}: refused")
        except grpc.RpcError as error:
            check((error.code(), error.details()) == REFUSED, f"token {what}: {error.details()}")
            trailers.add(tuple(sorted(error.trailing_metadata() or ())))
    check(len(trailers) == 1, f"nothing else tells them apart: {trailers}")
    check(
        server.metric("switchyard_request_status_total", grpc_code="UNAUTHENTICATED") == len(cases), "all are counted"
    )


def all_methods(server, token):
    """Full names of the methods of all services that reflection lists, and that proto/ declares."""
    declared = dict(FOREIGN_METHODS)
    for file in (ROOT / "proto").rglob("*.proto"):
        text = re.sub(r"//[^\n]*", "", file.read_text())
        package = re.search(r"^package ([\w.]+);", text, re.M)[1]
        for service, body in re.findall(r"^service (\w+) \{(.*?)^\}", text, re.M | re.S):
            declared[f"{package}.{service}"] = re.findall(r"\brpc (\w+)", body)
    reflect = server.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    answer = next(reflect(iter([b"\x3a\x01*"]), metadata=bearer(token))).decode("latin-1")  # list_services: "*"
    listed = set(re.findall(r"[a-z]\w*(?:\.\w+)*\.[A-Z]\w+", answer))
    check(len(listed) >= 4 and listed <= declared.keys(), f"reflection lists {sorted(listed)}")
    check(listed == declared.keys(), "which are all services that proto/ declares")
    return [f"/{service}/{method}" for service in sorted(listed) for method in declared[service]]


def check_every_method(server, token):
    methods = all_methods(server, token)
    check(len(methods) > 12 and FOR_ALL < set(methods), f"{len(methods)} methods are there")
    open_ones = set()
    for method in [
        *methods,
        "/switchyard.v1.InferenceService/NoSuchMethod",
        "/no.such.Service/Method",
        "/grpc.health.v1.Health/check",
    ]:
        # Any method can be called this way: what it gets is one empty message.
        call = server.channel.stream_stream(method)

        def first_answer():
            answers = call(iter([b""]), timeout=60)
            next(answers)
            answers.cancel()

        if code_of(first_answer) != REFUSED:
            open_ones.add(method)
    check(open_ones == FOR_ALL, f"without a token every method but the health check is refused: {sorted(open_ones)}")
    code, _ = code_of(
        lambda: next(server.channel.stream_stream("/no.such.Service/Method")(iter([b""]), metadata=bearer(token)))
    )
    check(code == grpc.StatusCode.UNIMPLEMENTED, "with one, a method that is not there is not there")
    check(server.metric("switchyard_prompt_tokens_total") == 0, "and nothing ran for those that were refused")


def check_exchange(args, server, file, token, line):
    second, second_line = make_token(args, "bob")
    changes = lambda result: server.metric("switchyard_credential_reloads_total", what="tokens", result=result)
    passes = lambda one: (
        code_of(
            lambda: server.inference.GetModel(pb.GetModelRequest(), metadata=bearer(one))
        )[0]
        == grpc.StatusCode.OK
    )
    check(passes(token) and not passes(second), "a token that is not in the file yet is refused")
    file.write_text(line + second_line)
    check(until(lambda: passes(second)) and passes(token), "added to the file, it passes")
    request = pb.GenerateRequest(text="The ", max_tokens=900, ignore_eos=True, n=8)
    stream = server.inference.GenerateStream(request, metadata=bearer(token))
    next(stream)
    file.write_text(second_line)
    check(until(lambda: not passes(token)) and passes(second), "taken out of the file, it is refused")
    check(code_of(lambda: stream)[0] == grpc.StatusCode.OK, "a stream that it had begun ends as it should")
    check(until(lambda: changes("taken") == 2) and changes("refused") == 0, "both changes are counted")

    file.write_text(second_line + second + "\n")
    check(until(lambda: changes("refused") == 1), "a file with a mistake is refused and counted")
    check(passes(second), "and the old tokens stay")
    check(server.has_logged("credentials_refused"), "and logged")
    refused = [text for text in server.log if "credentials_refused" in text]
    check(
        len(refused) == 1 and "line 2" in refused[0] and second not in refused[0],
        "the log names the line, not the token",
    )
    file.write_text("# nobody\n")
    check(until(lambda: not passes(second)), "a file that lists nobody lets nobody in")
    file.write_text(line)
    check(until(lambda: passes(token)), "until it lists somebody")


def main():
    args = arguments(__doc__, client_binary="switchyard")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "tokens"
        token, line = make_token(args, "alice")
        check_start_refusals(args, file, token, line)
        file.write_text("# people\n\n" + line)
        with Server(args, f"--api-key-file={file}") as server:
            check_answers(server, token)
            check_every_method(server, token)
            own = subprocess.run(
                [args.client_binary, "--address", server.address, "model"],
                capture_output=True,
                text=True,
                env={"SWITCHYARD_API_KEY": token},
                timeout=60,
            )
            check(own.returncode == 0, "our own client passes with SWITCHYARD_API_KEY")
            own = subprocess.run(
                [args.client_binary, "--address", server.address, "model"],
                capture_output=True,
                text=True,
                env={},
                timeout=60,
            )
            check(own.returncode == 1 and "SWITCHYARD_API_KEY" in own.stderr, "and without it says what to do")
            check_exchange(args, server, file, token, line)


if __name__ == "__main__":
    main()
