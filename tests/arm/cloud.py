"""What the fake ARM holds: a resource group's machines and their parts, and what a machine needs beside them."""

from __future__ import annotations

import base64
import ipaddress
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

Tree = dict[str, Any]

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
GROUP = "pods"
REGION = "eastus"
ROOT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
SUBNET = f"{ROOT}/Microsoft.Network/virtualNetworks/vnet/subnets/worker"
SECURITY_GROUP = f"{ROOT}/Microsoft.Network/networkSecurityGroups/nsg"
IMAGE = f"{ROOT}/Microsoft.Compute/galleries/gallery/images/podvm/versions/1.0.0"
PLAIN_IMAGE = f"{ROOT}/Microsoft.Compute/images/plain"
COMMUNITY_IMAGE = "/CommunityGalleries/cocopodvm-d0e4f35f/Images/podvm_image0/Versions/1.0.0"
SHARED_IMAGE = f"/SharedGalleries/{SUBSCRIPTION}-GALLERY/Images/podvm/Versions/1.0.0"

PATHS = {
    "virtualMachines": "Microsoft.Compute/virtualMachines",
    "networkInterfaces": "Microsoft.Network/networkInterfaces",
    "disks": "Microsoft.Compute/disks",
    "publicIPAddresses": "Microsoft.Network/publicIPAddresses",
}


