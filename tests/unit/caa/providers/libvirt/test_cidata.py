"""The disc with a machine's user data, read with other eyes: blkid and an extraction by each kind of name."""

from __future__ import annotations

import io
import subprocess

from pycdlib import PyCdlib

from kata_caa.providers.libvirt.cidata import disc

USER_DATA = "#cloud-config\nwrite_files:\n- path: /x\n  content: ü\n" * 100


def read(image: bytes, **name: str) -> bytes:
    iso, out = PyCdlib(), io.BytesIO()
    iso.open_fp(io.BytesIO(image))
    iso.get_file_from_iso_fp(out, **name)
    iso.close()
    return out.getvalue()


def test_its_label_is_the_one_that_cloud_init_looks_for(tmp_path):
    (tmp_path / "x.iso").write_bytes(disc(USER_DATA, "podvm-web"))
    line = ["blkid", "-p", "-o", "value", "-s", "LABEL", "-s", "TYPE", tmp_path / "x.iso"]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout.split() == ["cidata", "iso9660"]


def test_its_files_are_there_under_their_whole_names():
    image = disc(USER_DATA, "podvm-web")
    for kind in ("rr_path", "joliet_path"):
        assert read(image, **{kind: "/user-data"}) == USER_DATA.encode()
        assert b"local-hostname: podvm-web\n" in read(image, **{kind: "/meta-data"})
        assert read(image, **{kind: "/vendor-data"}) == b""
