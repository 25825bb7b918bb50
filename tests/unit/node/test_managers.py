"""Handlers of managers, by the files of their configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_py.install import crio
from kata_py.install.handler import Handler
from kata_py.node.eligibility import Finding, Verdict
from kata_py.node.managers import judged

OURS = "#!/usr/bin/python3\nfrom kata_py.shim.command import main\n"
V2 = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]\nruntime_type = "{kind}"\n{more}'
V3 = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{name}]\nruntime_type = "{kind}"\n{more}'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node with our shim."""
    for place in ("usr/bin", "etc/containerd/conf.d", "etc/crio/crio.conf.d"):
        (tmp_path / place).mkdir(parents=True)
    shim(tmp_path / "usr/bin/containerd-shim-kata-v2", OURS)
    return tmp_path


def shim(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def found(root: Path) -> dict[str, Finding]:
    return {each.name: each for each in judged(root)}


@pytest.mark.parametrize("form", [V2, V3])
def test_a_handler_of_containerds_is_found_by_the_shims_name(root: Path, form: str) -> None:
    config = root / "etc/containerd/config.toml"
    config.write_text(
        form.format(name="kata", kind="io.containerd.kata.v2", more="")
        + form.format(name="runc", kind="io.containerd.runc.v2", more="")
    )
    assert found(root) == {
        "containerd: kata": Finding(
            "containerd: kata", Verdict.OK, f"{root}/usr/bin/containerd-shim-kata-v2, by {config}"
        )
    }


def test_a_handler_of_crios_in_a_drop_in_is_found_by_its_path(root: Path) -> None:
    shim(root / "shim-kata", OURS)
    (root / "etc/crio/crio.conf.d/50-kata").write_text(
        f'[crio.runtime.runtimes.kata]\nruntime_path = "{root}/shim-kata"\nruntime_type = "vm"\n'
        '[crio.runtime.runtimes.runc]\nruntime_path = "/usr/bin/runc"\n'
    )
    assert {name: each.verdict for name, each in found(root).items()} == {"CRI-O: kata": Verdict.OK}


def test_what_install_writes_is_what_is_found(root: Path) -> None:
    program = root / "usr/bin/containerd-shim-kata-v2"
    (root / "c.toml").touch()
    (root / "etc/crio/crio.conf.d/50-kata").write_text(crio.drop_in(Handler("kata", program, root / "c.toml")))
    told = found(root)["CRI-O: kata"]
    assert (told.verdict, told.evidence.startswith(f"{program} with {root}/c.toml")) == (Verdict.OK, True)


def test_a_shim_that_is_not_there_or_anothers_is_told(root: Path) -> None:
    shim(root / "usr/bin/containerd-shim-kata-go-v2", "\x7fELF")
    (root / "etc/containerd/conf.d/kata.toml").write_text(
        V2.format(name="go", kind="io.containerd.kata-go.v2", more="")
        + V2.format(name="no", kind="io.containerd.kata.v2", more=f'runtime_path = "{root}/none"\n')
    )
    findings = found(root)
    assert (findings["containerd: go"].verdict, findings["containerd: no"].verdict) == (Verdict.WARN, Verdict.FAIL)
    assert "another's shim" in findings["containerd: go"].evidence
    assert "correct runtime_path" in findings["containerd: no"].fix


def test_a_configuration_that_the_shim_cannot_take_is_told_by_its_first_fault(root: Path) -> None:
    (root / "c.toml").write_text("[runtime]\na = 1\nb = 2\n")
    name = V2.format(name="kata", kind="io.containerd.kata.v2", more="")
    options = f'[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata.options]\nConfigPath = "{root}/c.toml"\n'
    (root / "etc/containerd/config.toml").write_text(name + options)
    told = found(root)["containerd: kata"]
    assert told.verdict is Verdict.FAIL
    assert f"{root}/c.toml:2: unknown key a" in told.evidence
    assert told.evidence.endswith("and 1 more")
    (root / "c.toml").write_text("[runtime]\n")
    assert found(root)["containerd: kata"].evidence.startswith(f"{root}/usr/bin/containerd-shim-kata-v2 with {root}")


def test_a_file_that_is_no_toml_fails_and_a_node_without_handlers_warns(root: Path) -> None:
    assert found(root)["handlers"].verdict is Verdict.WARN
    (root / "etc/crio/crio.conf").write_text("[crio\n")
    assert found(root)[f"{root}/etc/crio/crio.conf"].verdict is Verdict.FAIL
    (root / "etc/crio/crio.conf").write_text("crio = 1\n")
    assert set(found(root)) == {"handlers"}
