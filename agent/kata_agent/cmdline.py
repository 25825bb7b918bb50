"""What the kernel command line, or the environment, tells the agent.

Names, defaults and forms are kata-containers' (`src/agent/src/config.rs`); parameters it does not know are
someone else's. Part of the boot path: imports nothing that costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_LEVELS = {
    "fatal": "CRITICAL",
    "panic": "CRITICAL",
    "critical": "CRITICAL",
    "error": "ERROR",
    "warn": "WARNING",
    "warning": "WARNING",
    "info": "INFO",
    "debug": "DEBUG",
    "trace": "DEBUG",
}


class ParameterError(ValueError):
    """A parameter's value has not its form; names both."""


class Parameters(NamedTuple):
    """The agent's parameters.

    Attributes:
        server_addr: Where it listens.
        log_level: A level of `logging`.
        container_pipe_size: Bytes a container's output pipe holds; 0 is the kernel's default.
        hotplug_timeout: Seconds to wait for a device that the host has plugged in.
        cdi_timeout: Seconds to wait for CDI specs.
    """

    server_addr: str = "vsock://-1:1024"
    log_level: str = "INFO"
    container_pipe_size: int = 0
    hotplug_timeout: int = 3
    cdi_timeout: int = 100


def parse(line: str, environment: Mapping[str, str]) -> Parameters:
    """Read the kernel command line; the environment goes before it.

    Raises:
        ParameterError: A level is unknown, a size no number, or a time no number of seconds above 0.
    """
    found = dict(word.partition("=")[::2] for word in line.split())
    parameters = Parameters()
    address = environment.get("KATA_AGENT_SERVER_ADDR") or found.get("agent.server_addr")
    if address:
        parameters = parameters._replace(server_addr=address)
    level = environment.get("KATA_AGENT_LOG_LEVEL") or found.get("agent.log")
    if level:
        if level not in _LEVELS:
            raise ParameterError(f"agent.log={level}: expected one of {', '.join(_LEVELS)}")
        parameters = parameters._replace(log_level=_LEVELS[level])
    size = found.get("agent.container_pipe_size")
    if size:
        if not size.isdecimal():
            raise ParameterError(f"agent.container_pipe_size={size}: expected a number of bytes")
        parameters = parameters._replace(container_pipe_size=int(size))
    return parameters._replace(
        hotplug_timeout=_seconds(found, "agent.hotplug_timeout", parameters.hotplug_timeout),
        cdi_timeout=_seconds(found, "agent.cdi_timeout", parameters.cdi_timeout),
    )


def _seconds(found: Mapping[str, str], name: str, default: int) -> int:
    text = found.get(name)
    if not text:
        return default
    if not text.isdecimal() or not int(text):
        raise ParameterError(f"{name}={text}: expected a number of seconds above 0")
    return int(text)
