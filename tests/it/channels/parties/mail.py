"""A mail server that is not ours: aiosmtpd takes mail, Python's email package reads it, dkimpy checks its signature.

usage: mail.py DIR none|starttls|implicit [USER PASSWORD]

It writes into DIR what a client needs: ca.pem, and dkim.pem with dkim-ed25519.pem to sign with. On stdout it writes its port,
then a line of JSON for each mail. It ends with its standard input.
"""

import asyncio
import base64
import datetime
import ipaddress
import json
import ssl
import sys
from email import policy
from email.parser import BytesParser
from pathlib import Path

import dkim
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

folder, mode = Path(sys.argv[1]), sys.argv[2]
login = tuple(sys.argv[3:5]) or None


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate(name, key, issuer, issuer_key, ca):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        host = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(host), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def tls_context():
    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(certificate(named("test root"), ca_key, named("test root"), ca_key, True))
    (folder / "leaf.pem").write_bytes(certificate(named("localhost"), key, named("test root"), ca_key, False))
    (folder / "leaf.key").write_bytes(pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
    return context


signers = {
    "dkim": (rsa.generate_private_key(public_exponent=65537, key_size=2048), b"rsa"),
    "dkim-ed25519": (ed25519.Ed25519PrivateKey.generate(), b"ed25519"),
}
for name, (key, _) in signers.items():
    (folder / f"{name}.pem").write_bytes(pem(key))


def dns(name, timeout=5):
    """The TXT records of our keys: SELECTOR._domainkey.DOMAIN."""
    key, kind = signers[name.decode().split(".")[0]]
    if kind == b"rsa":
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    else:
        form = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return b"v=DKIM1; k=" + kind + b"; p=" + base64.b64encode(key.public_key().public_bytes(*form))


class Handler:
    async def handle_DATA(self, server, session, envelope):
        raw = envelope.original_content
        mail = BytesParser(policy=policy.default).parsebytes(raw)
        bodies = {kind: mail.get_body((kind,)) for kind in ("plain", "html")}
        told = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "user": session.auth_data.login.decode() if session.auth_data else None,
            "headers": [[name, str(value)] for name, value in mail.items()],
            "defects": [repr(d) for part in mail.walk() for d in part.defects],
            "type": mail.get_content_type(),
            "date": mail["date"].datetime.isoformat(),
            "to_name": mail["to"].addresses[0].display_name,
            "from_name": mail["from"].addresses[0].display_name,
            "parts": [part.get_content_type() for part in mail.walk()],
            "text": bodies["plain"] and bodies["plain"].get_content(),
            "html": bodies["html"] and bodies["html"].get_content(),
            "dkim": dkim.verify(raw, dnsfunc=dns) if mail["dkim-signature"] else None,
        }
        print(json.dumps(told), flush=True)
        return "250 2.0.0 Ok: queued as PARTY1"


def authenticate(server, session, envelope, mechanism, data):
    right = (data.login.decode(), data.password.decode()) == login
    return AuthResult(success=right, handled=False, auth_data=data if right else None)


def smtp(context):
    options = {"hostname": "party.test", "enable_SMTPUTF8": True}
    if mode == "starttls":
        options.update(tls_context=context, require_starttls=True)
    if login:
        options.update(authenticator=authenticate, auth_required=True, auth_require_tls=mode == "starttls")
    return SMTP(Handler(), **options)


async def main():
    context = tls_context() if mode != "none" else None
    implicit = context if mode == "implicit" else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: smtp(context), "127.0.0.1", 0, ssl=implicit)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
