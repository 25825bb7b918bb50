"""The archive for a bug report, of a node with secrets everywhere."""

from __future__ import annotations

import base64
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kata_py.diagnosis import archive, collection, sources
from kata_py.diagnosis.archive import Part
from kata_py.diagnosis.redaction import Redactor
from kata_py.diagnosis.sources import Absent
from kata_py.resource.undo import RemoveFile
from kata_py.sandbox import failure
from kata_py.sandbox.failure import Failure, Pod
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record

SECRET = "s3cret-{}-value"
PEM = "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----"


def unpacked(path: Path) -> dict[str, str]:
    """The texts of an archive, by their names below its directory."""
    with tarfile.open(path) as archive:
        files = {}
        for member in archive:
            assert member.mode == 0o600
            content = archive.extractfile(member)
            assert content is not None
            files[member.name.partition("/")[2]] = content.read().decode()
        return files


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    top = tmp_path / "run/vc"
    return HostPaths(
        records=top / "sbs", machines=top / "vm", shares=top / "shares", boots=top / "boots", failures=top / "failures"
    )


@pytest.fixture
def node(tmp_path: Path, paths: HostPaths, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with a sandbox, its containers, a failure, a journal, and a secret of each kind."""
    bundles = tmp_path / "bundles"
    for name, env in (("pod", "pause"), ("app", "app"), ("other", "other")):
        (bundles / name).mkdir(parents=True)
        spec = {
            "process": {"args": ["/x", SECRET.format("arg")], "env": [f"API={SECRET.format(env)}", "PATH=/bin"]},
            "annotations": {
                "io.kubernetes.cri.sandbox-id": "other" if name == "other" else "pod",
                "io.kubernetes.cri.sandbox-name": "web",
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.katacontainers.config.agent.policy": SECRET.format("policy"),
                "kubectl.kubernetes.io/last-applied-configuration": SECRET.format("annotation"),
            },
        }
        (bundles / name / "config.json").write_text(json.dumps(spec))
    record = Record.create("pod", namespace="k8s.io", bundle=bundles / "pod", root=paths.records)
    record.intend(RemoveFile(f"/x?token={SECRET.format('record')}"))
    with record.span("plan"):
        pass
    failure.keep(
        Failure(
            "gone", "gone", "k8s.io", Pod("shop", "db"), 1.0, "create", "kernel", 1.0, 2.0, "no answer",
            evidence=(f"console: password={SECRET.format('console')}", f"app: {SECRET.format('app')} it said"),
        ),
        paths.failures,
    )  # fmt: skip
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/cmdline").write_text(f"quiet my.param={SECRET.format('cmdline')}\n")
    (tmp_path / "proc/self/mountinfo").write_text("1 2 0:1 / /run/kata-containers/x rw - tmpfs tmpfs rw\n")
    process = tmp_path / "proc/77"
    process.mkdir()
    process.joinpath("cmdline").write_bytes(f"qemu-system-x\0-name\0n\0-fw_cfg\0{SECRET.format('fw')}\0".encode())
    process.joinpath("status").write_text("State:\tS (sleeping)\nPPid:\t1\nVmRSS:\t 5 kB\n")
    (tmp_path / "etc/containerd").mkdir(parents=True)
    (tmp_path / "etc/containerd/config.toml").write_text(
        f'# {SECRET.format("comment")}\nauth = "{SECRET.format("auth")}"\n'
    )
    (tmp_path / "etc/crio").mkdir()
    (tmp_path / "etc/crio/crio.conf").write_text(
        f'[crio.runtime]\ndefault_env = ["DATABASE={SECRET.format("crio")}"]\n'
    )
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d/10.toml").write_text(
        f'[hypervisor.qemu]\nkernel_params = "quiet x={SECRET.format("params")}"\n'
    )
    (tmp_path / "c.toml").write_text(f'[runtime]\njaeger_password = "{SECRET.format("jaeger")}"\ndefault = 1\n')
    log = "\n".join(
        [
            f'level=info msg="Authorization: Bearer {SECRET.format("bearer")}"',
            f'level=debug msg="env of it: {SECRET.format("pause")}"',
            f"level=debug msg={base64.b64encode(SECRET.format('app').encode()).decode()}",
            f"Envs:[]*KeyValue{{&KeyValue{{Key:A,Value:{SECRET.format('request')},}},}},Mounts:[]*Mount{{}}",
            f'msg="default_env = [\\n  \\"B={SECRET.format("other-file")}\\",\\n]"',
            f"the database is {SECRET.format('crio')}",
            PEM.format(SECRET.format("pem")),
            f"--admin-password {SECRET.format('flag')}",
            f"pull https://u:{SECRET.format('url')}@r/x",
            'level=info msg="container app started"',
        ]
    )
    card = tmp_path / "sys/class/net/ens1/device"
    card.mkdir(parents=True)
    (card / "sriov_numvfs").write_text("2\n")
    (tmp_path / "sys/class/net/lo").mkdir()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "journalctl").write_text(f"#!/bin/sh\ncat <<'EOF'\n{log}\nEOF\n")
    (programs / "dmesg").write_text(
        f"#!/bin/sh\necho 'x Command line: quiet y={SECRET.format('dmesg')}'; echo no; echo kvm: yes\n"
    )
    (programs / "ip").write_text("#!/bin/sh\nexec sleep 100\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/bin:/usr/bin")
    monkeypatch.setattr(sources, "COMMAND_TIMEOUT", 0.3)
    return tmp_path


def collected(node: Path, paths: HostPaths) -> dict[str, str]:
    found = collection.containers(paths)
    parts = collection.parts(node / "c.toml", paths, found, root=node, roots=(paths.records,))
    redactor = Redactor(collection.secrets_of(node / "c.toml", found, node))
    archive.write(node / "report.tar.gz", parts, redactor, collection.about())
    assert (node / "report.tar.gz").stat().st_mode & 0o777 == 0o600
    return unpacked(node / "report.tar.gz")


def test_no_secret_of_any_kind_comes_out_and_what_is_needed_does(node: Path, paths: HostPaths) -> None:
    files = collected(node, paths)
    out = {name: text[max(0, text.find("s3cret") - 80) :][:160] for name, text in files.items() if "s3cret" in text}
    assert out == {}
    assert base64.b64encode(SECRET.format("app").encode()).decode() not in "".join(files.values())
    index = {each["file"]: each for each in json.loads(files["index.json"])["files"]}
    assert index["host/links.txt"]["state"] == "failed"
    assert "does not end within 0.3 s" in index["host/links.txt"]["cause"]
    assert index["env.toml"]["state"] == "failed", "the configuration cannot be taken"
    assert json.loads(files["sandboxes/pod/record.json"])["sandbox"] == "pod"
    assert "plan" in files["sandboxes/pod/timeline.txt"]
    assert {"sandboxes/pod/containers/pod.json", "sandboxes/pod/containers/app.json"} <= set(files)
    assert "sandboxes/other/containers/other.json" not in files
    assert (
        json.loads(files["sandboxes/pod/containers/app.json"])["annotations"]["io.kubernetes.cri.sandbox-name"] == "web"
    )
    assert json.loads(files["failures/gone.json"])["failure"]["cause"] == "no answer"
    assert 'msg="container app started"' in files["journal/shim.log"]
    assert files["kernel/log.txt"] == "x Command line: quiet y=<redacted>\nkvm: yes\n"
    assert "qemu-system-x -name n -fw_cfg <redacted>" in files["host/processes.txt"]
    assert files["host/sys_sriov_numvfs.txt"] == f"{node}/sys/class/net/ens1/device/sriov_numvfs: 2\n"
    assert index["host/sys_sriov_totalvfs.txt"]["state"] == "absent"
    assert "record.json" in files["host/listing.txt"]
    assert 'jaeger_password = "<redacted>"' in files[f"configuration/files{node}/c.toml.txt"]
    assert 'default_env = ["DATABASE=<redacted>"]' in files["managers/etc/crio/crio.conf.txt"]
    assert "auth = " in files["managers/etc/containerd/config.toml.txt"]
    assert "unknown key default" in files["configuration/problems.txt"]
    assert json.loads(files["check.json"])
    assert json.loads(files["doctor.json"])
    assert json.loads(files["sandboxes.json"])[0]["id"] == "pod"


def test_a_configuration_that_can_be_taken_is_told_whole(node: Path, paths: HostPaths) -> None:
    (node / "c.toml").write_text("[runtime]\n")
    files = collected(node, paths)
    assert "s3cret" not in "".join(files.values())
    entries = {each["setting"]: each for each in json.loads(files["configuration/effective.json"])}
    assert entries["kernel_params"]["is"] == "quiet x=<redacted>"
    assert entries["kernel_params"]["origin"] == f"{node}/config.d/10.toml:2"
    assert entries["default_memory"]["is"] == 2048
    assert 'Parameters = "quiet x=<redacted>"' in files["env.toml"]


def test_failures_that_may_not_be_read_are_told_in_the_index_and_end_nothing(
    node: Path, paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(root: Path) -> list[Failure]:
        raise PermissionError(13, "Permission denied", str(root))

    monkeypatch.setattr(failure, "load", denied)
    [part] = [each for each in collection.parts(node / "c.toml", paths, [], root=node) if "failures/" in each.file]
    [entry] = archive.write(node / "r.tar.gz", [part], Redactor(), {})
    assert (entry.state, "Permission denied" in entry.cause) == ("failed", True)


def fails() -> str:
    raise RuntimeError("what token=abcdef nobody expected")


def missing() -> str:
    raise Absent("there is no such thing here")


def test_a_part_that_fails_is_told_in_the_index_and_the_rest_is_there(tmp_path: Path) -> None:
    parts = [Part("a", fails), Part("b", missing), Part("c", lambda: "x" * (sources.SIZE_MAX + 5))]
    entries = archive.write(tmp_path / "r.tar.gz", parts, Redactor(), {"of": "me"})
    assert [each.state for each in entries] == ["failed", "absent", "there"]
    files = unpacked(tmp_path / "r.tar.gz")
    assert set(files) == {"c", "index.json"}
    index = json.loads(files["index.json"])
    assert index["of"] == "me"
    assert index["files"][0]["cause"] == "RuntimeError: what token=<redacted> nobody expected"
    assert index["files"][2]["truncated"] is True
    assert files["c"].startswith("... the first 5 bytes are left out\n")


@pytest.mark.parametrize("bound", ["TIME_MAX", "TOTAL_MAX"])
def test_beyond_its_bounds_nothing_is_added(bound: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, bound, -1)
    entries = archive.write(tmp_path / "r.tar.gz", [Part("a", lambda: "x")], Redactor(), {})
    assert [each.state for each in entries] == ["left out"]


def test_what_is_there_already_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.tar.gz"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        archive.write(path, [], Redactor(), {})
    assert path.read_text() == "mine"


def test_of_an_archive_that_cannot_be_finished_nothing_is_left(tmp_path: Path) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.write(tmp_path / "r.tar.gz", [Part("a", interrupted)], Redactor(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/none")])
def test_a_listing_tells_names_and_never_content(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "odd")
    (tmp_path / "file").write_text("content")
    told = sources.listing(tmp_path, tmp_path / "none")
    assert "content" not in told
    assert f"{tmp_path}/odd" in told


def test_a_file_that_a_kernel_has_not_is_absent_and_no_failure(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"there is no .*/proc/modules"):
        sources.file(tmp_path / "proc/modules")
