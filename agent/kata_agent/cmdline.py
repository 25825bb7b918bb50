"""What the kernel command line, the environment, or a file tells the agent.

Names, defaults and forms are kata-containers' (`src/agent/src/config.rs`); parameters it does not know are
someone else's. A parameter of something that this agent has not is read all the same: its form is checked, and
what would have changed is told. Part of the boot path: imports nothing that costs.
"""

# pathlib is an import that the boot would wait for.
# ruff: noqa: PTH123

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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
_PROCESSES = ("none", "attestation-agent", "confidential-data-hub", "api-server-rest")
_REST_APIS = ("resource", "attestation", "all")
_UNSIGNED, _SIGNED = 1 << 64, 1 << 63  # what upstream's integers hold

Value = bool | int | str


class ParameterError(ValueError):
    """A parameter's value has not its form; names both."""


class Parameters(NamedTuple):
    """The agent's parameters.

    Attributes:
        server_addr: Where it listens.
        log_level: A level of `logging`.
        container_pipe_size: Bytes a container's output pipe holds; 0 is the kernel's default.
        log_vport: The vsock port at which its log is read; 0 leaves the log on the console.
        debug_console: Whether there is a shell for who debugs the guest.
        debug_console_vport: The vsock port of that shell; 0 is the console.
        hotplug_timeout: Seconds to wait for a device that the host has announced.
        cdi_timeout: Seconds to wait for the specs of CDI devices.
        https_proxy: Through which images are pulled; empty is directly.
        no_proxy: The hosts that are asked directly all the same, parted by commas.
        pause_bundle: Where the guest has what holds a pod together; empty is where upstream's guests have it.
        policy_file: The policy at the beginning; empty is the guest's own, if it has one.
        tracing: Whether it keeps spans of the calls whose callers trace, for the host to take.
        without_effect: What was asked for and is not there, as it stands on the line.
    """

    server_addr: str = "vsock://-1:1024"
    log_level: str = "INFO"
    container_pipe_size: int = 0
    log_vport: int = 0
    debug_console: bool = False
    debug_console_vport: int = 0
    hotplug_timeout: int = 3
    cdi_timeout: int = 100
    https_proxy: str = ""
    no_proxy: str = ""
    pause_bundle: str = ""
    policy_file: str = ""
    tracing: bool = False
    without_effect: tuple[str, ...] = ()


class _Option(NamedTuple):
    """How one parameter is read.

    Attributes:
        read: From its text; complains by ValueError, telling what it expected.
        default: Which is upstream's; another value of a parameter without a field is without effect.
        field: Of `Parameters`.
        key: Of the file, where it is not the name without `agent.`.
    """

    read: Callable[[str], Value]
    default: Value
    field: str = ""
    key: str = ""


def parse(line: str, environment: Mapping[str, str]) -> Parameters:
    """Read the kernel command line; the environment goes before it. A file that the line names replaces both.

    Raises:
        ParameterError: A value has not its form.
        OSError: The file cannot be read.
    """
    words = [word.partition("=") for word in line.split()]
    for name, _, value in words:
        if name == "agent.config_file" and value:
            return _result(_from_file(value))
    found: dict[str, Value] = {}
    for name, equals, value in words:
        option = _OPTIONS.get(name)
        if option is None or not name.startswith(_PREFIXES):
            continue
        if name.startswith(_MEM_AGENT) and name != _MEM_AGENT_SWITCH and not found.get(_MEM_AGENT_SWITCH):
            continue  # as upstream, which reads them behind their switch alone
        if value:
            found[name] = _read(name, option, value)
        elif not equals and option.read is _switch:
            found[name] = True
    return _result(found | _from_environment(environment))


def read_file(path: str, environment: Mapping[str, str]) -> Parameters:
    """Read a file of parameters in TOML; the environment goes before it.

    Raises:
        ParameterError: It is no TOML, or a value has not its form.
        OSError: It cannot be read.
    """
    return _result(_from_file(path) | _from_environment(environment))


def _from_environment(environment: Mapping[str, str]) -> dict[str, Value]:
    return {
        name: _read(name, _OPTIONS[name], environment[variable])
        for variable, name in _VARIABLES.items()
        if environment.get(variable)
    }


def _from_file(path: str) -> dict[str, Value]:
    import tomllib

    with open(path, "rb") as file:
        try:
            document = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ParameterError(f"{path}: {error}") from error
    document.pop("endpoints", None)  # of upstream's sample, where it has no effect either
    names = {option.key or name.removeprefix("agent."): name for name, option in _OPTIONS.items()}
    found: dict[str, Value] = {}
    for key, value in document.items():
        if key not in names:
            raise ParameterError(f"{path}: no such key: {key}")
        text = _text(value)
        if text:
            found[names[key]] = _read(f"{path}: {key}", _OPTIONS[names[key]], text)
    return found


def _text(value: object) -> str:
    """A value of TOML as it would stand on the line."""
    match value:
        case bool():
            return str(value).lower()
        case {"secs": int(seconds), **rest} if not any(rest.values()):
            return str(seconds)
        case _:
            return str(value)


def _read(name: str, option: _Option, text: str) -> Value:
    try:
        return option.read(text)
    except ValueError as error:
        raise ParameterError(f"{name}={text}: {error}") from None


