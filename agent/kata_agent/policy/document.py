"""Requests as the documents that rules see as `input`.

Original field names but `type_` for `type`; every field is there, absent messages as null, enumerations as
numbers, bytes as lists of numbers. Rules written for upstream's agent depend on it.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google._upb._message import FieldDescriptor as UpbFieldDescriptor
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

    from kata_protos.agent_pb2 import CopyFileRequest

if TYPE_CHECKING:
    Field = FieldDescriptor | UpbFieldDescriptor

Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]

_RENAMED = {"type": "type_"}  # a word of Rust's
_FILE_TYPES = {stat.S_IFREG: "Regular", stat.S_IFDIR: "Directory", stat.S_IFLNK: "Symlink"}


def of(request: Message) -> Json:
    """The document of a request."""
    if request.DESCRIPTOR.name == "CopyFileRequest":
        return _copy_file(request)  # type: ignore[arg-type] # as its name says
    return _message(request)


def _copy_file(request: CopyFileRequest) -> Json:
    """Instead of its data, what kind of file it is and what a link leads to."""
    kind = _FILE_TYPES.get(stat.S_IFMT(request.file_mode), "Unknown")
    document = _message(request, without=("data",))
    target = request.data.decode(errors="replace") if kind == "Symlink" else ""
    return {**document, "file_type": kind, "symlink_target": target}


def _message(message: Message, without: tuple[str, ...] = ()) -> dict[str, Json]:
    document: dict[str, Json] = {}
    for field in message.DESCRIPTOR.fields:
        if field.name in without:
            continue
        value = getattr(message, field.name)
        oneof = field.containing_oneof
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            kind = field.message_type.fields_by_name["value"]
            document[_name(field)] = {str(key): _value(kind, value[key]) for key in value}
        elif isinstance(field.default_value, list):  # repeated, in every release of protobuf's
            document[_name(field)] = [_value(field, each) for each in value]
        elif (field.message_type is not None or oneof is not None) and not message.HasField(field.name):
            document.setdefault(_name(field) if oneof is None or _is_optional(field) else oneof.name, None)
        elif oneof is not None and not _is_optional(field):
            document[oneof.name] = {field.name: _value(field, value)}
        else:
            document[_name(field)] = _value(field, value)
    return document


def _is_optional(field: Field) -> bool:
    """Whether it is a field marked `optional`, whose oneof is none but in name."""
    return field.containing_oneof is not None and field.containing_oneof.name == f"_{field.name}"


def _name(field: Field) -> str:
    return _RENAMED.get(field.name, field.name)


def _value(field: Field, value: object) -> Json:
    if field.message_type is not None:
        return _message(value)  # type: ignore[arg-type] # as its descriptor says
    if isinstance(value, bytes):
        return list(value)
    assert isinstance(value, bool | int | float | str)
    return value
