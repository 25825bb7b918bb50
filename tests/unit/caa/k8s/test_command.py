"""The commands of a cluster: what they cannot understand, or do without, they name, and end."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_caa.k8s import command


@pytest.mark.parametrize("run", [command.webhook, command.controller])
def test_they_tell_their_version(run, capsys):
    assert run(["version"], {}) == 0
    assert capsys.readouterr().out.startswith("peerpod")


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["-colour", "red"], {}, "flag provided but not defined: -colour"),
        (["now"], {}, "now: not understood; flags are: -cert-dir, "),
        (["-port", "x"], {}, "-port: "),
        (["-log-level", "loud"], {}, "-log-level: 'loud' is none of debug"),
        ([], {"CERT_DIR": "/nowhere"}, "-cert-dir: /nowhere: "),
        ([], {"TLS_MIN_VERSION": "VersionTLS13", "TLS_CIPHER_SUITES": "x"}, "-tls-cipher-suites: "),
    ],
)
def test_the_webhook_names_what_it_cannot_use(words, environment, said, capsys):
    assert command.webhook(words, environment) == 2
    assert f"peerpods-webhook: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "name"), [(["other"], "other"), ([], "")])
def test_the_controller_names_the_clouds_that_there_are(words, name, capsys):
    assert command.controller(words, {}) == 2
    assert f"peerpod-controller: CLOUD_PROVIDER: unknown provider {name!r}; there is: " in capsys.readouterr().err


def test_a_certificate_of_another_key_is_refused(tmp_path: Path, capsys):
    (tmp_path / "tls.crt").write_text("no certificate")
    (tmp_path / "tls.key").write_text("no key")
    assert command.webhook(["-cert-dir", str(tmp_path)], {}) == 2
    assert "tls-server-cert and tls-server-key cannot be used" in capsys.readouterr().err