def _result(found: Mapping[str, Value]) -> Parameters:
    return Parameters(
        **{_OPTIONS[name].field: value for name, value in found.items() if _OPTIONS[name].field},  # type: ignore[arg-type]
        without_effect=tuple(_without_effect(found)),
    )


def _without_effect(found: Mapping[str, Value]) -> Iterator[str]:
    for name, value in found.items():
        option = _OPTIONS[name]
        if not option.field and value != option.default:
            yield f"{name}={str(value).lower() if isinstance(value, bool) else value}"


def _switch(text: str) -> bool:
    """For booleans that may stand without a value."""
    return _boolean(text)


def _boolean(text: str) -> bool:
    if text.lstrip("-").isdecimal():
        return int(text) != 0
    return text == "true"


def _level(text: str) -> str:
    return _LEVELS[_one_of(*_LEVELS)(text)]


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return text

    return read


def _number(unit: str = "", low: int = 0, end: int = _UNSIGNED) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or not low <= int(text) < end:
            raise ValueError(f"expected a number{unit}")
        return int(text)

    return read


def _address(text: str) -> str:
    if "://" not in text:
        raise ValueError("expected a URL")
    return text


_seconds = _number(" of seconds above 0", 1)
_port = _number("", 0, 1 << 32)
_percent = _number("", 0, 1 << 8)

_PREFIXES = ("agent.", "systemd.")
_MEM_AGENT = "agent.mem_agent_"
_MEM_AGENT_SWITCH = "agent.mem_agent_enable"

_OPTIONS: dict[str, _Option] = {
    "agent.server_addr": _Option(str, "", "server_addr"),
    "agent.log": _Option(_level, "INFO", "log_level", "log_level"),
    "agent.log_vport": _Option(_port, 0, "log_vport"),
    "agent.debug_console": _Option(_switch, False, "debug_console"),
    "agent.debug_console_vport": _Option(_port, 0, "debug_console_vport"),
    "agent.container_pipe_size": _Option(_number(" of bytes", 0, 1 << 31), 0, "container_pipe_size"),
    "agent.hotplug_timeout": _Option(_seconds, 3, "hotplug_timeout"),
    "agent.https_proxy": _Option(_address, "", "https_proxy"),
    "agent.no_proxy": _Option(str, "", "no_proxy"),
    "agent.pause_bundle": _Option(str, "", "pause_bundle"),  # ours
    "agent.trace": _Option(_switch, False, "tracing", "tracing"),
    "policy_file": _Option(str, "", "policy_file"),  # not on the line
    # From here on, what this agent has not.
    "agent.devmode": _Option(lambda _: False, False, key="dev_mode"),  # upstream's has no effect either
    "agent.passfd_listener_port": _Option(_port, 0),
    "agent.cdi_timeout": _Option(_seconds, 100, "cdi_timeout"),
    "agent.visible_cdi_devices": _Option(_boolean, False),
    "agent.cdh_api_timeout": _Option(_seconds, 50),
    "agent.image_pull_timeout": _Option(_seconds, 1200),
    "agent.launch_process_timeout": _Option(_seconds, 6),
    "agent.guest_components_procs": _Option(_one_of(*_PROCESSES), "api-server-rest"),
    "agent.guest_components_rest_api": _Option(_one_of(*_REST_APIS), "resource"),
    "agent.secure_storage_integrity": _Option(_boolean, True),
    # Containers are in cgroup v2 here, whatever is asked for.
    "systemd.unified_cgroup_hierarchy": _Option(_boolean, True, key="unified_cgroup_hierarchy"),
    "agent.mem_agent_enable": _Option(_switch, False),
    "agent.mem_agent_memcg_disable": _Option(_boolean, False),
    "agent.mem_agent_memcg_swap": _Option(_boolean, False),
    "agent.mem_agent_memcg_swappiness_max": _Option(_percent, 50),
    "agent.mem_agent_memcg_period_secs": _Option(_number(), 600),
    "agent.mem_agent_memcg_period_psi_percent_limit": _Option(_percent, 1),
    "agent.mem_agent_memcg_eviction_psi_percent_limit": _Option(_percent, 1),
    "agent.mem_agent_memcg_eviction_run_aging_count_min": _Option(_number(), 3),
    "agent.mem_agent_compact_disable": _Option(_boolean, False),
    "agent.mem_agent_compact_period_secs": _Option(_number(), 600),
    "agent.mem_agent_compact_period_psi_percent_limit": _Option(_percent, 1),
    "agent.mem_agent_compact_psi_percent_limit": _Option(_percent, 5),
    "agent.mem_agent_compact_sec_max": _Option(_number("", -_SIGNED, _SIGNED), 300),
    "agent.mem_agent_compact_order": _Option(_percent, 9),
    "agent.mem_agent_compact_threshold": _Option(_number(), 1024),
    "agent.mem_agent_compact_force_times": _Option(_number(), _SIGNED - 1),
}
_VARIABLES = {
    "KATA_AGENT_SERVER_ADDR": "agent.server_addr",
    "KATA_AGENT_LOG_LEVEL": "agent.log",
    "KATA_AGENT_TRACING": "agent.trace",
    "KATA_AGENT_POLICY_FILE": "policy_file",
    "KATA_AGENT_PAUSE_BUNDLE": "agent.pause_bundle",
}
