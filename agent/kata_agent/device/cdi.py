"""Devices by the Container Device Interface: what specs of the guest say must be done to a container.

The host names devices in annotations; a program of the guest, such as a driver's, writes the specs, maybe later.
Source: cncf-tags/container-device-interface SPEC.md, version 1.0.0; kata-containers' `src/agent/src/device/mod.rs`
for annotations, directory and patience.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kata_agent.device.node import Node, allow
from kata_agent.errors import AgentError, InvalidArgument

if TYPE_CHECKING:
    from kata_py.oci.spec import Hook, Hooks, Linux, LinuxDevice, Mount, Spec

_LOG = logging.getLogger(__name__)

DIRECTORY = Path("/var/run/cdi")

_PREFIX = "cdi.k8s.io/"
_CONTAINER_TYPE = "io.katacontainers.pkg.oci.container_type"
_NAME = re.compile(r"[A-Za-z][\w.-]*/[A-Za-z][\w-]*=[\w][\w.:-]*", re.ASCII)
_PACE = 1.0  # seconds between looks; specs come and go as files, whoever writes them
_EDITS = frozenset(("additionalGids", "deviceNodes", "env", "hooks", "mounts"))

Edits = Mapping[str, Any]  # a spec's `containerEdits`, of which the schema is CDI's


class _NotThere(AgentError):
    """No spec is of that kind yet."""


def names(annotations: Mapping[str, str]) -> list[str]:
    """The devices, `vendor.com/class=name`, that annotations ask for; the pod's own container gets none.

    Raises:
        InvalidArgument: A name has not that form.
    """
    if annotations.get(_CONTAINER_TYPE) == "pod_sandbox":
        return []
    found: dict[str, None] = {}
    for key in sorted(key for key in annotations if key.startswith(_PREFIX)):
        for name in annotations[key].split(","):
            if not _NAME.fullmatch(name):
                raise InvalidArgument(f"annotation {key}: {name!r} is no CDI device: expected vendor/class=name")
            found[name] = None
    return list(found)


async def find(
    wanted: Sequence[str], directory: Path = DIRECTORY, *, timeout: float, pace: float = _PACE
) -> list[Edits]:
    """Wait until specs tell of all devices.

    Args:
        wanted: Names of devices.
        directory: Where specs are.
        timeout: Seconds that they may take to be written.
        pace: Seconds between looks.

    Returns:
        What is to be done, in order.

    Raises:
        AgentError: A kind is known but not that device, or a kind was not known in time.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            return _edits(wanted, _specs(directory))
        except _NotThere as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise AgentError(
                    f"failed to inject devices after CDI timeout of {timeout:g} seconds: {error}{_unread(directory)}"
                ) from None
            _LOG.debug("waiting for CDI specs: %s", error)
        await asyncio.sleep(pace)


def _unread(directory: Path) -> str:
    names = ", ".join(path.name for path in sorted(directory.glob("*.y*ml")))
    return f"; {names} cannot be read: this agent knows CDI specs in JSON" if names else ""


