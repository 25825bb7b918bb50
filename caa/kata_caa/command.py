"""The command line: `cloud-api-adaptor <provider> [flags]`, `… orphans`, `… image upload`, `help`, `version`.

Source: cloud-api-adaptor `cmd/cloud-api-adaptor/main.go`, `cmd/starter.go`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import entry_points, version
from typing import Any

from kata_caa import flags, log, settings
from kata_caa.config import AdaptorConfig
from kata_caa.errors import AdaptorError, SettingError
from kata_caa.leftovers import leftovers

GROUP = "kata_caa.providers"
_Opener = Callable[[], AbstractAsyncContextManager[Any]]  # of what the node is a part of; it takes time to import
_SHOWN = 120  # characters of a setting in the log


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """The program; returns its exit status: 0, 1 for what failed, 2 for what cannot be understood."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    environ = os.environ if environ is None else environ
    named = environ.get("CLOUD_PROVIDER", "")
    match words:
        case ["version" | "--version" | "-version", *_]:
            print(f"cloud-api-adaptor {version('kata-py')}")
            return 0
        case ["help" | "-h" | "--help" | "-help", *_]:
            print(_usage())
            return 0
        case [] if not named:
            print(_usage())
            return 2
        case _:
            name, rest = (words[0], words[1:]) if words and not words[0].startswith("-") else (named, words)
            try:
                return _of_provider(name, rest, environ)
            except SettingError as error:
                print(f"cloud-api-adaptor: {error}", file=sys.stderr)
                return 2
            except AdaptorError as error:
                print(f"cloud-api-adaptor: {error}", file=sys.stderr)
                return 1


