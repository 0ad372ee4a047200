"""What HTTPS is served with."""

from __future__ import annotations

import ssl
from pathlib import Path

from service.cli.console import Failure
from service.config import TLSConfig, require_file
from service.errors import ConfigError


def server_context(tls: TLSConfig) -> ssl.SSLContext | None:
    """Return the context of a server, None for one without HTTPS.

    Raises:
        Failure: a file cannot be read, is not what it should be, or is missing where another is named.
    """
    if tls.certfile is None:
        if tls.keyfile or tls.client_ca:
            raise Failure("tls.certfile: is missing, and HTTPS needs a certificate. Name its file.", 2)
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _check_readable("tls.certfile", tls.certfile)
    _check_readable("tls.keyfile", tls.keyfile)
    _check_readable("tls.client_ca", tls.client_ca)
    try:
        # Without a password at all, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(tls.certfile, tls.keyfile, tls.password or "")
    except (ssl.SSLError, ValueError) as error:
        raise Failure(
            f"tls.certfile {tls.certfile}, tls.keyfile {tls.keyfile or 'in the same file'}: cannot be used together "
            f"({_reason(error)}). They are a certificate and its private key, both in PEM; tls.password opens a key "
            "that is encrypted.",
            2,
        ) from None
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            problem = f"tls.client_ca {tls.client_ca}: holds no certificate in PEM ({_reason(error)})."
            raise Failure(problem, 2) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _check_readable(key: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        require_file(path)
        path.read_bytes()
    except ConfigError as error:
        raise Failure(f"{key} {error}", 2) from None
    except OSError as error:
        raise Failure(f"{key} {path}: {error.strerror}. Name a file in PEM that this user can read.", 2) from None


def _reason(error: Exception) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else None) or str(error)
