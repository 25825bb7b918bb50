"""The SSH key of pod VMs."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from kata_caa.errors import SettingError
from kata_caa.providers.azure import sshkey


def test_a_discarded_key_is_rsa_and_never_the_same():
    one, other = sshkey.discarded(), sshkey.discarded()
    key = load_ssh_public_key(one.encode())
    assert isinstance(key, RSAPublicKey)
    assert key.key_size >= 2048
    assert one != other


def test_a_key_is_read_from_a_file_of_its_owner_alone(tmp_path: Path):
    path = tmp_path / "id_rsa.pub"
    path.write_text(sshkey.discarded() + "\n")
    path.chmod(0o600)
    assert sshkey.read(path).startswith("ssh-rsa ")
    path.chmod(0o644)
    with pytest.raises(SettingError, match="0644"):
        sshkey.read(path)


@pytest.mark.parametrize("content", [None, "no key", "ssh-rsa AAAA"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: str | None):
    path = tmp_path / "id_rsa.pub"
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    with pytest.raises(SettingError, match="ssh-key-path"):
        sshkey.read(path)
