"""What a process may not be given here: limits above the agent's own, where the agent cannot raise them.

In a guest the agent is root in full and nothing is changed. Where it lacks CAP_SYS_RESOURCE, in a nested or
sandboxed environment, the runtime would fail with EPERM; a lower limit and a warning serve better.
"""

from __future__ import annotations

import logging
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent import linux

if TYPE_CHECKING:
    from kata_py.oci.spec import POSIXRlimit, Process

_LOG = logging.getLogger(__name__)


def within_reach(process: Process) -> Process:
    """The process document with what this agent can grant."""
    if linux.has_capability(linux.CAP_SYS_RESOURCE):
        return process
    process = process.copy()
    if "rlimits" in process:
        process["rlimits"] = [_lowered(limit) for limit in process["rlimits"]]
    wanted = process.get("oomScoreAdj")
    if wanted is not None and wanted < (own := int(Path("/proc/self/oom_score_adj").read_text())):
        _LOG.warning("oomScoreAdj %d needs CAP_SYS_RESOURCE, which is missing; it stays %d", wanted, own)
        del process["oomScoreAdj"]
    return process


def _lowered(limit: POSIXRlimit) -> POSIXRlimit:
    number = getattr(resource, limit["type"], None)
    if number is None:
        return limit  # crun knows it, or says that it does not
    hard = resource.getrlimit(number)[1] % (1 << 64)  # RLIM_INFINITY is -1 here, 2^64-1 in documents
    if limit["hard"] <= hard:
        return limit
    _LOG.warning("%s %d needs CAP_SYS_RESOURCE, which is missing; it is %d", limit["type"], limit["hard"], hard)
    return {"type": limit["type"], "hard": hard, "soft": min(limit["soft"], hard)}
