"""The command line, in Go's syntax."""

from __future__ import annotations

import socket

import pytest

from kata_caa.errors import MalformedConfig, SettingError
from kata_caa.forwarder import command, daemon
from kata_caa.forwarder.command import Options, load, main, parse


def test_without_flags_all_is_upstreams_default():
    assert parse([]) == Options(
        config="/run/peerpod/apf.json", listen="0.0.0.0:15150", agent_socket="/run/kata-containers/agent.sock",
        pod_namespace="/run/netns/podns",
    )  # fmt: skip


def test_flags_take_either_dash_and_either_form():
    options = parse(
        ["-listen", ":1", "--kata-agent-socket=/a=b", "-disable-tls", "--tls-skip-verify=false", "-config="]
    )
    assert options == Options(listen=":1", agent_socket="/a=b", disable_tls=True, config="")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-x"], "not defined: -x"),
        (["-listen"], "needs an argument: -listen"),
        (["-disable-tls=maybe"], "'maybe'"),
        (["-disable-tls", "true"], "flags alone, not 'true'"),
        (["--", "a"], "not 'a'"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused(arguments, says, capsys):
    with pytest.raises(SettingError, match=says):
        parse(arguments)
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_help_shows_every_flag(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().err
    for flag in ("-config", "-cert-key", "-pod-namespace", "(default 0.0.0.0:15150)"):
        assert flag in told


def test_the_version_is_said(capsys):
    assert main(["-version"]) == 0
    assert capsys.readouterr().out.startswith("agent-protocol-forwarder ")


def test_a_configuration_that_cannot_be_read_is_an_error(tmp_path, capsys):
    with pytest.raises(SettingError, match="gone cannot be read"):
        load(str(tmp_path / "gone"))
    (tmp_path / "apf.json").write_text("{")
    with pytest.raises(MalformedConfig):
        load(str(tmp_path / "apf.json"))
    assert main(["-config", str(tmp_path / "apf.json")]) == 1
    assert "apf.json is no JSON" in capsys.readouterr().err
    assert command.NAME == "agent-protocol-forwarder"


@pytest.mark.parametrize(
    ("text", "address"), [("0.0.0.0:15150", ("0.0.0.0", 15150)), (":0", ("0.0.0.0", 0)), ("[::1]:80", ("::1", 80))]
)
def test_the_address_is_host_and_port(text, address):
    assert daemon.listen_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:http", "host:65536", "host:²"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(SettingError, match="not HOST:PORT"):
        daemon.listen_address(text)


def test_the_service_manager_is_told(monkeypatch, caplog):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0kata-forwarder-test")
        monkeypatch.setenv("NOTIFY_SOCKET", "@kata-forwarder-test")
        daemon.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    daemon.notify("READY=1")
    assert "the service manager cannot be told" in caplog.text
    monkeypatch.delenv("NOTIFY_SOCKET")
    daemon.notify("READY=1")
