from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_agent.container import diagnostics
from kata_agent.errors import AgentError

if TYPE_CHECKING:
    from kata_py.oci.spec import Spec

PATH = "/dev/termination-log"


def _spec(source: Path) -> Spec:
    return {
        "ociVersion": "1.0.2",
        "annotations": {"io.kubernetes.container.terminationMessagePath": PATH},
        "mounts": [{"destination": "/proc"}, {"destination": PATH, "source": str(source)}],
    }


def test_the_message_is_read_up_to_its_limit_and_made_text(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"out of luck \xff" + b"x" * 5000)

    message = diagnostics.termination_message(_spec(file))

    assert message == "out of luck \ufffd" + "x" * (4096 - 13)


def test_a_file_that_was_never_made_is_an_empty_message(tmp_path: Path) -> None:
    assert diagnostics.termination_message(_spec(tmp_path / "none")) == ""


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"ociVersion": "1"}, "no annotation io.kubernetes.container.terminationMessagePath"),
        ({**_spec(Path("/x")), "mounts": []}, "no mount .* at /dev/termination-log"),
    ],
)
def test_a_spec_that_names_no_file_is_an_error(spec: Spec, named: str) -> None:
    with pytest.raises(AgentError, match=named):
        diagnostics.termination_message(spec)


def test_what_a_container_has_put_in_its_place_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")

    with pytest.raises(AgentError, match="fifo is no regular file"):
        diagnostics.termination_message(_spec(tmp_path / "fifo"))
    with pytest.raises(AgentError, match="Too many levels of symbolic links"):
        diagnostics.termination_message(_spec(tmp_path / "link"))
