"""The tables of settings: what a dataclass says is what the documents say."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from kata_caa.settings import Duration, setting
from tools.settings_docs import PAGES, Page, SettingsDocsError, main, table, update


@dataclass(frozen=True)
class Cloud:
    """Some settings."""

    key: str = setting("", "key", "CLOUD_KEY", "what opens it", secret=True)
    wait: Duration = setting(Duration(90.0), "wait", "CLOUD_WAIT", "how long; ours")
    day: Duration = setting(Duration(86400.0), "day", "", "extension: how much longer")
    short: Duration = setting(Duration(0.25), "short", "", "how much less")
    never: Duration = setting(Duration(0.0), "never", "", "not at all")
    public: bool = setting(False, "public", "PUBLIC", "whether a|b")
    tags: tuple[tuple[str, str], ...] = setting((("a", "1"), ("b", "2")), "", "TAGS", "labels")
    other: str = "no setting"


PAGE = Page("cloud.md", "cloud", Cloud)
BEGIN, END = PAGE.marks


def test_every_setting_has_a_line() -> None:
    assert table(Cloud).strip().splitlines() == [
        "| Variable | Flag | Default | Meaning |  |",
        "| --- | --- | --- | --- | --- |",
        "| `CLOUD_KEY` | `-key` | – | what opens it | secret |",
        "| `CLOUD_WAIT` | `-wait` | `90s` | how long | ours |",
        "| – | `-day` | `24h` | how much longer | ours |",
        "| – | `-short` | `0.25s` | how much less |  |",
        "| – | `-never` | `0` | not at all |  |",
        "| `PUBLIC` | `-public` | `false` | whether a\\|b |  |",
        "| `TAGS` | – | `a=1,b=2` | labels |  |",
    ]


def test_a_region_is_rendered_and_the_rest_stays(tmp_path: Path) -> None:
    document = tmp_path / "cloud.md"
    document.write_text(f"# Cloud\n{BEGIN}old\n{END}the end\n")
    assert update(tmp_path, [PAGE], write=False) == ["docs/cloud.md"]
    assert "old" in document.read_text()
    assert update(tmp_path, [PAGE], write=True) == ["docs/cloud.md"]
    assert document.read_text() == f"# Cloud\n{BEGIN}{table(Cloud)}{END}the end\n"
    assert update(tmp_path, [PAGE], write=False) == []


@pytest.mark.parametrize("text", ["", "# Cloud\n", f"# Cloud\n{BEGIN}open\n"], ids=["empty", "unmarked", "open"])
def test_a_document_without_its_marks_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "cloud.md").write_text(text)
    with pytest.raises(SettingsDocsError, match=r"docs/cloud\.md needs the lines <!-- settings of cloud: begin -->"):
        update(tmp_path, [PAGE], write=True)


def test_the_documents_are_what_the_settings_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_every_provider_has_a_document() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())["project"]
    assert {f"{name}.md" for name in project["entry-points"]["kata_caa.providers"]} < {page.path for page in PAGES}
