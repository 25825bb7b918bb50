"""Names of images, and ARM's ids."""

from __future__ import annotations

import pytest

from kata_caa.errors import ProviderError
from kata_caa.providers.azure.ids import MalformedId, ResourceId
from kata_caa.providers.azure.image import Image, Origin

COMPUTE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute"


@pytest.mark.parametrize(
    ("text", "origin", "path", "field"),
    [
        (f"{COMPUTE}/images/i", Origin.IMAGE, ("i",), "id"),
        (f"{COMPUTE}/galleries/g/images/i", Origin.GALLERY, ("g", "i"), "id"),
        (f"{COMPUTE}/galleries/g/images/i/versions/1", Origin.GALLERY, ("g", "i", "1"), "id"),
        ("/CommunityGalleries/g/Images/i/Versions/1", Origin.COMMUNITY, ("g", "i", "1"), "community_gallery_image_id"),
        ("/communitygalleries/g/images/i", Origin.COMMUNITY, ("g", "i"), "community_gallery_image_id"),
        ("/SharedGalleries/g/Images/i/Versions/1", Origin.SHARED, ("g", "i", "1"), "shared_gallery_image_id"),
    ],
)
def test_an_image_is_known_by_the_form_of_its_name(text: str, origin: Origin, path: tuple[str, ...], field: str):
    image = Image.parse(text)
    assert (image.origin, image.path) == (origin, path)
    assert getattr(image.reference(), field) == text


@pytest.mark.parametrize("text", ["", "podvm", f"{COMPUTE}/disks/d", "/CommunityGalleries/g", "/SharedGalleries/g/x/i"])
def test_other_names_are_no_image(text: str):
    with pytest.raises(ProviderError, match="names no image"):
        Image.parse(text)


def test_an_id_is_read_in_any_case():
    found = ResourceId.parse("/SUBSCRIPTIONS/s/resourcegroups/g/Providers/N/virtualNetworks/v/subnets/n")
    assert (found.subscription, found.group, found.kind, found.names, found.name) == (
        "s", "g", "virtualNetworks/subnets", ("v", "n"), "n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "/", "/subscriptions/s", f"{COMPUTE}/images", f"{COMPUTE}/images//", f"x{COMPUTE}/images/i"]
)
def test_other_texts_are_no_id(text: str):
    with pytest.raises(MalformedId):
        ResourceId.parse(text)
