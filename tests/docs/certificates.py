"""Certificates for the examples about TLS: an authority, a server and a client."""

from pathlib import Path

import trustme


def write_certificates(folder: Path) -> None:
    """Write ``ca.pem``, and a certificate and key each for "server" and "client"."""
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    own = {
        "server": authority.issue_cert("127.0.0.1", "localhost"),
        "client": authority.issue_cert("orders.internal", common_name="orders"),
    }
    for name, certificate in own.items():
        certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        chain = certificate.cert_chain_pems
        for number, pem in enumerate(chain):
            pem.write_to_path(str(folder / f"{name}.pem"), append=number > 0)