def _specs(directory: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Specs by kind; one that is no JSON is perhaps being written."""
    specs: dict[str, list[Mapping[str, Any]]] = {}
    for path in sorted(directory.glob("*.json")):
        try:
            spec = json.loads(path.read_bytes())
            specs.setdefault(spec["kind"], []).append(spec)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.info("CDI spec %s cannot be read: %r", path, error)
    return specs


def _edits(wanted: Iterable[str], specs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Edits]:
    edits: list[Edits] = []
    seen: list[Mapping[str, Any]] = []
    for name in wanted:
        kind, _, device_name = name.partition("=")
        if kind not in specs:
            raise _NotThere(f"no spec is of kind {kind}")
        for spec in specs[kind]:
            device = next((each for each in spec.get("devices", ()) if each.get("name") == device_name), None)
            if device is not None:
                break
        else:
            raise AgentError(f"CDI device {name} is not known: kind {kind} has no device of that name")
        if not any(spec is each for each in seen):
            seen.append(spec)
            edits.append(spec.get("containerEdits") or {})
        edits.append(device.get("containerEdits") or {})
    return edits


def applied(spec: Spec, edits: Iterable[Edits]) -> Spec:
    """The container's spec with the edits made.

    Raises:
        AgentError: An edit is not known or has not its form, or names a device that is not there.
    """
    result = spec.copy()
    for edit in edits:
        unknown = edit.keys() - _EDITS
        if unknown:
            raise AgentError(f"CDI: containerEdits.{min(unknown)} is not supported")
        try:
            _apply(result, edit)
        except (KeyError, TypeError, AttributeError) as error:
            raise AgentError(f"CDI: a containerEdits has not the specification's form: {error!r}") from error
    return result


def _apply(spec: Spec, edit: Edits) -> None:
    process = spec["process"].copy()
    spec["process"] = process
    for variable in edit.get("env") or ():
        name = variable.partition("=")[0]
        kept = [each for each in process.get("env", ()) if each.partition("=")[0] != name]
        process["env"] = [*kept, variable]
    groups = [group for group in edit.get("additionalGids") or () if group]
    if groups:
        user = process["user"].copy()
        user["additionalGids"] = [*dict.fromkeys([*user.get("additionalGids", ()), *groups])]
        process["user"] = user
    for device in edit.get("deviceNodes") or ():
        spec["linux"] = _with_device(spec.get("linux", {}), device)
    mounts = [_mount(each) for each in edit.get("mounts") or ()]
    if mounts:
        covered = {mount["destination"] for mount in mounts}
        spec["mounts"] = [*(each for each in spec.get("mounts", ()) if each["destination"] not in covered), *mounts]
    for hook in edit.get("hooks") or ():
        spec["hooks"] = _with_hook(spec.get("hooks", {}), hook)


def _with_device(linux: Linux, wanted: Mapping[str, Any]) -> Linux:
    source = Path(wanted.get("hostPath") or wanted["path"])
    device: LinuxDevice = {"path": wanted["path"], "type": wanted.get("type") or ""}
    if "major" in wanted and device["type"]:
        device["major"], device["minor"] = wanted["major"], wanted.get("minor", 0)
    else:
        node = Node.of(source)
        device["type"], device["major"], device["minor"] = node.kind, node.major, node.minor
    mode = wanted.get("fileMode")
    device["fileMode"] = stat.S_IMODE(source.stat().st_mode) if mode is None and source.exists() else mode or 0o666
    if "uid" in wanted:
        device["uid"] = wanted["uid"]
    if "gid" in wanted:
        device["gid"] = wanted["gid"]
    result = linux.copy()
    result["devices"] = [*(each for each in linux.get("devices", ()) if each["path"] != device["path"]), device]
    rules = linux.get("resources", {}).get("devices")
    if rules and device["type"] in ("b", "c"):
        result["resources"] = linux["resources"].copy()
        rule = allow(device["type"], device["major"], device["minor"], wanted.get("permissions") or "rwm")
        result["resources"]["devices"] = [*rules, rule]
    return result


def _mount(wanted: Mapping[str, Any]) -> Mount:
    options = list(wanted.get("options") or ())
    kind = wanted.get("type") or "bind"
    if kind == "bind" and not {"bind", "rbind"} & {*options}:
        options.append("rbind")
    return {
        "destination": wanted["containerPath"],
        "source": wanted["hostPath"],
        "type": kind,
        "options": options,
    }


def _with_hook(hooks: Hooks, wanted: Mapping[str, Any]) -> Hooks:
    hook: Hook = {"path": wanted["path"]}
    if wanted.get("args"):
        hook["args"] = wanted["args"]
    if wanted.get("env"):
        hook["env"] = wanted["env"]
    if wanted.get("timeout"):
        hook["timeout"] = wanted["timeout"]
    result = hooks.copy()
    match wanted["hookName"]:
        case "prestart":
            result["prestart"] = [*hooks.get("prestart", ()), hook]
        case "createRuntime":
            result["createRuntime"] = [*hooks.get("createRuntime", ()), hook]
        case "createContainer":
            result["createContainer"] = [*hooks.get("createContainer", ()), hook]
        case "startContainer":
            result["startContainer"] = [*hooks.get("startContainer", ()), hook]
        case "poststart":
            result["poststart"] = [*hooks.get("poststart", ()), hook]
        case "poststop":
            result["poststop"] = [*hooks.get("poststop", ()), hook]
        case unknown:
            raise AgentError(f"CDI: hookName {unknown!r} is not supported")
    return result
