from __future__ import annotations

import pytest

from kata_agent.cmdline import ParameterError, Parameters, parse


def test_a_line_of_other_peoples_parameters_leaves_the_defaults() -> None:
    assert parse("quiet root=/dev/vda agent.devmode agent.unknown=1\n", {}) == Parameters()


def test_the_line_names_address_level_and_pipe_size() -> None:
    line = "agent.server_addr=virtio-serial://agent.channel.0 agent.log=debug agent.container_pipe_size=1048576"

    assert parse(line, {}) == Parameters("virtio-serial://agent.channel.0", "DEBUG", 1 << 20)


def test_the_line_says_how_long_to_wait_for_a_device() -> None:
    assert parse("agent.hotplug_timeout=30", {}).hotplug_timeout == 30


def test_the_line_says_how_long_to_wait_for_cdi_specs() -> None:
    assert parse("agent.cdi_timeout=5", {}).cdi_timeout == 5


def test_the_environment_goes_before_the_line() -> None:
    environment = {"KATA_AGENT_SERVER_ADDR": "unix://@agent", "KATA_AGENT_LOG_LEVEL": "error"}

    parameters = parse("agent.server_addr=vsock://-1:9 agent.log=trace", environment)

    assert (parameters.server_addr, parameters.log_level) == ("unix://@agent", "ERROR")


def test_an_empty_value_is_the_default() -> None:
    assert parse("agent.server_addr= agent.log=", {}) == Parameters()


@pytest.mark.parametrize(
    "word",
    [
        "agent.log=loud",
        "agent.container_pipe_size=-1",
        "agent.container_pipe_size=1k",
        "agent.hotplug_timeout=0",
        "agent.hotplug_timeout=3s",
        "agent.cdi_timeout=soon",
    ],
)
def test_a_value_without_its_form_is_named(word: str) -> None:
    with pytest.raises(ParameterError, match=word):
        parse(f"quiet {word}", {})
