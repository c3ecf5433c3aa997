"""A certificate for the TLS figures, made anew each time."""

from pathlib import Path

import trustme


def make(folder: Path) -> dict[str, str]:
    """Write key and certificate of 127.0.0.1 as PEM files; return their paths."""
    leaf = trustme.CA().issue_cert("127.0.0.1")
    paths = {"key": str(folder / "key.pem"), "cert": str(folder / "cert.pem")}
    leaf.private_key_pem.write_to_path(paths["key"])
    leaf.cert_chain_pems[0].write_to_path(paths["cert"])
    return paths
