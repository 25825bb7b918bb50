"""How a pod VM's image is named: by an id of ARM's, or as an image of a community's or a shared gallery.

Source: Azure's reference of virtual machines, `imageReference`; cloud-api-adaptor `src/cloud-providers/azure`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from azure.mgmt.compute.models import ImageReference

from kata_caa.errors import Fault, ProviderError
from kata_caa.providers.azure.ids import MalformedId, ResourceId


class Origin(enum.Enum):
    """Where an image is kept."""

    IMAGE = "image"
    GALLERY = "image of a gallery"
    COMMUNITY = "image of a community's gallery"
    SHARED = "image of a shared gallery"


_KINDS = {
    "images": Origin.IMAGE,
    "galleries/images": Origin.GALLERY,
    "galleries/images/versions": Origin.GALLERY,
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image.

    Attributes:
        origin: Where it is kept.
        id: As it was configured.
        path: The names in its id: image; gallery, image and perhaps version.
        group: The resource group; empty for a community's or a shared gallery.
        subscription: The subscription; empty likewise.
    """

    origin: Origin
    id: str
    path: tuple[str, ...]
    group: str = ""
    subscription: str = ""

    @classmethod
    def parse(cls, text: str) -> Image:
        """Read an image's name.

        Raises:
            ProviderError: It has none of the forms.
        """
        for origin, prefix in ((Origin.COMMUNITY, "/communitygalleries/"), (Origin.SHARED, "/sharedgalleries/")):
            if text.lower().startswith(prefix):
                parts = text.strip("/").split("/")
                if [part.lower() for part in parts[2::2]] not in (["images"], ["images", "versions"]) or len(parts) % 2:
                    raise _malformed(text)
                return cls(origin, text, tuple(parts[1::2]))
        try:
            found = ResourceId.parse(text)
        except MalformedId:
            raise _malformed(text) from None
        origin_of = _KINDS.get(found.kind.lower())
        if origin_of is None or found.provider.lower() != "microsoft.compute":
            raise _malformed(text)
        return cls(origin_of, text, found.names, found.group, found.subscription)

    def reference(self) -> ImageReference:
        """What a machine's body says of it."""
        if self.origin is Origin.COMMUNITY:
            return ImageReference(community_gallery_image_id=self.id)
        if self.origin is Origin.SHARED:
            return ImageReference(shared_gallery_image_id=self.id)
        return ImageReference(id=self.id)


def _malformed(text: str) -> ProviderError:
    return ProviderError(
        Fault.FATAL,
        f"{text!r:.300} names no image",
        hint="give the id of an image or of an image version, or"
        " /CommunityGalleries/<gallery>/Images/<image>/Versions/<version>",
    )
