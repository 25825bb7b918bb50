"""Authorities in a directory."""

from __future__ import annotations

import datetime
import logging
import os
import stat

import pytest

from kata_caa import authorities, certificates
from kata_caa.authorities import RENEW_BEFORE, Authorities
from kata_caa.errors import TlsError

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run" / "tls"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_an_authority_is_made_once_for_this_user_alone(directory, clock):
    name, made = Authorities(directory, clock).current()
    assert [path.name for path in directory.iterdir()] == ["authority-1.pem"]
    assert mode(directory) == 0o700
    assert mode(directory / "authority-1.pem") == 0o600
    again = Authorities(directory, clock)
    assert again.current() == (name, made)
    assert again.find(name) == made


def test_a_directory_that_others_may_read_is_closed(directory, clock):
    directory.mkdir(parents=True, mode=0o755)
    Authorities(directory, clock).current()
    assert mode(directory) == 0o700


def test_an_authority_that_ends_soon_is_followed_by_another_and_stays(directory, clock):
    kept = Authorities(directory, clock)
    first_name, first = kept.current()
    clock.now = first.expires - RENEW_BEFORE - datetime.timedelta(seconds=1)
    assert kept.current()[0] == first_name
    clock.now = first.expires - RENEW_BEFORE
    second_name, second = kept.current()
    assert second != first
    assert second.expires == clock.now + certificates.VALIDITY
    restarted = Authorities(directory, clock)
    assert restarted.current() == (second_name, second)
    assert restarted.find(first_name) == first


def test_of_two_adaptors_that_make_one_at_once_the_first_counts(directory, clock, monkeypatch):
    """The second one is between its look at the directory and its own making when the first one makes it."""
    made = []
    real = certificates.make_authority

    def interrupted(now):
        if not made:
            made.append(None)
            made[0] = Authorities(directory, clock).current()
        return real(now)

    monkeypatch.setattr(authorities.certificates, "make_authority", interrupted)
    assert Authorities(directory, clock).current() == made[0]
    assert [path.name for path in directory.iterdir()] == ["authority-1.pem"]


def garble(path):
    path.write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")


def cut(path):
    path.write_text(path.read_text()[:-200])


def open_up(path):
    path.chmod(0o644)


def put_a_link(path):
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def put_a_directory(path):
    path.unlink()
    path.mkdir()


def put_a_fifo(path):
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("spoil", [garble, cut, open_up, put_a_link, put_a_directory, put_a_fifo])
def test_a_file_that_cannot_be_used_is_an_error_that_names_it_and_none_is_made(directory, clock, spoil):
    name, _ = Authorities(directory, clock).current()
    path = directory / "authority-1.pem"
    spoil(path)
    before = sorted(directory.iterdir())
    for use in (lambda kept: kept.current(), lambda kept: kept.find(name)):
        with pytest.raises(TlsError, match=rf"^{path} cannot be used: .+; put the right file back, or delete the pods"):
            use(Authorities(directory, clock))
    assert sorted(directory.iterdir()) == before


@pytest.mark.root
def test_a_file_of_another_user_is_not_used(directory, clock):
    Authorities(directory, clock).current()
    os.chown(directory / "authority-1.pem", 1234, -1)
    with pytest.raises(TlsError, match="owner 1234"):
        Authorities(directory, clock).current()


@pytest.mark.root
def test_a_directory_of_another_user_is_not_used(directory, clock):
    directory.mkdir(parents=True)
    os.chown(directory, 1234, -1)
    with pytest.raises(TlsError, match="belongs to user 1234: name a directory"):
        Authorities(directory, clock).current()


def test_a_file_in_the_directory_s_place_is_an_error_that_names_it(directory, clock):
    directory.parent.mkdir()
    directory.touch()
    with pytest.raises(TlsError, match=rf"^{directory} cannot keep certificates: .+; name another"):
        Authorities(directory, clock).current()


def test_an_authority_that_is_gone_is_not_taken_for_the_one_in_its_place(directory, clock):
    name, _ = Authorities(directory, clock).current()
    (directory / "authority-1.pem").unlink()
    with pytest.raises(TlsError, match=r"authority-1.pem is gone: put it back, or delete"):
        Authorities(directory, clock).find(name)
    other, _ = Authorities(directory, clock).current()
    assert other != name
    with pytest.raises(TlsError, match=rf"is not the authority {name} that the pod VM was started with"):
        Authorities(directory, clock).find(name)


@pytest.mark.parametrize("name", ["", "none", "x-1", "../../etc/1", "²-1"])
def test_a_name_of_no_authority_is_an_error(directory, clock, name):
    with pytest.raises(TlsError, match="names no authority"):
        Authorities(directory, clock).find(name)


def test_other_files_are_left_alone(directory, clock):
    directory.mkdir(parents=True)
    for name in ("authority-0.pem", "authority-9.pem.bak", ".authority-3.pem.abcd", "notes"):
        (directory / name).write_text("mine")
    name, _ = Authorities(directory, clock).current()
    assert name.startswith("1-")
    assert (directory / "notes").read_text() == "mine"


def test_no_key_is_logged(directory, clock, caplog):
    caplog.set_level(logging.DEBUG)
    Authorities(directory, clock).current()
    assert "authority-1.pem" in caplog.text
    assert "PRIVATE" not in caplog.text
