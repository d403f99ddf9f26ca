"""Certificates made for a test: an authority of its own, a loopback server and a client."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _signed(common: str, authority: Pair | None) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    issuer, signer = (_name(common), key) if authority is None else (authority[0].subject, authority[1])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return certificate, key


def _written(folder: Path, name: str, pair: Pair, password: bytes | None = None) -> tuple[str, str]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(pair[0].public_bytes(serialization.Encoding.PEM))
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key.write_bytes(pair[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    return str(certificate), str(key)


class Certificates:
    """PEM files in `folder`; attributes are the paths of the authority, the client's certificate and its keys."""

    def __init__(self, folder: Path) -> None:
        authority = _signed("tests' authority", None)
        self.authority, _ = _written(folder, "authority", authority)
        self._server = _written(folder, "server", _signed("127.0.0.1", authority))
        client = _signed("tests' client", authority)
        self.client, self.client_key = _written(folder, "client", client)
        _, self.locked_key = _written(folder, "locked", client, b"passphrase")

    def server_context(self, *, ask_client: bool = False) -> ssl.SSLContext:
        """The TLS context of a server with a certificate for 127.0.0.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._server)
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.authority)
        return context