def _of_provider(name: str, words: Sequence[str], environ: Mapping[str, str]) -> int:
    found = entry_points(group=GROUP)
    if name not in found.names:
        known = ", ".join(sorted(found.names)) or "none"
        said = f"unknown provider {name!r}" if name else "no provider, as the first word or in CLOUD_PROVIDER"
        print(f"cloud-api-adaptor: {said}; there is: {known}", file=sys.stderr)
        return 1
    try:
        factory = found[name].load()
    except ImportError as error:
        print(f"cloud-api-adaptor: {error}; run: pip install 'kata-py[{name}]'", file=sys.stderr)
        return 1
    action = words[0] if words and not words[0].startswith("-") else "serve"
    rest = list(words[1:] if action != "serve" else words)
    operands = []
    while action == "image" and rest and not rest[0].startswith("-"):
        operands.append(rest.pop(0))
    shapes = (AdaptorConfig, factory.config, _ACTIONS.get(action, _Serve))
    if "-h" in rest or "--help" in rest or "-help" in rest:
        print(_flags(name, shapes))
        return 0
    values, left = flags.parse(rest, _names(shapes), _names(shapes, booleans=True))
    if action == "image":
        operands, left = [*operands, *left], []
    if action not in _ACTIONS or left:
        raise SettingError(f"{' '.join(left) or action}: not understood; there is: {', '.join(_ACTIONS)}")
    config, cloud, options = (settings.load(shape, values, environ) for shape in shapes)
    config = dataclasses.replace(config, cloud_settings=settings.digest(cloud))
    if action == "image":
        options = dataclasses.replace(options, words=tuple(operands))
    log.begin(config.log_level)
    if action == "serve":
        options = dataclasses.replace(options, leftovers=tuple(leftovers(name, environ).items()))
    for shape, value in zip(shapes, (config, cloud, options), strict=True):
        _tell(shape, value)
    try:
        status: int = asyncio.run(options.act(config, factory(cloud), partial(_surroundings, name, config, environ)))
    except KeyboardInterrupt:
        print("cloud-api-adaptor: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        print("cloud-api-adaptor: terminated", file=sys.stderr)
        return 128 + signal.SIGTERM
    return status


@dataclasses.dataclass(frozen=True)
class _Serve:
    """Serve the node's runtime."""

    leftovers: tuple[tuple[str, str], ...] = ()  # no setting: variables without effect, and what to do

    async def act(self, config: AdaptorConfig, provider: Any, surroundings: _Opener) -> int:
        from kata_caa import daemon
        from kata_caa.examination import examine

        if config.check:
            findings = await asyncio.to_thread(examine, config)
            _print(findings)  # whatever the cloud says
            for key, text in self.leftovers:
                print(f"IGNORED {key}: {text}")
            async with provider as cloud:
                found = await cloud.check()
            _print(found)
            return 0 if all(each.passed for each in (*findings, *found)) else 1
        for key, text in self.leftovers:
            logging.getLogger(__name__).warning("%s %s", key, text)
        async with surroundings() as around:
            await daemon.run(config, provider, around)
        return 0


@dataclasses.dataclass(frozen=True)
class _Orphans:
    """List what the cloud has of this node's that no sandbox owns, or delete it."""

    delete: bool = settings.setting(False, "delete", "", "delete it")

    async def act(self, config: AdaptorConfig, provider: Any, surroundings: _Opener) -> int:
        from pathlib import Path

        from kata_caa.orphans import on_record, orphans, target_of
        from kata_caa.owner import owner_of_this_node
        from kata_caa.pool.machine import MachineRecords
        from kata_caa.record import PodRecords

        pods, machines = PodRecords(Path(config.pods_dir)), MachineRecords(config.pool_dir)
        owner, status = owner_of_this_node(config.owner), 0
        print(
            f"cloud-api-adaptor: looking for what is {owner}'s and has no sandbox in {config.pods_dir}", file=sys.stderr
        )
        _, damaged = await asyncio.to_thread(pods.known)
        for error in damaged.values():
            print(f"cloud-api-adaptor: {error}: what may be that pod's machine is left out", file=sys.stderr)
        async with provider as cloud:
            found = await orphans(cloud, owner, partial(on_record, pods, machines))
            for sandbox_id, objects in found.items():
                for each in objects:
                    print(f"{each.kind}\t{each.id}\t{each.name}\t{sandbox_id}")
                if not self.delete:
                    continue
                try:
                    await cloud.delete(target_of(sandbox_id, objects))
                except AdaptorError as error:
                    status = 1
                    print(f"cloud-api-adaptor: what sandbox {sandbox_id} has left stays: {error}", file=sys.stderr)
        return status


@dataclasses.dataclass(frozen=True)
class _Image:
    """Upload the disk of pod VMs to the cloud, or list what was uploaded."""

    name: str = settings.setting("podvm", "name", "", "image upload: the image's name up to the digest that follows")
    machine: str = settings.setting(
        "x86_64", "machine", "", "image upload: which machines the disk is for, x86_64, aarch64 or s390x"
    )
    words: tuple[str, ...] = ()

    async def act(self, config: AdaptorConfig, provider: Any, surroundings: _Opener) -> int:
        from pathlib import Path

        from kata_caa import upload
        from kata_caa.providers.api import UploadsImages

        if not isinstance(provider, UploadsImages):
            raise SettingError("image: this provider cannot upload images; do it by the cloud's own tools")
        match self.words:
            case ["upload", file]:
                async with provider.images() as store:
                    image = await upload.upload(store, Path(file), self.name, self.machine, sys.stderr)
                print(f"{store.setting}={image.value}")
            case ["list"]:
                async with provider.images() as store:
                    for each in await store.stored():
                        print(f"{store.setting}={each.value}\t{each.name}\t{each.digest}")
            case _:
                raise SettingError(f"image {' '.join(self.words)}: not understood; there is: upload FILE, list")
        return 0


@dataclasses.dataclass(frozen=True)
class _Costs:
    """Tell how long the pods of each namespace had machines of which types, and what that costs."""

    since: settings.Duration = settings.setting(
        settings.Duration(720 * 3600.0), "since", "", "costs: how far back it goes"
    )
    prices: str = settings.setting("", "prices", "", 'costs: a file with what an hour costs, "m6a.large" = 0.0864')

    async def act(self, config: AdaptorConfig, provider: Any, surroundings: _Opener) -> int:
        import time
        from pathlib import Path

        from kata_caa import usage

        if not config.usage_file:
            raise SettingError("costs: -usage-file (USAGE_FILE) names what the adaptor writes, and is not set")
        price = usage.prices(Path(self.prices)) if self.prices else {}
        now = time.time()
        for each in usage.costs(usage.read(Path(config.usage_file)), now - self.since, now, price):
            cost = "-" if each.cost is None else f"{each.cost:.2f}"
            print(f"{each.namespace}\t{each.instance_type or '-'}\t{each.machines}\t{each.hours:.2f} h\t{cost}")
        return 0


_ACTIONS: dict[str, Any] = {"serve": _Serve, "orphans": _Orphans, "image": _Image, "costs": _Costs}


@asynccontextmanager
async def _surroundings(name: str, config: AdaptorConfig, environ: Mapping[str, str]) -> AsyncIterator[Any]:
    """The cluster, if `NODE_NAME` says that the node is a part of one, as upstream has it; else None."""
    if not environ.get("NODE_NAME"):
        yield None
        return
    try:
        from kata_caa.k8s.cluster import Place, open_cluster
    except ImportError as error:
        raise AdaptorError(f"{error}, and NODE_NAME is set; run: pip install 'kata-py[k8s]'") from error
    async with open_cluster(Place.of(config, name, environ)) as cluster:
        yield cluster


def _print(findings: Sequence[Any]) -> None:
    for each in findings:
        print(f"{each.verdict:7} {each.subject}: {each.detail}")


def _names(shapes: Sequence[type], *, booleans: bool = False) -> set[str]:
    return {
        how.flag
        for shape in shapes
        for field, how in settings.settings_of(shape)
        if how.flag and (not booleans or isinstance(field.default, bool))
    }


def _tell(shape: type, values: Any) -> None:
    """Put down what counts; secrets as ten asterisks, as upstream has it."""
    for field, how in settings.settings_of(shape):
        value = getattr(values, field.name)
        if value != field.default:
            shown = "**********" if how.secret else _shortened(str(value))
            logging.getLogger(__name__).info("%s = %s", how.flag or how.environment, shown)


def _shortened(value: str) -> str:
    """A value for a line of a log, which initdata would fill."""
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}... ({len(value)} characters)"


