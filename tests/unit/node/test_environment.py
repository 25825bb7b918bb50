"""What `kata-ctl env` tells, of nodes that are a few files."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from kata_py.config import toml
from kata_py.config.load import DEFAULTS, load
from kata_py.node import programs
from kata_py.node.eligibility import Verdict
from kata_py.node.environment import environment


def program(path: Path, said: str, code: int = 0) -> Path:
    """A program that says so when it is asked what it is."""
    path.write_text(f"#!/bin/sh\nprintf '{said}\\nmore\\n'; exit {code}\n")
    path.chmod(0o755)
    return path


def test_sections_and_names_are_upstreams_in_toml_and_in_json(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 2048 kB\nMemFree: 1024 kB\nMemAvailable: 1500 kB\n")
    (tmp_path / "proc/cpuinfo").write_text("vendor_id\t: GenuineIntel\nmodel name\t: A Processor\nflags\t: vmx\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("# a comment\nNAME=\"A 'Linux'\"\nVERSION_ID=12\n")
    guest = tmp_path / "guest"
    guest.mkdir()
    (guest / "manifest.json").write_text(json.dumps({"packages": [{"name": "crun", "version": "1.8.1-1"}]}))
    file = tmp_path / "c.toml"
    file.write_text(
        f'[hypervisor.qemu]\npath = "{program(tmp_path / "qemu", "QEMU emulator version 7.2.22")}"\n'
        f'image = "{guest}/image"\nkernel_params = "a=\\"b\\""\nenable_annotations = ["x", "y"]\n'
    )
    found = environment(load(file), root=tmp_path)
    assert tomllib.loads(toml.dumps(found)) == found
    assert json.loads(json.dumps(found)) == found
    assert list(found)[:8] == ["Kernel", "Meta", "Image", "Initrd", "Hypervisor", "Runtime", "Host", "Agent"]
    told = tomllib.loads(toml.dumps(found))
    assert told["Kernel"]["Parameters"] == 'a="b"'
    assert told["Hypervisor"]["Version"] == "QEMU emulator version 7.2.22"
    assert told["Hypervisor"]["SecurityInfo"]["EnableAnnotations"] == ["x", "y"]
    assert told["Runtime"]["Config"]["Path"] == str(file)
    assert set(told["Runtime"]["Version"]["Version"]) == {"Semver", "Commit", "Major", "Minor", "Patch"}
    assert told["Host"]["Memory"] == {"Total": 2048, "Free": 1024, "Available": 1500}
    assert told["Host"]["CPU"]["Model"] == "A Processor"
    assert told["Host"]["Distro"] == {"Name": "A 'Linux'", "Version": "12"}
    assert (told["Host"]["VMContainerCapable"], told["Host"]["SupportVSocks"]) == (False, False)
    assert told["Guest"]["Crun"] == "1.8.1-1"


def test_of_machines_elsewhere_the_adaptors_socket_is_told_and_no_program_is_run() -> None:
    found = environment(load(b"[hypervisor.remote]\n"))
    assert isinstance(hypervisor := found["Hypervisor"], dict)
    assert (hypervisor["Version"], hypervisor["Path"]) == (programs.UNKNOWN, "")
    assert hypervisor["SocketPath"] == "/run/peerpod/hypervisor.sock"
    assert "Guest" not in found


def test_the_defaults_are_an_environment_too() -> None:
    text = toml.dumps(environment(load(DEFAULTS)))
    assert tomllib.loads(text)["Runtime"]["Config"]["Path"] == ""
    assert "\n[Runtime.Version]\nOCI = " in text


def test_a_program_that_says_nothing_or_is_none_has_an_unknown_version(tmp_path: Path) -> None:
    assert programs.version(tmp_path / "none") == programs.UNKNOWN
    (tmp_path / "silent").write_text("#!/bin/sh\n")
    (tmp_path / "silent").chmod(0o755)
    assert programs.version(tmp_path / "silent") == programs.UNKNOWN
    assert programs.version(program(tmp_path / "loud", "x" * 1000)) == "x" * 200


def test_versions_are_judged_by_their_numbers() -> None:
    verdicts = {
        said: programs.judged("it", said, (7, 2)).verdict
        for said in ("QEMU emulator version 7.2.22 (Debian 1:7.2)", "10.0", "QEMU emulator version 6.2.0", "unknown")
    }
    assert list(verdicts.values()) == [Verdict.OK, Verdict.OK, Verdict.WARN, Verdict.WARN]
    assert programs.virtiofsd_least("virtiofsd version 7.2.22 (Debian)") == programs.VIRTIOFSD_IN_C
    assert programs.virtiofsd_least("virtiofsd 1.10.1") == programs.VIRTIOFSD_IN_RUST


def test_a_guest_without_a_list_of_its_parts_tells_no_version(tmp_path: Path) -> None:
    assert programs.guest_package(None, "crun") == programs.UNKNOWN
    assert programs.guest_package(tmp_path / "image", "crun") == programs.UNKNOWN
    (tmp_path / "manifest.json").write_text('{"packages": "x"}')
    assert programs.guest_package(tmp_path / "image", "crun") == programs.UNKNOWN
