"""Undoing changes to real links, in real network namespaces."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kata_py.resource.link import INGRESS, RemoveLink, RemoveQdisc, RestoreLink
from kata_py.resource.netns import NamespaceGone, NetworkNamespace
from tests.netns import Pod, pod

pytestmark = pytest.mark.root

MAC = "02:00:00:00:00:0a"


@pytest.fixture
def inside() -> Iterator[Pod]:
    with pod() as made:
        made.ip("link add eth0 type veth peer name veth0")
        yield made


def where(pod: Pod) -> tuple[str, int]:
    namespace = NetworkNamespace.at(pod.path)
    return namespace.path, namespace.inode


def test_a_link_is_removed_and_once_more_is_success(inside: Pod) -> None:
    undo = RemoveLink(*where(inside), "eth0")
    undo.perform()
    assert inside.links() == {"lo"}
    undo.perform()


def test_a_link_that_cannot_be_removed_is_an_error_with_its_name(inside: Pod) -> None:
    with pytest.raises(OSError, match=r"not supported: 'lo'"):
        RemoveLink(*where(inside), "lo").perform()


def test_a_discipline_is_removed_by_its_number_and_no_other(inside: Pod) -> None:
    inside.run("tc", "qdisc", "add", "dev", "eth0", "ingress")
    inside.run("tc", "qdisc", "add", "dev", "eth0", "root", "handle", "7:", "htb")
    RemoveQdisc(*where(inside), "eth0", 0x10000).perform()
    assert "htb 7:" in inside.run("tc", "qdisc", "show", "dev", "eth0")
    for handle in (INGRESS, 0x70000):
        for _ in range(2):
            RemoveQdisc(*where(inside), "eth0", handle).perform()
    assert inside.run("tc", "qdisc", "show", "dev", "eth0") == ""
    RemoveQdisc(*where(inside), "no such link", INGRESS).perform()


def test_a_link_gets_its_addresses_back(inside: Pod) -> None:
    undo = RestoreLink(*where(inside), "eth0", MAC, ("10.0.0.2/24", "fd00::2/64"))
    for _ in range(2):
        undo.perform()
        shown = inside.ip("addr show eth0")
        assert all(text in shown for text in (MAC, "inet 10.0.0.2/24", "inet6 fd00::2/64"))
    RestoreLink(*where(inside), "no such link", MAC, ()).perform()


@pytest.mark.alone
def test_what_was_in_a_namespace_that_is_gone_is_gone_with_it(inside: Pod) -> None:
    place = where(inside)
    inside.end()
    began = time.monotonic()
    for undo in (RemoveLink(*place, "eth0"), RemoveQdisc(*place, "eth0", 1), RestoreLink(*place, "eth0", MAC, ())):
        undo.perform()
    assert time.monotonic() - began < 0.5  # delete has five seconds for all there is
    with pytest.raises(NamespaceGone):
        NetworkNamespace(*place).run(lambda: None)


def test_another_namespace_at_the_path_is_not_taken_for_it(inside: Pod) -> None:
    path, inode = where(inside)
    RemoveLink(path, inode + 1, "eth0").perform()
    assert "eth0" in inside.links()


def test_an_error_in_a_namespace_reaches_the_caller(inside: Pod) -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        NetworkNamespace.at(inside.path).run(fail)
