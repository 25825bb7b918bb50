"""Names of images, as pods and managers write them and registries know them.

Source: distribution's `reference/reference.go`; kubelet and CRI plugins for what may come.
"""

from __future__ import annotations

import re

from kata_agent.errors import InvalidArgument

_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")
_FORM = re.compile(r"[\w][\w./:@+-]*", re.ASCII)


def pullable(reference: str) -> str:
    """The name to ask a registry for: of a tag and a digest the digest, which says more, and which skopeo wants alone.

    Raises:
        InvalidArgument: It is none.
    """
    if not reference:
        raise InvalidArgument("the storage image_guest_pull has no source: an image's name is expected there")
    if _ID.fullmatch(reference):
        raise InvalidArgument(
            f"{reference} is an image's id on the host, where no registry can be known from; name the image in the pod"
            " as registry/repository:tag"
        )
    if not _FORM.fullmatch(reference):
        raise InvalidArgument(f"{reference!r:.300} is no image's name; expected registry/repository:tag or …@sha256:…")
    name, at, digest = reference.partition("@")
    if not at:
        return reference
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest}"
