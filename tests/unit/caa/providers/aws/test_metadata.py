"""What is not set comes from the node's metadata."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator, Mapping

import pytest

from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.metadata import MetadataError, complete, fetch

MAC = "network/interfaces/macs/02:00"
ALL = {
    "mac": "02:00",
    "placement/region": "eu-central-1",
    f"{MAC}/subnet-id": "subnet-1",
    f"{MAC}/security-group-ids": "sg-1\nsg-2",
    "public-keys": "0=my-key",
}


class Metadata:
    """The node's, in memory."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.asked: list[str] = []

    async def __call__(self, path: str) -> str:
        self.asked.append(path)
        if path not in self.values:
            raise MetadataError(path)
        return self.values[path]


async def test_gaps_are_filled():
    config = await complete(AwsConfig(image="ami-1"), Metadata(ALL))
    assert config == AwsConfig(
        image="ami-1", region="eu-central-1", subnet="subnet-1", security_groups=("sg-1", "sg-2"), key_name="my-key"
    )


async def test_what_is_set_stays():
    given = AwsConfig(region="r", subnets=("subnet-9",), security_groups=("sg-9",), key_name="k")
    metadata = Metadata(ALL)
    assert await complete(given, metadata) is given
    assert metadata.asked == []
    assert (await complete(AwsConfig(region="r"), Metadata(ALL))).region == "r"
    assert (await complete(AwsConfig(subnets=("subnet-9",)), Metadata(ALL))).places() == ("subnet-9",)


async def test_a_launch_template_needs_the_region_alone():
    metadata = Metadata(ALL)
    await complete(AwsConfig(use_launch_template=True, region="r"), metadata)
    assert metadata.asked == []


async def test_what_the_metadata_do_not_tell_stays_empty():
    assert await complete(AwsConfig(), Metadata({})) == AwsConfig()
    config = await complete(AwsConfig(), Metadata({"mac": "02:00", "placement/region": "r", "public-keys": ""}))
    assert config == AwsConfig(region="r")


class _Service(http.server.BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        self._answer("secret" if self.path == "/latest/api/token" else None)

    def do_GET(self) -> None:
        known = self.headers["X-aws-ec2-metadata-token"] == "secret" and self.path == "/latest/meta-data/mac"
        self._answer("02:00" if known else None)

    def _answer(self, text: str | None) -> None:
        self.send_response(200 if text else 404)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("service")
async def test_values_are_read_with_a_token():
    assert await fetch("mac") == "02:00"
    with pytest.raises(MetadataError, match=r"nothing at .*404"):
        await fetch("nothing")
