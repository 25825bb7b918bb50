"""Rules that keep a tunnel's packets from being followed as connections, which costs and fills a table.

All rules of a tunnel bear its number in a comment, so that they are found without knowing what they say.
Source: cloud-api-adaptor `pkg/podnetwork/tunneler/vxlan/iptables.go`; iptables-restore(8).
"""

from __future__ import annotations

import shlex
import subprocess
import threading
from collections.abc import Iterable
from typing import Final

from kata_caa.errors import TunnelError
from kata_caa.tunnel.links import Remote

CHAINS: Final = {"OUTPUT": "peerpod-OUTPUT", "PREROUTING": "peerpod-PREROUTING"}
_SIDES: Final = {"OUTPUT": "-d", "PREROUTING": "-s"}
_TIMEOUT: Final = 20  # seconds, with the wait for the kernel's lock on its tables
_turn = threading.Lock()  # two at a time would make a chain twice


def add(vnis: Iterable[int], remote: Remote, port: int) -> None:
    """Add the rules of tunnels to another end, in the place of what there is of them. Blocks.

    Raises:
        TunnelError: iptables refuses.
    """
    with _turn:
        present = _saved(remote.version)
        script = _removals(present, frozenset(vnis))
        for hook, chain in CHAINS.items():
            if f":{chain} " not in present:
                script += [f":{chain} - [0:0]", f"-A {hook} -j {chain}"]
            elif f"-A {hook} -j {chain}" not in present.splitlines():
                script.append(f"-A {hook} -j {chain}")
            script += [
                f"-A {chain} {_SIDES[hook]} {remote} -p udp -m udp --dport {port} -m comment --comment"
                f' "{_comment(vni)}" -j CT --notrack'
                for vni in vnis
            ]
        _restore(remote.version, script)


def remove(vnis: Iterable[int]) -> None:
    """Remove all rules of tunnels, and the chains if nothing is left in them; again is fine. Blocks.

    Raises:
        TunnelError: iptables refuses.
    """
    gone = frozenset(vnis)
    with _turn:
        for version in (4, 6):
            present = _saved(version)
            script = _removals(present, gone)
            if not script:
                continue
            lines = [line for line in present.splitlines() if line not in {_line(each) for each in script}]
            for hook, chain in CHAINS.items():
                if f":{chain} " in present and not any(line.startswith(f"-A {chain} ") for line in lines):
                    script += [f"-D {hook} -j {chain}"] * (f"-A {hook} -j {chain}" in lines)
                    script.append(f"-X {chain}")
            _restore(version, script)


def _removals(present: str, vnis: frozenset[int]) -> list[str]:
    comments = {_comment(vni) for vni in vnis}
    found = []
    for line in present.splitlines():
        words = shlex.split(line) if line.startswith("-A peerpod-") else []
        if "--comment" in words and words[words.index("--comment") + 1] in comments:
            found.append("-D" + line.removeprefix("-A"))
    return found


def _line(removal: str) -> str:
    return "-A" + removal.removeprefix("-D")


def _comment(vni: int) -> str:
    return f"peerpod [vni:{vni}]"


def _saved(version: int) -> str:
    return _run(f"{_program(version)}-save", "-t", "raw")


def _restore(version: int, script: list[str]) -> None:
    if script:
        _run(f"{_program(version)}-restore", "--noflush", "--wait", text="\n".join(["*raw", *script, "COMMIT", ""]))


def _program(version: int) -> str:
    return "iptables" if version == 4 else "ip6tables"


def _run(*command: str, text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TunnelError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise TunnelError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
