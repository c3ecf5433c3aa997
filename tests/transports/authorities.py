"""Certificates made for one run."""

import datetime
import ssl
import warnings
from pathlib import Path
from typing import Any

import trustme

from django_microservices.wire.messages import Reply

HOST = "127.0.0.1"
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


class Authority:
    """A certificate authority made for one run."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.text = self.ca.cert_pem.bytes().decode()

    def issue(self, *names: str, **more: Any) -> dict[str, str]:
        """Issue a certificate: the options that present it."""
        leaf = self.ca.issue_cert(*names, **more)
        return {
            "cert": leaf.cert_chain_pems[0].bytes().decode(),
            "key": leaf.private_key_pem.bytes().decode(),
        }


async def ask(server: Any, **tls: Any) -> Reply:
    """Send one request over TLS, and return the answer."""
    async with server.link(tls_options=tls) as calls:
        calls.send("a", b"[1]")
        reply: Reply = (await calls.came(1))[0]
        return reply


def written(path: Path, text: str) -> str:
    """Write a file."""
    path.write_text(text)
    return str(path)


def old_context(protocol: int) -> ssl.SSLContext:
    """Make a context that knows nothing newer than TLS 1.1."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


async def survives(server: Any, tls: dict[str, Any]) -> None:
    """See that the server still serves, and that nothing else has come."""
    assert server.service.deliveries == []
    await ask(server, **tls)
