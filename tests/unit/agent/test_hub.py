"""What the confidential data hub's configuration says of registries."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from kata_agent.errors import InvalidArgument
from kata_agent.image.hub import told
from kata_agent.image.registry import Settings

TEXT = """\
[kbc]
name = "offline_fs_kbc"
[image]
extra_root_certificates = ["-----BEGIN CERTIFICATE-----\\nA", "B"]
[image.registry_config]
unqualified-search-registries = ["docker.io"]
[[image.registry_config.registry]]
location = "registry.example:5000"
insecure = true
[[image.registry_config.registry.mirror]]
location = "mirror.example"
"""


def test_certificates_and_registries_become_files_that_skopeo_reads(tmp_path: Path) -> None:
    file = tmp_path / "cdh.toml"
    file.write_text(TEXT)
    settings = told(Settings(), tmp_path / "told", file)
    assert sorted(path.name for path in settings.certificates.iterdir()) == ["0.crt", "1.crt"]
    assert (settings.certificates / "0.crt").read_text() == "-----BEGIN CERTIFICATE-----\nA"
    assert tomllib.loads(settings.registries.read_text()) == tomllib.loads(TEXT)["image"]["registry_config"]


def test_without_the_file_or_without_a_word_in_it_nothing_changes(tmp_path: Path) -> None:
    assert told(Settings(), tmp_path, tmp_path / "missing") == Settings()
    (tmp_path / "cdh.toml").write_text('socket = "unix:///x"\n')
    assert told(Settings(), tmp_path, tmp_path / "cdh.toml") == Settings()


@pytest.mark.parametrize("text", ["[image", "image = 3"])
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "cdh.toml").write_text(text)
    with pytest.raises(InvalidArgument, match=r"cdh\.toml cannot be read"):
        told(Settings(), tmp_path, tmp_path / "cdh.toml")
