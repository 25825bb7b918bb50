"""Digests that a pod vouches with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kata_py.config.assets import ALGORITHMS, verify
from kata_py.config.errors import ConfigurationError
from kata_py.config.model import Asset


def asset(path: Path, algorithm: str, digest: str) -> Asset:
    return Asset("io.katacontainers.config.hypervisor.kernel_hash", path, algorithm, digest)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_file_with_the_digest_passes_and_another_one_does_not(tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "kernel"
    file.write_bytes(b"kernel" * 100_000)
    digest = hashlib.new(algorithm, file.read_bytes()).hexdigest()
    verify([asset(file, algorithm, digest)])
    with file.open("ab") as end:
        end.write(b"!")
    with pytest.raises(ConfigurationError) as caught:
        verify([asset(file, algorithm, digest)])
    assert f"hypervisor.kernel_hash: the {algorithm} of {file} is " in str(caught.value)
    assert f"not {digest}; correct the annotation" in str(caught.value)


def test_a_file_that_cannot_be_read_is_no_file_with_the_digest(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"kernel_hash: .*/nothing cannot be read: No such file"):
        verify([asset(tmp_path / "nothing", "sha512", "0" * 128)])
