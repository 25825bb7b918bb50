"""What a bug report holds of a node: must-gather's content for one node, and what kata-py knows of its sandboxes.

Source: OpenShift sandboxed containers guide 11.1, `must-gather/collection-scripts/gather_nodes`. Nothing secret is read
where it can be left alone: no keys, no certificates, no user data, no volumes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from kata_py.config import effective, toml
from kata_py.config.errors import ConfigurationError, NoConfiguration
from kata_py.config.load import DEFAULTS, load, locate, problems
from kata_py.config.model import Configuration, Source
from kata_py.diagnosis import doctor, overview, redaction, sources
from kata_py.diagnosis.archive import Part
from kata_py.diagnosis.sources import Absent
from kata_py.diagnosis.verdict import judge
from kata_py.http import client
from kata_py.http.client import ClientError
from kata_py.node import facts, managers, programs
from kata_py.node.check import check
from kata_py.node.environment import environment, version
from kata_py.sandbox import failure, sockets, timeline
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.failure import annotations_of
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.record import Record

SINCE = "24 hours ago"  # what is taken of the journal
METRICS_TIMEOUT = 5.0  # seconds
METRICS_MAX = 4 << 20  # bytes
CONTAINERS_MAX = 1000  # bundles that are looked at

_NAMES = ("io.kubernetes.cri.container-name", "io.kubernetes.cri-o.ContainerName", "io.kubernetes.container.name")
_SANDBOX_OF = ("io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID")


@dataclass(frozen=True, slots=True)
class Container:
    """A container's bundle.

    Attributes:
        id: The container's id, by its bundle's place.
        sandbox: The sandbox that it is in.
        name: What the pod calls it; empty where no manager said.
        spec: What its manager wrote.
    """

    id: str
    sandbox: str
    name: str
    spec: Mapping[str, object]


def about() -> dict[str, str]:
    """What the whole says of itself."""
    return {
        "of": platform.node(),
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "by": f"kata-ctl collect (kata-py {version()})",
        "note": "what is secret is redacted as far as they are known or look like it; read it before you send it",
    }


def containers(paths: HostPaths) -> list[Container]:
    """The containers of the sandboxes on record, by the bundles beside the sandboxes' own. Blocks."""
    sandboxes = {Path(each.bundle, "config.json"): each.id for each in _records(paths) if each.bundle}
    beside = {path for bundle in {path.parent for path in sandboxes} for path in _beside(bundle)}
    found = []
    for path in [*sandboxes, *sorted(beside - sandboxes.keys())][:CONTAINERS_MAX]:
        with contextlib.suppress(OSError, ValueError):
            spec = json.loads(path.read_bytes())
            annotations = annotations_of(str(path.parent))
            sandbox = sandboxes.get(path) or next((annotations[key] for key in _SANDBOX_OF if key in annotations), "")
            if isinstance(spec, dict) and sandbox in sandboxes.values():
                place = path.parent.parent if path.parent.name == "userdata" else path.parent
                name = next((str(annotations[key]) for key in _NAMES if annotations.get(key)), "")
                found.append(Container(place.name, str(sandbox), name, spec))
    return found


def secrets_of(named: Path | None, found: Iterable[Container], root: Path = Path("/")) -> Iterator[str]:
    """What the containers know that nobody else may, and what files of configuration do; arguments as for `parts`."""
    for each in found:
        yield from redaction.secrets_of(each.spec)
    for path in (*_files(named), *managers.files(root)):
        with contextlib.suppress(OSError, ValueError):
            yield from redaction.secret_settings(path.read_text())


def parts(
    named: Path | None,
    paths: HostPaths,
    found: Iterable[Container],
    *,
    since: str = SINCE,
    root: Path = Path("/"),
    roots: tuple[Path, ...] = sockets.ROOTS,
) -> Iterator[Part]:
    """All that is told of this node.

    Args:
        named: The configuration's file; None is the one that the shim would take.
        paths: Where sandboxes' files lie.
        found: Their containers.
        since: From when on the journal is taken, as journalctl takes it.
        root: Where the node's files are.
        roots: Where sandboxes' sockets are.
    """
    yield from _node(named, paths, root, roots)
    yield from _configuration(named, root)
    yield from _sandboxes(paths, found)
    yield from _failures(paths)
    for name, selection in sources.JOURNALS.items():
        yield Part(f"journal/{name}.log", partial(sources.journal, selection, since))
    yield Part("kernel/log.txt", sources.kernel_log)
    yield Part("kernel/command-line.txt", lambda: redaction.kernel_parameters((root / "proc/cmdline").read_text()))
    for name in sources.FILES:
        yield Part(f"host/{name.rpartition('/')[2]}.txt", partial(sources.file, root / name))
    yield Part("host/processes.txt", partial(sources.processes, root / "proc"))
    yield Part("host/mounts.txt", partial(sources.mounts, root / "proc"))
    for attribute in ("sriov_numvfs", "sriov_totalvfs"):
        yield Part(f"host/sys_{attribute}.txt", partial(sources.virtual_functions, attribute, root / "sys"))
    listed = (paths.records.parent, paths.shares, root / "opt/cni/bin", root / "var/lib/cni/bin", root / "dev/vfio")
    yield Part("host/listing.txt", partial(sources.listing, *listed))
    for name, words in sources.COMMANDS.items():
        yield Part(name, partial(sources.command, *words))
    for sandbox_id, socket in sockets.serving(roots).items():  # at the end: of many that hang each takes its time
        for target in ("agent-url", "log-level", "metrics"):
            yield Part(f"sandboxes/{sandbox_id}/{target}.txt", partial(_asked, socket, f"/{target}"))


