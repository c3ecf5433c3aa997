"""Checks of certificates and keys, which a link or listener would read too late."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from django.core.checks import CheckMessage, Error

from ..exceptions import TransportRefused
from . import TAG
from .found import Found

if TYPE_CHECKING:
    from ..transports.tls import TLSOptions


def unusable_files(found: Found) -> Iterator[CheckMessage]:
    """E008."""
    for path, kind, transport, options in found.with_tls():
        from ..transports.tls import client_context, server_context

        accepts = kind == "SERVERS" and transport.listens
        context_of = server_context if accepts else client_context
        try:
            context_of(cast("TLSOptions", options), transport.tls_option)
        except TransportRefused as error:
            yield Error(f"{path}['OPTIONS']: {error}", id=f"{TAG}.E008")


CHECKS = (unusable_files,)
