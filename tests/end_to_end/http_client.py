"""A server with its HTTP port and clients of it, for the tests of OpenAI's interface."""

import json
import socket
import urllib.error
import urllib.request

import openai
from serving import Server, check


class HttpServer(Server):
    def __init__(self, args, *flags, **more):
        super().__init__(args, "--http-port=0", *flags, **more)

    @property
    def http_port(self):
        return self.facts["http_port"]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http_port}/v1"

    def client(self, kind=openai.OpenAI, **options):
        options = {"api_key": "none", "max_retries": 0, "timeout": 60, "base_url": self.url} | options
        return kind(**options)

    def post(self, path, body, headers=(), method="POST"):
        """(status, headers, parsed body) of a request whose body may be anything."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | dict(headers)
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.load(error)

    def raw(self, data=b""):
        """A connection that has sent `data`."""
        connection = socket.create_connection(("127.0.0.1", self.http_port), timeout=60)
        connection.sendall(data)
        return connection


def read_all(connection):
    """What comes until the server closes; a reset counts as the end."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def raises(kind, call, *words):
    """The error of `kind` that `call()` raises, whose message holds `words`."""
    try:
        call()
    except kind as error:
        check(all(word in str(error) for word in words), f"{kind.__name__}: {str(error)[:160]}")
        return error
    check(False, f"{kind.__name__} is raised")
