"""CRI-O's drop-in, key by key: there is no CRI-O here to read it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kata_py.install import crio
from kata_py.install.errors import InstallError
from kata_py.install.handler import Handler

# CRI-O's own rule for the program of a `vm` runtime.
NAME = re.compile(r"^containerd-shim-[a-zA-Z0-9\-\+]+$")

SHIM = Path("/opt/kata-py/current/bin/containerd-shim-kata-v2")
HANDLERS = [
    Handler("kata", SHIM, Path("/opt/kata-py/current/share/configuration.toml")),
    Handler("kata-remote", SHIM, Path("/opt/kata/configuration-remote.toml")),
]


def runtimes() -> dict[str, Any]:
    content = tomllib.loads(crio.drop_in(HANDLERS))
    assert content.keys() == {"crio"}
    assert content["crio"].keys() == {"runtime"}
    assert content["crio"]["runtime"].keys() == {"runtimes"}
    found: dict[str, Any] = content["crio"]["runtime"]["runtimes"]
    return found


def test_each_handler_has_the_keys_of_a_runtime_for_machines() -> None:
    assert runtimes() == {
        "kata": {
            "runtime_path": str(SHIM),
            "runtime_type": "vm",
            "runtime_root": "/run/vc",
            "runtime_config_path": "/opt/kata-py/current/share/configuration.toml",
            "privileged_without_host_devices": True,
        },
        "kata-remote": {
            "runtime_path": str(SHIM),
            "runtime_type": "vm",
            "runtime_root": "/run/vc",
            "runtime_config_path": "/opt/kata/configuration-remote.toml",
            "privileged_without_host_devices": True,
            "runtime_pull_image": True,
            "allowed_annotations": ["io.kubernetes.cri-o.Devices"],
        },
    }
    assert all(NAME.match(Path(keys["runtime_path"]).name) for keys in runtimes().values())


@pytest.fixture
def drop_in(tmp_path: Path) -> Path:
    path = tmp_path / "crio.conf.d" / "50-kata"
    path.parent.mkdir()
    return path


def refuse(drop_in: Path) -> None:
    crio.refuse_others(drop_in, HANDLERS, drop_in.parent.with_name("crio.conf"))


@pytest.mark.parametrize("place", ["crio.conf", "crio.conf.d/50-kata-remote"])
def test_a_handler_of_somebody_elses_is_not_taken_over(drop_in: Path, place: str) -> None:
    other = drop_in.parent.parent / place
    other.write_text('[crio.runtime.runtimes.runc]\nruntime_type = "oci"\n')
    refuse(drop_in)
    other.write_text('[crio.runtime.runtimes.kata-remote]\nruntime_type = "vm"\n')
    with pytest.raises(InstallError, match=f"{place} has a handler kata-remote already"):
        refuse(drop_in)


def test_our_own_drop_in_is_not_somebody_elses(drop_in: Path) -> None:
    refuse(drop_in)
    drop_in.write_text(crio.drop_in(HANDLERS))
    refuse(drop_in)


def test_a_directory_that_is_not_there_has_nobody_elses(tmp_path: Path) -> None:
    refuse(tmp_path / "none" / "50-kata")


def test_what_crio_could_not_read_is_named(drop_in: Path) -> None:
    drop_in.with_name("10-broken").write_text("[")
    with pytest.raises(InstallError, match="10-broken cannot be read as TOML"):
        refuse(drop_in)
