from __future__ import annotations

import fcntl

from kata_agent.container import stdio


async def test_output_pipes_hold_what_the_agents_parameter_says() -> None:
    with stdio.pipes(1 << 17) as (streams, (stdin, stdout, stderr)):
        sizes = [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in (stdin, stdout, stderr)]
        streams.close()

    assert sizes[1:] == [1 << 17] * 2
    assert sizes[0] != 1 << 17
