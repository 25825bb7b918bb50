"""What a kernel can do, as its files tell."""

from __future__ import annotations

import gzip
from pathlib import Path

from kata_py.node.eligibility import Finding, Verdict
from kata_py.node.kernel import CONTROLLERS, NEEDED, WANTED, judged, read

RELEASE = "6.1.0-test"
V1 = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n" + "".join(f"{name}\t3\t1\t1\n" for name in CONTROLLERS)
ALL = "".join(f"{names[0]}=y\n" for names, _ in (*NEEDED, *WANTED))


def kernel(root: Path, options: str | None, cgroups: str = V1, file_systems: str = "nodev\ttmpfs\n\toverlay\n") -> Path:
    """A root with a kernel's files."""
    (root / "proc").mkdir()
    if options is not None:
        (root / "proc/config.gz").write_bytes(gzip.compress(options.encode()))
    (root / "proc/cgroups").write_text(cgroups)
    (root / "proc/filesystems").write_text(file_systems)
    return root


def found(root: Path) -> dict[str, Finding]:
    return {each.name: each for each in judged(read(RELEASE, root))}


def test_a_kernel_that_has_all_is_told_in_three_lines(tmp_path: Path) -> None:
    findings = found(kernel(tmp_path, ALL))
    assert {name: each.verdict for name, each in findings.items()} == dict.fromkeys(
        ("kernel: options", "cgroups", "file systems"), Verdict.OK
    )


def test_an_option_that_all_need_fails_and_one_that_some_need_warns(tmp_path: Path) -> None:
    findings = found(
        kernel(tmp_path, ALL.replace("CONFIG_TUN=y", "# CONFIG_TUN is not set").replace("CLS_U32=y", "X=m"))
    )
    assert (findings["kernel: TUN"].verdict, findings["kernel: NET_CLS_U32"].verdict) == (Verdict.FAIL, Verdict.WARN)
    assert "tcfilter" in findings["kernel: NET_CLS_U32"].evidence
    assert "kernel: options" not in findings


def test_the_configuration_may_lie_in_boot_and_a_module_will_do(tmp_path: Path) -> None:
    kernel(tmp_path, None)
    (tmp_path / "boot").mkdir()
    (tmp_path / f"boot/config-{RELEASE}").write_text(ALL.replace("=y", "=m"))
    assert found(tmp_path)["kernel: options"].verdict is Verdict.OK


def test_a_kernel_that_does_not_tell_its_options_is_no_failure(tmp_path: Path) -> None:
    told = found(kernel(tmp_path, None))["kernel: options"]
    assert (told.verdict, told.fix.startswith("modprobe configs")) == (Verdict.WARN, True)
    (tmp_path / "proc/config.gz").write_bytes(b"no archive")
    assert found(tmp_path)["kernel: options"].verdict is Verdict.WARN


def test_controllers_are_those_of_the_version_that_is_mounted(tmp_path: Path) -> None:
    kernel(tmp_path, ALL, cgroups=V1.replace("pids\t3\t1\t1", "pids\t3\t1\t0"))
    assert found(tmp_path)["cgroups"].evidence == "v1, without pids: pods are not limited"
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert found(tmp_path)["cgroups"].evidence == "v2: cpu, cpuset, memory, pids"


def test_a_file_system_that_is_not_there_is_told_with_its_command(tmp_path: Path) -> None:
    told = found(kernel(tmp_path, ALL, file_systems="nodev\ttmpfs\n"))["file systems"]
    assert (told.verdict, told.fix) == (Verdict.WARN, "modprobe overlay")
