"""How little a program may do that a guest can reach: what it is made to drop before its first instruction.

The steps are util-linux's and the shell's, chained by exec, so that the pid on record stays the program's: nothing of
ours runs between fork and exec, where a process with threads must not do much. Together they take 6 ms.
Source: nsenter(1), unshare(1), setpriv(1); Linux `Documentation/userspace-api/no_new_privs.rst`.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EXEC_LABEL = Path("/proc/self/attr/exec")
SELINUX = Path("/sys/fs/selinux/enforce")

# Numbers that nobody gives away: between the ranges of container managers and systemd's foreign users.
# Source: systemd `docs/UIDS-GIDS.md`.
FIRST_USER = 1_879_048_192
LAST_USER = 2_147_352_575
_CLAIM_MAX = 64  # tries: two of them already mean that millions of machines run

# Memory that a device reads and writes by itself stays where it is, which counts against a limit.
_LOCK = 'ulimit -l unlimited 2>/dev/null || echo "warning: cannot raise the limit of locked memory" >&2; exec "$@"'

# The label counts for the next exec, and must not touch the steps before.
_LABEL = 'printf %s "$1" >"$2" || exit 126; shift 2; exec "$@"'


@dataclass(frozen=True, slots=True)
class User:
    """Whom a program runs as; the host need not know a name for it.

    Attributes:
        number: Its uid, and its gid.
        groups: Further groups.
        claim: An open descriptor that a program of this user inherits: the number is its own while that is open.
    """

    number: int
    groups: tuple[int, ...] = ()
    claim: int = -1


@dataclass(frozen=True, slots=True)
class Confinement:
    """What is left to a program. It never gains what it has not: `no_new_privs` is always set.

    Attributes:
        capabilities: Those that it may have, as setpriv spells them: `chown`. As another user than root it has none.
        own_network: Whether it is put into a network namespace of its own, with nothing in it: it reaches neither the
            host's network nor abstract sockets.
        network: The path of the network namespace that it is put into instead.
        user: Whom it runs as; None is whoever starts it.
        label: Its SELinux label; empty is by the policy's rules.
        locked_memory: Whether it may lock all of its memory, as devices of the host need it.
    """

    capabilities: tuple[str, ...] = ()
    own_network: bool = False
    network: Path | None = None
    user: User | None = None
    label: str = ""
    locked_memory: bool = False

    def command(self, argv: Sequence[str], attribute: Path = EXEC_LABEL) -> list[str]:
        """The command line that runs a program confined.

        Args:
            argv: Program and arguments.
            attribute: Where the label of the next exec is written.
        """
        line = ["/bin/sh", "-c", _LOCK, "lock"] if self.locked_memory else []
        if self.network:
            line += ["nsenter", f"--net={self.network}", "--"]
        elif self.own_network:
            line += ["unshare", "--net", "--"]
        kept = ",".join(["-all", *(f"+{name}" for name in self.capabilities)])
        line += ["setpriv", "--no-new-privs", f"--bounding-set={kept}", "--inh-caps=-all"]
        line += ["--pdeathsig", "KILL"]  # a change of user forgets the one that `process.spawn` has set
        if user := self.user:
            groups = f"--groups={','.join(map(str, user.groups))}" if user.groups else "--clear-groups"
            line += [f"--reuid={user.number}", f"--regid={user.number}", groups]
        line.append("--")
        if self.label:
            line += ["/bin/sh", "-c", _LABEL, "label", self.label, str(attribute)]
        return [*line, *argv]


def selinux_enabled(mark: Path = SELINUX) -> bool:
    """Whether the host's kernel enforces SELinux, or would. Source: Linux `security/selinux/selinuxfs.c`."""
    return mark.exists()


@contextmanager
def throw_away_user(groups: tuple[int, ...] = ()) -> Iterator[User]:
    """A user for one sandbox alone.

    The kernel knows users by number, so none is added to the host's list, from which it would have to be taken again,
    and which a host may keep read-only or elsewhere. The number is drawn at random, and claimed by binding a socket to
    an abstract name made of it. Programs of the user inherit the socket, so the number is theirs until the last of them
    has ended, whatever became of the shim, and nothing has to be cleaned up. Source: unix(7), "abstract sockets".

    Args:
        groups: What groups it has besides its own.

    Raises:
        OSError: No number is free, or there are no descriptors left.
    """
    with socket.socket(socket.AF_UNIX) as claim:
        yield User(_claimed(claim), groups, claim.fileno())


def _claimed(claim: socket.socket) -> int:
    for _ in range(_CLAIM_MAX):
        number = random.SystemRandom().randint(FIRST_USER, LAST_USER)
        try:
            claim.bind(f"\0kata-py/user/{number}".encode())
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return number
    raise OSError(errno.EADDRINUSE, f"{_CLAIM_MAX} random user numbers were all taken")
