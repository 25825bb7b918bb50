from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GetInfoRequest(_message.Message):
    __slots__ = ["PodName", "PodNamespace", "Wait"]
    PODNAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PODNAME_FIELD_NUMBER: _ClassVar[int]
    PodName: str
    PodNamespace: str
    WAIT_FIELD_NUMBER: _ClassVar[int]
    Wait: bool
    def __init__(self, PodName: _Optional[str] = ..., PodNamespace: _Optional[str] = ..., Wait: bool = ...) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ["VMID"]
    VMID: str
    VMID_FIELD_NUMBER: _ClassVar[int]
    def __init__(self, VMID: _Optional[str] = ...) -> None: ...
