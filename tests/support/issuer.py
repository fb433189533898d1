"""An OpenID provider on loopback: discovery document, public keys, and tokens, good and bad."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

AUDIENCE = "pulseline-test"
LIFETIME_SECONDS = 600
HELD_SECONDS = 30.0


class Issuer:
    def __init__(self) -> None:
        self.url = ""
        self.audience = AUDIENCE
        self.asked: list[str] = []
        self.away = False
        self.answers = threading.Event()  # while it is not set, whoever asks waits
        self.answers.set()
        self.keys_path = "/keys"
        self.more_keys: list[dict[str, Any]] = []
        self.rotate("first")

    def rotate(self, kid: str) -> None:
        """A new key; the old one is not published any more."""
        self.kid, self.key = kid, generate_private_key(SECP256R1())

    @property
    def documents(self) -> dict[str, Any]:
        key = {**ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": self.kid, "use": "sig"}
        return {
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}{self.keys_path}"},
            self.keys_path: {"keys": [key, *self.more_keys]},
        }

    def claims(self, subject: str, **other: Any) -> dict[str, Any]:
        claims = {"iss": self.url, "aud": self.audience, "sub": subject, "exp": int(time.time()) + LIFETIME_SECONDS}
        return {name: value for name, value in {**claims, **other}.items() if value is not None}

    def token(self, subject: str, key: Any = None, **claims: Any) -> str:
        """A claim that is None is left out."""
        return jwt.encode(self.claims(subject, **claims), key or self.key, "ES256", {"kid": self.kid})

    def headed(self, header: Any) -> str:
        """A token of this header, a value or the bytes themselves; what follows it is not signed."""
        return f"{_part(header)}.{_part(self.claims('alice'))}.c2ln"

    def saying(self, claims: Any) -> str:
        """Well signed, whatever it says: a value or the bytes themselves."""
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        return jwt.PyJWS().encode(payload, self.key, "ES256", {"kid": self.kid})

    def unsigned(self, subject: str) -> str:
        """`alg: none`, with and without which libraries have been fooled."""
        return f"{_part({'alg': 'none', 'kid': self.kid})}.{_part(self.claims(subject))}."

    def confused(self, subject: str) -> str:
        """HS256 with the public key's text as the secret, which everybody knows."""
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        signed = f"{_part({'alg': 'HS256', 'kid': self.kid})}.{_part(self.claims(subject))}"
        mac = jwt.get_algorithm_by_name("HS256").sign(signed.encode(), public.replace(b"-----", b""))
        return f"{signed}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(text).rstrip(b"=").decode()


@contextmanager
def issuing() -> Iterator[Issuer]:
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            issuer.answers.wait(HELD_SECONDS)
            found = None if issuer.away else issuer.documents.get(self.path)
            self.send_response(200 if found else 503)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
