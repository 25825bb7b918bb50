import pytest

from kata_py.ttrpc.address import (
    AddressError,
    HybridVsockAddress,
    SerialAddress,
    UnixAddress,
    VsockAddress,
    parse,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:///run/a.sock", UnixAddress("/run/a.sock")),
        ("unix://@name", UnixAddress("@name")),
        ("vsock://-1:1024", VsockAddress(-1, 1024)),
        ("vsock://3:4294967295", VsockAddress(3, 2**32 - 1)),
        ("hvsock:///run/vm.sock:1024", HybridVsockAddress("/run/vm.sock", 1024)),
        ("serial:///dev/vport0p1", SerialAddress("/dev/vport0p1")),
        ("virtio-serial://agent.channel.0", SerialAddress("", "agent.channel.0")),
    ],
)
def test_an_address_is_read_and_written(text, address):
    assert parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["/run/a.sock", "@name"])
def test_a_bare_path_is_a_unix_socket(text):
    assert parse(text) == UnixAddress(text)


@pytest.mark.parametrize(
    "text", ["", "run/a.sock", "unix://", "tcp://host:1", "vsock://3", "vsock://x:1", "vsock://3:x", "vsock://3:-1"]
)
def test_what_is_no_address_is_named_in_the_error(text):
    with pytest.raises(AddressError, match=r"address|scheme") as caught:
        parse(text)
    assert repr(text) in str(caught.value)
