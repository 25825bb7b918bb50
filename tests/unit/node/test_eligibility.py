"""Nodes of several kinds, as their files tell of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from kata_py.config import load
from kata_py.node import kvm
from kata_py.node.check import check, versions
from kata_py.node.eligibility import Finding, Verdict, eligible, files, hardware, label
from kata_py.node.facts import DEVICES, Facts, read

RELEASE = "6.1.0-test"
INTEL = "vendor_id\t: GenuineIntel\nmodel name\t: X\nflags\t\t: fpu vmx lm sse4_1 {more}\n"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu svm lm sse4_1 {more}\n"
S390 = "vendor_id       : IBM/S390\nfeatures\t: esan3 zarch {more}\n"


def node(
    root: Path,
    cpuinfo: str,
    *,
    architecture: str = "x86_64",
    modules: Iterable[str] = (),
    builtin: Iterable[str] = (),
    loadable: Iterable[str] = (),
    devices: Iterable[str] = DEVICES,
    memory: int = 16 << 30,
    nested: str = "Y",
) -> Facts:
    """The facts of a node with these files."""
    lib = root / "lib/modules" / RELEASE
    for directory in (root / "proc", root / "dev/net", lib):
        directory.mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    (root / "proc/meminfo").write_text(f"MemTotal:       {memory // 1024} kB\nMemFree: 1 kB\n")
    (root / "proc/modules").write_text("".join(f"{name} 4096 0 - Live 0x0\n" for name in modules))
    (lib / "modules.builtin").write_text("".join(f"kernel/x/{name.replace('_', '-')}.ko\n" for name in builtin))
    (lib / "modules.dep").write_text("".join(f"kernel/x/{name.replace('_', '-')}.ko.xz: a b\n" for name in loadable))
    for name in ("kvm_intel", "kvm_amd"):
        if name in modules:
            (root / "sys/module" / name / "parameters").mkdir(parents=True)
            (root / "sys/module" / name / "parameters/nested").write_text(f"{nested}\n")
    for name in devices:
        (root / "dev" / name).touch()
    return read(root, architecture=architecture, release=RELEASE)


def bad(findings: Iterable[Finding]) -> dict[str, str]:
    return {each.name: each.verdict for each in findings if each.verdict is not Verdict.OK}


def test_a_node_of_intel_and_one_of_amd_can_run_sandboxes(tmp_path: Path) -> None:
    for name, cpuinfo, module in (("intel", INTEL, "kvm_intel"), ("amd", AMD, "kvm_amd")):
        facts = node(tmp_path / name, cpuinfo.format(more=""), modules=["kvm", module])
        findings = hardware(facts, "", emulation=False)
        assert bad(findings) == {}
        assert label(findings) == "feature.node.kubernetes.io/runtime.kata=true"


def test_modules_that_are_part_of_the_kernel_count_as_loaded(tmp_path: Path) -> None:
    facts = node(tmp_path, INTEL.format(more=""), builtin=["kvm", "kvm_intel"])
    assert bad(hardware(facts, "", emulation=False)) == {}


def test_a_module_that_is_not_loaded_is_told_with_its_command(tmp_path: Path) -> None:
    facts = node(tmp_path, INTEL.format(more=""), modules=["kvm"], loadable=["kvm", "kvm_intel"], devices=["net/tun"])
    findings = {each.name: each for each in hardware(facts, "", emulation=False)}
    assert findings["module: kvm_intel"].verdict is Verdict.FAIL
    assert findings["module: kvm_intel"].fix.startswith("modprobe kvm_intel")
    assert findings["KVM"].evidence == "/dev/kvm is not there"
    assert {findings[name].verdict for name in ("vhost-net", "vhost-vsock")} == {Verdict.WARN}


def test_virtualization_that_is_off_is_told_by_where_to_switch_it_on(tmp_path: Path) -> None:
    metal = node(tmp_path / "metal", INTEL.format(more="").replace("vmx", ""), modules=["kvm"])
    [flag] = [each for each in hardware(metal, "", emulation=False) if each.name == "processor: vmx"]
    assert (flag.verdict, "firmware" in flag.fix) == (Verdict.FAIL, True)
    cloud = node(tmp_path / "cloud", AMD.format(more="hypervisor").replace("svm", ""), modules=["kvm"])
    [flag] = [each for each in hardware(cloud, "", emulation=False) if each.name == "processor: svm"]
    assert "nested virtualization" in flag.fix


@pytest.mark.parametrize("flag", ["lm", "sse4_1"])
def test_a_processor_that_is_too_old_is_told_by_the_flag_it_lacks(tmp_path: Path, flag: str) -> None:
    facts = node(tmp_path, INTEL.format(more="").replace(f" {flag}", ""), modules=["kvm", "kvm_intel"])
    findings = hardware(facts, "", emulation=False)
    assert bad(findings) == {f"processor: {flag}": "fail"}
    assert [each.fix for each in findings if each.verdict is Verdict.FAIL] == [
        "use a younger processor, or pass the host's on to the node (-cpu host)"
    ]


def test_nested_machines_that_are_off_are_told_with_the_option(tmp_path: Path) -> None:
    facts = node(tmp_path, AMD.format(more=""), modules=["kvm", "kvm_amd"], nested="0")
    findings = hardware(facts, "", emulation=False)
    assert bad(findings) == {}
    [nested] = [each for each in findings if each.name == "nested"]
    assert "options kvm_amd nested=1" in nested.fix


def test_of_a_bare_root_every_finding_that_is_not_well_has_a_fix(tmp_path: Path) -> None:
    findings = hardware(read(tmp_path, architecture="x86_64", release=RELEASE), None, emulation=False)
    findings += check(tmp_path / "none.toml", root=tmp_path)
    wrong = [each for each in findings if each.verdict is not Verdict.OK]
    assert len(wrong) > 5
    assert [each for each in wrong if not each.fix] == []


def test_a_paravirtual_kvm_is_found_out_though_it_makes_machines(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("")
    node(tmp_path, AMD.format(more="hypervisor"), modules=["kvm", "kvm_pvm"])
    [found] = [each for each in check(tmp_path / "c.toml", root=tmp_path) if each.name == "KVM"]
    assert found.verdict is Verdict.FAIL
    assert "paravirtual" in found.evidence
    assert "nested virtualization" in found.fix


@pytest.mark.parametrize(
    ("refusal", "verdict", "evidence"),
    [
        ("", Verdict.OK, "made a machine"),
        (None, Verdict.WARN, "not asked for a machine"),
        ("/dev/kvm makes no machine: Device or resource busy", Verdict.FAIL, "busy"),
    ],
)
def test_kvm_is_judged_by_what_it_does(tmp_path: Path, refusal: str | None, verdict: Verdict, evidence: str) -> None:
    facts = node(tmp_path, INTEL.format(more=""), modules=["kvm", "kvm_intel"])
    [found] = [each for each in hardware(facts, refusal, emulation=False) if each.name == "KVM"]
    assert found.verdict is verdict
    assert evidence in found.evidence


def test_a_node_without_kvm_will_do_where_emulation_will(tmp_path: Path) -> None:
    facts = node(tmp_path, "vendor_id : Other\nflags : lm\n", devices=["net/tun"])
    assert not eligible(hardware(facts, "no", emulation=False))
    assert eligible(hardware(facts, "no", emulation=True))


def test_a_mainframe_needs_sie_and_an_arm_has_no_machine_type(tmp_path: Path) -> None:
    good = node(tmp_path / "z", S390.format(more="sie"), architecture="s390x", modules=["kvm"])
    assert bad(hardware(good, "", emulation=False)) == {}
    without = node(tmp_path / "y", S390.format(more=""), architecture="s390x", modules=["kvm"])
    assert bad(hardware(without, "", emulation=False)) == {"processor: sie": "fail"}
    arm = node(tmp_path / "arm", "", architecture="aarch64", modules=["kvm"])
    assert bad(hardware(arm, "", emulation=True)) == {"architecture": "fail"}


def test_no_tun_and_little_memory_are_told(tmp_path: Path) -> None:
    devices = set(DEVICES) - {"net/tun"}
    facts = node(tmp_path, INTEL.format(more=""), modules=["kvm", "kvm_intel"], devices=devices, memory=1 << 30)
    assert bad(hardware(facts, "", emulation=False)) == {"tun": "fail", "memory": "warn"}


def test_a_file_that_is_not_there_is_told_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"x")
    kernel, image = files([("kernel", tmp_path / "kernel"), ("initrd", None), ("image", tmp_path / "image")])
    assert (kernel.verdict, image.verdict) == (Verdict.OK, Verdict.FAIL)
    assert image.evidence == f"{tmp_path / 'image'}: No such file or directory"
    assert "(image)" in image.fix


def test_what_is_no_kvm_makes_no_machine(tmp_path: Path) -> None:
    (tmp_path / "kvm").write_bytes(b"")
    assert kvm.refusal(tmp_path / "kvm") == f"{tmp_path / 'kvm'} makes no machine: Inappropriate ioctl for device"
    assert kvm.refusal(tmp_path / "none") == f"{tmp_path / 'none'} cannot be opened: No such file or directory"


def test_the_check_reads_the_configuration_and_its_files(tmp_path: Path) -> None:
    node(tmp_path / "root", INTEL.format(more=""), modules=["kvm", "kvm_intel"])
    (tmp_path / "c.toml").write_text(f'[hypervisor.qemu]\nkernel = "{tmp_path}/none"\n')
    findings = {each.name: each for each in check(tmp_path / "c.toml", root=tmp_path / "root")}
    assert findings["configuration"].evidence == str(tmp_path / "c.toml")
    assert findings["kernel"].verdict is Verdict.FAIL
    (tmp_path / "c.toml").write_text("[hypervisor.qemu]\nkernle = 1\n")
    found = check(tmp_path / "c.toml", root=tmp_path / "root")[0]
    assert (found.name, found.verdict) == ("configuration", Verdict.FAIL)
    assert "kernle" in found.evidence


def test_a_node_of_peer_pods_needs_its_adaptor_and_no_kvm(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'[hypervisor.remote]\nremote_hypervisor_socket = "{tmp_path}/none"\n')
    configuration, adaptor = check(tmp_path / "c.toml", root=tmp_path)
    assert configuration.verdict is Verdict.OK
    assert (adaptor.name, adaptor.verdict) == ("adaptor", Verdict.FAIL)


def test_without_a_configuration_the_check_says_what_it_did_not_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "SEARCHED", (tmp_path / "none",))
    monkeypatch.delenv("KATA_CONF_FILE", raising=False)
    node(tmp_path / "root", INTEL.format(more=""), modules=["kvm", "kvm_intel"])
    findings = {each.name: each for each in check(root=tmp_path / "root")}
    assert findings["configuration"].verdict is Verdict.FAIL
    for name in ("files", "versions"):
        assert findings[name].evidence.startswith("not looked at")


def test_the_check_tells_all_that_is_wrong_with_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[hypervisor.qemu]\nkernle = 1\ndefault_memory = 1\n")
    found = [each for each in check(tmp_path / "c.toml", root=tmp_path) if each.name == "configuration"]
    assert [each.evidence.partition(": ")[0] for each in found] == [f"{tmp_path}/c.toml:{line}" for line in (2, 3)]


def test_the_versions_of_programs_are_judged(tmp_path: Path) -> None:
    for name, said in (("qemu", "QEMU emulator version 6.2.0"), ("fsd", "virtiofsd version 7.2.22")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "manifest.json").write_text('{"packages": [{"name": "crun", "version": "1.8.1-1+deb12u1"}]}')
    (tmp_path / "c.toml").write_text(
        f'[hypervisor.qemu]\npath = "{tmp_path}/qemu"\nvirtio_fs_daemon = "{tmp_path}/fsd"\n'
        f'image = "{tmp_path}/image"\n'
    )
    assert [(each.name, each.verdict) for each in versions(tmp_path / "c.toml")] == [
        ("version: QEMU", Verdict.WARN),
        ("version: virtiofsd", Verdict.OK),
        ("version: crun in the guest", Verdict.OK),
    ]


def test_where_it_is_strict_a_warning_counts() -> None:
    findings = [Finding("x", Verdict.OK, ""), Finding("y", Verdict.WARN, "")]
    assert eligible(findings)
    assert not eligible(findings, strict=True)
    assert label(findings, strict=True).endswith("=false")
