"""Certificates for the scripts of this folder, made by the openssl program.

with Pki() as pki:
    ca = pki.authority("ca")
    server = pki.issue("server", ca)
    server.certificate, server.key          # paths
"""

import collections
import pathlib
import subprocess
import tempfile

import grpc

Identity = collections.namedtuple("Identity", "certificate key")
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Pki:
    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="switchyard-pki-")
        self.folder = pathlib.Path(self._folder.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._folder.cleanup()

    def openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=self.folder)

    def paths(self, name):
        return Identity(self.folder / f"{name}.crt", self.folder / f"{name}.key")

    def authority(self, name):
        made = self.paths(name)
        self.openssl(
            "req", "-x509", *CURVE, "-keyout", made.key, "-out", made.certificate, "-days", 5, "-subj", f"/CN={name}"
        )
        return made

    def issue(self, name, authority, days=2, new_key=CURVE):
        """A certificate for this machine, for servers and clients; `days` may be negative: expired."""
        made = self.paths(name)
        request = self.folder / f"{name}.csr"
        self.openssl(
            "req",
            *new_key,
            "-keyout",
            made.key,
            "-out",
            request,
            "-subj",
            f"/CN={name}",
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
        )
        self.openssl(
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            authority.certificate,
            "-CAkey",
            authority.key,
            "-CAcreateserial",
            "-copy_extensions",
            "copy",
            "-days",
            days,
            "-out",
            made.certificate,
        )
        return made


def secure_channel(address, ca, client=None):
    """A channel of its own that trusts `ca` and shows the identity `client`."""
    credentials = grpc.ssl_channel_credentials(
        ca.certificate.read_bytes(),
        client.key.read_bytes() if client else None,
        client.certificate.read_bytes() if client else None,
    )
    return grpc.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)])
