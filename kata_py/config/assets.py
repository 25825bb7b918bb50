"""Files whose content a pod vouches for."""

from __future__ import annotations

from collections.abc import Iterable

from kata_py.config.errors import ConfigurationError
from kata_py.config.model import Asset

# Upstream has the first alone.
ALGORITHMS = ("sha512", "sha384", "sha256")


def verify(assets: Iterable[Asset]) -> None:
    """Read the files and compare. Blocks for as long as that takes: not for the event loop.

    Raises:
        ConfigurationError: A file has another digest, or cannot be read.
    """
    import hashlib  # brings OpenSSL along

    for asset in assets:
        try:
            with asset.path.open("rb") as file:
                digest = hashlib.file_digest(file, asset.algorithm).hexdigest()
        except OSError as error:
            raise ConfigurationError(f"{asset.annotation}: {asset.path} cannot be read: {error.strerror}") from error
        if digest != asset.digest:
            raise ConfigurationError(
                f"{asset.annotation}: the {asset.algorithm} of {asset.path} is {digest}, not {asset.digest}",
                hint="correct the annotation, or find out who changed the file",
            )
