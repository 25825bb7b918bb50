"""From user data to files."""

from __future__ import annotations

import base64
import gzip
import hashlib
from pathlib import Path

import pytest

from kata_caa import userdata
from kata_caa.errors import ForwarderError, MalformedConfig
from kata_caa.forwarder import provision as module
from kata_caa.forwarder.provision import fetch, main, provision, read_initdata
from kata_caa.userdata import AA, APF, AUTH, CDH, INITDATA, PATHS, SCRATCH_MARKER, File, render

TOML = """algorithm = "sha384"
version = "0.1.0"
[data]
"aa.toml" = '''
[token_configs]
'''
"policy.rego" = "package agent_policy"
"../../etc/passwd" = "no"
"apf.json" = "no"
"""


def packed(text: str | bytes = TOML) -> str:
    return base64.b64encode(gzip.compress(text.encode() if isinstance(text, str) else text, mtime=0)).decode()


class Given:
    """A source that gives one thing after the other; the last for ever."""

    name = "a test"

    def __init__(self, *things: str | Exception) -> None:
        self.things = list(things)
        self.reads = 0

    def read(self) -> bytes:
        self.reads += 1
        thing = self.things.pop(0) if len(self.things) > 1 else self.things[0]
        if isinstance(thing, Exception):
            raise thing
        return thing.encode()


def given(*files: File) -> Given:
    return Given(render(files))


def written(root: Path) -> dict[str, str]:
    return {f"/{file.relative_to(root)}": file.read_text() for file in root.rglob("*") if file.is_file()}


def test_all_six_files_are_written_and_no_other(tmp_path):
    files = [File(path, f"of {path}\n") for path in sorted(PATHS - {INITDATA})]
    provision(given(*files, File("/etc/shadow", "x"), File("/run/peerpod/x", "x")), root=tmp_path)
    assert written(tmp_path).items() >= dict(files).items() - {(AA, f"of {AA}\n")}
    assert set(written(tmp_path)) == PATHS - {INITDATA} | {module.DIGEST}


def test_secrets_are_for_root_alone(tmp_path):
    provision(given(File(APF, "{}"), File(AUTH, "{}"), File(CDH, "x"), File(SCRATCH_MARKER, "")), root=tmp_path)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "run/peerpod").iterdir()}
    assert modes == {
        "apf.json": 0o600, "auth.json": 0o600, "cdh.toml": 0o644, "scratch-space.marker": 0o644, "aa.toml": 0o644,
        "initdata.digest": 0o644,
    }  # fmt: skip


def test_a_second_time_changes_nothing_and_follows_no_link(tmp_path):
    provision(given(File(APF, "{}")), root=tmp_path)
    (tmp_path / "precious").write_text("kept")
    target = tmp_path / APF.lstrip("/")
    target.unlink()
    target.symlink_to(tmp_path / "precious")
    provision(given(File(APF, "{}")), root=tmp_path)
    assert (tmp_path / "precious").read_text() == "kept"
    assert written(tmp_path)[APF] == "{}"


def test_initdata_is_unpacked_and_measured(tmp_path):
    provision(given(File(INITDATA, packed() + "\n")), root=tmp_path)
    assert written(tmp_path) == {
        INITDATA: packed() + "\n",
        AA: "[token_configs]\n",
        module.POLICY: "package agent_policy",
        module.DIGEST: hashlib.sha384(TOML.encode()).hexdigest(),
    }


def test_without_initdata_there_is_an_empty_one(tmp_path):
    provision(None, root=tmp_path)
    assert set(written(tmp_path)) == {AA, module.DIGEST}
    assert written(tmp_path)[AA] == ""
    assert len(written(tmp_path)[module.DIGEST]) == 64


def test_initdata_that_cloud_init_wrote_is_taken_too(tmp_path):
    userdata_file = tmp_path / INITDATA.lstrip("/")
    userdata_file.parent.mkdir(parents=True)
    userdata_file.write_text(packed())
    provision(None, root=tmp_path)
    assert AA in written(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("***", "no base64"),
        (base64.b64encode(b"plain").decode(), "no gzip"),
        (base64.b64encode(gzip.compress(b"x" * 1000, mtime=0)[:-9]).decode(), "cut short"),
        (base64.b64encode(gzip.compress(b"a=1", mtime=0) * 2).decode(), "follows"),
        (packed(bytes(64 << 20)), "more than 4194304 bytes"),  # 64 KiB that would be 64 MiB
        (packed(b"\xff"), "no TOML"),
        (packed("= 1"), "no TOML"),
        (packed("a=" + "[" * 100_000), "no TOML"),
        (packed('version = "1"'), "algorithm cannot be None"),
        (packed('algorithm = "md5"\nversion = "1"'), "'md5'"),
        (packed('algorithm = "sha256"'), "version"),
        (packed('algorithm = "sha256"\nversion = "1"\ndata = 1'), "data is no table"),
        (packed('algorithm = "sha256"\nversion = "1"\n[data]\n"aa.toml" = 1'), "data.aa.toml is no text"),
    ],
)
def test_malformed_initdata_is_refused_before_any_of_it_is_written(content, says, tmp_path):
    with pytest.raises(MalformedConfig, match=says):
        provision(given(File(INITDATA, content)), root=tmp_path)
    assert set(written(tmp_path)) == {INITDATA}


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_the_digest_is_by_the_algorithm_that_is_named(algorithm):
    text = f'algorithm = "{algorithm}"\nversion = "1"'.encode()
    assert read_initdata(text) == (hashlib.new(algorithm, text).hexdigest(), {})


def test_user_data_that_is_not_there_yet_or_half_is_read_again():
    source = Given(ForwarderError("not yet"), "#cloud-config\nwrite_f", render([File(APF, "{}")]))
    paused = []
    assert fetch(source, 60, pause=5, sleep=paused.append) == (File(APF, "{}"),)
    assert paused == [5, 5]


def test_user_data_that_does_not_come_is_an_error_that_says_what_was_waited_for():
    with pytest.raises(ForwarderError, match=r"waited 0.01 s for user data of a test; the last attempt met: not yet"):
        fetch(Given(ForwarderError("not yet")), 0.01, pause=0.001)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(ForwarderError, match=r"apf\.json cannot be written"):
        provision(given(File(APF, "{}")), root=tmp_path)


def test_the_command_says_what_went_wrong(monkeypatch, capsys):
    monkeypatch.setattr(module.sources, "find", lambda: Given(ForwarderError("not yet")))
    assert main(["provision-files", "-t", "0"]) == 1
    assert capsys.readouterr().err == (
        "process-user-data: waited 0 s for user data of a test; the last attempt met: not yet\n"
    )
    with pytest.raises(SystemExit):
        main(["provision"])


def test_the_commands_files_are_those_of_the_user_data(monkeypatch, tmp_path):
    monkeypatch.setattr(module.sources, "find", lambda: given(File(APF, "{}")))
    monkeypatch.setattr(module, "provision", lambda source, timeout: provision(source, timeout, root=tmp_path))
    assert main(["provision-files", "--user-data-fetch-timeout=7"]) == 0
    assert written(tmp_path)[APF] == "{}"
    assert userdata.APF == APF
