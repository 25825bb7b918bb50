"""Where user data comes from: files, labelled disks, and clouds that answer as their documents say."""

from __future__ import annotations

import base64
import contextlib
import io
import secrets
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pycdlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_caa.errors import ForwarderError
from kata_caa.forwarder import iso9660, sources
from kata_caa.forwarder.sources import AlibabaSource, AwsSource, AzureSource, DiskSource, FileSource, GcpSource, find
from kata_caa.userdata import LENGTH_MAX

DATA = b"#cloud-config\n\xc3\xa9\n"


class Metadata:
    """A metadata service: AWS's of either version, Azure's, Google's.

    Attributes:
        requests: Method and path of each.
        answer: What AWS gives as user data.
        tokens: How AWS hands out tokens: "required", "optional", or "none", as version 1 alone.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: bytes = DATA
        self.tokens = "required"
        self.cut_short = 0
        self._tokens: dict[str, float] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                outer.requests.append(f"PUT {self.path}")
                ttl = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                if outer.tokens == "none" or self.path != "/latest/api/token":
                    self._say(404, b"no")
                elif ttl is None or not 1 <= int(ttl) <= 21_600:
                    self._say(400, b"no")
                else:
                    token = secrets.token_urlsafe(30)
                    outer._tokens[token] = time.monotonic() + int(ttl)
                    self._say(200, token.encode())

            def do_GET(self):
                outer.requests.append(f"GET {self.path}")
                self._say(*outer._get(self.path, self.headers))

            def _say(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + outer.cut_short))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.base = f"http://127.0.0.1:{self._server.server_port}"

    def _get(self, path, headers):
        match path.split("?"):
            case ["/latest/user-data"]:
                token = headers["X-aws-ec2-metadata-token"]
                if token is None and self.tokens == "required":
                    return 401, b"no"
                if token is not None and self._tokens.get(token, 0) < time.monotonic():
                    return 401, b"no"
                return (200, self.answer) if self.answer else (404, b"none")
            case ["/metadata/instance/compute/userData", query]:
                if headers["Metadata"] != "true" or query != "api-version=2021-01-01&format=text":
                    return 400, b"no"
                return 200, base64.b64encode(self.answer)
            case ["/computeMetadata/v1/instance/attributes/user-data"]:
                return (200, base64.encodebytes(self.answer)) if headers["Metadata-Flavor"] == "Google" else (403, b"")
        return 404, b"no"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def metadata():
    service = Metadata()
    yield service
    service.close()


@pytest.mark.parametrize("kind", [AwsSource, AzureSource, GcpSource])
def test_each_cloud_gives_its_user_data(kind, metadata):
    assert kind(metadata.base).read() == DATA


def test_alibaba_gives_its_user_data(metadata):
    metadata.tokens = "none"
    assert AlibabaSource(metadata.base).read() == DATA


def test_aws_is_asked_with_a_token_that_lives(metadata):
    AwsSource(metadata.base).read()
    assert metadata.requests == ["PUT /latest/api/token", "GET /latest/user-data"]


def test_aws_without_tokens_is_asked_as_of_old(metadata):
    metadata.tokens = "none"
    assert AwsSource(metadata.base).read() == DATA


def test_a_service_without_user_data_is_an_error_with_its_status(metadata):
    metadata.answer = b""
    with pytest.raises(ForwarderError, match=r"GET http://127.0.0.1:.*/latest/user-data is answered 404"):
        AwsSource(metadata.base).read()


def test_an_answer_that_is_too_long_or_too_short_is_an_error(metadata):
    metadata.answer = b"x" * (LENGTH_MAX + 1)
    with pytest.raises(ForwarderError, match=f"more than {LENGTH_MAX} bytes"):
        AwsSource(metadata.base).read()
    metadata.answer, metadata.cut_short = DATA, 7
    with pytest.raises(ForwarderError, match="7 bytes short"):
        GcpSource(metadata.base).read()


def test_what_is_no_base64_is_an_error(metadata, monkeypatch):
    monkeypatch.setattr(base64, "b64encode", lambda data: b"***")
    with pytest.raises(ForwarderError, match="no base64"):
        AzureSource(metadata.base).read()


def test_nobody_there_is_an_error_that_says_whom_it_asked():
    with pytest.raises(ForwarderError, match=r"GET http://127.0.0.1:1/latest/user-data failed: .*refused"):
        AwsSource("http://127.0.0.1:1").read()


def put(root: Path, path: str, content: str | bytes) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


FORMS = {
    "joliet": ({"joliet": 3, "interchange_level": 1}, {"joliet_path": "/user-data"}),
    "rock ridge": ({"rock_ridge": "1.09", "interchange_level": 1}, {"rr_name": "user-data"}),
    "both": ({"joliet": 3, "rock_ridge": "1.12"}, {"joliet_path": "/user-data", "rr_name": "user-data"}),
}


def volume(label: str, form: str = "both", data: bytes = DATA, others: int = 0) -> bytes:
    """An ISO 9660 volume, as the libvirt provider makes it."""
    how, names = FORMS[form]
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident=label, **how)
    for i in range(others):
        other = {key: value.replace("user-data", f"another-{i}") for key, value in names.items()}
        iso.add_fp(io.BytesIO(b"x"), 1, f"/A{i}.;1", **other)
    iso.add_fp(io.BytesIO(data), len(data), "/USERDATA.;1", **names)
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("others", [0, 100])
def test_a_file_of_a_volume_is_read_in_place(form, others, tmp_path):
    (tmp_path / "disk").write_bytes(volume("cidata", form, DATA * 1000, others))
    assert iso9660.label(tmp_path / "disk") == "cidata"
    assert iso9660.read(tmp_path / "disk", "user-data", 1 << 20) == DATA * 1000
    assert iso9660.read(tmp_path / "disk", "user-data", 5) == DATA[:5]
    with pytest.raises(ForwarderError, match="has no file meta-data"):
        iso9660.read(tmp_path / "disk", "meta-data", 5)


def test_plain_names_are_read_as_linux_shows_them(tmp_path):
    # What upstream's adaptor writes has neither Joliet's nor Rock Ridge's names.
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident="cidata", interchange_level=4)
    iso.add_fp(io.BytesIO(DATA), len(DATA), "/USER-DATA;1")
    iso.write(str(tmp_path / "disk"))
    iso.close()
    assert iso9660.read(tmp_path / "disk", "user-data", 1000) == DATA


@given(st.data())
def test_a_volume_that_is_damaged_is_an_error_and_no_more(data):
    content = bytearray(volume("cidata"))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0x8000, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile() as file:
        file.write(content[: data.draw(st.integers(0, len(content)))])
        file.flush()
        with contextlib.suppress(ForwarderError):
            iso9660.read(Path(file.name), "user-data", 1 << 20)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"sys_vendor": "QEMU"}, None),
        ({"sys_vendor": "Amazon EC2\n"}, AwsSource()),
        ({"sys_vendor": "Microsoft Corporation\n"}, AzureSource()),
        ({"sys_vendor": "X", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}, AzureSource()),
        ({"product_name": "Google Compute Engine"}, GcpSource()),
        ({"sys_vendor": "Alibaba Cloud"}, AlibabaSource()),
    ],
)
def test_the_cloud_is_told_by_the_machines_description(files, found, tmp_path):
    for name, content in files.items():
        put(tmp_path, f"sys/class/dmi/id/{name}", content)
    assert find(tmp_path) == found


def test_a_file_goes_before_all(tmp_path):
    put(tmp_path, "sys/class/dmi/id/sys_vendor", "Amazon EC2")
    put(tmp_path, "media/cidata/user-data", DATA)
    source = find(tmp_path)
    assert source == FileSource(tmp_path / "media/cidata/user-data")
    assert source.read() == DATA


@pytest.mark.parametrize("label", ["cidata", "CIDATA"])
def test_a_labelled_disk_is_found_without_udev(label, tmp_path):
    put(tmp_path, "sys/class/dmi/id/sys_vendor", "Amazon EC2")
    for name, content in (("vda", volume("root")), ("vdb", b"short"), ("vdc", volume(label)), ("loop0", volume(label))):
        (tmp_path / "sys/class/block" / name).mkdir(parents=True)
        put(tmp_path, f"dev/{name}", content)
    (tmp_path / "sys/class/block/sr0").mkdir()  # a drive without a disk
    source = find(tmp_path)
    assert source == DiskSource(tmp_path / "dev/vdc")
    assert source.read() == DATA


def test_what_cannot_be_read_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ForwarderError, match="gone cannot be read: No such file"):
        FileSource(tmp_path / "gone").read()
    with pytest.raises(ForwarderError, match="gone cannot be read: No such file"):
        DiskSource(tmp_path / "gone").read()
    (tmp_path / "disk").write_bytes(b"short")
    with pytest.raises(ForwarderError, match="no volume descriptor"):
        DiskSource(tmp_path / "disk").read()
    (tmp_path / "disk").write_bytes(volume("cidata", data=b"x" * (LENGTH_MAX + 1)))
    with pytest.raises(ForwarderError, match=f"more than {LENGTH_MAX} bytes"):
        DiskSource(tmp_path / "disk").read()


def test_udevs_link_is_taken_where_there_is_one(tmp_path):
    put(tmp_path, "dev/sr0", b"")
    (tmp_path / "dev/disk/by-label").mkdir(parents=True)
    (tmp_path / "dev/disk/by-label/cidata").symlink_to("../../sr0")
    assert sources.labelled_disk(tmp_path) == tmp_path / "dev/disk/by-label/cidata"
