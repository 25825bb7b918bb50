"""What is kept of a sandbox that failed: its record is undone with it, and `kata-ctl explain` comes later.

A shim keeps it itself; of one that was killed, whoever finds its record does, before it undoes it.

One small file per sandbox, its latest failure, readable by root alone. The directory is bounded: the oldest go first.
Standard library only; nothing here runs unless something failed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kata_py.resource import file
from kata_py.resource.process import KillProcess, start_time
from kata_py.sandbox.errors import StageFailed
from kata_py.sandbox.record import Record, State
from kata_py.sandbox.timeline import Span

logger = logging.getLogger(__name__)

ROOT = Path("/run/vc/failures")
VERSION = 1
LIMIT = 50  # files
LINES = 40  # of evidence
LINE_LENGTH = 500  # characters
CAUSE_LENGTH = 4000  # characters; an agent's error can quote whatever a guest says
SPANS = 100

SHIM = "shim"  # the stage before all others: the shim itself, until it serves
RUNNING = "running"  # the stage after all others
_WHOLE = "request"  # the span around all stages of a start

# Keys of the pod's namespace, name and uid: containerd (`pkg/cri/annotations`), CRI-O (the labels that kubelet sets).
_NAMES = (
    ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-uid"),
    ("io.kubernetes.cri-o.Namespace", "io.kubernetes.cri-o.KubeName", "io.kubernetes.pod.uid"),
    ("io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.pod.uid"),
)


@dataclass(frozen=True, slots=True)
class Pod:
    """What people call a pod; empty where no manager said.

    Attributes:
        namespace: Kubernetes' namespace.
        name: The pod's name there.
        uid: Its unique id there.
    """

    namespace: str = ""
    name: str = ""
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.name else "-"


def pod_of(annotations: Mapping[str, object]) -> Pod:
    """The pod that a container's annotations name."""
    for keys in _NAMES:
        values = [annotations.get(key) for key in keys]
        if values[1]:
            return Pod(*(value if isinstance(value, str) else "" for value in values))
    return Pod()


@dataclass(frozen=True, slots=True)
class Failure:
    """How a creation failed, or a pod that ran died.

    Attributes:
        sandbox: The sandbox's id.
        container: The container that was being created, or that something died in; empty when a running pod died.
        manager: The manager's namespace.
        pod: What people call the pod.
        at: When it failed, in seconds since the epoch.
        kind: `serve` when the shim did not, `create`, `start`, `death`, or `loss` of the shim.
        stage: The stage it failed in; `SHIM`, then `plan` before the first on record, `RUNNING` after the last.
        elapsed: Seconds the stage had run; None where it is not known.
        budget: Seconds the stage was given; None without a bound.
        cause: What happened, in words.
        errors: The errors' classes, outermost first, down to the root.
        errno: The system's number of the outermost error that has one; 0 without.
        evidence: Last lines of the guest's console, of the hypervisor and of the agent's log, oldest first.
        timeline: The sandbox's stages up to then.
    """

    sandbox: str
    container: str
    manager: str
    pod: Pod
    at: float
    kind: str
    stage: str
    elapsed: float | None
    budget: float | None
    cause: str
    errors: tuple[str, ...] = ()
    errno: int = 0
    evidence: tuple[str, ...] = ()
    timeline: tuple[Span, ...] = ()


def of_container(kind: str, sandbox_id: str, container_id: str, manager: str, bundle: str, error: Exception) -> Failure:
    """The failure to create a container, whose stages are undone by now, or to start it.

    Args:
        kind: `create` or `start`.
        sandbox_id: The sandbox's id.
        container_id: The id of what was being created or started.
        manager: The manager's namespace.
        bundle: Its bundle directory, which still is there.
        error: What was raised.
    """
    chain = tuple(_chain(error))
    staged = error if isinstance(error, StageFailed) else None
    return Failure(
        sandbox=sandbox_id,
        container=container_id,
        manager=manager,
        pod=pod_of(annotations_of(bundle)),
        at=time.time(),
        kind=kind,
        stage=staged.stage if staged else "plan",
        elapsed=staged.elapsed if staged else None,
        budget=staged.budget if staged else None,
        cause=(staged.cause if staged else str(error))[:CAUSE_LENGTH],
        errors=_classes(chain),
        errno=_number(chain),
        evidence=_bounded((*staged.evidence, *staged.context) if staged else ()),
        timeline=(staged.timeline if staged else ())[-SPANS:],
    )


def of_death(record: Record, cause: str, evidence: tuple[str, ...], container_id: str = "") -> Failure:
    """The death of a pod that ran, or of a process in a container of it, while its record is still there."""
    return Failure(
        sandbox=record.id,
        container=container_id,
        manager=record.namespace,
        pod=pod_of(annotations_of(record.bundle)),
        at=time.time(),
        kind="death",
        stage=RUNNING,
        elapsed=_age(record),
        budget=None,
        cause=cause[:CAUSE_LENGTH],
        evidence=_bounded(evidence),
        timeline=record.timeline[-SPANS:],
    )


