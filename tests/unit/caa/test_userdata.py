"""User data: the writer against a real YAML parser, the reader against both writers' form."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kata_caa import userdata
from kata_caa.errors import MalformedConfig
from kata_caa.userdata import AUTH, PATHS, SCRATCH_MARKER, File, parse, render

AWKWARD = st.text(st.sampled_from(" \t\n\r#:-|>ab\"'\\\x00\x7f\x85\u2028\ufeff\ufffeé\U0001f600"), max_size=30)
CONTENTS = AWKWARD | st.text(max_size=60)

# As upstream's template lays it out, its blank lines included.
UPSTREAM = """#cloud-config

write_files:
  - path: /run/peerpod/apf.json
    content: |
      {
          "pod-name": "web",
      
          "pod-namespace": "default"
      }
  - path: /run/peerpod/scratch-space.marker
  - path: /run/peerpod/auth.json
    content: |
      {"auths":{}}
"""  # noqa: W293


def by_yaml(text):
    """What a real parser makes of it."""
    tree = yaml.load(text, yaml.SafeLoader)
    assert set(tree or {}) <= {"write_files"}
    return tuple(File(each["path"], each.get("content", "")) for each in (tree or {}).get("write_files", ()))


@given(st.lists(CONTENTS, max_size=4))
def test_any_text_is_read_back_by_us_and_by_a_real_parser(contents):
    files = tuple(File(f"/run/peerpod/file{i}", content) for i, content in enumerate(contents))
    text = render(files)
    assert text.startswith("#cloud-config\n")
    assert parse(text) == files
    assert by_yaml(text) == files


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ("a\n", "|"), ("a", "|-"), ("a\n\n", "|+"), ("\n", "|2+"), (" a\n", "|2"), ("\ta", "|2-"), ("\n\n a", "|2-"),
        ("a\r\n", '"a\\r\\n"'), ("\x85", '"\\u0085"'), ("\U0001f600\0", '"\\U0001f600\\u0000"'), ("é\n", "|"),
    ],
)  # fmt: skip
def test_the_form_follows_the_content(content, header):
    text = render([File("/a", content)])
    assert f"    content: {header}\n" in text
    assert by_yaml(text) == parse(text) == (File("/a", content),)


def test_upstreams_form_is_read_as_a_real_parser_reads_it():
    files = parse(UPSTREAM)
    assert files == by_yaml(UPSTREAM)
    assert files[0].content.count("\n") == 5
    assert files[1] == File(SCRATCH_MARKER, "")
    assert parse(UPSTREAM.encode(), PATHS) == files


BLOCKS = st.lists(
    st.sampled_from(["", " ", "      ", "       ", "x", " x", "# x", "      \tx", "- path: /c"]), max_size=5
)


@given(BLOCKS, st.sampled_from(["|", "|-", "|+", "|2", "|2-", "|+1", "|4"]), st.booleans(), st.booleans())
def test_what_is_read_of_a_literal_block_is_what_a_real_parser_reads(lines, header, more, ended):
    block = [line if line.isspace() or line.startswith("      ") else f"      {line}" for line in lines]
    text = "\n".join(["#cloud-config", "write_files:", "  - path: /a", f"    content: {header}", *block])
    if more:
        text += "\n  - path: /b"
    if ended:
        text += "\n"
    try:
        files = parse(text)
    except MalformedConfig:
        return  # to refuse is always allowed
    assert files == by_yaml(text)


@given(st.text(alphabet=" \n-:|#abcpath\"'\\{}[]&*!>+2", max_size=80) | st.text(max_size=40))
def test_what_is_taken_at_all_is_what_a_real_parser_reads(rest):
    text = f"#cloud-config\nwrite_files:\n{rest}"
    try:
        files = parse(text)
    except MalformedConfig:
        return
    assert files == by_yaml(text.replace("write_files:", "write_files: []") if not files else text)


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("users: []", 2, "users"),
        ("write_files:\nruncmd:\n  - x", 3, "runcmd"),
        ("write_files: []\nwrite_files: []", 3, "write_files comes twice"),
        ("write_files: x", 2, "no list"),
        ("write_files:\n  - path: /a\n    permissions: 0600", 4, "permissions"),
        ("write_files:\n  - path: /a\n    path: /b", 4, "path comes twice"),
        ("write_files:\n  - path: /a\n  - path: /a", 4, "/a comes twice"),
        ("write_files:\n  - content: |\n      x", 3, "path is missing"),
        ("write_files:\n  - path: ../a", 3, "'../a'"),
        ("write_files:\n  - path: /run/peerpod/../../etc/shadow", 3, "etc/shadow"),
        ("write_files:\n  - path: &x /a", 3, "path"),
        ("write_files:\n  - path: /a\n    content: plain", 4, "content"),
        ("write_files:\n  - path: /a\n    content: >\n      folded", 4, "content"),
        ('write_files:\n  - path: /a\n    content: "\\q"', 4, "content"),
        ('write_files:\n  - path: /a\n    content: "\\ud800"', 4, "no character"),
        ('write_files:\n  - path: /a\n    content: "\\U7fffffff"', 4, "no character"),
        ("write_files:\n  - path: /a\n    content: |\n          \n      x", 5, "blank lines"),
        ("write_files:\n  - path: /a\n   content: |\n      x", 4, "neither"),
        ("write_files:\n  - path: /a\n - path: /b", 4, "indentation"),
        ("write_files:\n  - /a", 3, "not a key"),
        ("write_files:\n\t- path: /a", 3, "neither"),
        ("write_files:\r\n  - path: /a", 2, "line end"),
    ],
)
def test_another_form_is_refused_with_its_line(body, line, says):
    with pytest.raises(MalformedConfig, match=f"line {line}: ") as caught:
        parse(f"#cloud-config\n{body}\n")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"), [("", "line 1: the first"), ("#!/bin/sh", "line 1: the first"), (b"#cloud\n\xff", "line 2: not")]
)
def test_what_is_no_cloud_config_is_refused(data, says):
    with pytest.raises(MalformedConfig, match=says):
        parse(data)


def test_a_path_outside_is_refused_where_that_is_asked():
    text = render([File(AUTH, "x"), File("/etc/passwd", "x")])
    assert len(parse(text)) == 2
    with pytest.raises(MalformedConfig, match="line 7: path: /etc/passwd"):
        parse(text, PATHS)


def test_comments_and_blank_lines_say_nothing():
    text = "#cloud-config \n\n# x\nwrite_files:\n\n# y\n- path: /a\n  # z\n  content: |\n    # kept\n# end\n"
    assert parse(text) == by_yaml(text) == (File("/a", "# kept\n"),)


@pytest.mark.parametrize(
    ("file", "says"),
    [(File("a", ""), "'a'"), (File("/a b", ""), "'/a b'"), (File("/a", "\ud800"), "Unicode"), (File("/x/", ""), "/x/")],
)
def test_what_cannot_be_written_is_refused(file, says):
    with pytest.raises(MalformedConfig, match=says):
        render([file])
    with pytest.raises(MalformedConfig, match="twice"):
        render([File("/a", ""), File("/a", "")])


def test_the_allowed_paths_are_upstreams_six():
    assert {path.removeprefix("/run/peerpod/") for path in userdata.PATHS} == {
        "apf.json", "auth.json", "initdata", "scratch-space.marker", "aa.toml", "cdh.toml",
    }  # fmt: skip