class Refusal(Exception):
    """ARM's answer to what it does not do."""

    def __init__(
        self, status: int, code: str, message: str = "", *, headers: Mapping[str, str] | None = None,
        details: list[Tree] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message or f"{code} happened"
        self.headers = dict(headers or {})
        self.details = details

    def error(self) -> Tree:
        """The body's `error`."""
        return {"code": self.code, "message": self.message} | ({"details": self.details} if self.details else {})


@dataclass
class Operation:
    """Something that takes time: so many looks at it until it is done.

    Attributes:
        looks: How many are left.
        finish: What is done at the end, however it ends.
        failure: What it ends with; None succeeds.
        start: What is done at the first look.
        result: What is answered at the end, where something is.
    """

    looks: int
    finish: Callable[[], None]
    failure: Refusal | None = None
    start: Callable[[], None] | None = None
    status: str = "InProgress"
    result: Tree | None = None

    def look(self) -> None:
        """Come nearer to the end."""
        if self.status != "InProgress":
            return
        if self.start is not None:
            self.start()
            self.start = None
        self.looks -= 1
        if self.looks <= 0:
            self.end(self.failure)

    def end(self, failure: Refusal | None) -> None:
        """End."""
        self.failure = failure
        self.status = "Succeeded" if failure is None else "Failed"
        self.finish()


@dataclass
class Cloud:
    """The resource group.

    Attributes:
        resources: By kind and lower-case name, as trees of the answers.
        bodies: The bodies of all machines that were asked for, as sent.
        shortages: By size and zone ("" for none): what asking for such a machine ends with.
        spot_shortage: What asking for a spot machine ends with; None for what the others do.
        at_once: Whether a shortage is the answer to the request itself, and not of its operation.
        disk_inherits_tags: Whether a disk gets its machine's tags.
        leaves_parts: Whether a machine's parts stay when it is deleted, against their deleteOption.
        reserved: How often an interface is still reserved when it shall be deleted.
        undeleted: What the next deletions, which begin well, end with.
        looks: How many looks an operation takes.
        grants: What the caller may do, by the end of a scope's id ("" for all others): of each role, actions and what
            is taken out of them.
    """

    resources: dict[str, dict[str, Tree]] = field(default_factory=lambda: {kind: {} for kind in PATHS})
    bodies: list[Tree] = field(default_factory=list)
    shortages: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    spot_shortage: Refusal | None = None
    at_once: bool = False
    disk_inherits_tags: bool = True
    leaves_parts: bool = False
    reserved: int = 0
    undeleted: list[Refusal] = field(default_factory=list)
    looks: int = 2
    operations: dict[str, Operation] = field(default_factory=dict)
    pending: dict[str, Operation] = field(default_factory=dict)
    cores_used: int = 10
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    addresses: itertools.count[int] = field(default_factory=lambda: itertools.count(4))
    subnet_size: int = 24
    grants: dict[str, list[tuple[list[str], list[str]]]] = field(default_factory=lambda: {"": [(["*"], [])]})

    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return not any(self.resources.values())

    def names(self) -> dict[str, list[str]]:
        """What there is, for messages."""
        return {kind: [tree["name"] for tree in trees.values()] for kind, trees in self.resources.items() if trees}

    def get(self, kind: str, name: str) -> Tree:
        """A resource; to look at a machine brings its operation nearer to the end.

        Raises:
            Refusal: It is not there.
        """
        if kind == "virtualMachines" and (operation := self.pending.get(name.lower())) is not None:
            operation.look()
        try:
            return self.resources[kind][name.lower()]
        except KeyError:
            raise Refusal(
                404,
                "ResourceNotFound",
                f"The Resource '{PATHS[kind]}/{name}' was not found.",
            ) from None

    def add(self, kind: str, name: str, tree: Tree) -> Tree:
        """Add a resource."""
        whole = {"id": _id(kind, name), "name": name, "type": PATHS[kind], "location": REGION, **tree}
        self.resources[kind][name.lower()] = whole
        return whole

    def put_machine(self, name: str, body: Tree, *, only_new: bool) -> tuple[Tree, str]:
        """Begin to make a machine; gives it and its operation's id.

        Raises:
            Refusal: It cannot be made.
        """
        if only_new and name.lower() in self.resources["virtualMachines"]:
            raise Refusal(412, "PreconditionFailed", "The condition '*' on header 'If-None-Match' was not satisfied.")
        self._examine(name, body)
        self.bodies.append(body)
        properties = body["properties"]
        place = (properties["hardwareProfile"]["vmSize"], *body.get("zones", [""]))
        spot = self.spot_shortage if properties.get("priority") == "Spot" else None
        failure = spot or self.shortages.get((place[0], place[1]))
        if failure is not None and self.at_once:
            raise failure
        interfaces = [
            self._interface(name, each) for each in properties["networkProfile"]["networkInterfaceConfigurations"]
        ]
        answer = {key: value for key, value in properties.items() if key not in ("userData", "networkProfile")}
        machine = self.add(
            "virtualMachines",
            name,
            {
                **{key: value for key, value in body.items() if key not in ("properties", "location")},
                "etag": f'"{next(self.numbers)}"',
                "properties": {
                    **answer,
                    "provisioningState": "Creating",
                    "vmId": f"00000000-0000-0000-0000-{next(self.numbers):012}",
                    "networkProfile": {
                        "networkInterfaces": [
                            {"id": each["id"], "properties": {"primary": index == 0, "deleteOption": "Delete"}}
                            for index, each in enumerate(interfaces)
                        ]
                    },
                },
            },
        )

        def finish() -> None:
            machine["properties"]["provisioningState"] = operation.status
            if self.pending.get(name.lower()) is operation:
                del self.pending[name.lower()]

        operation = Operation(self.looks, finish, failure, start=lambda: self._disk(machine), result=machine)
        self.pending[name.lower()] = operation
        return machine, self._operation(operation)

    def delete(self, kind: str, name: str) -> str | None:
        """Begin to delete; gives the operation's id, None if it is not there.

        Raises:
            Refusal: Something uses it.
        """
        tree = self.resources[kind].get(name.lower())
        if tree is None:
            return None
        properties = tree["properties"]
        if kind == "networkInterfaces":
            if "virtualMachine" in properties:
                raise Refusal(400, "NicInUse", f"Network Interface {tree['id']} is used by existing resource.")
            if self.reserved:
                self.reserved -= 1
                raise Refusal(
                    400,
                    "NicReservedForAnotherVm",
                    "Nic(s) in request is reserved for another VM for 180 s.",
                )
        if kind == "publicIPAddresses" and "ipConfiguration" in properties:
            raise Refusal(400, "PublicIPAddressCannotBeDeleted", f"Public IP address {tree['id']} can not be deleted.")
        if kind == "disks" and "managedBy" in tree:
            raise Refusal(409, "OperationNotAllowed", f"Disk {name} is attached to VM {tree['managedBy']}.")
        if kind == "virtualMachines" and (making := self.pending.get(name.lower())) is not None:
            making.end(Refusal(409, "OperationPreempted", "The operation has been preempted by another."))
        properties["provisioningState"] = "Deleting"

        def finish() -> None:
            if operation.failure is not None:
                properties["provisioningState"] = "Failed"
                return
            self.resources[kind].pop(name.lower(), None)
            if kind == "virtualMachines":
                self._let_go(tree)
            elif kind == "networkInterfaces":
                for address in self.resources["publicIPAddresses"].values():
                    if address["properties"].get("ipConfiguration", {}).get("id", "").startswith(tree["id"]):
                        del address["properties"]["ipConfiguration"]

        operation = Operation(self.looks, finish, self.undeleted.pop(0) if self.undeleted else None)
        return self._operation(operation)

    def tag_disk(self, name: str, tags: Tree) -> Tree:
        """Change a disk's tags."""
        disk = self.get("disks", name)
        disk["tags"] = tags
        return disk

    def begin(self, operation: Operation) -> str:
        """Begin an operation; gives its id."""
        return self._operation(operation)

    def _operation(self, operation: Operation) -> str:
        number = f"{next(self.numbers):08}"
        self.operations[number] = operation
        return number

    def _interface(self, machine: str, asked: Tree) -> Tree:
        properties = asked["properties"]
        configuration = properties["ipConfigurations"][0]
        used = len(self.resources["networkInterfaces"])
        network = ipaddress.ip_network(f"10.0.0.0/{self.subnet_size}")
        if used >= network.num_addresses - 5:
            raise Refusal(400, "SubnetIsFull", "Subnet worker does not have enough capacity for 1 IP addresses.")
        name = asked["name"]
        inner: Tree = {
            "privateIPAddress": str(network[next(self.addresses)]),
            "privateIPAllocationMethod": "Dynamic",
            "privateIPAddressVersion": "IPv4",
            "primary": True,
            "provisioningState": "Succeeded",
            "subnet": configuration["properties"]["subnet"],
        }
        own = f"{_id('networkInterfaces', name)}/ipConfigurations/{configuration['name']}"
        if (public := configuration["properties"].get("publicIPAddressConfiguration")) is not None:
            address = self.add(
                "publicIPAddresses",
                public["name"],
                {
                    "tags": public.get("tags", {}),
                    "sku": {"name": public["sku"]["name"], "tier": "Regional"},
                    "properties": {
                        "provisioningState": "Succeeded",
                        "ipAddress": f"20.0.0.{next(self.numbers)}",
                        "publicIPAddressVersion": "IPv4",
                        "publicIPAllocationMethod": public["properties"]["publicIPAllocationMethod"],
                        "deleteOption": public["properties"]["deleteOption"],
                        "ipConfiguration": {"id": own},
                    },
                },
            )
            inner["publicIPAddress"] = {"id": address["id"]}
        group = (
            {"networkSecurityGroup": properties["networkSecurityGroup"]} if "networkSecurityGroup" in properties else {}
        )
        return self.add(
            "networkInterfaces",
            name,
            {
                "tags": asked.get("tags", {}),
                "etag": 'W/"1"',
                "properties": {
                    "provisioningState": "Succeeded",
                    "primary": properties["primary"],
                    "virtualMachine": {"id": _id("virtualMachines", machine)},
                    "ipConfigurations": [{"id": own, "name": configuration["name"], "properties": inner}],
                    **group,
                },
            },
        )

    def _disk(self, machine: Tree) -> None:
        asked = machine["properties"]["storageProfile"]["osDisk"]
        tree = {
            "managedBy": machine["id"],
            "properties": {
                "creationData": {"createOption": "FromImage"},
                "provisioningState": "Succeeded",
                "diskState": "Attached",
                "osType": "Linux",
                "diskSizeGB": asked.get("diskSizeGB", 30),
            },
            "sku": {"name": asked["managedDisk"]["storageAccountType"], "tier": "Premium"},
        }
        if self.disk_inherits_tags:
            tree["tags"] = dict(machine["tags"])
        disk = self.add("disks", asked["name"], tree)
        asked["managedDisk"]["id"] = disk["id"]

    def _let_go(self, machine: Tree) -> None:
        parts = {each["id"].lower() for each in machine["properties"]["networkProfile"]["networkInterfaces"]}
        for interface in list(self.resources["networkInterfaces"].values()):
            if interface["id"].lower() not in parts:
                continue
            interface["properties"].pop("virtualMachine", None)
            if self.leaves_parts:
                continue
            del self.resources["networkInterfaces"][interface["name"].lower()]
            for address in list(self.resources["publicIPAddresses"].values()):
                if address["properties"].get("ipConfiguration", {}).get("id", "").startswith(interface["id"]):
                    del self.resources["publicIPAddresses"][address["name"].lower()]
        for disk in list(self.resources["disks"].values()):
            if disk.get("managedBy") == machine["id"]:
                del disk["managedBy"]
                disk["properties"]["diskState"] = "Unattached"
                if not self.leaves_parts:
                    del self.resources["disks"][disk["name"].lower()]

    def _examine(self, name: str, body: Tree) -> None:
        """What Azure looks at before it begins."""
        properties = body["properties"]
        image = properties["storageProfile"]["imageReference"]
        if (image.get("id") or image.get("communityGalleryImageId")) not in (IMAGE, PLAIN_IMAGE, COMMUNITY_IMAGE):
            raise Refusal(404, "ImageNotFound", f"The image {image} was not found.")
        system = properties["osProfile"]
        if len(name) > 64 or system["computerName"] != name or system["adminUsername"] in ("root", "admin"):
            raise Refusal(400, "InvalidParameter", "computerName or adminUsername is not valid.")
        linux = system["linuxConfiguration"]
        key = linux["ssh"]["publicKeys"][0]
        if not isinstance(load_ssh_public_key(key["keyData"].encode()), RSAPublicKey) or key["path"] != (
            f"/home/{system['adminUsername']}/.ssh/authorized_keys"
        ):
            raise Refusal(400, "InvalidParameter", "linuxConfiguration.ssh.publicKeys is invalid.")
        if len(properties["userData"]) > 65536 or not base64.b64decode(properties["userData"], validate=True):
            raise Refusal(400, "InvalidParameter", "userData is too long.")
        profile = properties["networkProfile"]
        if profile["networkApiVersion"] not in ("2020-11-01", "2022-11-01"):
            raise Refusal(400, "InvalidParameter", "networkApiVersion")
        for each in profile["networkInterfaceConfigurations"]:
            if each["properties"]["ipConfigurations"][0]["properties"]["subnet"]["id"] != SUBNET:
                raise Refusal(400, "InvalidResourceReference", "Resource of the subnet was not found.")
        security = properties.get("securityProfile", {}).get("securityType")
        encryption = properties["storageProfile"]["osDisk"]["managedDisk"].get("securityProfile")
        if (security == "ConfidentialVM") != (encryption is not None):
            raise Refusal(400, "InvalidParameter", "securityEncryptionType goes with securityType ConfidentialVM.")
        size = properties["hardwareProfile"]["vmSize"]
        if security == "ConfidentialVM" and not size.startswith("Standard_DC"):
            raise Refusal(400, "BadRequest", f"The VM size {size} is not supported with security type ConfidentialVM.")
        if properties.get("evictionPolicy") and properties.get("priority") != "Spot":
            raise Refusal(400, "InvalidParameter", "evictionPolicy goes with priority Spot.")


def _id(kind: str, name: str) -> str:
    return f"{ROOT}/{PATHS[kind]}/{name}"
