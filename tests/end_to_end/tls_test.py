"""TLS and client certificates: the right ones pass, others are refused, and files are exchanged under load."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import grpc
from pki import CURVE, Pki, secure_channel
from serving import (
    Server,
    arguments,
    check,
    code_of,
    expert_service_pb2,
    expert_service_pb2_grpc,
    health_pb2,
    health_pb2_grpc,
    inference_service_pb2_grpc,
    pb,
    until,
)


def tls_flags(identity, *more):
    return [f"--ssl-certfile={identity.certificate}", f"--ssl-keyfile={identity.key}", *more]


def refusal(args, *flags):
    """(exit code, what it says) of a start that must fail."""
    result = subprocess.run(
        [args.server_binary, "--model", args.model, "--port=0", "--admin-port=0", *flags],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.returncode, result.stderr


def check_start_refusals(args, pki, ca, good):
    other = pki.issue("other", ca)
    expired = pki.issue("expired", ca, days=-1)
    weak = pki.issue("weak", ca, new_key=["-newkey", "rsa:1024", "-nodes"])
    locked = pki.issue("locked", ca, new_key=[*CURVE[:-1], "-passout", "pass:secret"])
    garbage = pki.folder / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    empty = pki.folder / "empty.pem"
    empty.write_text("")
    folder = pki.folder
    for what, flags, words in [
        (
            "a missing certificate",
            tls_flags(good._replace(certificate="/nowhere.pem")),
            ["--ssl-certfile", "No such file"],
        ),
        ("a missing key", tls_flags(good._replace(key="/nowhere.pem")), ["--ssl-keyfile", "No such file"]),
        ("a folder", tls_flags(good._replace(certificate=folder)), ["--ssl-certfile", "not a regular file"]),
        ("no PEM", tls_flags(good._replace(certificate=empty)), ["--ssl-certfile", "no PEM certificate"]),
        ("a damaged certificate", tls_flags(good._replace(certificate=garbage)), ["--ssl-certfile", "damaged"]),
        ("another key", tls_flags(good._replace(key=other.key)), ["--ssl-keyfile", "is not the key"]),
        ("a key with a password", tls_flags(locked), ["--ssl-keyfile", "needs no password"]),
        ("an expired certificate", tls_flags(expired), ["--ssl-certfile", "expired on"]),
        ("a weak key", tls_flags(weak), ["--ssl-certfile", "key too small"]),
        ("an empty client CA", tls_flags(good, f"--ssl-ca-certs={empty}"), ["--ssl-ca-certs", "empty"]),
        (
            "an expired client CA",
            tls_flags(good, f"--ssl-ca-certs={expired.certificate}"),
            ["--ssl-ca-certs", "valid now"],
        ),
        ("a certificate alone", [f"--ssl-certfile={good.certificate}"], ["--ssl-keyfile is missing"]),
        ("a key alone", [f"--ssl-keyfile={good.key}"], ["--ssl-certfile is missing"]),
        ("a client CA alone", [f"--ssl-ca-certs={ca.certificate}"], ["--ssl-ca-certs", "needs --ssl-certfile"]),
    ]:
        code, text = refusal(args, *flags)
        last = text.strip().splitlines()[-1]
        check(code == 2 and all(word in last for word in words), f"{what} is refused at the start: {last[:150]}")


def handshake(server, **limits):
    """The server's certificate (DER) as a handshake of a new connection shows it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if limits:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    for name, value in limits.items():
        setattr(context, name, value)
    with socket.create_connection(("127.0.0.1", server.facts["port"]), timeout=60) as raw:
        with context.wrap_socket(raw) as connection:
            return connection.getpeercert(binary_form=True)


