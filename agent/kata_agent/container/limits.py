"""What a process may not be given here: capabilities and limits above the agent's own.

In a guest the agent is root in full and nothing is changed. Where it is not, in a nested or sandboxed environment, the
runtime would fail with EPERM; less than was asked for and a warning serve better. Source: OCI runtime specification
1.0, `config.md`, `capabilities`: what cannot be granted is warned of and no error.
"""

from __future__ import annotations

import logging
import resource
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kata_agent import linux

if TYPE_CHECKING:
    from kata_py.oci.spec import LinuxCapabilities, POSIXRlimit, Process

_LOG = logging.getLogger(__name__)


def within_reach(process: Process) -> Process:
    """The process document with what this agent can grant."""
    missing = linux.missing_capabilities()
    if not missing:
        return process
    process = process.copy()
    if "capabilities" in process:
        process["capabilities"] = _granted(process["capabilities"], missing)
    if "CAP_SYS_RESOURCE" not in missing:
        return process
    if "rlimits" in process:
        process["rlimits"] = [_lowered(limit) for limit in process["rlimits"]]
    wanted = process.get("oomScoreAdj")
    if wanted is not None and wanted < (own := int(Path("/proc/self/oom_score_adj").read_text())):
        _LOG.warning("oomScoreAdj %d needs CAP_SYS_RESOURCE, which is missing; it stays %d", wanted, own)
        del process["oomScoreAdj"]
    return process


def _granted(wanted: LinuxCapabilities, missing: frozenset[str]) -> LinuxCapabilities:
    sets = cast("dict[str, list[str]]", wanted)
    refused = sorted(missing & {name for names in sets.values() for name in names})
    if not refused:
        return wanted
    _LOG.warning("%s: the agent has not got them and cannot grant them", ", ".join(refused))
    left = {kind: [name for name in names if name not in missing] for kind, names in sets.items()}
    return cast("LinuxCapabilities", left)


def _lowered(limit: POSIXRlimit) -> POSIXRlimit:
    number = getattr(resource, limit["type"], None)
    if number is None:
        return limit  # crun knows it, or says that it does not
    hard = resource.getrlimit(number)[1] % (1 << 64)  # RLIM_INFINITY is -1 here, 2^64-1 in documents
    if limit["hard"] <= hard:
        return limit
    _LOG.warning("%s %d needs CAP_SYS_RESOURCE, which is missing; it is %d", limit["type"], limit["hard"], hard)
    return {"type": limit["type"], "hard": hard, "soft": min(limit["soft"], hard)}
