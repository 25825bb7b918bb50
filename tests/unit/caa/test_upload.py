from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from kata_caa import command
from kata_caa.config import AdaptorConfig
from kata_caa.disk import Disk, Progress
from kata_caa.errors import SettingError
from kata_caa.providers.api import ImageStore, StoredImage
from kata_caa.upload import Meter, upload


class Shelf(ImageStore):
    """Keeps images in a list."""

    setting = "SHELF_IMAGE"

    def __init__(self) -> None:
        self.images: list[StoredImage] = []

    async def upload(self, disk: Disk, stem: str, progress: Progress) -> StoredImage:
        progress(disk.payload, disk.payload)
        self.images.append(StoredImage("id-1", disk.named(stem), disk.digest))
        return self.images[-1]

    async def stored(self) -> Sequence[StoredImage]:
        return self.images


async def test_an_upload_tells_how_far_it_is_and_what_it_has_made(tmp_path: Path) -> None:
    path = tmp_path / "podvm.raw"
    path.write_bytes(b"disk")
    out, shelf = io.StringIO(), Shelf()
    image = await upload(shelf, path, "podvm", "x86_64", out)
    assert image.value == "id-1"
    lines = out.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["reading", "uploading", image.name]
    assert lines[1].startswith("uploading: 100 % of")
    assert "MiB/s" in lines[1]


@pytest.mark.parametrize("name", ["", "a b", "pod/vm", "x" * 61, "é"])
async def test_a_name_that_no_cloud_takes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingError, match="-name"):
        await upload(Shelf(), tmp_path / "podvm.raw", name, "x86_64", io.StringIO())


def test_a_meter_writes_at_first_now_and_then_and_at_the_end() -> None:
    out, now = io.StringIO(), [0.0]
    meter = Meter("uploading", out, lambda: now[0])
    for now[0], done in ((1.0, 1 << 20), (6.0, 3 << 20), (7.0, 4 << 20), (8.0, 6 << 20)):
        meter.tell(done, 6 << 20)
    assert out.getvalue().splitlines() == [
        "uploading: 16 % of 6 MiB, 1.0 MiB/s",
        "uploading: 50 % of 6 MiB, 0.5 MiB/s",
        "uploading: 100 % of 6 MiB, 0.8 MiB/s",
    ]


@pytest.mark.parametrize("words", [[], ["upload"], ["upload", "a", "b"], ["lift", "a"], ["list", "-name=x", "y"]])
def test_words_of_image_that_are_none_are_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["libvirt", "image", *words], {"LIBVIRT_URI": "test:///default"}) == 2
    assert "there is: upload FILE, list" in capsys.readouterr().err


async def test_a_provider_that_cannot_upload_images_says_so() -> None:
    with pytest.raises(SettingError, match="this provider cannot upload images"):
        await command._Image(words=("list",)).act(AdaptorConfig(), object(), nullcontext)


def test_help_tells_of_uploading(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["libvirt", "image", "upload", "-help"], {}) == 0
    told = capsys.readouterr().out
    assert "image upload FILE" in told
    assert "-machine" in told
