"""The command line of kata-ctl, against shims that are a few lines."""

from __future__ import annotations

import json
import logging
import re
import socketserver
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import astuple, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import click
import pytest

from kata_py.cli import command, direct_volume, output, shim
from kata_py.cli.errors import CtlError, ShimError
from kata_py.config import load
from kata_py.sandbox import failure
from kata_py.sandbox.failure import Failure, Pod
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record
from kata_py.sandbox.sockets import SOCKET
from kata_py.storage import direct
from tests.drivers.journal import ListJournal

INFO = json.dumps({"volume-type": "block", "device": "/dev/x y", "fstype": "ext4", "options": ["noatime"]})


class Shims:
    """Shims below a directory: each answers with what it was told to, and keeps what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[tuple[str, str, str, bytes]] = []
        self._servers: list[socketserver.UnixStreamServer] = []

    def add(self, sandbox_id: str, answer: bytes = b"", status: int = 200) -> None:
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                asked.append((sandbox_id, self.command, self.path, body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST = _answer

            def log_message(self, format: str, *args: object) -> None:
                pass

            def address_string(self) -> str:
                return "-"

        (self.root / sandbox_id).mkdir(parents=True, exist_ok=True)
        server = socketserver.UnixStreamServer(str(self.root / sandbox_id / SOCKET), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        self._servers.append(server)

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def shims(short_tmp: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Shims]:
    shims = Shims(short_tmp / f"{abs(hash(request.node.name)) % 10**6}")
    monkeypatch.setattr(shim.find, "__defaults__", ((shims.root,),))
    monkeypatch.setattr(shim.running, "__defaults__", ((shims.root,),))
    yield shims
    shims.close()


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    return tmp_path / "direct-volumes"


def test_figures_and_rules_are_printed_as_they_come(shims: Shims, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    shims.add("aa11", b"*filter\n")
    assert command.main(["metrics", "aa"]) == 0
    assert command.main(["iptables", "get", "--v6", "--sandbox-id", "aa11"]) == 0
    assert capfdbinary.readouterr().out == b"*filter\n*filter\n"
    assert shims.asked == [("aa11", "GET", "/metrics", b""), ("aa11", "GET", "/ip6tables", b"")]


def test_rules_and_policies_are_sent_from_files(shims: Shims, tmp_path: Path) -> None:
    shims.add("aa11")
    (tmp_path / "file").write_bytes(b"content")
    assert command.main(["iptables", "set", "--sandbox-id", "aa11", str(tmp_path / "file")]) == 0
    assert command.main(["policy", "set", "--sandbox-id", "aa11", str(tmp_path / "file")]) == 0
    assert shims.asked == [("aa11", "PUT", "/iptables", b"content"), ("aa11", "PUT", "/policy", b"content")]


@pytest.mark.parametrize(
    ("words", "cause", "next_step"),
    [
        (["metrics", "zz"], "no running sandbox 'zz'", "crictl pods"),
        (["metrics", "aa"], "'aa' may be any of aa11, aa12", "give more of the id"),
        (["metrics", "bb"], "sandbox bb: the agent is gone", ""),
        (["policy", "set", "--sandbox-id", "aa11", "/no/such/file"], "/no/such/file cannot be read: No such file", ""),
        (["direct-volume", "add", "/v"], "mount info is missing", "--mount-info"),
        (["direct-volume", "remove"], "volume path is missing", "--volume-path"),
        (["direct-volume", "resize", "/v", "--volume-path", "/w"], "volume path is given twice", "give one"),
        (["direct-volume", "add", "/v", "{}"], "direct-assigned volume: the mount info cannot be used", '"fstype"'),
        (["direct-volume", "add", "v", INFO], "the volume's path 'v' is not absolute", "as the pod's mount"),
    ],
)
def test_a_failure_says_what_to_do_next(
    shims: Shims, words: list[str], cause: str, next_step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shims.add("aa11")
    shims.add("aa12")
    shims.add("bb", b"the agent is gone\n", status=500)
    assert command.main(words) == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith(f"kata-ctl: {cause}")
    assert (next_step in rest[0]) if next_step else not rest


@pytest.mark.parametrize(
    "words",
    [
        [], ["direct-volume"], ["direct-volume", "resize", "/v", "-5"], ["direct-volume", "resize", "/v", "1G"],
        ["exec", "a", "-p", "0"], ["metrics", "a", "--", "x"], ["iptables", "get"],
        ["iptables", "get", "--sandbox", "a"],
    ],
)  # fmt: skip
def test_what_is_no_command_line_is_told_with_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(words) == 2
    assert "Usage: kata-ctl" in capsys.readouterr().err


@pytest.mark.parametrize("verb", command.VERBS)
def test_every_verb_of_the_table_is_there_and_tells_its_use(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([verb, "--help"]) == 0
    assert f"Usage: kata-ctl {verb}" in capsys.readouterr().out


def test_help_of_all_verbs_imports_none_of_them() -> None:
    script = (
        "import sys; from kata_py.cli import command; assert command.main(['--help']) == 0;"
        "sys.exit(any(name.startswith('kata_py.cli.verbs.') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL).returncode == 0


def test_a_shell_completes_verbs_and_the_sandboxes_that_run(
    shims: Shims, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shims.add("aa11")
    shims.add("bb11")
    (shims.root / "aa-dead").mkdir()
    gone = Failure("aa-gone", "", "k8s.io", Pod(), 1.0, "create", "kernel", 1.0, 2.0, "no answer")
    failure.keep(gone, tmp_path / "failures")
    places = astuple(replace(HostPaths(), records=shims.root, failures=tmp_path / "failures"))
    monkeypatch.setattr(HostPaths.__init__, "__defaults__", places)
    monkeypatch.setenv("_KATA_CTL_COMPLETE", "bash_complete")
    told = "plain,aa-dead\nplain,aa-gone\nplain,aa11\n"
    for words, offered in (
        ("kata-ctl met", "plain,metrics\n"),
        ("kata-ctl metrics a", "plain,aa11\n"),
        ("kata-ctl explain a", told),
        ("kata-ctl timeline a", told),
        ("kata-ctl cp a", "plain,aa11:\n"),
        ("kata-ctl cp file b", "plain,bb11:\n"),
        ("kata-ctl cp fil", "file,fil\n"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        with pytest.raises(SystemExit):
            command.main([])
        assert capsys.readouterr().out == offered


def test_the_completion_script_is_one_that_the_shell_can_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "_KATA_CTL_COMPLETE=bash_complete" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_check_tells_this_node_for_people_programs_and_nfd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text(f'[hypervisor.qemu]\nkernel = "{tmp_path}/none"\n')
    words = ["check", "all", "--config", str(tmp_path / "c.toml"), "--emulation"]
    assert command.main(words) == 3
    told = capsys.readouterr().out
    assert f"{tmp_path}/none: No such file or directory" in told
    assert told.endswith("This node cannot run sandboxes.\n")
    assert command.main([*words, "-o", "json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["eligible"] is False
    assert {"name", "verdict", "evidence", "fix"} == set(found["findings"][0])
    assert command.main([*words, "--label"]) == 0
    assert capsys.readouterr().out == "feature.node.kubernetes.io/runtime.kata=false\n"


def test_check_takes_upstreams_words_or_says_why_it_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text(f'[hypervisor.qemu]\npath = "{tmp_path}/none"\n')
    config = ["--config", str(tmp_path / "c.toml")]
    assert command.main(["check", "--no-network-checks", "-v", "--emulation", *config]) == 3
    capsys.readouterr()
    for words in (["check-version-only"], ["--check-version-only"]):
        assert command.main(["check", *words, *config]) == 0
        assert "version: QEMU" in capsys.readouterr().out
        assert command.main(["check", *words, "--strict", *config]) == 3
        capsys.readouterr()
    assert command.main(["check", "list"]) == 0
    assert "vhost-vsock" in capsys.readouterr().out
    assert command.main(["check", "--list", "-o", "json"]) == 0
    assert "KVM" in json.loads(capsys.readouterr().out)
    for words in (["only-list-releases"], ["--include-all-releases"]):
        assert command.main(["check", *words]) == 1
        assert "asks nothing of the network" in capsys.readouterr().err


def test_doctor_tells_what_is_wrong_and_where_it_is_asked_what_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text(f'[hypervisor.remote]\nremote_hypervisor_socket = "{tmp_path}/none"\nx = 1\n')
    words = ["doctor", "--config", str(tmp_path / "c.toml")]
    assert command.main([*words, "-o", "json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is False
    [wrong] = [each for each in told["findings"] if each["name"] == "configuration"]
    assert (wrong["part"], wrong["verdict"], ":3: unknown key x" in wrong["evidence"]) == ("node", "fail", True)
    assert command.main(words) == 3
    few = capsys.readouterr().out
    assert command.main([*words, "--verbose"]) == 3
    assert "architecture" in capsys.readouterr().out
    assert "architecture" not in few


def test_collect_never_replaces_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").touch()
    assert command.main(["collect", "-o", str(tmp_path / "there")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert command.main(["collect", "-o", str(tmp_path / "none" / "x")]) == 1
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_config_checks_shows_and_explains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[hypervisor.qemu]\ndefault_memory = 512\n")
    assert command.main(["config", "check", str(file)]) == 0
    assert command.main(["config", "show", str(file)]) == 0
    assert command.main(["config", "explain", "default_memory", str(file)]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{file}: good\n[hypervisor.qemu]\ndefault_memory = 512  # {file}:2\n")
    assert f"  is        512 ({file}:2)\n" in told
    assert command.main(["config", "explain", "default_memroy", str(file)]) == 1
    assert "next: the nearest is default_memory" in capsys.readouterr().err
    file.write_text("[hypervisor.qemu]\ndefault_memory = true\n")
    assert command.main(["config", "check", str(file)]) == 3
    assert f"{file}:2: default_memory" in capsys.readouterr().out


def test_config_check_tells_all_that_is_wrong_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[hypervisor.qemu]\ndefault_memory = true\nkernal = '/k'\n")
    assert command.main(["config", "check", str(file), "-o", "json"]) == 3
    first, second = json.loads(capsys.readouterr().out)
    assert (first["line"], first["key"]) == (2, "hypervisor.qemu.default_memory")
    assert first["problem"].endswith("must be a whole number of at least 96, not true")
    assert second == {
        "file": str(file), "line": 3, "key": "hypervisor.qemu.kernal",
        "problem": "unknown key kernal in [hypervisor.qemu]", "next": "the nearest valid key is kernel",
    }  # fmt: skip


def test_without_a_file_config_shows_and_explains_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "SEARCHED", (tmp_path / "none",))
    monkeypatch.delenv("KATA_CONF_FILE", raising=False)
    assert command.main(["--show-default-config-paths"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/none\n"
    assert command.main(["config", "show", "--effective"]) == 0
    told = capsys.readouterr()
    assert "default_memory = 2048\n" in told.out
    assert told.err == f"no configuration: none of {tmp_path}/none is there; these are the defaults\n"
    assert command.main(["config", "explain", "default_memory"]) == 0
    assert "  is        2048 (default)\n" in capsys.readouterr().out
    assert command.main(["config", "check"]) == 3


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("default_memory", "upstream  knows the key"),
        ("accelerator", "upstream  does not know the key: it is ours"),
        ("confidential_guest", "may be    false"),
        ("msize_9p", "may be    anything"),
    ],
)
def test_config_explain_says_whether_upstream_knows_a_key(
    key: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").touch()
    assert command.main(["config", "explain", key, str(tmp_path / "c.toml")]) == 0
    assert f"  {said}\n" in capsys.readouterr().out


def test_env_prints_toml_or_json_or_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text("[hypervisor.remote]\nremote_hypervisor_timeout = 5\n")
    words = ["env", "--config", str(tmp_path / "c.toml")]
    assert command.main(words) == 0
    assert tomllib.loads(capsys.readouterr().out)["Hypervisor"]["Name"] == "remote"
    for asked in (["--json"], ["-o", "json"]):
        assert command.main([*words, *asked]) == 0
        assert json.loads(capsys.readouterr().out)["Meta"] == {"Version": "1.0.27"}
    assert command.main([*words, "-f", str(tmp_path / "env.toml")]) == 0
    assert capsys.readouterr().out == ""
    assert "Runtime" in tomllib.loads((tmp_path / "env.toml").read_text())
    (tmp_path / "c.toml").write_text("[hypervisor.remote]\nx = 5\n")
    assert command.main(words) == 1
    assert "next: see all that is wrong: kata-ctl config check" in capsys.readouterr().err


def test_a_table_keeps_every_cell_whole_and_takes_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["pod", "state"], [["x" * 300, "[red]running[/red]"]])
    heading, rule, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["pod", "state"]
    assert set(rule.strip()) <= {"─", " "}
    assert row.split() == ["x" * 300, "[red]running[/red]"]
    output.table(["pod"], [], "there is none")
    assert capsys.readouterr().out == "there is none\n"


def test_a_socket_that_nobody_serves_any_more_is_told(shims: Shims) -> None:
    shims.add("aa11")
    shims.close()
    with pytest.raises(ShimError, match="shim of sandbox aa11 cannot be reached") as caught:
        shim.find("aa11").request("GET", "/metrics")
    assert caught.value.status == 0


def test_the_whole_id_counts_before_the_beginning_of_another(shims: Shims) -> None:
    shims.add("aa")
    shims.add("aa11")
    assert shim.find("aa").sandbox_id == "aa"


def test_a_sandbox_may_be_named_by_its_pod(shims: Shims, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for namespace in ("shop", "test"):
        called = {"io.kubernetes.cri.sandbox-namespace": namespace, "io.kubernetes.cri.sandbox-name": "web"}
        (tmp_path / namespace).mkdir()
        (tmp_path / namespace / "config.json").write_text(json.dumps({"annotations": called}))
        Record.create(f"of-{namespace}", namespace="k8s.io", bundle=tmp_path / namespace, root=shims.root)
        shims.add(f"of-{namespace}")
    Record.create("dead", namespace="k8s.io", bundle=tmp_path / "shop", root=shims.root)
    assert command.main(["loglevel", "shop/web", "debug"]) == 0
    assert command.main(["policy", "set", "--sandbox-id", "test/web", "/dev/null"]) == 0
    assert shims.asked == [("of-shop", "PUT", "/log-level", b"debug"), ("of-test", "PUT", "/policy", b"")]
    assert command.main(["metrics", "web"]) == 1
    assert "'web' may be any of of-shop, of-test\nkata-ctl: next: give more of the id" in capsys.readouterr().err


def test_a_level_is_told_to_people_and_programs(shims: Shims, capsys: pytest.CaptureFixture[str]) -> None:
    shims.add("aa11", b"info\n")
    shims.add("bb11", b"the agent logs as before\n")
    assert command.main(["loglevel", "aa"]) == 0
    assert command.main(["loglevel", "bb", "debug"]) == 0
    assert capsys.readouterr() == ("info\n", "the agent logs as before\n")
    assert command.main(["loglevel", "aa", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sandbox": "aa11", "level": "info", "note": ""}
    assert command.main(["loglevel", "bb", "debug", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "sandbox": "bb11", "level": "debug", "note": "the agent logs as before",
    }  # fmt: skip


def test_the_version_is_told_to_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["version"]) == 0
    said = capsys.readouterr().out.split()[-1]
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out.split()[-1] == said
    for words in (["--json"], ["-o", "json"]):
        assert command.main(["version", *words]) == 0
        assert json.loads(capsys.readouterr().out) == {"name": "kata-ctl", "version": said}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", ["careful", "bad"]), ("-l info", ["so it is", "careful", "bad"]), ("--log-level error", ["bad"]),
        ("-l trace", ["how it is", "so it is", "careful", "bad"]), ("-l critical", []),
    ],
)  # fmt: skip
def test_what_a_verb_logs_is_told_from_the_level_on_that_is_asked_for(
    words: str, told: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb() -> None:
        for level, text in (("debug", "how it is"), ("info", "so it is"), ("warning", "careful"), ("error", "bad")):
            getattr(logging.getLogger("kata_py.some"), level)(text)

    monkeypatch.setattr("kata_py.cli.verbs.version.command", click.Command("version", callback=verb))
    before = list(logging.getLogger().handlers), logging.getLogger().level
    assert command.main([*words.split(), "--json-logging", "version"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["msg"] for line in lines] == told
    assert all(set(line) == {"ts", "level", "name", "msg"} and line["name"] == "kata_py.some" for line in lines)
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before
    assert command.main(["-l", "error", "version"]) == 0
    assert capsys.readouterr().err == "ERROR kata_py.some: bad\n"
    assert command.main(["-l", "loud", "version"]) == 2


class TestForms:
    """The documents say which verbs print JSON."""

    @pytest.mark.parametrize("verb", command.VERBS)
    def test_a_verb_takes_o_json_exactly_where_the_document_names_it(self, verb: str) -> None:
        [sentence] = re.findall(r"there is `-o json`: ([^.]*)\.", Path("docs/kata-ctl.md").read_text())
        assert all(map(_prints_json, _commands(verb))) == (f"`{verb}`" in sentence)

    def test_so_do_all_verbs_that_diagnose(self) -> None:
        text = Path("docs/diagnosis.md").read_text()
        assert "All but `collect` take\n`-o json`." in text
        verbs = set(re.findall(r"kata-ctl ([a-z][a-z-]+)(?= |`)", text)) - {"collect"}
        assert verbs >= {"doctor", "explain", "timeline", "loglevel", "ps", "gc"}
        assert [verb for verb in verbs if not all(map(_prints_json, _commands(verb)))] == []


def _commands(verb: str) -> list[click.Command]:
    found = command.root().get_command(click.Context(command.root()), verb)
    assert found is not None
    return list(found.commands.values()) if isinstance(found, click.Group) else [found]


def _prints_json(verb: click.Command) -> bool:
    return any(
        "-o" in each.opts and isinstance(each.type, click.Choice) and "json" in each.type.choices
        for each in verb.params
    )


class TestDirectVolume:
    def test_both_spellings_describe_a_volume(self, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(direct_volume.add, "__defaults__", (volumes,))
        assert command.main(["direct-volume", "add", "/one", INFO]) == 0
        assert command.main(["direct-volume", "add", "--volume-path", "/two", "--mount-info", INFO]) == 0
        found = direct.find(Path("/one"), volumes)
        assert found is not None
        assert (found.device, found.fstype, found.options) == (Path("/dev/x y"), "ext4", ("noatime",))
        assert direct.find(Path("/two"), volumes) == found
        direct_volume.remove("/one", volumes)
        direct_volume.remove("/one", volumes)
        assert direct.find(Path("/one"), volumes) is None

    def test_the_sandbox_that_is_noted_is_asked_by_the_device(self, shims: Shims, volumes: Path) -> None:
        shims.add("aa11", b'{"usage": []}')
        shims.add("bb11")
        direct_volume.add("/v", INFO, volumes)
        with direct.noted(Path("/v"), "aa11", ListJournal(), volumes):
            assert direct_volume.stats("/v", volumes, (shims.root,)) == '{"usage": []}'
            direct_volume.resize("/v", 4096, volumes, (shims.root,))
        assert shims.asked == [
            ("aa11", "GET", "/direct-volume/stats?path=%252Fdev%252Fx%2520y", b""),
            ("aa11", "POST", "/direct-volume/resize", b'{"VolumePath": "/dev/x y", "Size": 4096}'),
        ]

    def test_without_a_note_the_sandbox_that_uses_it_is_found(self, shims: Shims, volumes: Path) -> None:
        shims.add("aa11", b"sandbox aa11 has no direct-assigned volume /dev/x y", status=500)
        shims.add("bb11", b"{}")
        direct_volume.add("/v", INFO, volumes)
        assert direct_volume.stats("/v", volumes, (shims.root,)) == "{}"

    def test_a_volume_that_nobody_uses_is_told(self, shims: Shims, volumes: Path) -> None:
        with pytest.raises(CtlError, match="no direct-assigned volume /v is known"):
            direct_volume.stats("/v", volumes, (shims.root,))
        direct_volume.add("/v", INFO, volumes)
        with pytest.raises(CtlError, match="no running sandbox uses the volume /v"):
            direct_volume.stats("/v", volumes, (shims.root,))
