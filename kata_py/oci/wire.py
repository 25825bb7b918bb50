"""OCI documents to and from the messages the agent takes (kata's oci.proto).

A field has the specification's name, but for the case of its first word: `oomScoreAdj` is `OOMScoreAdj` there. Most
fields cannot tell zero from missing: zero and empty are read back as missing, except what the specification
requires. In a rule of the device cgroup a missing number matches all and zero is a device's, so there missing is
sent as -1, which upstream's agent takes for missing too.

The guest loads this module, where every import costs: the documents' types are for the type checker alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from google.protobuf.message import Message

from kata_protos import oci_pb2
from kata_py.oci.errors import SpecError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from kata_py.oci.spec import LinuxResources, Process, Spec

_M = TypeVar("_M", bound=Message)

_LOG = logging.getLogger(__name__)

# Go's way with names: an acronym at the beginning is lower-cased as a whole.
_FIRST_WORD = re.compile(r"^(?:[A-Z]+(?![a-z])|[A-Z])")
_IRREGULAR = {"Version": "ociVersion", "errnoret": "errnoRet", "Pagesize": "pageSize"}
_OTHER_SYSTEMS = ("Solaris", "Windows")

# What a document has even if it is zero: the specification requires it (and crun the numbers of a device).
_REQUIRED = {
    "Spec": ("Version",),
    "Process": ("User", "Args", "Cwd"),
    "Box": ("Height", "Width"),
    "User": ("UID", "GID"),
    "POSIXRlimit": ("Type", "Hard", "Soft"),
    "Root": ("Path",),
    "Mount": ("destination",),
    "Hook": ("Path",),
    "LinuxIDMapping": ("HostID", "ContainerID", "Size"),
    "LinuxNamespace": ("Type",),
    "LinuxDevice": ("Path", "Type", "Major", "Minor"),
    "LinuxDeviceCgroup": ("Allow",),
    "LinuxPids": ("Limit",),
    "LinuxHugepageLimit": ("Pagesize", "Limit"),
    "LinuxWeightDevice": ("Major", "Minor"),
    "LinuxThrottleDevice": ("Major", "Minor", "Rate"),
    "LinuxInterfacePriority": ("Name", "Priority"),
    "LinuxSeccomp": ("DefaultAction",),
    "LinuxSyscall": ("Names", "Action"),
    "LinuxSeccompArg": ("Index", "Value", "Op"),
}


def to_agent(spec: Spec) -> oci_pb2.Spec:
    """Put a config.json into the agent's form; keys that have no place there are left out.

    Raises:
        SpecError: A value does not fit: a number out of range, or a text that is no Unicode.
    """
    return _filled(oci_pb2.Spec(), spec)


def process_to_agent(process: Process) -> oci_pb2.Process:
    """Put a process into the agent's form. Raises SpecError as `to_agent` does."""
    return _filled(oci_pb2.Process(), process)


def resources_to_agent(resources: LinuxResources) -> oci_pb2.LinuxResources:
    """Put resources into the agent's form. Raises SpecError as `to_agent` does."""
    return _filled(oci_pb2.LinuxResources(), resources)


def from_agent(message: oci_pb2.Spec) -> Spec:
    """Read a config.json back: complete as the specification has it, and fit to be given to an OCI runtime.

    Nothing is adapted to this guest: namespaces, paths and limits are as they were sent.
    """
    return cast("Spec", _document(message))


def process_from_agent(message: oci_pb2.Process) -> Process:
    """Read a process back."""
    return cast("Process", _document(message))


def resources_from_agent(message: oci_pb2.LinuxResources) -> LinuxResources:
    """Read resources back."""
    return cast("LinuxResources", _document(message))


def _filled(message: _M, document: Mapping[str, Any]) -> _M:
    _fill(message, document, "")
    return message


def _fill(message: Message, document: Mapping[str, Any], path: str) -> None:
    if isinstance(message, oci_pb2.LinuxDeviceCgroup):
        message.Major = message.Minor = -1
    fields = _fields(message.DESCRIPTOR)
    for key, value in document.items():
        inner = f"{path}.{key}" if path else key
        field = fields.get(key)
        if field is None:
            _LOG.debug("%s has no place in the agent's protocol and is left out", inner)
            continue
        try:
            _set(message, field, value, inner)
        except (TypeError, ValueError) as error:
            raise SpecError(f"does not fit the agent's protocol: {error}", path=inner) from error


def _set(message: Message, field: FieldDescriptor, value: Any, path: str) -> None:
    kind = field.message_type
    if kind is None and not isinstance(value, list):
        setattr(message, field.name, value)
        return
    place = getattr(message, field.name)
    if kind is None:
        place.extend(value)
    elif kind.GetOptions().map_entry:
        place.update(value)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _fill(place.add(), item, f"{path}[{index}]")
    else:
        place.SetInParent()
        _fill(place, value, path)


def _document(message: Message) -> dict[str, Any]:
    document = {_key(name): _plain(getattr(message, name)) for name in _REQUIRED.get(message.DESCRIPTOR.name, ())}
    for field, value in message.ListFields():
        plain = _plain(value)
        # Some runtimes send an empty message for what is missing; only no capabilities at all are meant so.
        if isinstance(value, Message) and not any(plain.values()) and field.name != "Capabilities":
            continue
        if field.name not in _OTHER_SYSTEMS:
            document[_key(field.name)] = plain
    if isinstance(message, oci_pb2.LinuxDeviceCgroup):
        _leave_out_wildcards(document)
    elif isinstance(message, oci_pb2.LinuxCapabilities):
        # runtime-rs sends the names with JSON's quotes.
        document = {which: [name.strip('"') for name in names] for which, names in document.items()}
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return _document(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value if isinstance(value, (str, int)) else [_plain(item) for item in value]


def _leave_out_wildcards(rule: dict[str, Any]) -> None:
    """No device has the major number 0; upstream's runtime sends a missing number as 0."""
    if rule.get("major", 0) <= 0:
        rule.pop("major", None)
    if rule.get("minor", 0) < 0:
        del rule["minor"]
    elif "major" in rule:
        rule.setdefault("minor", 0)


@cache
def _key(name: str) -> str:
    """The specification's spelling of a field's name."""
    return _IRREGULAR.get(name) or _FIRST_WORD.sub(lambda word: word[0].lower(), name)


@cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    return {_key(field.name): field for field in descriptor.fields if field.name not in _OTHER_SYSTEMS}
