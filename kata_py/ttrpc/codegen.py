"""The protoc plug-in `protoc-gen-ttrpc-python`: typed stubs for the services of a .proto file.

For every service of `foo.proto`, `foo_ttrpc.py` gets a base class to serve it and a client to call it:
`protoc -I protos --ttrpc-python_out=protos protos/kata_protos/foo.proto`. The file lies beside protoc's own
`foo_pb2.py`, whose import path follows from the path given to protoc. Of this package, stubs import types only.
This is the one module here that needs protobuf.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, MethodDescriptorProto

_SERVICE_FIELD = 6  # of FileDescriptorProto, in paths of source_code_info
_METHOD_FIELD = 2  # of ServiceDescriptorProto


class MessageClass(NamedTuple):
    """Where a message's class is found.

    Attributes:
        module: Import path of the module, such as `kata_protos.agent_pb2`.
        name: Its name in the module, with a dot where it is nested.
    """

    module: str
    name: str


def main() -> None:
    """Read protoc's request from stdin, write the answer to stdout."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """The stubs that protoc asks for: one per file that has services."""
    response = plugin_pb2.CodeGeneratorResponse()
    response.supported_features = plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    classes = {name: place for file in request.proto_file for name, place in _message_classes(file)}
    for file in request.proto_file:
        if file.name in request.file_to_generate and file.service:
            content = "\n".join(_stub(file, classes)) + "\n"
            response.file.add(name=f"{file.name.removesuffix('.proto')}_ttrpc.py", content=content)
    return response


def _message_classes(file: FileDescriptorProto) -> Iterator[tuple[str, MessageClass]]:
    module = file.name.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"
    package = f".{file.package}" if file.package else ""

    def walk(messages: Iterable[DescriptorProto], scope: str) -> Iterator[tuple[str, MessageClass]]:
        for message in messages:
            name = scope + message.name
            yield f"{package}.{name}", MessageClass(module, name)
            yield from walk(message.nested_type, f"{name}.")

    return walk(file.message_type, "")


def _stub(file: FileDescriptorProto, classes: Mapping[str, MessageClass]) -> Iterator[str]:
    methods = [method for service in file.service for method in service.method]
    messages = {name: classes[name] for method in methods for name in (method.input_type, method.output_type)}
    modules = _aliases({message.module for message in messages.values()})
    names = {name: f"{modules[message.module]}.{message.name}" for name, message in messages.items()}
    streams = any(method.client_streaming or method.server_streaming for method in methods)
    yield f'"""The services of {file.name}. Written by protoc-gen-ttrpc-python; do not edit."""'
    yield ""
    yield "from __future__ import annotations"
    yield ""
    yield "import abc"
    yield "from typing import TYPE_CHECKING"
    yield ""
    for module, alias in modules.items():
        package, _, name = module.rpartition(".")
        statement = f"from {package} import {name}" if package else f"import {name}"
        yield statement if alias == name else f"{statement} as {alias}"
    yield ""
    yield "if TYPE_CHECKING:"
    yield f"    from collections.abc import {'AsyncGenerator, AsyncIterator, ' if streams else ''}Mapping"
    if streams:
        yield "    from contextlib import AbstractAsyncContextManager"
    yield ""
    yield f"    from kata_py.ttrpc.client import {'Client, ClientStream' if streams else 'Caller'}"
    yield "    from kata_py.ttrpc.context import Context"
    yield "    from kata_py.ttrpc.service import Entry"
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    for index, service in enumerate(file.service):
        noun = service.name.removesuffix("Service")
        full_name = ".".join(filter(None, (file.package, service.name)))
        docs = [
            _doc(comments.get((_SERVICE_FIELD, index, _METHOD_FIELD, number), ""), f"{full_name}/{method.name}.")
            for number, method in enumerate(service.method)
        ]
        yield ""
        yield ""
        yield f"class {noun}Service(abc.ABC):"
        yield from _indent(_doc(comments.get((_SERVICE_FIELD, index), ""), f"Serves {full_name}."))
        yield ""
        yield f'    ttrpc_name = "{full_name}"'
        for method, doc in zip(service.method, docs, strict=True):
            yield ""
            yield "    @abc.abstractmethod"
            yield f"    {_handler_signature(method, names)}"
            yield from _indent(doc, 8)
        yield ""
        yield "    def ttrpc_methods(self) -> Mapping[str, Entry]:"
        yield '        """By name: handler, request type, whether the client streams, whether the server does."""'
        yield "        return {"
        for method in service.method:
            kind = f"{method.client_streaming}, {method.server_streaming}"
            yield f'            "{method.name}": (self.{method.name}, {names[method.input_type]}, {kind}),'
        yield "        }"
        yield ""
        yield ""
        yield f"class {noun}Client:"
        yield f'    """Calls {full_name} over a connection, which stays its owner\'s."""'
        yield ""
        yield f"    def __init__(self, client: {'Client' if streams else 'Caller'}) -> None:"
        yield "        self._client = client"
        for method, doc in zip(service.method, docs, strict=True):
            yield ""
            yield from _indent(_client_method(full_name, method, names, doc))


def _aliases(modules: set[str]) -> dict[str, str]:
    """The name each module is imported under: its own, or all of its path where two have the same."""
    own = {module: module.rpartition(".")[2] for module in sorted(modules)}
    taken = list(own.values())
    return {module: name if taken.count(name) == 1 else module.replace(".", "_") for module, name in own.items()}


def _handler_signature(method: MethodDescriptorProto, names: Mapping[str, str]) -> str:
    request, response = names[method.input_type], names[method.output_type]
    if method.client_streaming:
        request = f"AsyncIterator[{request}]"
    parameters = f"(self, request{'s' if method.client_streaming else ''}: {request}, context: Context)"
    if method.server_streaming:  # an asynchronous generator, so its declaration is no coroutine
        return f"def {method.name}{parameters} -> AsyncGenerator[{response}, None]:"
    return f"async def {method.name}{parameters} -> {response}:"


def _client_method(
    service: str, method: MethodDescriptorProto, names: Mapping[str, str], doc: list[str]
) -> Iterator[str]:
    request, response = names[method.input_type], names[method.output_type]
    streams = method.client_streaming or method.server_streaming
    result = f"AbstractAsyncContextManager[ClientStream[{request}, {response}]]" if streams else response
    yield f"{'' if streams else 'async '}def {method.name}("
    yield "    self,"
    if not method.client_streaming:
        yield f"    request: {request},"
    yield "    *,"
    yield "    timeout: float | None = None,"
    yield "    metadata: Mapping[str, str] | None = None,"
    yield f") -> {result}:"
    yield from _indent(doc)
    payload = "None" if method.client_streaming else "request.SerializeToString()"
    if streams:
        yield "    return self._client.stream("
        yield f'        "{service}", "{method.name}", {payload},'
        yield f"        encode={request}.SerializeToString, decode={response}.FromString,"
        yield "        timeout=timeout, metadata=metadata,"
        yield "    )"
    else:
        yield "    answer = await self._client.call("
        yield f'        "{service}", "{method.name}", {payload}, timeout=timeout, metadata=metadata'
        yield "    )"
        yield f"    return {response}.FromString(answer)"


def _doc(comment: str, default: str) -> list[str]:
    lines = [line.strip() for line in comment.strip().replace("\\", "\\\\").replace('"""', "'''").splitlines()]
    if len(lines) > 1:
        return [f'"""{lines[0]}', *lines[1:], '"""']
    return [f'"""{lines[0] if lines else default}"""']


def _indent(lines: Iterable[str], by: int = 4) -> Iterator[str]:
    return (" " * by + line if line else "" for line in lines)
