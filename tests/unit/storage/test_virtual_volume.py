from __future__ import annotations

import base64
import json

import pytest

from kata_py.storage.errors import MalformedVolume, UnsupportedMount
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.virtual_volume import OPTION, PulledImage, pulled_image


def mount(content: object, *options: str) -> RootfsMount:
    text = content if isinstance(content, str) else base64.b64encode(json.dumps(content).encode()).decode()
    return RootfsMount("fuse.nydus-overlayfs", "overlay", ("lowerdir=/a", *options, f"{OPTION}{text}"))


def test_a_snapshotters_option_is_the_image_to_pull() -> None:
    # As CRI-O writes it with runtime_pull_image.
    content = {
        "volume_type": "image_guest_pull", "source": "quay.io/a:1", "fs_type": "overlay_fs",
        "image_pull": {"metadata": {"a": "b"}},
    }  # fmt: skip
    assert pulled_image([mount(content)]) == PulledImage("quay.io/a:1", {"a": "b"})


@pytest.mark.parametrize("rest", [{}, {"image_pull": None}, {"image_pull": {"metadata": None}}, {"source": ""}])
def test_what_it_leaves_out_is_empty(rest: dict[str, object]) -> None:
    assert pulled_image([mount({"volume_type": "image_guest_pull", **rest})]) == PulledImage()


def test_other_mounts_are_no_images() -> None:
    assert pulled_image([]) is None
    assert pulled_image([RootfsMount("overlay", "overlay", ("lowerdir=/a",))]) is None
    assert pulled_image([RootfsMount("fuse.nydus-overlayfs", "overlay", ("extraoption=e30=",))]) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("!", "is no JSON in base64"),
        ("YQ==", "is no JSON in base64"),
        ("W1td", "is no JSON in base64"),
        ([], "is no JSON object"),
        ({}, "volume_type is None, expected 'image_guest_pull'"),
        ({"volume_type": "tape"}, "volume_type is 'tape', expected"),
        ({"volume_type": "image_guest_pull", "source": 1}, "source is no string"),
        ({"volume_type": "image_guest_pull", "image_pull": 1}, "image_pull.metadata is no object of strings"),
        ({"volume_type": "image_guest_pull", "image_pull": {"metadata": {"a": 1}}}, "is no object of strings"),
        ("A" * (1 << 21), "more than 1048576"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_field(content: object, said: str) -> None:
    with pytest.raises(MalformedVolume, match=said):
        pulled_image([mount(content)])


def test_other_volumes_and_two_of_them_are_not_supported() -> None:
    with pytest.raises(UnsupportedMount, match="volume_type image_raw_block is not supported"):
        pulled_image([mount({"volume_type": "image_raw_block"})])
    with pytest.raises(UnsupportedMount, match="2 options"):
        pulled_image([mount({"volume_type": "image_guest_pull"})] * 2)
