"""What is taken out of a bug report, and what stays in it."""

from __future__ import annotations

import base64
import json
import time

import pytest

from kata_py.diagnosis import redaction
from kata_py.diagnosis.literals import REDACTED
from kata_py.diagnosis.redaction import Redactor

PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIPlanted\nAoGCCqGSM49\n-----END EC PRIVATE KEY-----"
LONG = [  # lines that begin much and end nothing
    (piece * (1 << 20))[: 1 << 20]
    for piece in (
        *("Key:A,Value:", "key=", "env={", 'env=["', '"env":["A=', "-e A=", '"--password",'),
        *("eyJaaaaaaaaa-", "://", "://a:", "\\", '\\\\\\"'),
    )
]
BLOB = base64.b64encode(bytes(range(100, 160))).decode()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key:\n{PEM}\nafter", "MHcCAQEEIPlanted"),
        (PEM.replace("\n", "\nNov 28 host kata[1]: "), "MHcCAQEEIPlanted"),
        ("-----BEGIN PRIVATE KEY-----\nCutShort", "CutShort"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "eyJzdWIiOiIx"),
        ("as AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("from ghp_abcdefghijklmnop", "ghp_abcdefghijklmnop"),
        ("pull https://user:hunter2@registry.example/x", "hunter2"),
        ("password=hunter2", "hunter2"),
        ('{"password": "hunter 2", "a": 1}', "hunter 2"),
        ('msg="sent {\\"token\\":\\"hunter2\\"} to it" pid=1', "hunter2"),
        ("AWS_SECRET_ACCESS_KEY: hunter2", "hunter2"),
        ("jaeger_password = 'hunter2'", "hunter2"),
        ("run --registry-password hunter2 --debug", "hunter2"),
        ("run --api-key=hunter2", "hunter2"),
        ("AccountKey=hunter2;Endpoint=x", "hunter2"),
        ('user_data: "hunter2"', "hunter2"),
        ("cc_init_data=SGVsbG8=", "SGVsbG8"),
        ('OCI: Spec { env: ["A=hunter2", "B=hunter3"] }', "hunter3"),
        ('{"pin-code-secret": 123456}', "123456"),
        (f"blob {BLOB} end", BLOB[:20]),
        ("Envs:[]*KeyValue{&KeyValue{Key:A,Value:hunter2pass,},},Mounts:[]*Mount{}", "hunter2pass"),
        ("Envs:[]*KeyValue{&KeyValue{Key:A,Value:{hunter2, pass},},},Mounts:x", "pass}"),
        ("Envs:[]*KeyValue{&KeyValue{Key:A,Value:first\nhunter2pass,},},Mounts:x", "hunter2pass"),
        ('{"key":"DB_PASSWORD","value":"hunter2pass"}', "hunter2pass"),
        ('msg="{\\"key\\":\\"A\\",\\"value\\":\\"say \\\\\\"hunter2\\\\\\" pass\\"}" a=b', "hunter2"),
        ('"env":[{"name":"A","value":"hunter2pass"}]', "hunter2pass"),
        ("Env:[]EnvVar{EnvVar{Name:A,Value:hunter2pass,ValueFrom:nil,},}", "hunter2pass"),
        ("{Name:A Value:hunter 2pass ValueFrom:nil}", "2pass"),
        ('envs:{key:"A"  value:"hunter2pass"}', "hunter2pass"),
        ('{"env": {"A": "hunter2pass"}}', "hunter2pass"),
        ("Env:map[A:hunter2pass]", "hunter2pass"),
        ("Env:[A=hunter2pass B=hunter3]", "hunter3"),
        ('"env": [\n  "A=x]y",\n  "B=hunter2pass"\n]', "hunter2pass"),
        ('default_env = ["DATABASE=hunter2hunter"]', "hunter2hunter"),
        ('msg="default_env = [\\n  \\"DATABASE=hunter2hunter\\",\\n]"', "hunter2hunter"),
        ("crictl --env A=hunter2pass", "hunter2pass"),
        ('"-e","A=hunter2pass"', "hunter2pass"),
        ("Environment=A=hunter2 B=hunter3", "hunter3"),
        ("redis://:hunter2pw@cache", "hunter2pw"),
        ("https://TOKENHUNTER@host/x", "TOKENHUNTER"),
        ("redis://u:hun@ter2@cache", "ter2"),
        ('["run","--password","hunter2"]', "hunter2"),
        ('args=[\\"--password\\", \\"hunter2\\"]', "hunter2"),
        ('{"passwords": ["hunter1", "hunter2"]}', "hunter2"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_texts(text: str, secret: str) -> None:
    redacted = Redactor().text(text)
    assert secret not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize(
    "text",
    [
        f'time="2026-11-28T08:00:00.123456789Z" level=info msg="sandbox started" sandbox={"ab" * 32} source=x',
        "/run/kata-containers/shared/sandboxes/0123456789abcdef/mounts/c1-0123456789abcdef-data is mounted",
        "/var/lib/kubelet/pods/0b0e9a9c-3c1b-4a3e-9d0f-5f1f0a8e7b11/volumes/kubernetes.io~empty-dir/x",
        "agent: CreateContainerRequest failed after 3.2 s of 60 s: No such file or directory",
        "kata_shim_rpc_durations_histogram_milliseconds_bucket{action=\"create\",le=\"512.0\"} 3.0",
        "the token bucket is full",
        "sha256:" + "0f" * 32,
        "dial unix:///run/x.sock, mail kata@example.org, clone git@github.com:a/b ssh://git@host/x, host@1.2",
        "docker://registry/image:1@sha256:" + "0f" * 32,
        "environment is set up, keys and values are kept",
        "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)",
    ],
)  # fmt: skip
def test_what_people_need_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_json_stays_json() -> None:
    document = {"password": "x", "tokens": [1], "nested": {"api_key": 'y"z', "secret": 5, "policy": None}, "n": 1}
    document |= {"env": ["A=x"], "environment": {"B": "y"}, "envs": [{"name": "C", "value": 5}]}
    redacted = json.loads(Redactor().text(json.dumps(document, indent=1)))
    assert redacted["nested"]["api_key"] == redacted["password"] == redacted["nested"]["secret"] == REDACTED
    assert redacted["n"] == 1
    assert (redacted["env"], redacted["environment"]) == ([f"A={REDACTED}"], REDACTED)
    assert redacted["envs"] == [{"name": "C", "value": REDACTED}]


def test_known_values_are_taken_out_wherever_and_however_they_stand() -> None:
    redactor = Redactor(["correct horse", 'quo"ted\nlines', "c2hvcnQgYnV0IGxvbmc=", "abc"])
    text = json.dumps({"a": "say correct horse", "b": 'quo"ted', "c": "lines lines", "d": "abc"})
    text += base64.b64encode(b"correct horse").decode() + " short but long"
    redacted = redactor.text(text)
    for gone in ("correct horse", "quo", base64.b64encode(b"correct horse").decode()[:-2], "short but long"):
        assert gone not in redacted
    assert '"d": "abc"' in redacted, "too short to be searched for"
    assert Redactor(["warning", "123456"]).text("level=warning 123456") == "level=warning 123456"
    assert Redactor(["12345678"]).text("pin 12345678") == f"pin {REDACTED}"


def test_a_spec_is_told_without_values_arguments_and_unknown_annotations() -> None:
    spec = {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["/bin/app", "--flag", "s3cret-arg"],
            "env": ["PATH=/bin", "DB_URL=s3cret-env", "PLAIN=s3cret-plain"],
            "cwd": "/",
            "user": {"uid": 5, "gid": 6, "username": "s3cret-user"},
        },
        "mounts": [{"destination": "/x", "type": "cifs", "source": "//h/x", "options": ["ro", "password=s3cret-opt"]}],
        "annotations": {
            "io.kubernetes.cri.sandbox-name": "web",
            "io.katacontainers.config.hypervisor.default_memory": "512",
            "io.katacontainers.config.hypervisor.kernel_params": "quiet agent.aa_kbc_params=s3cret-param",
            "io.katacontainers.config.hypervisor.cc_init_data": "s3cret-init",
            "io.katacontainers.config.agent.policy": "s3cret-policy",
            "kubectl.kubernetes.io/last-applied-configuration": "s3cret-last",
        },
        "hooks": {"prestart": [{"path": "/x", "env": ["A=s3cret-hook"]}]},
        "linux": {"cgroupsPath": "/a", "sysctl": {"x": "s3cret-sysctl"}},
    }
    told = redaction.spec(spec)
    assert "s3cret" not in json.dumps(told)
    text = json.dumps(told)
    for kept in ('"/bin/app"', "DB_URL=", "sandbox-name", '"web"', '"512"', '"quiet ', "agent.aa_kbc_params=", "cifs"):
        assert kept in text, kept
    known = set(redaction.secrets_of(spec))
    assert {"s3cret-env", "s3cret-plain", "s3cret-init", "s3cret-policy", "s3cret-last"} <= known
    assert "/bin" not in known


def test_of_odd_documents_nothing_is_told() -> None:
    for odd in ({}, {"process": None, "mounts": [5], "annotations": {"a": 5}}, {"process": {"env": [1], "args": "x"}}):
        told = redaction.spec(odd)
        assert list(redaction.secrets_of(odd)) == []
        assert json.dumps(told)


def test_settings_are_told_key_by_key_without_comments_and_secrets() -> None:
    text = """
        # password: s3cret-comment
        [hypervisor.qemu]
        kernel_params = "quiet agent.x=s3cret-param"
        default_memory = 512
        cc_init_data = "s3cret-init"
        [plugins."a.b".registry.configs."h".auth]
        password = "s3cret-pass"
        username = "somebody"
        [plugins]
        env = ["A=s3cret-env"]
        [[plugins.list]]
        private_thing = ["s3cret-list"]
        [[plugins.list]]
        plain = true
    """
    told = redaction.settings(text)
    assert "s3cret" not in told
    assert "hypervisor.qemu.default_memory = 512\n" in told
    assert f'hypervisor.qemu.kernel_params = "quiet agent.x={REDACTED}"\n' in told
    assert "plugins.list.1.plain = true\n" in told
    assert f'plugins.env = ["A={REDACTED}"]\n' in told
    assert {"s3cret-param", "s3cret-init", "s3cret-pass", "s3cret-env", "s3cret-list"} <= set(
        redaction.secret_settings(text)
    )
    with pytest.raises(ValueError, match="line 1"):
        redaction.settings("a b")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["qemu", "-m", "5M", "-object", "secret,data=x", "-S"], f"qemu -m 5M -object {REDACTED} -S"),
        (["qemu", "-append", "quiet a=b root=/dev/x"], f"qemu -append 'quiet a={REDACTED} root=/dev/x'"),
        (["/bin/python3", "-I", "/bin/kata-monitor", "x"], f"/bin/python3 -I /bin/kata-monitor {REDACTED}"),
        (["caa", "aws", "--key=x", "--cache=auto"], f"caa {REDACTED} --key={REDACTED} --cache=auto"),
        ([], ""),
    ],
)  # fmt: skip
def test_of_command_lines_only_known_options_have_values(words: list[str], told: str) -> None:
    assert redaction.command_line(words) == told


@pytest.mark.parametrize("text", ["aB3" * 300_000, "_key" * 200_000, "env=[" * 200_000, 'password="' * 100_000, *LONG])
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    Redactor().text(text)
    assert time.process_time() - began < 5
