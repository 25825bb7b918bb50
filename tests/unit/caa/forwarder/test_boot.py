"""The start of a pod VM: its files, and what can be told of its network without one."""

from __future__ import annotations

import pytest

from kata_caa.errors import ForwarderError, MalformedConfig
from kata_caa.forwarder import boot, console, dhcp, provision, scratch
from kata_caa.forwarder.provision import DIGEST
from kata_caa.forwarder.scratch import ScratchError, Space
from kata_caa.userdata import APF, INITDATA, SCRATCH_MARKER, File, render


def put(root, path, content):
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def test_files_are_brought_once(tmp_path):
    put(tmp_path, "media/cidata/user-data", render([File(APF, "{}")]))
    boot.provide(0, root=tmp_path)
    assert (tmp_path / APF.lstrip("/")).read_text() == "{}"
    put(tmp_path, "media/cidata/user-data", "changed")
    boot.provide(0, root=tmp_path)


def test_initdata_that_failed_fails_again(tmp_path):
    put(tmp_path, "media/cidata/user-data", render([File(APF, "{}"), File(INITDATA, "***")]))
    for _ in range(2):
        with pytest.raises(MalformedConfig, match="initdata"):
            boot.provide(0, root=tmp_path)


def test_files_that_somebody_else_brings_are_taken(tmp_path):
    put(tmp_path, APF, "{}")
    boot.provide(0, root=tmp_path)
    assert (tmp_path / DIGEST.lstrip("/")).exists()


def test_user_data_without_apf_json_is_an_error(tmp_path):
    put(tmp_path, "media/cidata/user-data", render([]))
    with pytest.raises(ForwarderError, match=r"brings no /run/peerpod/apf\.json"):
        boot.provide(0, root=tmp_path)


def test_nothing_at_all_is_an_error_that_says_what_was_waited_for(tmp_path):
    with pytest.raises(ForwarderError, match=r"waited 0.01 s for /run/peerpod/apf\.json"):
        boot.provide(0.01, root=tmp_path, pause=0.001)


@pytest.mark.parametrize(("files", "encrypted"), [([], False), ([File(SCRATCH_MARKER, "")], True)])
def test_room_for_images_is_encrypted_if_the_user_data_asks_for_it(tmp_path, monkeypatch, capfd, files, encrypted):
    asked = []

    def mount(*, encrypted):
        asked.append(encrypted)
        return Space("vda", 3, 101 << 20, 922 << 20)

    monkeypatch.setattr(scratch, "mount", mount)
    provision.write(files, root=tmp_path)
    boot.make_room(tmp_path)
    assert asked == [encrypted]
    assert (" 922 MiB of vda for images, encrypted " in capfd.readouterr().err) is encrypted


def test_room_that_cannot_be_had_is_told_on_the_console_and_the_pod_goes_on(tmp_path, monkeypatch, capfd):
    def fail(*, encrypted):
        raise ScratchError("no dm_crypt")

    monkeypatch.setattr(scratch, "mount", fail)
    boot.make_room(tmp_path)
    assert capfd.readouterr().err == "forwarder: images are kept in memory: no dm_crypt\n"


def test_room_for_images_is_made_when_the_user_data_is_there_and_before_a_call_is_taken(monkeypatch):
    done = []
    monkeypatch.setattr(dhcp, "bring_up", lambda **_: done.append("network"))
    monkeypatch.setattr(boot, "provide", lambda timeout: done.append("user data"))
    monkeypatch.setattr(boot, "serve", lambda: done.append("calls"))
    assert boot.main(lambda: done.append("room")) == 0
    assert done == ["network", "user data", "room", "calls"]


def test_a_failure_is_told_on_the_console(monkeypatch, capfd):
    def fail(**_):
        raise ForwarderError("no answer")

    monkeypatch.setattr(dhcp, "bring_up", fail)
    assert boot.main() == 1
    assert capfd.readouterr().err == "forwarder: failed: no answer\n"


def test_a_stage_is_one_line_with_the_seconds_since_boot(capfd):
    console.tell("network")
    words = capfd.readouterr().err.split()
    assert words[:2] == ["forwarder:", "network"]
    assert float(words[2]) > 0
    assert words[3:] == ["s"]


def test_the_first_physical_interface_is_the_kernels_first(tmp_path):
    (tmp_path / "class/net").mkdir(parents=True)
    assert dhcp.first_interface(tmp_path) is None
    for name, index, physical in (("lo", 1, False), ("veth0", 2, False), ("enp2s0", 4, True), ("enp9s0", 3, True)):
        put(tmp_path, f"class/net/{name}/ifindex", f"{index}\n")
        if physical:
            (tmp_path / "class/net" / name / "device").mkdir()
    assert dhcp.first_interface(tmp_path) == "enp9s0"


def test_a_default_route_tells_that_there_is_an_address(tmp_path):
    header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    put(tmp_path, "route", header)
    assert dhcp.with_address(tmp_path / "route") is None
    lines = (
        "eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    )
    put(tmp_path, "route", header + lines)
    assert dhcp.with_address(tmp_path / "route") == "eth0"


def test_a_client_that_runs_is_seen(tmp_path):
    put(tmp_path, "1/cmdline", "init\0udhcp\0-s\0udhcpc")
    put(tmp_path, "self/cmdline", "udhcpc")
    (tmp_path / "9").mkdir()
    assert not dhcp.client_runs(tmp_path)
    put(tmp_path, "2/cmdline", "/usr/bin/busybox\0udhcpc\0-i\0eth0\0")
    assert dhcp.client_runs(tmp_path)
