from __future__ import annotations

from kata_py.hypervisor.api import HypervisorError


def test_an_error_reads_from_stage_to_cause_to_what_to_do_to_what_was_said_last() -> None:
    lines = tuple(f"line {number}" for number in range(9))
    error = HypervisorError("kernel", "no answer within 45 s", hint="give it more memory", evidence=lines)
    assert str(error) == (
        "kernel: no answer within 45 s (give it more memory); last lines: line 4 | line 5 | line 6 | line 7 | line 8"
    )
    assert error.evidence == lines


def test_an_error_without_hint_and_evidence_is_short() -> None:
    assert str(HypervisorError("qemu", "qemu was killed by signal 9")) == "qemu: qemu was killed by signal 9"
