"""The adaptor's command: what it puts down of its settings, says of the cloud, and deletes there."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from kata_caa import command
from kata_caa.config import AdaptorConfig
from kata_caa.instance import machine_name
from kata_caa.leftovers import leftovers
from kata_caa.providers.api import OWNER_TAG, SANDBOX_TAG
from kata_caa.providers.aws.config import AwsConfig
from tests.conftest import REPOSITORY
from tests.drivers.cloud import Thing
from tests.drivers.faults import ENVIRONMENT, Faults, Point
from tests.drivers.file_cloud import FileStore

DRIVERS = REPOSITORY / "tests" / "drivers"  # an entry point in it names the cloud


def test_a_setting_that_would_fill_the_log_is_shortened(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    command._tell(AdaptorConfig, AdaptorConfig(initdata="x" * 1000, socket="/s"))
    assert caplog.messages == ["socket = /s", f"initdata = {'x' * 120}... (1000 characters)"]


def test_a_secret_is_never_put_down(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    command._tell(AwsConfig, AwsConfig(secret_key="k" * 10))
    assert caplog.messages == ["aws-secret-key = **********"]


@pytest.mark.parametrize(
    ("provider", "environ", "said"),
    [
        ("aws", {"AA_KBC_PARAMS": "cc_kbc::https://kbs"}, {"AA_KBC_PARAMS": "INITDATA or the pod's annotation"}),
        ("libvirt", {"LIBVIRT_IMAGE_ID": "podvm"}, {"LIBVIRT_IMAGE_ID": "LIBVIRT_VOL_NAME"}),
        ("aws", {"LIBVIRT_IMAGE_ID": "podvm"}, {}),
        (
            "aws",
            {"ENABLE_CLOUD_PROVIDER_EXTERNAL_PLUGIN": "true", "CLOUD_PROVIDER_EXTERNAL_PLUGIN_PATH": "/plugins"},
            {"ENABLE_CLOUD_PROVIDER_EXTERNAL_PLUGIN": "'/plugins'"},
        ),
        ("aws", {"ENABLE_CLOUD_PROVIDER_EXTERNAL_PLUGIN": "false", "AA_KBC_PARAMS": "", "CLOUD_PROVIDER": "aws"}, {}),
        ("libvirt", {"CLOUD_PROVIDER": "aws"}, {"CLOUD_PROVIDER": "make both the same"}),
    ],
)
def test_variables_without_effect_are_told_with_what_to_set(
    provider: str, environ: dict[str, str], said: dict[str, str]
) -> None:
    found = leftovers(provider, environ)
    assert list(found) == list(said)
    for key, words in said.items():
        assert words in found[key]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags by which nothing is touched but a test's own cloud, `file`."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(DRIVERS)])
    (tmp_path / "cloud").mkdir()
    return [
        "-cloud-dir", str(tmp_path / "cloud"), "-pods-dir", str(tmp_path / "pods"), "-owner", "tests",
        "-socket", str(tmp_path / "hv.sock"), "-log-level", "error",
    ]  # fmt: skip


def test_a_check_prints_what_was_looked_at_and_what_has_no_effect(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["file", *words, "-check"], {"AA_KBC_PARAMS": "x"}) == 0
    out = capsys.readouterr().out
    assert "ok      owner: tests\n" in out
    assert "ok      image image-1" in out
    assert "IGNORED AA_KBC_PARAMS: has no effect: " in out


def test_a_check_tells_all_that_is_missing_and_fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"POD_SUBNET_CIDRS": "garbage", "TLS_MIN_VERSION": "1.3"}
    assert command.main(["file", *words, "-check"], wrong) == 1
    missing = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MISSING")]
    assert [line.partition(":")[0] for line in missing] == ["MISSING TLS", "MISSING further networks of pods"]


def test_a_check_tells_what_the_cloud_has_not_and_fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["file", *words, "-cloud-image", "image-2", "-check"], {}) == 1
    missing = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("ok ")]
    assert missing == ["MISSING image image-2: set MEMORY_IMAGE"]


def test_without_a_first_word_the_provider_is_that_of_the_environment(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*words, "-check"], {"CLOUD_PROVIDER": "file"}) == 0
    assert "ok      image image-1" in capsys.readouterr().out
    assert command.main([*words, "-check"], {}) == 1
    assert "no provider, as the first word or in CLOUD_PROVIDER; there is: " in capsys.readouterr().err
    assert command.main([], {}) == 2
    assert command.main(["-help"], {"CLOUD_PROVIDER": "file"}) == 0
    assert capsys.readouterr().out.count("usage: cloud-api-adaptor [<provider>]") == 2


@pytest.fixture
def store(tmp_path: Path, words: list[str]) -> FileStore:
    """The cloud, with what two sandboxes have left, and one of another node."""
    store = FileStore(directory=tmp_path / "cloud")
    for sandbox, owner in (("one", "tests"), ("two", "tests"), ("three", "others")):
        for kind in ("disk", "instance"):
            tags = ((OWNER_TAG, owner), (SANDBOX_TAG, sandbox))
            store.put(Thing(kind, f"{kind}-{sandbox}", f"podvm-web-{sandbox}", "token", tags))
    return store


def test_orphans_are_listed_and_stay(words: list[str], store: FileStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["file", "orphans", *words], {}) == 0
    told = capsys.readouterr()
    assert sorted(told.out.splitlines()) == [
        "disk\tdisk-one\tpodvm-web-one\tone",
        "disk\tdisk-two\tpodvm-web-two\ttwo",
        "instance\tinstance-one\tpodvm-web-one\tone",
        "instance\tinstance-two\tpodvm-web-two\ttwo",
    ]
    assert told.err.startswith("cloud-api-adaptor: looking for what is tests's and has no sandbox in /")
    assert len(store.ids()) == 6


def test_orphans_are_deleted_and_nothing_else(words: list[str], store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "pods" / "two").mkdir(parents=True)
    assert command.main(["file", "orphans", "-delete", *words], {}) == 0
    assert store.sandboxes(SANDBOX_TAG) == ["three", "two"]


def test_an_orphan_that_cannot_be_deleted_stops_no_other_and_fails_the_command(
    words: list[str],
    store: FileStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    Faults(faults).plan(Point("delete", 1, "around", "fatal"))
    monkeypatch.setenv(ENVIRONMENT, str(faults))
    assert command.main(["file", "orphans", "-delete", *words], {}) == 1
    assert store.sandboxes(SANDBOX_TAG) == ["one", "three"]
    assert "what sandbox one has left stays: delete is refused by a test [Planned]" in capsys.readouterr().err


def test_while_a_record_is_damaged_what_may_be_its_machine_is_no_orphan(
    words: list[str], store: FileStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pods" / "two").mkdir(parents=True)
    (tmp_path / "pods" / "two" / "pod.json").write_text("")
    waited = "7" * 32
    store.put(Thing("instance", "instance-7", machine_name(waited), "", ((OWNER_TAG, "tests"), (SANDBOX_TAG, waited))))
    assert command.main(["file", "orphans", "-delete", *words], {}) == 0
    assert store.sandboxes(SANDBOX_TAG) == [waited, "three", "two"]
    assert "pods/two: " in capsys.readouterr().err
