"""What the fake ARM has of images: disks that are filled page by page, managed images, a gallery's image versions."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from dataclasses import dataclass, field

from tests.arm.cloud import ROOT, Cloud, Operation, Refusal, Tree

DEFINITION = f"{ROOT}/Microsoft.Compute/galleries/gallery/images/podvm"
SIGNATURE = "a%2Bsecret%3D"  # as a signature is: quoted
_PAGE = 4 << 20  # bytes at a time
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Images:
    """Images and the disks they are made of.

    Attributes:
        cloud: Whose resource group it is.
        images: Managed images, by lower-case name.
        versions: Image versions, by name.
        pages: What was written to each disk, by lower-case name.
        contents: What each image holds, by lower-case id.
        refusals: Statuses that the next writes of pages are answered with.
        failure: What making an image ends with; None succeeds.
    """

    cloud: Cloud
    images: dict[str, Tree] = field(default_factory=dict)
    versions: dict[str, Tree] = field(default_factory=dict)
    pages: dict[str, bytearray] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    refusals: list[int] = field(default_factory=list)
    failure: Refusal | None = None

    def put_disk(self, name: str, body: Tree) -> tuple[Tree, Operation]:
        """Begin to make a disk to be filled.

        Raises:
            Refusal: It cannot be made.
        """
        creation = body["properties"]["creationData"]
        size = creation["uploadSizeBytes"]
        if creation["createOption"] != "Upload" or (size - 512) % (1 << 20):
            raise Refusal(400, "InvalidParameter", "uploadSizeBytes")
        self.pages[name.lower()] = bytearray(size)
        properties = {**body["properties"], "provisioningState": "Updating"}
        disk = self.cloud.add("disks", name, {**body, "properties": properties})

        def finish() -> None:
            properties.update(provisioningState="Succeeded", diskState="ReadyToUpload")

        return disk, Operation(2, finish, result=disk)

    def grant(self, name: str, body: Tree, url: str) -> Operation:
        """Begin to open a disk for writing.

        Raises:
            Refusal: It is not made yet, or shall not be written.
        """
        disk = self.cloud.get("disks", name)
        if disk["properties"]["provisioningState"] != "Succeeded":
            raise Refusal(409, "OperationNotAllowed", f"Disk {name} is not in a state to be opened.")
        if body["access"] != "Write":
            raise Refusal(400, "InvalidParameter", "access")

        def finish() -> None:
            disk["properties"]["diskState"] = "ActiveUpload"

        return Operation(2, finish, result={"accessSAS": f"{url}/pages/{name}?sv=1&sig={SIGNATURE}"})

    def revoke(self, name: str) -> Operation:
        """Begin to close a disk."""
        disk = self.cloud.get("disks", name)

        def finish() -> None:
            if disk["properties"].get("diskState") == "ActiveUpload":
                disk["properties"]["diskState"] = "Unattached"

        return Operation(1, finish)

    def write(self, name: str, query: str, headers: dict[str, str], data: bytes) -> int:
        """Write pages; gives the status."""
        if self.refusals:
            return self.refusals.pop(0)
        disk, pages = self.cloud.resources["disks"].get(name.lower()), self.pages.get(name.lower())
        if disk is None or pages is None or disk["properties"]["diskState"] != "ActiveUpload":
            return 403
        found = _RANGE.fullmatch(headers["Range"])
        first, last = (int(found[1]), int(found[2])) if found else (1, 1)
        if (
            query != f"sv=1&sig={SIGNATURE}&comp=page"
            or headers["x-ms-page-write"] != "update"
            or "x-ms-version" not in headers
            or (first % 512, (last + 1) % 512, last + 1 - first) != (0, 0, len(data))
            or len(data) > _PAGE
            or last >= len(pages)
            or base64.b64decode(headers["Content-MD5"]) != hashlib.md5(data).digest()
        ):
            return 400
        pages[first : last + 1] = data
        return 201

    def put_image(self, name: str, body: Tree) -> tuple[Tree, Operation]:
        """Begin to make a managed image.

        Raises:
            Refusal: Its disk is not ready, or no VHD.
        """
        source = body["properties"]["storageProfile"]["osDisk"]["managedDisk"]["id"].rpartition("/")[2].lower()
        if self.cloud.get("disks", source)["properties"]["diskState"] != "Unattached":
            raise Refusal(409, "OperationNotAllowed", "The disk is being uploaded.")
        pages = bytes(self.pages[source])
        if (cause := _no_vhd(pages)) is not None:
            raise Refusal(400, "InvalidParameter", cause)
        id = f"{ROOT}/Microsoft.Compute/images/{name}"
        image = {**body, "id": id, "name": name, "type": "Microsoft.Compute/images"}
        self.images[name.lower()] = image
        self.contents[id.lower()] = pages[:-512]
        return image, self._making(image)

    def put_version(self, name: str, body: Tree) -> tuple[Tree, Operation]:
        """Begin to make an image version of a managed image."""
        source = body["properties"]["storageProfile"]["source"]["id"].lower()
        if source not in self.contents:
            raise Refusal(404, "ResourceNotFound", source)
        id = f"{DEFINITION}/versions/{name}"
        version = {**body, "id": id, "name": name, "type": "Microsoft.Compute/galleries/images/versions"}
        self.versions[name] = version
        self.contents[id.lower()] = self.contents[source]
        return version, self._making(version)

    def _making(self, tree: Tree) -> Operation:
        tree["properties"] = {**tree["properties"], "provisioningState": "Creating"}

        def finish() -> None:
            tree["properties"]["provisioningState"] = operation.status

        operation = Operation(2, finish, self.failure, result=tree)
        return operation


def _no_vhd(pages: bytes) -> str | None:
    footer = pages[-512:]
    cookie, _, _, offset = struct.unpack_from(">8sIIQ", footer)
    size, _, kind, checksum = struct.unpack_from(">QIII", footer, 48)
    if (cookie, offset, kind) != (b"conectix", 0xFFFFFFFFFFFFFFFF, 2):
        return "the disk is no fixed VHD"
    if size != len(pages) - 512:
        return "the VHD has another size"
    if checksum != ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF:
        return "the footer's checksum is another"
    return None
