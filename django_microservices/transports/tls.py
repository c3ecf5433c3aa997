"""TLS for every wire: options as in Node's ``tls``, verified by default."""

import contextlib
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from ..exceptions import TransportRefused

if TYPE_CHECKING:
    import asyncio


class TLSOptions(TypedDict, total=False):
    """``tls_options`` or ``tls``: each file is a path or a PEM text.

    ``cert`` and ``key`` are one's own; ``ca`` (one or a list) whom to trust, on a
    server with ``request_cert`` (the default when ``ca`` is given) the clients;
    ``server_name`` the name to find in the server's certificate; ``min_version``
    "TLSv1.2" (default) or "TLSv1.3"; ``reject_unauthorized`` False verifies nothing.
    """

    cert: str
    key: str
    passphrase: str
    ca: str | Sequence[str]
    request_cert: bool
    reject_unauthorized: bool
    server_name: str
    min_version: str


class PeerIdentity(NamedTuple):
    """Whom a certificate names: its common name and its subject alternative names."""

    common_name: str
    names: tuple[str, ...]


_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def server_context(options: TLSOptions, option: str = "tls_options") -> ssl.SSLContext:
    """Build a server's context; raise :class:`TransportRefused` for a bad file.

    ``option`` is what errors begin with: by which name the transport takes these.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if not {"cert", "key"} <= options.keys():
        message = f"{option}: a server needs 'cert' and 'key'."
        raise TransportRefused(message)
    _load(context, options, option)
    wants = options.get("request_cert", "ca" in options)
    if wants and "ca" not in options:
        message = f"{option}['request_cert'] needs 'ca': whose certificates to trust."
        raise TransportRefused(message)
    if wants and options.get("reject_unauthorized", True):
        context.verify_mode = ssl.CERT_REQUIRED
    elif wants:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(options: TLSOptions, option: str = "tls_options") -> ssl.SSLContext:
    """Build a client's context; raise as :func:`server_context` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "ca" not in options:
        context.load_default_certs()
    _load(context, options, option)
    if not options.get("reject_unauthorized", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class ClientContext:
    """A client's context, built at its first use: the system's authorities are many.

    It is built anew when one of the files has changed, so that a certificate that was
    renewed is used by the next connection.
    """

    def __init__(self, options: TLSOptions, option: str = "tls_options") -> None:
        self._options = options
        self._option = option
        self._built: tuple[list[Any], ssl.SSLContext] | None = None

    def current(self) -> ssl.SSLContext:
        """Return it; raise :class:`TransportRefused` for a bad file."""
        stamps = [_stamp(text) for text in _files(self._options)]
        built = self._built
        if built is None or built[0] != stamps:
            built = self._built = stamps, client_context(self._options, self._option)
        return built[1]


def _files(options: TLSOptions) -> list[str]:
    own = [options[name] for name in ("cert", "key") if name in options]
    return [text for text in [*own, *_authorities(options)] if not _is_pem(text)]


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:  # loading it tells why
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _load(context: ssl.SSLContext, options: TLSOptions, option: str) -> None:
    version = options.get("min_version", "TLSv1.2")
    if version not in _VERSIONS:
        message = f"{option}['min_version']: {version!r} is none of {[*_VERSIONS]}."
        raise TransportRefused(message)
    context.minimum_version = _VERSIONS[version]
    if "cert" in options:
        _load_own(context, options, option)
    elif "key" in options:
        message = (
            f"{option}['key'] needs 'cert': the certificate that it is the key of."
        )
        raise TransportRefused(message)
    for authority in _authorities(options):
        _load_authority(context, authority, option)


def _authorities(options: TLSOptions) -> Sequence[str]:
    given = options.get("ca", ())
    return [given] if isinstance(given, str) else given


def _load_own(context: ssl.SSLContext, options: TLSOptions, option: str) -> None:
    cert, key = options["cert"], options.get("key")
    passphrase = options.get("passphrase", "")  # with none, OpenSSL asks the terminal
    try:
        with tempfile.TemporaryDirectory(prefix="tls-") as folder:
            context.load_cert_chain(
                _path(cert, folder, "cert.pem"),
                None if key is None else _path(key, folder, "key.pem"),
                passphrase,
            )
    except (OSError, ValueError) as error:
        which = f"{option}['cert']{_shown(cert)} and ['key']{_shown(key)}"
        message = f"{which} cannot be used: {error}"
        raise TransportRefused(message) from error


def _load_authority(context: ssl.SSLContext, authority: str, option: str) -> None:
    try:
        if _is_pem(authority):
            context.load_verify_locations(cadata=authority)
        else:
            context.load_verify_locations(cafile=authority)
    except (OSError, ValueError) as error:
        message = f"{option}['ca']{_shown(authority)} cannot be used: {error}"
        raise TransportRefused(message) from error


def _is_pem(text: str) -> bool:
    return "-----BEGIN" in str(text)


def _shown(given: str | None) -> str:
    """Return a file's path for an error, and nothing of what may be a key.

    One that was pasted without its first line has neither a dot nor a root.
    """
    text = str(given or "")
    is_path = "." in text or Path(text).is_absolute()
    return f" ({text})" if is_path and text.isprintable() and not _is_pem(text) else ""


def _path(text: str, folder: str, name: str) -> str:
    """Return a path: the ssl module reads one's own certificate only from files."""
    if not _is_pem(text):
        return str(text)
    path = Path(folder, name)
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


def identity(transport: "asyncio.BaseTransport") -> PeerIdentity | None:
    """Return whom the peer's certificate names; ``None`` without one."""
    certificate: dict[str, Any] | None = transport.get_extra_info("peercert")
    if not certificate:
        return None
    subject = {key: value for rdn in certificate["subject"] for key, value in rdn}
    names = tuple(value for _, value in certificate.get("subjectAltName", ()))
    return PeerIdentity(subject.get("commonName", ""), names)


def reason_of(error: OSError) -> str:
    """Return why TLS was not agreed on, in a few words."""
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", "") or error.reason or error)
    return str(error) or "the peer left"


def save_memory() -> None:
    """Have large blocks returned to the system, so that idle connections stay small.

    uvloop gives each TLS connection 256 KB and touches little of it, but left alone
    glibc soon takes such blocks from used pages: 47 KB a connection, and not 25 KB.
    """
    import ctypes  # only TLS servers need it

    with contextlib.suppress(OSError, AttributeError):  # where the C library is another
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _UVLOOP_BUFFER)


_M_MMAP_THRESHOLD = -3
_UVLOOP_BUFFER = 256 * 1024
