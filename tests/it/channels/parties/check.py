"""Judges by libraries that are not ours what the channels sent: one request of JSON on standard input, one answer on stdout."""

import base64
import json
import os
import sys

import http_ece
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from standardwebhooks.webhooks import Webhook


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def point(key):
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def webhook(r):
    """Whether a signature is right, by Standard Webhooks' own library."""
    return Webhook(r["secret"]).verify(r["body"], r["headers"])


def subscription(r):
    """What a browser makes when it subscribes."""
    key = ec.generate_private_key(ec.SECP256R1())
    number = key.private_numbers().private_value.to_bytes(32, "big")
    return {"private": encoded(number), "p256dh": encoded(point(key.public_key())), "auth": encoded(os.urandom(16))}


def push(r):
    """What a browser reads, and what its push service reads of the sender."""
    key = ec.derive_private_key(int.from_bytes(decoded(r["private"]), "big"), ec.SECP256R1())
    plain = http_ece.decrypt(
        base64.b64decode(r["body"]), private_key=key, auth_secret=decoded(r["auth"]), version="aes128gcm"
    )
    scheme, rest = r["authorization"].split(" ", 1)
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decoded(parts["k"]))
    claims = jwt.decode(parts["t"], public, algorithms=["ES256"], audience=r["audience"])
    return {"scheme": scheme, "key": parts["k"], "claims": claims, "plain": json.loads(plain)}


def account(r):
    """A service account, as Google's console hands it out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {"private": private.decode(), "public": public.decode()}


def assertion(r):
    """What a token server reads of an assertion."""
    claims = jwt.decode(r["assertion"], r["public"], algorithms=["RS256"], audience=r["audience"])
    return {"header": jwt.get_unverified_header(r["assertion"]), "claims": claims}


request = json.load(sys.stdin)
print(json.dumps(globals()[request["ask"]](request)))
