from __future__ import annotations

from pathlib import Path

import pytest

from kata_agent.cmdline import ParameterError, Parameters, parse, read_file


def test_a_line_of_other_peoples_parameters_leaves_the_defaults() -> None:
    assert parse("quiet root=/dev/vda agent.devmode agent.unknown=1\n", {}) == Parameters()


def test_the_line_names_address_level_and_pipe_size() -> None:
    line = "agent.server_addr=virtio-serial://agent.channel.0 agent.log=debug agent.container_pipe_size=1048576"

    assert parse(line, {}) == Parameters("virtio-serial://agent.channel.0", "DEBUG", 1 << 20)


def test_the_environment_goes_before_the_line() -> None:
    environment = {"KATA_AGENT_SERVER_ADDR": "unix://@agent", "KATA_AGENT_LOG_LEVEL": "error"}

    parameters = parse("agent.server_addr=vsock://-1:9 agent.log=trace", environment)

    assert (parameters.server_addr, parameters.log_level) == ("unix://@agent", "ERROR")


def test_an_empty_value_is_the_default() -> None:
    assert parse("agent.server_addr= agent.log=", {}) == Parameters()


def test_log_and_console_are_where_the_line_says() -> None:
    parameters = parse("agent.log_vport=1025 agent.debug_console agent.debug_console_vport=1026", {})

    assert parameters == Parameters(log_vport=1025, debug_console=True, debug_console_vport=1026)


def test_tracing_is_asked_for_by_the_line_or_the_environment() -> None:
    assert parse("agent.trace", {}) == parse("", {"KATA_AGENT_TRACING": "true"}) == Parameters(tracing=True)


@pytest.mark.parametrize(
    ("word", "on"),
    [("agent.debug_console", True), ("agent.debug_console=2", True), ("agent.debug_console=true", True)]
    + [(f"agent.debug_console={value}", False) for value in ("false", "0", "yes", "")],
)
def test_a_switch_is_on_alone_or_with_true_or_a_number(word: str, on: bool) -> None:
    assert parse(word, {}).debug_console is on


def test_what_the_agent_has_not_is_told_unless_it_changes_nothing() -> None:
    line = "agent.passfd_listener_port=7 agent.cdh_api_timeout=50 agent.launch_process_timeout=9"

    parameters = parse(
        f"{line} agent.visible_cdi_devices=false systemd.unified_cgroup_hierarchy=false agent.devmode", {}
    )

    told = ("agent.passfd_listener_port=7", "agent.launch_process_timeout=9", "systemd.unified_cgroup_hierarchy=false")
    assert parameters == Parameters(without_effect=told)


def test_registries_and_the_pause_are_where_the_line_says() -> None:
    line = "agent.https_proxy=http://proxy:3128 agent.no_proxy=localhost,.svc agent.pause_bundle=/elsewhere"

    parameters = parse(line, {})

    told = {"https_proxy": "http://proxy:3128", "no_proxy": "localhost,.svc", "pause_bundle": "/elsewhere"}
    assert parameters == Parameters(**told)
    assert parse("", {"KATA_AGENT_PAUSE_BUNDLE": "/other"}).pause_bundle == "/other"


def test_options_of_the_mem_agent_count_behind_its_switch() -> None:
    option = "agent.mem_agent_memcg_swap=true"

    assert parse(f"{option} agent.mem_agent_enable", {}).without_effect == ("agent.mem_agent_enable=true",)
    assert parse(f"agent.mem_agent_enable=1 {option}", {}).without_effect == ("agent.mem_agent_enable=true", option)


def test_a_policy_file_is_not_taken_from_the_line() -> None:
    assert parse("policy_file=/evil", {}).policy_file == ""
    assert parse("", {"KATA_AGENT_POLICY_FILE": "/good"}).policy_file == "/good"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one parameter of each form."""
    path = tmp_path / "agent.toml"
    path.write_text("""
        dev_mode = true
        debug_console = true
        log_level = "debug"
        log_vport = 1025
        hotplug_timeout = {secs = 7, nanos = 0}
        policy_file = "/etc/policy.rego"
        server_addr = "unix://@agent"
        cdi_timeout = {secs = 5, nanos = 0}
        cdh_api_timeout = {secs = 6, nanos = 0}
        tracing = false
        [endpoints]
        allowed = ["CreateContainerRequest"]
    """)
    return path


_OF_FILE = Parameters(
    server_addr="unix://@agent", log_level="DEBUG", log_vport=1025, debug_console=True, hotplug_timeout=7,
    cdi_timeout=5, policy_file="/etc/policy.rego", without_effect=("agent.cdh_api_timeout=6",),
)  # fmt: skip


def test_a_file_on_the_line_replaces_line_and_environment(file: Path) -> None:
    line = f"agent.log=error agent.container_pipe_size=5 agent.config_file={file} agent.server_addr=vsock://-1:7"

    assert parse(line, {"KATA_AGENT_SERVER_ADDR": "unix://@other"}) == _OF_FILE


def test_the_environment_goes_before_a_file_named_otherwise(file: Path) -> None:
    assert read_file(str(file), {}) == _OF_FILE
    assert read_file(str(file), {"KATA_AGENT_LOG_LEVEL": "warn"}) == _OF_FILE._replace(log_level="WARNING")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("log_level = ", "agent.toml: Invalid value"),
        ("no_such = 1", "agent.toml: no such key: no_such"),
        ("log_level = 'loud'", "agent.toml: log_level=loud: expected one of"),
        ("hotplug_timeout = {secs = 1, nanos = 5}", "hotplug_timeout=.*: expected a number of seconds above 0"),
    ],
)
def test_a_file_without_its_form_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "agent.toml").write_text(text)

    with pytest.raises(ParameterError, match=complaint):
        parse(f"agent.config_file={tmp_path}/agent.toml", {})


def test_a_file_that_is_not_there_is_no_default() -> None:
    with pytest.raises(FileNotFoundError):
        parse("agent.config_file=/no/such/file", {})


@pytest.mark.parametrize(
    "word",
    [
        "agent.log=loud",
        "agent.container_pipe_size=-1",
        "agent.container_pipe_size=1k",
        "agent.hotplug_timeout=0",
        "agent.cdi_timeout=1s",
        "agent.log_vport=port",
        "agent.https_proxy=proxy",
        "agent.guest_components_procs=all",
        "agent.guest_components_rest_api=none",
    ],
)
def test_a_value_without_its_form_is_named(word: str) -> None:
    with pytest.raises(ParameterError, match=word):
        parse(f"quiet {word}", {})
