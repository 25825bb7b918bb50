"""The SSH key that Azure demands of a Linux machine without a password."""

from __future__ import annotations

import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from kata_caa.errors import SettingError

_BITS = 2048  # what Azure asks for at least; nobody can use it anyway


def discarded() -> str:
    """A public key of RSA, which all of Azure's clouds take, whose private half exists nowhere."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def read(path: Path) -> str:
    """The public key in a file.

    Raises:
        SettingError: It cannot be read, holds no public key, or others than its owner may write or read it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text().strip()
        load_ssh_public_key(text.encode())
    except OSError as error:
        raise SettingError(f"-ssh-key-path: {path}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingError(f"-ssh-key-path: {path} holds no public key in OpenSSH's form") from error
    if mode & 0o077:
        raise SettingError(f"-ssh-key-path: {path} has mode {mode:04o}, 0600 is demanded")
    return text
