"""The admission webhook as the API server calls it: HTTPS, with a certificate that is renewed while it serves."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kata_caa.errors import SettingError
from kata_caa.k8s import webhook
from kata_caa.k8s.http import ServeError
from kata_caa.k8s.mutation import Rules
from kata_caa.k8s.webhook import PATH, WebhookConfig, serving
from tests.kube import schema, things
from tests.kube.patch import json_patch
from tests.pki import Pair, pair

BOUND = 10.0  # seconds that anything here may take


def place(directory: Path, made: Pair) -> None:
    """Put a certificate there as the kubelet does: the data's directory is another one at once."""
    generation = directory / f"..{len(list(directory.iterdir()))}"
    generation.mkdir()
    (generation / "tls.crt").write_text(made.certificate)
    (generation / "tls.key").write_text(made.key)
    (directory / "..new").symlink_to(generation.name)
    (directory / "..new").replace(directory / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    directory = tmp_path / "serving-certs"
    directory.mkdir()
    return directory


@pytest.fixture
def first(certificates: Path) -> Pair:
    made = pair("localhost")
    place(certificates, made)
    return made


def config(certificates: Path, **settings: Any) -> WebhookConfig:
    return WebhookConfig(
        **{"host": "127.0.0.1", "port": 0, "health_port": 0, "cert_dir": str(certificates), **settings}
    )


@asynccontextmanager
async def client(port: int, *trusted: Pair, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    context = ssl.create_default_context(cadata="".join(each.certificate for each in trusted))
    for name, value in settings.items():
        setattr(context, name, value)
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(f"https://localhost:{port}", connector=connector) as session:
        yield session


@asynccontextmanager
async def calling(certificates: Path, trusted: Pair) -> AsyncIterator[aiohttp.ClientSession]:
    """A webhook, and who calls it."""
    async with serving(config(certificates), Rules()) as port, client(port, trusted) as session:
        yield session


def asked(pod: dict[str, Any]) -> dict[str, Any]:
    """A review as the API server sends it."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": things.NAMESPACE,
            "operation": "CREATE",
            "userInfo": {"username": "admin"},
            "object": pod,
            "oldObject": None,
            "dryRun": False,
        },
    }


async def until_told(caplog: pytest.LogCaptureFixture, text: str, act: Callable[[], None]) -> None:
    """Do something, and wait until the webhook says so in its log."""
    told = asyncio.Event()

    class Listener:
        def filter(self, record: Any) -> bool:
            if text in record.getMessage():
                told.set()
            return True

    listener = Listener()
    webhook.logger.addFilter(listener)
    try:
        with caplog.at_level("INFO", webhook.logger.name):
            act()
            async with asyncio.timeout(BOUND):
                await told.wait()
    finally:
        webhook.logger.removeFilter(listener)


async def test_a_pod_of_the_class_is_changed_to_one_that_kubernetes_takes(certificates: Path, first: Pair):
    pod = things.pod()
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1500m", "memory": "1Gi"}}
    async with calling(certificates, first) as session, session.post(PATH, json=asked(pod)) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        review = await answer.json()
    response = review["response"]
    assert (response["uid"], response["allowed"]) == ("705ab4f5-6393-11e8-b7cc-42010a800002", True)
    after = json_patch(pod, json.loads(base64.b64decode(response["patch"])))
    schema.check(after, "V1Pod")
    assert after["metadata"]["annotations"] == {
        "io.katacontainers.config.hypervisor.default_vcpus": "2",
        "io.katacontainers.config.hypervisor.default_memory": "1024",
    }
    assert after["spec"]["containers"][0]["resources"]["limits"] == {"kata.peerpods.io/vm": "1"}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content-Type": "application/json"}, 400),
        (b"not json", {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
    ],
)
async def test_what_is_no_review_is_refused(certificates: Path, first: Pair, body: bytes, headers, status: int):
    async with calling(certificates, first) as session, session.post(PATH, data=body, headers=headers) as answer:
        assert answer.status == status


async def test_a_body_without_end_is_cut_off(certificates: Path, first: Pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webhook, "BODY_MAX", 1000)
    asking = {"data": b" " * 5000, "headers": {"Content-Type": "application/json"}}
    async with calling(certificates, first) as session, session.post(PATH, **asking) as answer:
        assert answer.status == 413


async def test_a_body_that_does_not_come_is_not_waited_for(
    certificates: Path, first: Pair, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(webhook, "READ_TIMEOUT", 0.05)
    async with serving(config(certificates), Rules()) as port:
        context = ssl.create_default_context(cadata=first.certificate)
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(BOUND):
            assert b"408" in await reader.readline()
        writer.transport.abort()


async def test_the_certificate_is_the_new_one_once_it_is_renewed(certificates: Path, first: Pair, caplog):
    second = pair("localhost")
    async with serving(config(certificates), Rules()) as port:
        await until_told(caplog, "read anew", lambda: place(certificates, second))
        async with client(port, second) as session, session.post(PATH, json=asked(things.pod())) as answer:
            assert answer.status == 200
        async with client(port, first) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.post(PATH, json={})


async def test_a_certificate_that_cannot_be_used_leaves_the_last_one(certificates: Path, first: Pair, caplog):
    other = pair("localhost")
    async with serving(config(certificates), Rules()) as port:
        torn = Pair(other.certificate, first.key, other.made, other.signer)
        await until_told(caplog, "the certificate stays", lambda: place(certificates, torn))
        async with client(port, first) as session, session.post(PATH, json=asked(things.pod())) as answer:
            assert answer.status == 200


async def test_without_a_certificate_it_does_not_start(certificates: Path):
    with pytest.raises(SettingError, match=r"-cert-dir: .*tls\.crt"):
        await serving(config(certificates), Rules()).__aenter__()
    with pytest.raises(SettingError, match=r"-cert-dir: /nowhere: .*No such file"):
        await serving(config(Path("/nowhere")), Rules()).__aenter__()


async def test_older_tls_than_configured_is_refused(certificates: Path, first: Pair):
    strict = config(certificates, tls_min_version="VersionTLS13")
    async with serving(strict, Rules()) as port:
        async with client(port, first, maximum_version=ssl.TLSVersion.TLSv1_2) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.post(PATH, json={})
        async with client(port, first) as session, session.post(PATH, json={}) as answer:
            assert answer.status == 400


async def test_suites_are_those_that_are_configured(certificates: Path, first: Pair):
    suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    async with serving(config(certificates, tls_cipher_suites=suite), Rules()) as port:
        context = ssl.create_default_context(cadata=first.certificate)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        _, writer = await asyncio.open_connection("localhost", port, ssl=context)
        assert writer.get_extra_info("cipher")[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
        writer.close()
        await writer.wait_closed()


async def test_suites_and_tls_1_3_do_not_go_together(certificates: Path, first: Pair):
    both = config(certificates, tls_min_version="VersionTLS13", tls_cipher_suites="TLS_AES_128_GCM_SHA256")
    with pytest.raises(SettingError, match="-tls-cipher-suites"):
        await serving(both, Rules()).__aenter__()


async def test_a_port_that_is_taken_is_named(certificates: Path, first: Pair):
    async with serving(config(certificates), Rules()) as port:
        with pytest.raises(ServeError, match=rf"127\.0\.0\.1:{port} cannot be listened at"):
            await serving(config(certificates, port=port), Rules()).__aenter__()


async def test_the_command_serves_until_it_is_told_to_end(certificates: Path, first: Pair):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from kata_caa.k8s.command import webhook; raise SystemExit(webhook())",
        "-host", "127.0.0.1", "-port", "0", "-health-port", "0", "-cert-dir", str(certificates),
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "TARGET_RUNTIMECLASS": "peer"},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        async with asyncio.timeout(BOUND):
            line = (await process.stderr.readline()).decode()
            assert "pods of class peer are changed, at port" in line
            port = int(line.rsplit(maxsplit=1)[1])
            async with client(port, first) as session, session.post(PATH, json=asked(things.pod())) as answer:
                assert "patch" not in (await answer.json())["response"]
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