def _node(named: Path | None, paths: HostPaths, root: Path, roots: tuple[Path, ...]) -> Iterator[Part]:
    yield Part("versions.json", partial(_versions, named))
    yield Part("env.toml", lambda: toml.dumps(environment(_loaded(named), root=root)))
    yield Part("check.json", lambda: _json([asdict(each) for each in check(named, root=root)]))
    yield Part(
        "doctor.json",
        lambda: _json([asdict(part) for part in asyncio.run(doctor.examine(named, paths, root=root, roots=roots))]),
    )
    yield Part("sandboxes.json", lambda: _json([asdict(each) for each in overview.gather((paths.records,))]))


def _configuration(named: Path | None, root: Path) -> Iterator[Part]:
    yield Part("configuration/effective.json", partial(_effective, named))
    yield Part("configuration/problems.txt", lambda: "".join(f"{each}\n" for each in problems(named)))
    for path in _files(named):
        yield Part(f"configuration/files{path.absolute()}.txt", partial(_settings, path))
    for path in managers.files(root):
        yield Part(f"managers/{path.relative_to(root)}.txt", partial(_settings, path))


def _sandboxes(paths: HostPaths, found: Iterable[Container]) -> Iterator[Part]:
    for record in _records(paths):
        top = f"sandboxes/{record.id}"
        yield Part(f"{top}/record.json", (record.directory / "record.json").read_text)
        yield Part(f"{top}/timeline.txt", partial(timeline.table, record.timeline))
    for each in found:
        yield Part(f"sandboxes/{each.sandbox}/containers/{each.id}.json", partial(_json, redaction.spec(each.spec)))


def _failures(paths: HostPaths) -> Iterator[Part]:
    try:
        kept = failure.load(paths.failures)
    except OSError:  # the index is to say why
        yield Part("failures/kept.txt", lambda: str(failure.load(paths.failures)))
        return
    for each in kept:
        yield Part(f"failures/{each.sandbox}.json", partial(_json, asdict(judge(each)) | {"failure": asdict(each)}))


def _versions(named: Path | None) -> str:
    configuration = load(_source(named))
    hypervisor = configuration.hypervisor
    told = {
        "kata-py": version(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "distribution": facts.os_release().get("PRETTY_NAME", programs.UNKNOWN),
        "hypervisor": programs.version(hypervisor.path),
        "virtiofsd": programs.version(hypervisor.virtio_fs_daemon),
        "crun in the guest": programs.guest_package(hypervisor.image or hypervisor.initrd, "crun"),
    }
    for program in ("containerd", "crio", "crictl", "kubelet"):
        with contextlib.suppress(Absent, OSError):
            told[program] = (sources.command(program, "--version").splitlines() or [programs.UNKNOWN])[0]
    return _json(told)


def _effective(named: Path | None) -> str:
    return _json(
        [
            # Not "key" and "value": so the variables of containers stand in logs, and are taken out.
            {
                "table": each.table,
                "setting": each.key,
                "is": redaction.setting(each.key, each.value),
                "origin": each.origin,
            }
            for each in effective.effective(_source(named))
        ]
    )


def _source(named: Path | None) -> Source:
    try:
        return locate(named, os.environ)
    except NoConfiguration:
        return DEFAULTS


def _loaded(named: Path | None) -> Configuration:
    """The configuration, without what its kernel parameters may hold."""
    configuration = load(_source(named))
    hypervisor = configuration.hypervisor
    told = redaction.kernel_parameters(hypervisor.kernel_params)
    return replace(configuration, hypervisor=replace(hypervisor, kernel_params=told))


def _files(named: Path | None) -> list[Path]:
    """The main file and its drop-ins, whatever is wrong with them."""
    try:
        source = locate(named, os.environ)
    except ConfigurationError:
        return []
    return [source, *sorted((source.resolve().parent / "config.d").glob("[!.]*"))]


def _settings(path: Path) -> str:
    return redaction.settings(path.read_text())


def _asked(socket: Path, target: str) -> str:
    try:
        reply = asyncio.run(client.get(str(socket), target, timeout=METRICS_TIMEOUT, limit=METRICS_MAX))
    except ClientError as error:
        raise OSError(f"the shim does not answer {target}: {error}") from error
    if reply.status != 200:
        raise OSError(f"the shim answers {target} with {reply.status}: {reply.body[:200].decode(errors='replace')}")
    return reply.body.decode(errors="replace")


def _records(paths: HostPaths) -> Iterator[Record]:
    for directory in sorted(paths.records.iterdir()) if paths.records.is_dir() else ():
        with contextlib.suppress(SandboxError, OSError):
            yield Record.load(directory.name, root=paths.records)


def _beside(bundle: Path) -> list[Path]:
    """The other bundles of the sandbox's manager: containerd's lie side by side, CRI-O's have `userdata` below them."""
    if bundle.name == "userdata":
        return sorted(bundle.parent.parent.glob("*/userdata/config.json"))
    return sorted(bundle.parent.glob("*/config.json"))


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