def check_versions(server):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        check(handshake(server, minimum_version=version, maximum_version=version), f"{version.name} is spoken")
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        try:
            handshake(server, minimum_version=version, maximum_version=version)
            check(False, f"{version.name} is refused")
        except (ssl.SSLError, ConnectionResetError) as error:
            # An alert, or no word at all; not our own side, which has been told to speak these.
            said = getattr(error, "reason", "reset")
            closed = said in ("UNEXPECTED_EOF_WHILE_READING", "TLSV1_ALERT_PROTOCOL_VERSION", "reset")
            check(closed, f"{version.name} is refused by the server: {said}")


def model_code(channel):
    with channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        return code_of(lambda: stub.GetModel(pb.GetModelRequest(), timeout=60))[0]


def run_client(args, server, *flags):
    return subprocess.run(
        [args.client_binary, "--address", server.address, *map(str, flags), "model"],
        capture_output=True,
        text=True,
        timeout=60,
    )


def check_server_certificate(args, pki, ca, good):
    stranger = pki.authority("stranger")
    with Server(args, *tls_flags(good)) as server:
        check_versions(server)
        check(
            model_code(secure_channel(server.address, ca)) == grpc.StatusCode.OK, "a client that trusts the CA passes"
        )
        check(
            model_code(secure_channel(server.address, stranger)) == grpc.StatusCode.UNAVAILABLE, "another CA: refused"
        )
        check(model_code(server.new_channel()) == grpc.StatusCode.UNAVAILABLE, "plaintext: refused")
        check(run_client(args, server, "--ca-file", ca.certificate).returncode == 0, "our own client passes")
        check(run_client(args, server, "--ca-file", stranger.certificate).returncode == 1, "and refuses another CA")
        expiry = server.metric("switchyard_tls_certificate_expiry_timestamp_seconds")
        check(86400 < expiry - time.time() < 3 * 86400, "the metrics say when the certificate expires")


def check_client_certificates(args, pki, ca, good):
    stranger = pki.authority("stranger")
    client = pki.issue("client", ca)
    with Server(args, *tls_flags(good, f"--ssl-ca-certs={ca.certificate}")) as server:
        check(model_code(secure_channel(server.address, ca, client)) == grpc.StatusCode.OK, "a client of the CA passes")
        own = run_client(
            args, server, "--ca-file", ca.certificate, "--cert-file", client.certificate, "--key-file", client.key
        )
        check(own.returncode == 0, "our own client passes")
        for what, identity in [
            ("no certificate", None),
            ("another CA's certificate", pki.issue("impostor", stranger)),
            ("an expired certificate", pki.issue("late", ca, days=-1)),
            ("a self-signed certificate", pki.authority("self-signed")),
        ]:
            code = model_code(secure_channel(server.address, ca, identity))
            check(code == grpc.StatusCode.UNAVAILABLE, f"{what}: refused: {code.name}")
        # The health check is no exception: it comes after the handshake.
        with secure_channel(server.address, ca) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            code, _ = code_of(lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=60))
            check(code == grpc.StatusCode.UNAVAILABLE, "health without a certificate: refused")


def install(identity, files):
    """Replaces both files of a server by those of `identity`, first the one and then the other."""
    copies = [shutil.copy(source, f"{target}.new") for source, target in zip(identity, files)]
    for copy, target in zip(copies, files):
        os.replace(copy, target)


@contextlib.contextmanager
def load(server, ca):
    """Streams without a pause, and an expert watch all along. Yields what went wrong, and how much went well."""
    broken, finished = [], []
    stop = threading.Event()
    channel = secure_channel(server.address, ca)
    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
    watch = expert_service_pb2_grpc.ExpertServiceStub(channel).WatchExpertLoad(
        expert_service_pb2.WatchExpertLoadRequest()
    )

    def streams():
        while not stop.is_set():
            request = pb.GenerateRequest(text="The ", max_tokens=600, ignore_eos=True)
            code, text = code_of(lambda: stub.GenerateStream(request))
            (finished if code == grpc.StatusCode.OK else broken).append((code.name, text))

    def watching():
        try:
            for _ in watch:
                pass
        except grpc.RpcError as error:
            if not stop.is_set():
                broken.append(("watch", error.code().name))

    threads = [threading.Thread(target=streams) for _ in range(4)] + [threading.Thread(target=watching)]
    for thread in threads:
        thread.start()
    try:
        yield broken, finished
        until(lambda: len(finished) > 4)
    finally:
        stop.set()
        watch.cancel()
        for thread in threads:
            thread.join()
        channel.close()