def of_shim(sandbox_id: str, container_id: str, manager: str, bundle: str, error: Exception) -> Failure:
    """The failure of a shim that never served, or serves no more because of an error of its own.

    Args:
        sandbox_id: The sandbox's id.
        container_id: The id of what it was started for.
        manager: The manager's namespace.
        bundle: Its bundle directory.
        error: What was raised.
    """
    chain = tuple(_chain(error))
    return Failure(
        sandbox=sandbox_id,
        container=container_id,
        manager=manager,
        pod=pod_of(annotations_of(bundle)),
        at=time.time(),
        kind="serve",
        stage=SHIM,
        elapsed=None,
        budget=None,
        cause=(str(error) or repr(error))[:CAUSE_LENGTH],
        errors=_classes(chain),
        errno=_number(chain),
    )


def of_lateness(record: Record, container_id: str, budget: float) -> Failure:
    """A creation that its caller gives up, while its record is still there.

    Args:
        record: The record of its sandbox.
        container_id: The id of what is being created.
        budget: Seconds that the caller gave for all of it.
    """
    return Failure(
        sandbox=record.id,
        container=container_id,
        manager=record.namespace,
        pod=pod_of(annotations_of(record.bundle)),
        at=time.time(),
        kind="create",
        stage=_open_stage(record.timeline),
        elapsed=budget,
        budget=budget,
        cause=f"the manager's time for the creation was up: {budget:g} s",
        timeline=record.timeline[-SPANS:],
    )


def of_loss(record: Record, *, hung: bool = False) -> Failure | None:
    """The loss of a shim that left a record; None where it ended its sandbox before, so that nothing was lost.

    Args:
        record: The record, of a shim that is gone.
        hung: Whether it is gone because it answered nobody any more.
    """
    if record.state not in (State.CREATING, State.RUNNING):
        return None
    children = [entry for entry in record.undo if isinstance(entry, KillProcess)]
    how = "answered nobody any more, and was killed for that" if hung else "was killed"
    return Failure(
        sandbox=record.id,
        container="",
        manager=record.namespace,
        pod=pod_of(annotations_of(record.bundle)),
        at=time.time(),
        kind="loss",
        stage=RUNNING if record.state is State.RUNNING else _open_stage(record.timeline),
        elapsed=None,  # nobody knows when it was killed
        budget=None,
        cause=f"the shim (pid {record.shim.pid}) {how}: it left its record, in state {record.state}",
        evidence=_bounded((
            *(f"{each.name} (pid {each.pid}) {_fate(each)}" for each in children),
            f"{len(record.undo)} entries of the record were still to be undone",
        )),
        timeline=record.timeline[-SPANS:],
    )  # fmt: skip


def keep(failure: Failure, root: Path = ROOT) -> None:
    """Write a failure down, and drop the oldest beyond `LIMIT`. A failure to do so is logged, never raised. Blocks."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)  # what a guest's console says is for root alone
        text = json.dumps({"version": VERSION, **asdict(failure)}, indent=1)
        file.replace(str(root / f"{failure.sandbox}.json"), text)
        for path in _newest_first(root)[LIMIT:]:
            path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("sandbox %s: its failure cannot be kept for kata-ctl explain: %s", failure.sandbox, error)


def load(root: Path = ROOT) -> list[Failure]:
    """The failures that are kept, newest first; what is damaged is left out.

    Raises:
        PermissionError: They are not for this user to read.
    """
    found: list[Failure] = []
    for path in _newest_first(root):
        try:
            found.append(_from_json(path.read_bytes()))
        except PermissionError:
            raise
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return sorted(found, key=lambda failure: -failure.at)


def annotations_of(bundle: str) -> dict[str, object]:
    """The annotations of a bundle's spec; none where it cannot be read."""
    try:
        annotations = json.loads(Path(bundle, "config.json").read_bytes())["annotations"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return annotations if isinstance(annotations, dict) else {}


def _open_stage(timeline: tuple[Span, ...]) -> str:
    """The innermost stage that was not over."""
    return next((span.name for span in reversed(timeline) if span.ended is None and span.name != _WHOLE), "plan")


def _fate(child: KillProcess) -> str:
    return "still runs" if start_time(child.pid) == child.start_time else "is gone"


def _age(record: Record) -> float | None:
    """Seconds since the sandbox's first stage began."""
    began = min((span.began for span in record.timeline), default=None)
    return None if began is None else (time.monotonic_ns() - began) / 1e9


def _classes(chain: tuple[BaseException, ...]) -> tuple[str, ...]:
    return tuple(type(each).__name__ for each in chain)


def _number(chain: tuple[BaseException, ...]) -> int:
    return next((each.errno for each in chain if isinstance(each, OSError) and each.errno), 0)


def _from_json(content: bytes) -> Failure:
    value = json.loads(content)
    if value.pop("version") != VERSION:
        raise ValueError("of another version")
    value["pod"] = Pod(**value["pod"])
    value["timeline"] = tuple(Span(**span) for span in value["timeline"])
    value["errors"], value["evidence"] = tuple(value["errors"]), tuple(value["evidence"])
    return Failure(**value)


def _newest_first(root: Path) -> list[Path]:
    ages: list[tuple[int, Path]] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # nothing was ever kept
        for path in root.iterdir():  # a pattern would find nothing where this user may not look, and not say so
            with contextlib.suppress(FileNotFoundError):  # another shim has dropped it
                if path.suffix == ".json":
                    ages.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(ages, reverse=True)]


def _bounded(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(line[:LINE_LENGTH] for line in lines[-LINES:])


def _chain(error: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = error
    for _ in range(10):
        if at is None:
            return
        yield at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
