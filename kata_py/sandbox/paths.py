"""Where sandboxes' files lie on the host. The places are kata's, so that its users' tools find them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kata_py.sandbox import boots, failure, record, shims
from kata_py.sandbox.placement import OVERHEAD
from kata_py.storage import share


@dataclass(frozen=True, slots=True)
class HostPaths:
    """One entry per sandbox: records, machines' sockets, shares, boots, a cgroup; failures, and notes of shims."""

    records: Path = record.ROOT
    machines: Path = Path("/run/vc/vm")
    shares: Path = share.ROOT
    boots: Path = boots.ROOT
    overhead: str = OVERHEAD
    failures: Path = failure.ROOT
    shims: Path = Path(shims.ROOT)
