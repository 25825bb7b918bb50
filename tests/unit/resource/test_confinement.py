"""What a confined program is left with, seen by programs that look at themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kata_py.resource.confinement import FIRST_USER, LAST_USER, Confinement, User, selinux_enabled, throw_away_user

pytestmark = pytest.mark.root


def output(confinement: Confinement, *argv: str, **run: object) -> str:
    return subprocess.run(confinement.command(argv), check=True, capture_output=True, text=True, **run).stdout  # type: ignore[call-overload, no-any-return]


def test_a_program_has_no_capabilities_but_those_that_it_is_left() -> None:
    def capabilities(confinement: Confinement) -> dict[str, int]:
        lines = output(confinement, "grep", "-E", "^Cap", "/proc/self/status").splitlines()
        return {name: int(value, 16) for name, value in (line.split(":") for line in lines)}

    assert set(capabilities(Confinement()).values()) == {0}
    left = capabilities(Confinement(("chown", "setgid")))
    assert (left["CapBnd"], left["CapEff"], left["CapAmb"]) == (1 << 0 | 1 << 6, 1 << 0 | 1 << 6, 0)


def test_a_program_never_gains_privileges() -> None:
    assert output(Confinement(), "grep", "NoNewPrivs", "/proc/self/status").split() == ["NoNewPrivs:", "1"]


def test_a_program_is_in_the_hosts_network_in_one_of_its_own_or_in_a_named_one() -> None:
    ours = str(Path("/proc/self/ns/net").readlink())
    look = ("readlink", "/proc/self/ns/net")
    assert output(Confinement(), *look).strip() == ours
    assert output(Confinement(own_network=True), *look).strip() != ours
    named = Confinement(network=Path("/proc/self/ns/net"), own_network=True)
    assert output(named, *look).strip() == ours


def test_a_program_of_another_user_has_that_users_number_and_groups_alone() -> None:
    confined = Confinement(("chown",), user=User(2_000_000_000, (36, 108)))
    assert output(confined, "id", "-u").strip() == "2000000000"
    assert set(output(confined, "id", "-G").split()) == {"2000000000", "36", "108"}
    assert output(Confinement(user=User(2_000_000_000)), "id", "-G").split() == ["2000000000"]
    assert "CapEff:\t0000000000000000" in output(confined, "cat", "/proc/self/status")


def test_the_label_is_written_by_the_process_that_becomes_the_program(tmp_path: Path) -> None:
    attribute = tmp_path / "exec"
    confined = Confinement(label="system_u:system_r:container_kvm_t:s0:c1,c2")
    result = subprocess.run(
        confined.command(["cat", str(attribute)], attribute), check=True, capture_output=True, text=True
    )
    assert result.stdout == "system_u:system_r:container_kvm_t:s0:c1,c2"


def test_a_label_that_the_kernel_does_not_take_keeps_the_program_from_running(tmp_path: Path) -> None:
    line = Confinement(label="u:r:t").command(["echo", "ran"], tmp_path / "missing" / "exec")
    result = subprocess.run(line, check=False, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (126, "")
    assert "exec" in result.stderr


def test_arguments_are_passed_on_as_they_are() -> None:
    confined = Confinement(own_network=True)
    assert output(confined, "printf", "%s|", "--net", "a b", "$c", "--") == "--net|a b|$c|--|"


def test_selinux_is_found_by_its_file_system(tmp_path: Path) -> None:
    assert not selinux_enabled(tmp_path / "enforce")
    (tmp_path / "enforce").write_text("0")
    assert selinux_enabled(tmp_path / "enforce")


def test_two_sandboxes_never_are_the_same_user(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([FIRST_USER, FIRST_USER, LAST_USER])
    monkeypatch.setattr("random.SystemRandom.randint", lambda self, low, high: next(numbers))
    with throw_away_user() as one, throw_away_user((7,)) as two:
        assert (one.number, two.number) == (FIRST_USER, LAST_USER)
        assert two.groups == (7,)


def test_a_user_is_taken_until_the_last_of_its_programs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.SystemRandom.randint", lambda self, low, high: FIRST_USER)
    with throw_away_user() as user:
        program = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[user.claim], start_new_session=True
        )
    try:
        with pytest.raises(OSError, match="were all taken"), throw_away_user():
            raise AssertionError("claimed")
    finally:
        program.communicate(b"\n")
    with throw_away_user() as again:
        assert again.number == FIRST_USER
        assert os.fstat(again.claim)
