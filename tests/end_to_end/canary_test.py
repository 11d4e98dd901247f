"""Prompts, outputs, tokens and headers appear in no log line, metric or error, however verbose the settings are."""

import base64
import hashlib
import pathlib
import secrets
import tempfile

import grpc
from raw_http2 import Connection, headers, message
from serving import Server, arguments, check, pb, until

GENERATE = "/switchyard.v1.InferenceService/Generate"
PATIENCE = 3.0  # seconds, with a server that leaves some of this unanswered


def canary(kind):
    return f"canary{kind}{secrets.token_hex(12)}"


class Errors:
    """Every word that the server says to clients about what went wrong."""

    def __init__(self):
        self.words = []

    def of(self, call):
        try:
            result = call()
            if hasattr(result, "code"):
                list(result)
        except grpc.RpcError as error:
            self.words.append(f"{error.code()} {error.details()} {error.trailing_metadata()}")
            return
        raise AssertionError("this was meant to fail")


def good_calls(server, prompt, metadata):
    """What is generated, which must not be told either."""
    request = pb.GenerateRequest(text=prompt, max_tokens=40, seed=5, ignore_eos=True, logprobs=3)
    request.explain.enabled = True
    unary = server.inference.Generate(request, metadata=metadata)
    list(server.inference.GenerateStream(request, metadata=metadata))
    ids = server.inference.Tokenize(pb.TokenizeRequest(text=prompt), metadata=metadata).token_ids
    server.inference.Detokenize(pb.DetokenizeRequest(token_ids=ids), metadata=metadata)
    cancelled = server.inference.GenerateStream(pb.GenerateRequest(text=prompt, max_tokens=900), metadata=metadata)
    next(cancelled)
    cancelled.cancel()
    return unary.choices[0].text


def bad_calls(server, prompt, token, metadata):
    errors = Errors()
    generate = lambda request, meta=metadata, **more: errors.of(
        lambda: server.inference.Generate(request, metadata=meta, **more)
    )
    generate(pb.GenerateRequest(text=prompt, max_tokens=5), [("authorization", f"Bearer {token}x")])
    generate(pb.GenerateRequest(text=prompt, max_tokens=5), [("authorization", f"Bearer {token}")] * 2)
    generate(pb.GenerateRequest(text=prompt, max_tokens=5, temperature=float("nan")))
    generate(pb.GenerateRequest(text=prompt, max_tokens=5, stop=[prompt * 20]))
    generate(pb.GenerateRequest(text=prompt * 1000, max_tokens=5))
    generate(pb.GenerateRequest(text=prompt, max_tokens=900, n=16, ignore_eos=True), timeout=0.05)
    chat = pb.GenerateRequest(max_tokens=5)
    chat.chat.messages.add(role=prompt, content=prompt)
    generate(chat)
    for garbage in (
        b"\x0a" + bytes([len(prompt) + 2]) + prompt.encode() + b"\xff\xfe",
        b"\xff" + prompt.encode(),
        b"\x0a\x7f" + prompt.encode(),
    ):
        raw = server.channel.unary_unary(GENERATE)
        errors.of(lambda: raw(garbage, metadata=metadata))
    errors.of(lambda: server.channel.unary_unary("/no.such.Service/Method")(prompt.encode(), metadata=metadata))
    return errors.words


def hostile_headers(server, secret):
    """Secrets in every header that gRPC itself parses, and would quote."""
    port = server.facts["port"]
    name = secret[:40]
    cases = [
        [("grpc-timeout", secret)],
        [("grpc-encoding", secret)],
        [("grpc-accept-encoding", secret)],
        [("te", secret)],
        [("content-type", secret)],
        [("user-agent", secret)],
        [("grpc-tags-bin", secret)],
        [("x-canary-bin", "@" + secret)],
        [("host", secret)],
        [("grpc-previous-rpc-attempts", secret)],
        [("grpc-retry-pushback-ms", secret)],
        [("grpc-status", secret)],
        [("lb-token", secret)],
        [("authorization", f"Bearer {secret}")],
        [(name.upper(), "x")],
        [(name + "\n", "x")],
        [("x-canary", secret + "\r\n")],
        [(":" + name, "x")],
        [("content-length", secret)],
        [("connection", secret)],
    ]
    said = []
    for more in cases:
        with Connection(port) as connection:
            connection.send(headers(1, GENERATE, *more) + message(1))
            said.append(connection.answer(PATIENCE).decode("latin-1"))
    for bad in (f"GET /{secret} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), secret.encode() * 10):
        with Connection(port, begin=False) as connection:
            connection.send(bad)
            said.append(connection.answer(PATIENCE).decode("latin-1"))
    for method in (f"/{secret}/Method", secret, f"/switchyard.v1.InferenceService/{secret}"):
        with Connection(port) as connection:
            connection.send(headers(1, method) + message(1))
            said.append(connection.answer(PATIENCE).decode("latin-1"))
    return said


def forms(secret):
    """The ways in which a secret might be written: a third of it is enough to give it away."""
    part = secret[len(secret) // 3 :][:16]
    raw = part.encode()
    yield part
    yield raw.hex()
    for shift in range(3):  # base64 has three alignments
        yield base64.b64encode(b"x" * shift + raw)[4:-4].decode()


def main():
    args = arguments(__doc__)
    token, prompt, metadata_value, hostile = canary("token"), canary("prompt"), canary("metadata"), canary("hostile")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "tokens"
        file.write_text(hashlib.sha256(token.encode()).hexdigest() + " alice\n")
        verbose = {"GRPC_VERBOSITY": "DEBUG", "GRPC_TRACE": "all"}
        with Server(args, f"--api-key-file={file}", "--log-level=debug", variables=verbose) as server:
            metadata = [
                ("authorization", f"Bearer {token}"),
                ("x-canary", metadata_value),
                ("x-canary-bin", metadata_value.encode()),
            ]
            output = good_calls(server, prompt, metadata)
            errors = bad_calls(server, prompt, token, metadata)
            said = hostile_headers(server, hostile)
            file.write_text(token + "\n")  # a mistake that is easily made
            refused = lambda: server.metric("switchyard_credential_reloads_total", what="tokens", result="refused")
            check(until(lambda: refused() == 1), "the mistake is refused")
            metrics = server.admin("/metrics") + server.admin("/version") + server.admin("/readyz")
            check(
                server.inference.GetModel(pb.GetModelRequest(), metadata=metadata).name,
                "the server is well after all this",
            )
            server.terminate()
            check(server.wait() == 0, "and exits 0")
    log = "".join(server.log)
    check(
        "call_ended" in log and "credentials_refused" in log, f"the log is at its most verbose: {len(server.log)} lines"
    )
    check("Error parsing metadata" in log, "gRPC's own complaints about headers are in it")
    check(
        len(errors) == 11 and sum(map(len, said)) > 500,
        f"{len(errors)} calls failed, {len(said)} connections got an answer",
    )
    secrets_of = {"prompt": prompt, "output": output, "token": token, "metadata": metadata_value, "hostile": hostile}
    for kind, secret in secrets_of.items():
        places = {"log": log, "metrics": metrics, "errors": "\n".join(errors), "raw answers": "\n".join(said)}
        for place, text in places.items():
            found = [form for form in forms(secret) if form in text]
            if found:
                line = next(line for line in text.splitlines() if found[0] in line)
                check(False, f"no {kind} in the {place}: {line[:300]}")
        check(True, f"no {kind} in log, metrics, errors or answers")


if __name__ == "__main__":
    main()