def check_rotation(args, pki, ca, good):
    files = pki.paths("live")
    install(good, files)
    next_one = pki.issue("next", ca)
    reloads = lambda result: server.metric("switchyard_credential_reloads_total", what="tls", result=result)
    der = lambda identity: ssl.PEM_cert_to_DER_cert(identity.certificate.read_text())
    # With a limit of connections they come to gRPC by another way; it must not matter.
    with Server(args, *tls_flags(files, "--max-connections=50")) as server, load(server, ca) as (broken, finished):
        check(handshake(server) == der(good), "the first certificate is shown")
        install(next_one, files)
        check(until(lambda: handshake(server) == der(next_one)), "new connections get the new certificate")
        check(reloads("taken") == 1 and reloads("refused") == 0, "one change was taken")

        install(next_one._replace(key=good.key), files)
        check(until(lambda: reloads("refused") == 1), "a key that does not fit is refused and counted")
        time.sleep(3)
        check(reloads("refused") == 1, "once per change")
        check(handshake(server) == der(next_one), "and the old certificate stays")
        lines = [line for line in server.log if "credentials_refused" in line]
        check(len(lines) == 1 and "--ssl-keyfile is not the key" in lines[0], "the log says why")
        os.remove(files.key)
        check(until(lambda: reloads("refused") == 2), "so is a file that is gone")
        install(pki.issue("third", ca, days=-1), files)
        check(until(lambda: reloads("refused") == 3), "and an expired certificate")
        check(handshake(server) == der(next_one), "the old certificate stays")

        third = pki.issue("third", ca)
        install(third, files)
        check(until(lambda: handshake(server) == der(third)), "a good change after bad ones is taken")
        check(model_code(secure_channel(server.address, ca)) == grpc.StatusCode.OK, "and new clients pass")
    check(not broken and len(finished) > 4, f"no stream broke, {len(finished)} finished meanwhile: {broken[:3]}")


def check_client_ca_rotation(args, pki, ca, good):
    second = pki.authority("second-ca")
    trusted = pki.folder / "trusted.pem"
    shutil.copy(ca.certificate, trusted)
    old, new = pki.issue("old-client", ca), pki.issue("new-client", second)
    with Server(args, *tls_flags(good, f"--ssl-ca-certs={trusted}")) as server:
        passes = lambda client: model_code(secure_channel(server.address, ca, client)) == grpc.StatusCode.OK
        with secure_channel(server.address, ca, old) as before:
            stub = inference_service_pb2_grpc.InferenceServiceStub(before)
            stub.GetModel(pb.GetModelRequest())
            check(not passes(new), "a client of a CA that is not trusted yet: refused")
            trusted.write_bytes(second.certificate.read_bytes())
            check(until(lambda: passes(new)), "its CA is added: it passes")
            check(not passes(old), "the other CA is gone: its clients are refused")
            check(
                code_of(lambda: stub.GetModel(pb.GetModelRequest()))[0] == grpc.StatusCode.OK,
                "but for connections that are open",
            )


def main():
    args = arguments(__doc__, client_binary="switchyard")
    with Pki() as pki:
        ca = pki.authority("ca")
        good = pki.issue("good", ca)
        check_start_refusals(args, pki, ca, good)
        check_server_certificate(args, pki, ca, good)
        check_client_certificates(args, pki, ca, good)
        check_rotation(args, pki, ca, good)
        check_client_ca_rotation(args, pki, ca, good)


if __name__ == "__main__":
    main()
