"""What the confidential data hub's configuration says of registries, for guests that have the file and not the hub.

It comes with a pod's initdata: registries with mirrors or without TLS, and further certificates, in upstream's keys.
Source: guest-components `image-rs/src/config.rs` (`[image]` of cdh.toml); containers-registries.conf(5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent.errors import InvalidArgument

if TYPE_CHECKING:
    from kata_agent.image.registry import Settings

CONFIGURATION = Path("/run/peerpod/cdh.toml")


def told(settings: Settings, directory: Path, configuration: Path = CONFIGURATION) -> Settings:
    """The settings with what the configuration says; its own files stand in the place of those it names. It blocks.

    Args:
        settings: Where what concerns registries lies.
        directory: Where files may be written for it.
        configuration: The file; without it nothing changes.

    Raises:
        InvalidArgument: It cannot be read.
    """
    import tomllib

    try:
        image = tomllib.loads(configuration.read_text()).get("image", {})
        if not isinstance(image, dict):
            raise ValueError("image is no table")
    except FileNotFoundError:
        return settings
    except (ValueError, OSError) as error:  # also what is no TOML, and no text
        raise InvalidArgument(f"{configuration} cannot be read: {error}") from None
    certificates, registries = image.get("extra_root_certificates"), image.get("registry_config")
    if certificates:
        place = directory / "certificates"
        place.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(certificates):
            (place / f"{number}.crt").write_text(str(text))
        settings = replace(settings, certificates=place)
    if registries:
        place = directory / "registries.conf"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("\n".join(_toml(registries, "")) + "\n")
        settings = replace(settings, registries=place)
    return settings


def _toml(table: Mapping[str, object], name: str) -> Iterator[str]:
    """A table and those in it, as TOML; strings are written as JSON's, which TOML has too."""
    tables: dict[str, Sequence[Mapping[str, object]]] = {}
    for key, value in table.items():
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            tables[key] = value
        elif not isinstance(value, dict):
            yield f"{key} = {json.dumps(value)}"
    for key, inner in tables.items():
        for each in inner:
            yield f"[[{name}{key}]]"
            yield from _toml(each, f"{name}{key}.")
