from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class BindRequest(_message.Message):
    __slots__ = ["user_data"]
    USER_DATA_FIELD_NUMBER: _ClassVar[int]
    user_data: str
    def __init__(self, user_data: _Optional[str] = ...) -> None: ...

class BindResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class StateRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class StateResponse(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...
