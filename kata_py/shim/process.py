"""What the daemon's process has of its own: name, descriptors, mounts, out-of-memory score, scheduling group."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
from pathlib import Path

from kata_py.resource import mount
from kata_py.resource.mntns import MountNamespace

logger = logging.getLogger(__name__)

_NAME = "containerd-shim"  # what `ps` shows; the kernel keeps 15 characters
_OOM_SCORE_LIMIT = 1000

# include/uapi/linux/prctl.h
_PR_SCHED_CORE = 62
_PR_SCHED_CORE_CREATE = 1
_PR_SCHED_CORE_SCOPE_PROCESS_GROUP = 2


def close_inherited(*, above: int) -> None:
    """Close whatever the manager left open: a pipe of its, held for a pod's life, would be waited for.

    Args:
        above: The last descriptor to keep; it is not inherited further.
    """
    os.set_inheritable(above, False)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(above + 1, soft if soft != resource.RLIM_INFINITY else 1 << 20)


def ignore_signals() -> None:
    """Ignore the signals that the event loop will handle, until it does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def separate() -> MountNamespace | None:
    """Take a name, a mount namespace, and a place among the processes. To be called before any thread starts.

    What the shim mounts is seen by its children and goes with the last of them; what the host mounts later is
    seen here, unless it is below a private mount. The steps that only tune are skipped with a warning where the
    kernel refuses them.

    Returns:
        The namespace that was left, in which all of it is seen; None where the kernel cannot bring mounts from there.

    Raises:
        OSError: No mount namespace of its own: not root.
    """
    os.chdir("/")
    node = _node()
    mount.unshare(mount.CLONE_NEWNS)
    mount.mount("", "/", flags=mount.MS_REC | mount.MS_SLAVE)
    mount.mount("", "/", flags=mount.MS_REC | mount.MS_SHARED)
    for step in (_take_name, _raise_oom_score, _schedule_apart):
        try:
            step()
        except OSError as error:
            logger.warning("%s: %s", step.__name__.strip("_").replace("_", " "), error)
    return node


def _node() -> MountNamespace | None:
    try:
        os.close(mount.clone_tree("/"))
    except OSError as error:
        logger.warning("what the host mounts below private mounts is not seen: %s", error)
        return None
    return MountNamespace.own()


def _take_name() -> None:
    Path("/proc/self/comm").write_text(_NAME)


def _raise_oom_score() -> None:
    """The kernel shall choose the shim and its machine before the manager, whose score they inherited."""
    score = Path("/proc/self/oom_score_adj")
    score.write_text(str(min(int(score.read_text()) + 1, _OOM_SCORE_LIMIT)))


def _schedule_apart() -> None:
    """Never share a core's threads with others, where the manager wants that (`SCHED_CORE`)."""
    if not os.environ.get("SCHED_CORE"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SCHED_CORE, _PR_SCHED_CORE_CREATE, 0, _PR_SCHED_CORE_SCOPE_PROCESS_GROUP, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