def _flags(name: str, shapes: Sequence[type]) -> str:
    lines = [f"usage: cloud-api-adaptor {name} [serve | orphans | image upload FILE | image list | costs] [flags]", ""]
    for shape in shapes:
        for field, how in settings.settings_of(shape):
            heads = [f"-{how.flag}"] if how.flag else []
            heads += [how.environment] if how.environment else []
            lines.append(f"  {', '.join(heads)}\n        {how.meaning} (default {field.default!r})")
    return "\n".join(lines)


def _usage() -> str:
    known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none installed"
    return (
        "usage: cloud-api-adaptor [<provider>] [serve | orphans | image upload FILE | image list | costs] [flags]\n"
        "       cloud-api-adaptor help | version\n\n"
        f"providers: {known}; without one, that of CLOUD_PROVIDER\n"
        "serve (the default): make machines for this node's runtime; with -check, look at the cloud and end\n"
        "orphans: what the cloud has of this node's that no sandbox owns; with -delete, delete it\n"
        "image upload: put FILE, a disk that make podvm built, into the cloud, and print the setting that names it;\n"
        "    the same file again is found by its digest; interrupted, it takes back what it has made\n"
        "image list: the images that were uploaded so\n"
        "costs: how long the pods of each namespace had machines of which types, and what that costs\n"
        "cloud-api-adaptor <provider> -help tells its flags and variables"
    )
