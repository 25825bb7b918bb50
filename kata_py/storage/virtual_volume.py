"""Root file systems that no mount makes: what a snapshotter says of them in an option of the mount it gives instead.

Source: kata `virtcontainers/types/virtual_volume.go`, `src/libs/kata-types/src/mount.rs`; CRI-O and nydus-snapshotter,
which write the option.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kata_py.storage.errors import MalformedVolume, UnsupportedMount
from kata_py.storage.rootfs import RootfsMount

OPTION: Final = "io.katacontainers.volume="
IMAGE_GUEST_PULL: Final = "image_guest_pull"

_OTHER_TYPES = frozenset(
    {
        "direct_block", "image_raw_block", "layer_raw_block", "image_nydus_block", "layer_nydus_block",
        "image_nydus_fs", "layer_nydus_fs",
    }
)  # fmt: skip
_MAX = 1 << 20  # characters; a volume with all of a pod's annotations has a few thousand


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image that the guest pulls.

    Attributes:
        source: Its reference, as the snapshotter has it; empty if it does not say.
        metadata: What the guest is told of it.
    """

    source: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def pulled_image(rootfs: Sequence[RootfsMount]) -> PulledImage | None:
    """The image that the guest is to pull for a container; None if its root file system is made by mounts.

    Args:
        rootfs: What the manager gave.

    Raises:
        MalformedVolume: An option for it is no base64 of JSON, or lacks what it needs; names the field.
        UnsupportedMount: It asks for another kind of volume, or for more than one.
    """
    options = [option for mount in rootfs for option in mount.options if option.startswith(OPTION)]
    if not options:
        return None
    if len(options) > 1:
        raise UnsupportedMount(f"rootfs: {len(options)} options {OPTION}… are given, and a container has one image")
    return _parsed(options[0].removeprefix(OPTION))


def _parsed(text: str) -> PulledImage:
    if len(text) > _MAX:
        raise MalformedVolume(f"rootfs option {OPTION}… has {len(text)} characters, more than {_MAX}")
    try:
        content = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise MalformedVolume(f"rootfs option {OPTION}… is no JSON in base64: {error}") from None
    if not isinstance(content, dict):
        raise MalformedVolume(f"rootfs option {OPTION}… is no JSON object")
    kind = content.get("volume_type")
    if kind in _OTHER_TYPES:
        raise UnsupportedMount(f"rootfs option {OPTION}…: volume_type {kind} is not supported; {IMAGE_GUEST_PULL} is")
    if kind != IMAGE_GUEST_PULL:
        raise MalformedVolume(f"rootfs option {OPTION}…: volume_type is {kind!r:.80}, expected {IMAGE_GUEST_PULL!r}")
    source = content.get("source") or ""
    if not isinstance(source, str):
        raise MalformedVolume(f"rootfs option {OPTION}…: source is no string")
    image = content.get("image_pull") or {}
    metadata = (image.get("metadata") or {}) if isinstance(image, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedVolume(f"rootfs option {OPTION}…: image_pull.metadata is no object of strings")
    return PulledImage(source, metadata)
