"""API keys: who may use the service. They are compared in constant time; a file of them is read again on changes."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from simulation.files import file_version

logger = logging.getLogger(__name__)

MIN_KEY_LENGTH = 16
"""Characters; shorter keys can be guessed."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, 2.1, and so without colon or comma
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_FORM = "name:key, name:sha256:DIGEST, name:admin:key or name:admin:sha256:DIGEST"
_MAX_FILE_BYTES = 2**20


@dataclass(frozen=True)
class Key:
    """A key by its name, and what its holder may do."""

    name: str
    admin: bool
    digest: bytes
    """SHA-256 of the key: the key itself is not kept."""


def parse_key(entry: str, *, default_name: str | None = None) -> Key:
    """Reads `name:key` or one of its longer forms.

    Args:
        entry: the name, then `admin:` if the key is for administrators, then the key, or `sha256:` and its digest.
        default_name: names an entry that is a key alone; None refuses such.

    Raises:
        ValueError: the entry has no such form. The message does not repeat the key.
    """
    name, colon, rest = entry.partition(":")
    if not colon:
        if default_name is None:
            raise ValueError(f"an API key must be given as {_FORM}")
        name, rest = default_name, entry
    if not _NAME.fullmatch(name):
        raise ValueError(f"an API key's name has letters, digits, '.', '_' and '-' only; give it as {_FORM}")
    secret = rest.removeprefix("admin:")
    hashed = secret.removeprefix("sha256:")
    if hashed != secret:
        if not _DIGEST.fullmatch(hashed):
            raise ValueError(f"API key {name!r}: sha256: is followed by 64 hexadecimal digits")
        digest = bytes.fromhex(hashed)
    elif not _KEY.fullmatch(secret) or len(secret) < MIN_KEY_LENGTH:
        raise ValueError(
            f"API key {name!r}: a key has at least {MIN_KEY_LENGTH} letters, digits and -._~+/=; "
            "make one with: openssl rand -hex 32"
        )
    else:
        digest = sha256(secret.encode()).digest()
    return Key(name=name, admin=secret != rest, digest=digest)


class KeyRing:
    """The keys of the settings and those of a file.

    Args:
        keys: comma-separated `name:key`, or keys alone; see `parse_key`. None for no keys at all; what is given but
            holds no key is an error, as somebody who meant to have keys must not be left without.
        file: one `name:key` a line; empty lines and lines that start with # are skipped. It is read again when it
            changes: a key whose line is gone is refused from the next request on. A line that is wrong then is left
            out and logged. A file that then holds no key at all, or cannot be read, is one error in the log, and
            the keys stay as they were.

    Raises:
        ValueError: a key is wrong, or there is none where there should be one.
        OSError: the file cannot be read.
    """

    def __init__(self, *, keys: str | None = None, file: Path | None = None) -> None:
        entries = [entry.strip() for entry in (keys or "").split(",")]
        self._fixed = tuple(
            parse_key(entry, default_name=f"key-{index}") for index, entry in enumerate(entries, 1) if entry
        )
        if keys is not None and not self._fixed:
            raise ValueError(f"api_keys is set but holds no key; unset it, or give at least one as {_FORM}")
        self._file = file
        self._from_file: tuple[Key, ...] = ()
        self._version: tuple[int, ...] = ()
        self.required = bool(self._fixed) or file is not None
        """Whether requests need a key at all."""
        if file is not None:
            self._version = file_version(file)
            self._from_file = tuple(parse_key(line) for line in _lines(file))
            if not self._from_file:
                raise ValueError(f"there is no API key in {file}; add a line {_FORM}")

    def find(self, secret: bytes) -> Key | None:
        """The key with this secret, if there is one. All keys are compared, each in constant time."""
        self._refresh()
        digest = sha256(secret).digest()
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        return found[-1] if found else None

    def all(self) -> frozenset[Key]:
        """The keys that are accepted now."""
        self._refresh()
        return frozenset(self._keys)

    @property
    def _keys(self) -> Iterable[Key]:
        return (*self._fixed, *self._from_file)

    def _refresh(self) -> None:
        if self._file is None:
            return
        version: tuple[int, ...] = ()  # of a file that cannot be reached
        try:
            version = file_version(self._file)
            if version == self._version:
                return
            found = tuple(_good(_lines(self._file), self._file))
            if not found:
                raise ValueError(f"there is no API key in {self._file}")
        except (OSError, ValueError) as error:
            if version != self._version:
                logger.error("the API keys stay as they were: %s", error)
        else:
            self._from_file = found
            logger.info("read %d API keys from %s", len(found), self._file)
        self._version = version


def bearer(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key that a request brings, as `Authorization: Bearer KEY` (RFC 6750) or as `X-API-Key: KEY`."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip()
    return headers.get(b"x-api-key")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address that the service listens on."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _good(lines: Iterable[str], file: Path) -> Iterable[Key]:
    for line in lines:
        try:
            yield parse_key(line)
        except ValueError as error:
            logger.error("%s: a line is left out: %s", file, error)


def _lines(file: Path) -> list[str]:
    with file.open("rb") as opened:
        content = opened.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError(f"{file} is longer than {_MAX_FILE_BYTES} bytes; it cannot be a file of API keys")
    # A byte that is no UTF-8 makes its own line wrong, or stands in a comment, and no other line.
    lines = (line.strip() for line in content.decode(errors="replace").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
