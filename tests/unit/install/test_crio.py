"""CRI-O's drop-ins, key by key: there is no CRI-O here to read them."""

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

SHIM = Path("/opt/kata/current/bin/containerd-shim-kata-v2")
HANDLERS = [
    Handler("kata", SHIM, Path("/opt/kata/current/share/configuration.toml")),
    Handler("kata-remote", SHIM, Path("/opt/kata/configuration-remote.toml")),
]


def runtimes() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for handler in HANDLERS:
        content = tomllib.loads(crio.drop_in(handler))
        assert content.keys() == {"crio"}
        assert content["crio"].keys() == {"runtime"}
        assert content["crio"]["runtime"].keys() == {"runtimes"}
        found |= content["crio"]["runtime"]["runtimes"]
    return found


def test_each_handler_has_the_keys_of_a_runtime_for_machines() -> None:
    assert runtimes() == {
        "kata": {
            "runtime_path": str(SHIM),
            "runtime_type": "vm",
            "runtime_root": "/run/vc",
            "runtime_config_path": "/opt/kata/current/share/configuration.toml",
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


def test_each_handlers_drop_in_has_the_name_that_kata_and_openshift_give_it() -> None:
    paths = [crio.path_of(handler.name) for handler in HANDLERS]
    assert paths == [Path("/etc/crio/crio.conf.d/50-kata"), Path("/etc/crio/crio.conf.d/50-kata-remote")]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "crio.conf.d"
    path.mkdir()
    return path


def refuse(directory: Path, *ours: Path) -> None:
    crio.refuse_others(HANDLERS, ours, directory, directory.with_name("crio.conf"))


@pytest.mark.parametrize("place", ["crio.conf", "crio.conf.d/50-kata-remote"])
def test_a_handler_of_somebody_elses_is_not_taken_over(directory: Path, place: str) -> None:
    other = directory.parent / place
    other.write_text('[crio.runtime.runtimes.runc]\nruntime_type = "oci"\n')
    refuse(directory)
    other.write_text('[crio.runtime.runtimes.kata-remote]\nruntime_type = "vm"\n')
    with pytest.raises(InstallError, match=f"{place} has a handler kata-remote already"):
        refuse(directory)


def test_our_own_drop_ins_are_not_somebody_elses(directory: Path) -> None:
    ours = [crio.path_of(handler.name, directory) for handler in HANDLERS]
    for handler, path in zip(HANDLERS, ours, strict=True):
        path.write_text(crio.drop_in(handler))
    refuse(directory, *ours)


def test_a_directory_that_is_not_there_has_nobody_elses(tmp_path: Path) -> None:
    refuse(tmp_path / "none")


def test_what_crio_could_not_read_is_named(directory: Path) -> None:
    (directory / "10-broken").write_text("[")
    with pytest.raises(InstallError, match="10-broken cannot be read as TOML"):
        refuse(directory)
