"""protoc with our plug-in, and the code that comes out, at work."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.compiler import plugin_pb2
from google.protobuf.empty_pb2 import Empty

from kata_py.ttrpc import codegen
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from kata_py.ttrpc.testing import channel

REPOSITORY = Path(__file__).resolve().parents[3]
PROTO = Path(__file__).with_name("catalogue.proto")
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """The folder with package `shop`: the messages and the stubs of catalogue.proto."""
    root = tmp_path_factory.mktemp("generated")
    (root / "shop").mkdir()
    (root / "shop" / "__init__.py").touch()
    shutil.copy(PROTO, root / "shop" / "catalogue.proto")
    plugin = f"--plugin={BIN}/protoc-gen-ttrpc-python"
    outs = [f"--{kind}_out={root}" for kind in ("python", "pyi", "ttrpc-python")]
    subprocess.run(["protoc", f"-I{root}", plugin, *outs, "shop/catalogue.proto"], cwd=root, check=True, timeout=60)
    return root


@pytest.fixture(scope="module")
def shop(generated):
    sys.path.insert(0, str(generated))
    yield importlib.import_module("shop.catalogue_pb2"), importlib.import_module("shop.catalogue_ttrpc")
    sys.path.remove(str(generated))


@pytest.fixture
def catalogue(shop):
    messages, stubs = shop

    class Catalogue(stubs.CatalogueService):
        def __init__(self):
            self.things = {}

        async def Find(self, request, context):
            if request.name not in self.things:
                raise StatusError(Code.NOT_FOUND, f"no thing is called {request.name}")
            return self.things[request.name]

        async def Remember(self, request, context):
            self.things[request.name] = request
            return Empty()

        async def List(self, request, context):
            for thing in self.things.values():
                yield thing

        async def Import(self, requests, context):
            async for thing in requests:
                self.things[thing.name] = thing
            return messages.Count(number=len(self.things))

        async def Match(self, requests, context):
            async for query in requests:
                if query.name in self.things:
                    yield self.things[query.name]

    return Catalogue()


async def test_unary_methods_take_and_give_messages(shop, catalogue):
    messages, stubs = shop
    async with channel(catalogue) as client:
        calls = stubs.CatalogueClient(client)
        assert await calls.Remember(messages.Thing(name="lamp", picture=b"*"), timeout=5) == Empty()
        assert (await calls.Find(messages.Query.ByName(name="lamp"))).picture == b"*"
        with pytest.raises(StatusError, match="NOT_FOUND: no thing is called chair"):
            await calls.Find(messages.Query.ByName(name="chair"))


async def test_streaming_methods_take_and_give_messages(shop, catalogue):
    messages, stubs = shop
    async with channel(catalogue) as client:
        calls = stubs.CatalogueClient(client)
        async with calls.Import() as stream:
            for name in ("lamp", "", "table"):
                await stream.send(messages.Thing(name=name))
            stream.close_send()
            assert (await stream.response()).number == 3
        async with calls.List(Empty()) as stream:
            assert [thing.name async for thing in stream] == ["lamp", "", "table"]
        async with calls.Match(timeout=5) as stream:
            for name in ("table", "chair", "lamp"):
                await stream.send(messages.Query.ByName(name=name))
            stream.close_send()
            assert [thing.name async for thing in stream] == ["table", "lamp"]


def test_modules_of_one_name_are_told_apart_by_their_paths():
    request = plugin_pb2.CodeGeneratorRequest(file_to_generate=["c.proto"])
    for name in ("a/x.proto", "b/x.proto"):
        file = request.proto_file.add(name=name, package=name[0])
        file.message_type.add(name="M")
    service = request.proto_file.add(name="c.proto").service.add(name="S")
    service.method.add(name="Turn", input_type=".a.M", output_type=".b.M")
    (stub,) = codegen.generate(request).file
    assert "from a import x_pb2 as a_x_pb2" in stub.content
    assert "def Turn(self, request: a_x_pb2.M, context: Context) -> b_x_pb2.M:" in stub.content
    assert 'ttrpc_name = "S"' in stub.content
    compile(stub.content, stub.name, "exec")


def test_a_service_that_lacks_a_method_cannot_be_made(shop):
    _, stubs = shop

    class Half(stubs.StockService):
        pass

    with pytest.raises(TypeError, match="Total"):
        Half()


def test_names_and_comments_are_the_proto_files(shop):
    _, stubs = shop
    assert stubs.CatalogueService.ttrpc_name == "shop.v1.Catalogue"
    assert stubs.StockService.ttrpc_name == "shop.v1.StockService"
    assert stubs.CatalogueService.__doc__ == "Sells things."
    assert stubs.CatalogueService.Find.__doc__.splitlines()[0] == "Finds a thing by its name."
    assert stubs.CatalogueService.List.__doc__ == "shop.v1.Catalogue/List."
    assert stubs.StockClient.Total.__doc__ == "shop.v1.StockService/Total."


def test_stubs_import_nothing_of_the_library(generated):
    code = "import sys, shop.catalogue_ttrpc; sys.exit(any(name.startswith('kata_py') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], cwd=generated, check=True, timeout=60)


def test_stubs_are_typed_strictly(generated):
    (generated / "user.py").write_text(
        "from shop import catalogue_pb2, catalogue_ttrpc\n"
        "from kata_py.ttrpc.client import Client\n"
        "async def names(client: Client) -> list[str]:\n"
        "    calls = catalogue_ttrpc.CatalogueClient(client)\n"
        "    async with calls.Match() as stream:\n"
        "        await stream.send(catalogue_pb2.Query.ByName(name='x'))\n"
        "        return [thing.name async for thing in stream]\n"
        "async def wrong(client: Client) -> int:\n"
        "    return await catalogue_ttrpc.StockClient(client).Total(7)\n"
    )
    mypy = [BIN / "mypy", "--strict", "--config-file=", "user.py", "shop/catalogue_ttrpc.py"]
    done = subprocess.run(mypy, cwd=generated, capture_output=True, text=True, timeout=100)
    errors = [line for line in done.stdout.splitlines() if "error:" in line and "_pb2.pyi" not in line]
    assert len(errors) == 2, done.stdout + done.stderr
    assert all(line.startswith("user.py:9:") for line in errors), "the one wrong line, twice wrong"


@pytest.fixture
def checkout(tmp_path):
    """A checkout of the tools and the .proto files, with a .venv."""
    (tmp_path / "tools").mkdir()
    shutil.copy(REPOSITORY / "tools" / "generate-protos", tmp_path / "tools")
    for folder in ("protos", "tests/cri/proto"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".venv").symlink_to(BIN.parent)
    return tmp_path


def generate(checkout, *arguments):
    command = [checkout / "tools" / "generate-protos", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_the_committed_code_is_what_the_proto_files_say(checkout):
    done = generate(checkout, "--check")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_code_that_differs_is_shown_and_made_anew(checkout):
    stub = checkout / "protos" / "kata_protos" / "health_ttrpc.py"
    right = stub.read_text()
    stub.write_text(right.replace("grpc.Health", "grpc.Wealth"))
    (checkout / "protos" / "kata_protos" / "forgotten_pb2.py").write_text("# of a file that is gone\n")
    (checkout / "protos" / "kata_protos" / "oci_pb2.pyi").unlink()
    done = generate(checkout, "--check")
    assert done.returncode == 1
    assert '-    ttrpc_name = "grpc.Wealth"' in done.stdout
    assert '+    ttrpc_name = "grpc.Health"' in done.stdout
    assert "-# of a file that is gone" in done.stdout
    assert "+++ generated/protos/kata_protos/oci_pb2.pyi" in done.stdout
    assert "make protos" in done.stderr
    assert generate(checkout).returncode == 0
    assert stub.read_text() == right
    assert generate(checkout, "--check").returncode == 0
