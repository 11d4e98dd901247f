"""Who may use OpenAI's interface and for how long: tokens, TLS, slow and lost clients, full queues, drain.

    python3 tests/end_to_end/http_limits_test.py --server-binary build/server/switchyard-server --model FOLDER
"""

import concurrent.futures
import hashlib
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import openai
from http_client import HttpServer, raises, read_all
from pki import Pki
from serving import arguments, check, until

MODEL = "switchyard-demo"
LONG = {"model": MODEL, "prompt": "The ", "max_tokens": 900, "extra_body": {"ignore_eos": True}}
SHORT = {"model": MODEL, "prompt": "The ", "max_tokens": 1}
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
# Reads one event and no more until it is killed, or this test ends.
KILLED = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none")
events = client.completions.create(model="switchyard-demo", prompt="The ", max_tokens=900, n=16, stream=True,
                                   extra_body={"ignore_eos": True})
next(iter(events))
print("token", flush=True)
sys.stdin.read()
"""


def check_tokens(args, folder):
    token = "a-token-of-the-test"
    file = folder / "tokens"
    file.write_text(hashlib.sha256(token.encode()).hexdigest() + " alice\n")
    with HttpServer(args, f"--api-key-file={file}") as server:
        with server.client(api_key=token) as client:
            check(client.completions.create(**SHORT).choices, "with the token a client is served")
        for key in ("another", token + "x", token[:-1]):
            with server.client(api_key=key) as client:
                error = raises(openai.AuthenticationError, lambda: client.completions.create(**SHORT))
                check(error.code == "invalid_api_key" and "authentication required" in str(error), "others are not")
        for path in ("/v1/models", f"/v1/models/{MODEL}", "/v1/completions", "/v1/chat/completions", "/", "/metrics"):
            statuses = {server.post(path, body, {}, method)[0] for method, body in [("GET", None), ("POST", b"{}")]}
            check(statuses == {401}, f"without one nobody learns what {path} is")
        status, headers, _ = server.post("/v1/models", None, {}, "GET")
        check(headers["WWW-Authenticate"] == "Bearer", "and is told what is asked for")
        line = f"Authorization: Bearer {token}\r\n".encode()
        twice = server.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + 2 * line + b"\r\n")
        check(b" 401 " in twice.recv(4096).split(b"\r\n")[0], "the token twice is none")
        # A body that nobody will read is not waited for.
        waiting = server.raw(HEAD + b"Content-Length: 8000000\r\n\r\n")
        check(read_all(waiting).startswith(b"HTTP/1.1 401 "), "a refusal does not wait for the body")
        large = server.raw(HEAD + b"Content-Length: 99999999999\r\n\r\n")
        check(read_all(large).startswith(b"HTTP/1.1 401 "), "and nobody learns how large it may be")
        refused = server.metric("switchyard_request_status_total", grpc_code="UNAUTHENTICATED")
        check(refused == 3 + 12 + 1 + 1 + 1 + 1, f"all {refused:.0f} are counted")
        check(server.metric("switchyard_request_success_total") == 1, "and nothing ran for them")


def check_tls(args):
    with Pki() as pki:
        ca, other_ca = pki.authority("ca"), pki.authority("other-ca")
        first, second = pki.issue("first", ca), pki.issue("second", ca)
        inside, stranger = pki.issue("client", ca), pki.issue("stranger", other_ca)
        live = pki.paths("live")
        for source, target in zip(first, live):
            shutil.copy(source, target)
        flags = [f"--ssl-certfile={live.certificate}", f"--ssl-keyfile={live.key}", f"--ssl-ca-certs={ca.certificate}"]
        # The stubs of the base class know no TLS; its metrics do not need it.
        with HttpServer(args, *flags) as server:
            url = server.url.replace("http:", "https:")

            def tls(identity=None):
                context = ssl.create_default_context(cafile=str(ca.certificate))
                if identity:
                    context.load_cert_chain(identity.certificate, identity.key)
                return context

            def client(identity=None):
                http = openai.DefaultHttpxClient(verify=tls(identity))
                return openai.OpenAI(base_url=url, api_key="none", http_client=http, max_retries=0)

            with client(inside) as good:
                check(good.completions.create(**SHORT).choices, "a client with its certificate is served over TLS")
                events = list(good.completions.create(model=MODEL, prompt="The ", max_tokens=9, stream=True))
                check(events[-1].choices[0].finish_reason == "length", "and gets streams")
                for one in (None, stranger):
                    with client(one) as bad:
                        raises(openai.APIConnectionError, lambda: bad.completions.create(**SHORT))
                check(read_all(server.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"))[:4] != b"HTTP", "plaintext is no answer")
                with client(inside) as after:
                    check(after.completions.create(**SHORT).choices, "on the port that goes on serving TLS")

                with socket.create_connection(("127.0.0.1", server.http_port)) as plain:
                    context = tls(inside)
                    with context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as secure:
                        secure.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        check(read_all(secure).endswith(b"]}"), "an answer ends with TLS' own end, so it is known to be whole")

                def serial():
                    with socket.create_connection(("127.0.0.1", server.http_port)) as plain:
                        with tls(inside).wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                            return secure.version(), secure.getpeercert()["serialNumber"]

                version, before = serial()
                check(version == "TLSv1.3", f"it is {version}")
                for source, target in zip(second, live):
                    shutil.copy(source, target)
                check(until(lambda: serial()[1] != before), "a new certificate is used without a restart")
                check(good.completions.create(**SHORT).choices, "and connections that are open go on")


def check_slow_clients(args):
    with HttpServer(args, "--handshake-timeout=1.5", "--http-idle-timeout=2") as server:
        server.post("/v1/completions", SHORT)
        files = server.metric("process_open_fds")

        def closed_after(data):
            start = time.monotonic()
            answer = read_all(server.raw(data))
            return time.monotonic() - start, answer

        seconds, answer = closed_after(b"")
        check(1 < seconds < 12 and answer == b"", f"who sends nothing is cut off after {seconds:.1f} s")
        seconds, answer = closed_after(b"POST /v1/comp")
        check(1 < seconds < 14 and b" 408 " in answer, f"who sends half a head gets 408 after {seconds:.1f} s")

        # One header line at a time, for ever.
        slow = server.raw(HEAD)
        start = time.monotonic()
        try:
            while time.monotonic() - start < 30:
                slow.sendall(b"X-A: b\r\n")
                time.sleep(0.2)
        except (BrokenPipeError, ConnectionResetError):
            pass
        check(time.monotonic() - start < 20, f"a slow loris is cut off after {time.monotonic() - start:.1f} s")

        for _ in range(5):
            crowd = [server.raw(HEAD[: i % 60]) for i in range(200)]
            start = time.monotonic()
            server.post("/v1/completions", SHORT)
            seconds = time.monotonic() - start
            for connection in crowd:
                connection.close()
            if seconds < 1:
                break
        check(seconds < 1, f"two hundred of them do not hold up others ({seconds:.2f} s)")

        kept = server.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" )
        check(kept.recv(65536).startswith(b"HTTP/1.1 200 "), "a connection is kept for the next request")
        kept.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        check(kept.recv(65536).startswith(b"HTTP/1.1 200 "), "which is answered")
        start = time.monotonic()
        check(kept.recv(1) == b"" and time.monotonic() - start < 15, "and closed when none comes")

        head = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"b" * 20_000 + b"\r\n\r\n"
        check(b" 431 " in read_all(server.raw(head)), "headers too large: 431")
        check(until(lambda: server.metric("process_open_fds") <= files + 1), "all descriptors are free again")


def check_hostile_bytes(server):
    for what, data, status in [
        ("no HTTP", b"hello\r\n\r\n", b" 400 "),
        ("the start of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b" 400 "),
        ("two lengths", HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b" 400 "),
        ("a length and chunks", HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b" 400 "),
        ("a negative length", HEAD + b"Content-Length: -1\r\n\r\n{}", b" 400 "),
        ("a huge length", HEAD + b"Content-Length: 99999999999999999999\r\n\r\n{}", b" 400 "),
        ("a length beyond the limit", HEAD + b"Content-Length: 99999999999\r\n\r\n{}", b" 413 "),
        ("a broken chunk", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b" 400 "),
        ("a header with a line break", b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: a\r\n b\x00\r\n\r\n", b" 400 "),
        ("two requests at once", 2 * (HEAD + b"Content-Length: 2\r\n\r\n{}"), b" 400 "),
        ("HTTP/1.0", b"GET /v1/models HTTP/1.0\r\n\r\n", b" 200 "),
        ("chunks", HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b" 400 "),
    ]:
        answer = read_all(server.raw(data))
        check(status in answer.split(b"\r\n")[0] and b"\r\n\r\n{" in answer, f"{what}: {answer.split(b'{')[-1][:110]}")
    bodied = HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    connection = server.raw(bodied)
    check(connection.recv(4096).startswith(b"HTTP/1.1 100 "), "Expect: 100-continue is answered")
    connection.sendall(b"{}")
    check(b"prompt is missing" in read_all(connection), "and then the body read")


def check_lost_clients(args):
    with HttpServer(args) as server:
        check_hostile_bytes(server)
        with server.client() as client:
            events = client.completions.create(**LONG, n=8, stream=True)
            next(iter(events))
            check(server.metric("switchyard_num_requests_running") > 0, "a stream runs")
            events.close()
            check(server.wait_until_idle(), "when its reader leaves, its requests and KV blocks are free")
            check(server.metric("switchyard_cancelled_total") > 0, "because it was cancelled")
        body = b'{"prompt": ["The ", "A "], "max_tokens": 900, "ignore_eos": true, "n": 8}'
        connection = server.raw(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        check(until(lambda: server.metric("switchyard_num_requests_running") > 0), "an answer is being made")
        before = server.metric("switchyard_cancelled_total")
        connection.close()
        check(server.wait_until_idle(), "when its client leaves, so are those")
        check(server.metric("switchyard_cancelled_total") > before, "which were cancelled, too")

        child = subprocess.Popen([sys.executable, "-c", KILLED, server.url], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        try:
            child.stdout.readline()
            child.send_signal(signal.SIGKILL)
            check(server.wait_until_idle(), "a killed client leaves nothing behind")
        finally:
            child.wait()


def check_slow_reader(args):
    """It leaves megabytes unread: its requests are ended, and it hears why when it reads again."""
    with HttpServer(args, "--stream-buffer-bytes=65536") as server:
        body = b'{"prompt": "The ", "max_tokens": 900, "ignore_eos": true, "n": 8, "logprobs": 20, "stream": true}'
        reader = server.raw(HEAD + f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        reader.recv(1000)
        free = lambda: server.metric("switchyard_num_requests_running") == 0 == server.metric("switchyard_kv_blocks_used")
        check(until(free), "a stream that nobody reads is ended, and its KV blocks are free")
        answer = read_all(reader)
        check(b"the client reads too slowly" in answer and answer.endswith(b"[DONE]\n\n\r\n0\r\n\r\n"), "and says why")
        check(server.wait_until_idle(), "nothing is left of it")


def is_reset(server):
    """A new connection ends without an answer, as it is made or after."""
    try:
        return read_all(server.raw()) == b""
    except ConnectionResetError:
        return True


def check_full(args):
    flags = ["--max-num-seqs=1", "--max-num-queued-reqs=2", "--http-max-connections=6", "--max-request-seconds=20"]
    with HttpServer(args, *flags) as server, server.client() as client:
        stream = client.completions.create(**LONG, stream=True)
        next(iter(stream))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(lambda: client.completions.create(**SHORT)) for _ in range(2)]
            check(until(lambda: server.metric("switchyard_num_requests_waiting") == 2), "the queue is full")
            error = raises(openai.RateLimitError, lambda: client.completions.create(**SHORT), "retry after")
            check(error.code == "queue_full" and int(error.response.headers["Retry-After"]) >= 1, "429 says when to come back")
            check(float(error.response.headers["retry-after-ms"]) >= 100, "also as OpenAI's clients read it")
            many = raises(openai.RateLimitError, lambda: client.completions.create(**{**SHORT, "prompt": ["a"] * 2}))
            check(many.code == "queue_full", "some of whose prompts do not fit is refused as a whole")
            never = raises(openai.BadRequestError, lambda: client.completions.create(**{**SHORT, "prompt": ["a"] * 3}))
            check(never.param == "prompt", "one that would never fit is told so")
            stream.close()
            check(all(one.result().choices for one in waiting), "those that waited are answered")
            with server.client(max_retries=5) as patient:
                check(patient.completions.create(**SHORT).choices, "a client that retries gets through")
        check(server.wait_until_idle(), "nothing is left")
    with HttpServer(args, "--http-max-connections=4") as server:
        crowd = [server.raw() for _ in range(4)]
        check(until(lambda: is_reset(server)), "beyond --http-max-connections they are reset")
        check(server.metric("switchyard_connections_refused_total") >= 1, "and counted")
        for connection in crowd:
            connection.close()
        check(until(lambda: can_ask(server)), "room is made when some leave")
    with HttpServer(args, "--max-request-seconds=0.3") as server, server.client() as client:
        error = raises(openai.InternalServerError, lambda: client.completions.create(**LONG, n=8), "deadline")
        check(error.status_code == 504, "a request that takes too long gets 504")
        stream = client.completions.create(**LONG, n=8, stream=True)
        raises(openai.APIError, lambda: list(stream), "deadline")


def can_ask(server):
    try:
        return server.post("/v1/models", None, {}, "GET")[0] == 200
    except OSError:
        return False


def check_drain(args):
    with HttpServer(args) as server:
        results, started = [None] * 32, threading.Semaphore(0)

        def read(i):
            with server.client() as client:
                events = client.completions.create(**{**LONG, "max_tokens": 60}, seed=i, stream=True)
                reasons, count = [], 0
                for event in events:
                    if count == 0:
                        started.release()
                    count += 1
                    reasons.append(event.choices[0].finish_reason)
                results[i] = reasons[-1]

        threads = [threading.Thread(target=read, args=(i,)) for i in range(32)]
        for thread in threads:
            thread.start()
        for _ in threads:
            started.acquire()
        client = server.client()
        server.terminate()
        check(server.has_logged("draining"), "SIGTERM with 32 streams in flight")
        code, error = None, None
        try:
            for _ in range(20):
                client.completions.create(**SHORT)
        except openai.InternalServerError as refusal:
            code, error = refusal.status_code, refusal.code
        except openai.APIConnectionError:
            code, error = 503, "draining"  # it was done before this was sent
        check((code, error) == (503, "draining"), "new calls get 503 draining")
        exit_code = server.wait()
        for thread in threads:
            thread.join(60)
        check(results == ["length"] * 32 and exit_code == 0, "the streams end as they should, and the server exits 0")
    with HttpServer(args, "--shutdown-timeout=0.3") as server, server.client() as client:
        stream = client.completions.create(**LONG, n=16, stream=True)
        next(iter(stream))
        idle = server.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        server.terminate()
        raises(openai.APIError, lambda: list(stream), "shutting down")
        check(server.wait() == 0, "at the drain's limit a stream ends with an error event, and the server exits 0")
        check(read_all(idle).startswith(b"HTTP/1.1 200"), "an idle connection is closed")


def check_options(args):
    for flags, words in [(["--http-port=8002", "--admin-port=8002"], "--http-port is 8002"), (["--http-port=-2"], "--http-port")]:
        result = subprocess.run([args.server_binary, "--model", args.model, "--port=0", *flags], capture_output=True, text=True, timeout=60)
        check(result.returncode == 2 and words in result.stderr, f"{flags} is refused: {result.stderr.strip()[-110:]}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            [args.server_binary, "--model", args.model, "--host=127.0.0.1", "--port=0", "--admin-port=0", f"--http-port={port}"],
            capture_output=True, text=True, timeout=60)
        check(result.returncode == 2 and str(port) in result.stderr, "a port that is taken is refused at the start")


def main():
    args = arguments(__doc__)
    check_options(args)
    with tempfile.TemporaryDirectory() as folder:
        check_tokens(args, pathlib.Path(folder))
    check_tls(args)
    check_slow_clients(args)
    check_lost_clients(args)
    check_slow_reader(args)
    check_full(args)
    check_drain(args)


if __name__ == "__main__":
    main()
