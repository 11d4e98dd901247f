"""HTTP/2 frames by hand, for what no gRPC library would send, or would answer by itself."""

import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 3, 6


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _text(value):
    """A length below 127 and the bytes, without Huffman coding (RFC 7541, 5.2)."""
    data = value if isinstance(value, bytes) else value.encode()
    assert len(data) < 127
    return bytes([len(data)]) + data


def headers(stream, path, *more):
    """The headers of a gRPC call, each a literal that is never indexed."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]
    return frame(HEADERS, END_HEADERS, stream, b"".join(b"\x10" + _text(name) + _text(value) for name, value in fields))


def message(stream, payload=b""):
    return frame(DATA, END_STREAM, stream, b"\0" + struct.pack(">I", len(payload)) + payload)


def _is_answered(data):
    """Whether these bytes of a server have the end of a stream in them, or its GOAWAY."""
    at = 0
    while len(data) >= (end := at + 9 + int.from_bytes(data[at : at + 3], "big")) and len(data) >= at + 9:
        kind, flags = data[at + 3], data[at + 4]
        if kind in (RST_STREAM, GOAWAY) or (kind in (DATA, HEADERS) and flags & END_STREAM):
            return True
        at = end
    return False


class Connection:
    """A client that says nothing of its own accord: no SETTINGS ACK, no answer to a PING."""

    def __init__(self, port, *, begin=True):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        if begin:
            self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data):
        self.socket.sendall(data)

    def settings(self):
        """The server's SETTINGS, by their numbers."""
        head = self._exactly(9)
        size, kind = int.from_bytes(head[:3], "big"), head[3]
        assert kind == SETTINGS, "the first frame of a server is SETTINGS"
        return dict(struct.iter_unpack(">HI", self._exactly(size)))

    def read(self, at_most=1 << 30):
        """All that comes until the server closes, or is silent for the socket's timeout."""
        data = b""
        try:
            while len(data) < at_most and (piece := self.socket.recv(min(65536, at_most - len(data)))):
                data += piece
        except (ConnectionResetError, TimeoutError):
            pass
        return data

    def answer(self, seconds):
        """All that comes until stream 1 has its end, the server says goodbye or closes, or `seconds` are over."""
        data = b""
        deadline = time.monotonic() + seconds
        try:
            while not _is_answered(data) and (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not (piece := self.socket.recv(65536)):
                    break
                data += piece
        except (ConnectionResetError, TimeoutError):
            pass
        return data

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            if not (piece := self.socket.recv(size - len(data))):
                raise EOFError("the server has closed the connection")
            data += piece
        return data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
