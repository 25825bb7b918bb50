"""What must not leave the node in a bug report, taken out of it. Pure.

Of what has a form (specs, configuration, command lines) only what is known to be harmless is kept: values of
environment variables, arguments and unknown annotations never are. Of what has none (logs, consoles) what looks like a
secret is taken out, and whatever the containers of this node have as values of variables, wherever it stands.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from kata_py.diagnosis import variables
from kata_py.diagnosis.literals import REDACTED, literal, strings

_KNOWN_MIN = 6  # characters: shorter values are parts of too many words
_KNOWN_MAX = 5000  # values
# Values that logs are unreadable without, and nobody's secret.
_PLAIN = frozenset({"warning", "default", "production", "development", "enabled", "disabled", "verbose", "containerd"})

# Words in the names of keys, flags, fields and variables whose values are nobody's business.
_SECRET = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private|[_-]key|keydata|"
    r"client[_-]?key|auth|authorization|bearer|cookie|session|signature|user[_-]?data|init[_-]?data|policy|"
    r"certificate|ca[_-]?cert|account[_-]?key|connection[_-]?string|dsn|jaeger[_-]?user"
)
_SECRET_NAME = re.compile(rf"(?:{_SECRET})", re.I)

# PEM, whole or cut short, with whatever a log has put before its lines.
_PEM = re.compile(r"-----BEGIN [^-\n]{1,40}-----(?:.{0,20000}?-----END [^-\n]{1,40}-----|.{0,8000})", re.S)
_TOKENS = re.compile(
    r"\beyJ[\w-]{8,512}\.[\w-]{1,8192}\.[\w-]*|\b(?:AKIA|ASIA|AGPA|AIDA|AROA)[0-9A-Z]{12,}\b|"
    r"\b(?:gh[pousr]_|github_pat_|xox[abeprs]-|glpat-|sk-|AIza)[\w-]{10,}"
)  # a JSON web token, and others that are known by their beginning
# A login in an address: with a password, or alone where it may be a token. That of ssh, and of what is no login but an
# image with its digest, is told.
_IN_URL = re.compile(
    r"""://(?:[^/\s:@"']{0,200}:[^/\s"']{1,200}|(?<!ssh://)(?<!sftp://)(?<!git://)[^/\s:@"'?\#]{1,200})@(?!sha\d{3}:)"""
)
# Of each line that has one of these words; the patterns begin with a word, so that they are fast on long lines.
_HINTS = (
    *("pass", "pwd", "secret", "token", "credential", "key", "private", "auth", "bearer", "basic", "cookie", "session"),
    *("signature", "data", "policy", "cert", "connection", "dsn", "jaeger"),
)
_BEARER = re.compile(r"\b(bearer|basic)\s{1,8}[\w.~+/=-]{6,}", re.I)
_NAME = re.compile(rf"(?:{_SECRET})[\w.-]{{0,40}}", re.I)
_PAIRED = re.compile(r"""(\\{0,15}["']?)\s{0,8}[:=]\s{0,8}""")  # what may follow a name
_FLAGGED = re.compile(r"""(\\{0,15}["']?)(?:\s{1,8}|\s{0,8},\s{0,8})(?!\\{0,15}["']?-)""")  # and one that is a flag's
_FLAG = re.compile(r"""(?:^|[\s"'\[(,=])--?[\w-]{0,40}$""")
_BLOB = re.compile(r"(?<![\w+/=.-])[A-Za-z0-9+/_-]{32,}={0,2}")

# Variables whose values are no secrets of anybody, and stand in many texts for other reasons.
_PUBLIC_VARIABLES = re.compile(
    r"PATH|HOME|HOSTNAME|TERM|LANG|LC_\w+|SHELL|USER|PWD|container|\w+_PORT(?:_\w+)?|\w+_SERVICE_HOST"
)

# Keys of settings that are environment variables, or tables of them.
_ENVIRONMENT = re.compile(r"(?:^|[._-])env(?:s|ironment)?(?=$|\.)", re.I)

# Parameters of kernels whose values are told.
_PARAMETERS = re.compile(
    r"agent\.(?:log|log_vport|debug_console|debug_console_vport|trace|unified_cgroup_hierarchy|hotplug_timeout|"
    r"container_pipe_size|server_addr)|systemd\.[\w.]+|rd\.[\w.]+|(?:kvm|vfio)[\w.-]*|"
    r"BOOT_IMAGE|root|rootfstype|rootflags|init|console|panic|loglevel|quiet|debug|ro|rw|selinux|enforcing|fips|"
    r"cgroup_\w+|nr_cpus|maxcpus|mem|hugepages|hugepagesz|default_hugepagesz|iommu|intel_iommu|amd_iommu|"
    r"[\w.]*notests|reboot|tsc|clocksource|lsm|audit|scsi_mod\.scan|mitigations|isolcpus|nohz_full|transparent_hugepage"
)

# Options of the programs that we start whose values are told.
_OPTIONS = frozenset(
    {
        "-name", "-uuid", "-machine", "-accel", "-cpu", "-smp", "-m", "-rtc", "-kernel", "-initrd", "-bios", "-device",
        "-netdev", "-drive", "-blockdev", "-chardev", "-mon", "-pidfile", "-sandbox", "-display", "-vga", "-global",
        "--fd", "--cache", "--shared-dir", "--log-level", "--socket-path", "--sandbox", "-namespace", "-id", "-address",
        "-publish-binary", "-bundle", "--listen-address", "-listen-address",
    }
)  # fmt: skip

# Annotations whose values are told: who a container is, and what it asks of its machine.
_ANNOTATIONS = re.compile(
    r"io\.kubernetes\.cri\.(?:container-type|container-name|sandbox-(?:id|name|namespace|uid|cpu-\w+|memory)|image-name)|"
    r"io\.kubernetes\.cri-o\.(?:ContainerType|ContainerName|SandboxID|SandboxName|Namespace|KubeName|ImageName|"
    r"RuntimeHandler|HostNetwork|Created|TTY|Stdin|StdinOnce)|"
    r"io\.kubernetes\.(?:pod\.(?:name|namespace|uid|terminationGracePeriod)|container\.name)|"
    r"io\.katacontainers\.pkg\.oci\.\w+|"
    r"io\.katacontainers\.config\.(?:hypervisor|runtime|agent)\.\w+"
)
_SECRET_ANNOTATIONS = re.compile(r".*\.(?:cc_init_data|initdata|policy|kernel_params|kernel_modules)")


class Redactor:
    """Takes secrets out of texts.

    Args:
        known: Values that are taken out wherever they stand, such as `secrets_of` finds.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        forms = {form for value in known for form in _forms(value)}
        self._known = sorted(forms, key=lambda form: (-len(form), form))[:_KNOWN_MAX]

    def text(self, text: str) -> str:
        """A text without what looks like a secret, or is known to be one."""
        for value in self._known:
            if value in text:
                text = text.replace(value, REDACTED)
        text = _TOKENS.sub(REDACTED, _PEM.sub(REDACTED, text))
        text = _IN_URL.sub(f"://{REDACTED}@", text)
        text = variables.conceal(text)
        return _BLOB.sub(_blob, "".join(map(_line, text.splitlines(keepends=True))))


def secrets_of(spec: Mapping[str, object]) -> Iterator[str]:
    """The values in a container's spec that must not be found in a report, by whatever way they came there."""
    for entry in _strings(_table(spec.get("process")).get("env")):
        name, _, value = entry.partition("=")
        if not _PUBLIC_VARIABLES.fullmatch(name):
            yield value
    for name, annotation in _table(spec.get("annotations")).items():
        if isinstance(annotation, str) and (not _ANNOTATIONS.fullmatch(name) or _SECRET_ANNOTATIONS.fullmatch(name)):
            yield annotation


def secret_settings(content: str) -> Iterator[str]:
    """The values in a configuration in TOML that `settings` keeps back; none of what is no TOML."""
    try:
        leaves = list(_leaves(tomllib.loads(content), ()))
    except ValueError:
        return
    for key, value in leaves:
        if isinstance(value, str) and "kernel_params" in key:
            yield from (word.partition("=")[2] for word in value.split() if kernel_parameters(word) != word)
        else:
            for word in _strings([value]) + _strings(value):
                if _ENVIRONMENT.search(key):
                    yield from _variable(key, word)
                elif setting(key, word) == REDACTED:
                    yield word


def spec(document: Mapping[str, object]) -> dict[str, object]:
    """A container's spec without what only its owner may know: a new one of the parts that are harmless."""
    process, linux = _table(document.get("process")), _table(document.get("linux"))
    args = _strings(process.get("args"))
    return {
        "ociVersion": document.get("ociVersion"),
        "hostname": document.get("hostname"),
        "root": {key: _table(document.get("root")).get(key) for key in ("path", "readonly")},
        "process": {
            "terminal": process.get("terminal"),
            "cwd": process.get("cwd"),
            "user": {key: _table(process.get("user")).get(key) for key in ("uid", "gid")},
            "args": [*args[:1], *([REDACTED] * len(args[1:]))],
            "env": [f"{each.partition('=')[0]}={REDACTED}" for each in _strings(process.get("env"))],
            "noNewPrivileges": process.get("noNewPrivileges"),
            "oomScoreAdj": process.get("oomScoreAdj"),
            "capabilities": process.get("capabilities"),
        },
        "mounts": [
            {key: _table(each).get(key) for key in ("destination", "type", "source")}
            | {"options": [_option(option) for option in _strings(_table(each).get("options"))]}
            for each in _list(document.get("mounts"))
        ],
        "linux": {
            key: linux.get(key) for key in ("cgroupsPath", "namespaces", "resources", "devices", "rootfsPropagation")
        },
        "annotations": annotation_values(_table(document.get("annotations"))),
    }


def annotation_values(found: Mapping[str, object]) -> dict[str, object]:
    """Annotations, with the values of those alone that are known to be harmless."""
    return {
        name: kernel_parameters(value)
        if name.endswith(".kernel_params") and isinstance(value, str)
        else value
        if _ANNOTATIONS.fullmatch(name) and not _SECRET_ANNOTATIONS.fullmatch(name)
        else REDACTED
        for name, value in found.items()
    }


def settings(content: str) -> str:
    """A configuration in TOML as one line for each key, without secrets and without comments.

    Raises:
        ValueError: It is no TOML.
    """
    leaves = _leaves(tomllib.loads(content), ())
    return "".join(f"{key} = {json.dumps(setting(key, value), default=str)}\n" for key, value in leaves)


def setting(key: str, value: object) -> object:
    """A setting's value; what its key says is secret is not told, of kernel parameters what is known to be harmless."""
    if isinstance(value, str) and "kernel_params" in key:
        return kernel_parameters(value)
    if value in ("", 0, False, []) or isinstance(value, bool):
        return value
    if _ENVIRONMENT.search(key):
        return [variables.concealed(each) for each in _strings(value)] if isinstance(value, list) else REDACTED
    return REDACTED if _SECRET_NAME.search(key) else value


def kernel_parameters(line: str) -> str:
    """A kernel's command line; of parameters that are not known to be harmless, the names alone."""
    told = []
    for word in line.split():
        name, equals, _ = word.partition("=")
        told.append(word if not equals or _PARAMETERS.fullmatch(name) else f"{name}={REDACTED}")
    return " ".join(told)


def command_line(words: Sequence[str]) -> str:
    """A process's command line: the program, its options, and the values of those that are known to be harmless."""
    told, last = list(words[:1]), "python" if "python" in "".join(words[:1]) else ""
    for word in words[1:]:
        if last == "-append":
            told.append(f"'{kernel_parameters(word)}'")
            last = ""
        elif word.startswith("-"):
            name, equals, _ = word.partition("=")
            told.append(word if not equals or name in _OPTIONS else f"{name}={REDACTED}")
            last = last if last == "python" else "" if equals else word
        else:
            told.append(word if last == "python" or last in _OPTIONS else REDACTED)
            last = ""
    return " ".join(told)


def _leaves(table: Mapping[str, object], prefix: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        key = (*prefix, name)
        if isinstance(value, dict) and value:
            yield from _leaves(value, key)
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            for number, each in enumerate(value):
                yield from _leaves(_table(each), (*key, str(number)))
        else:
            yield ".".join(json.dumps(each) if "." in each else each for each in key), value


def _variable(key: str, entry: str) -> Iterator[str]:
    """The value of a setting that is an environment variable, `NAME=value` or that alone."""
    name, equals, value = entry.partition("=")
    if not equals:
        name, value = key.rpartition(".")[2], entry
    if not _PUBLIC_VARIABLES.fullmatch(name):
        yield value


def _option(option: str) -> str:
    """A mount's option; of `name=value` the value of those that say how, not with what."""
    name, equals, _ = option.partition("=")
    return option if not equals or name in ("mode", "size", "uid", "gid", "nr_inodes") else f"{name}={REDACTED}"


def _forms(value: str) -> Iterator[str]:
    """The forms in which a value may stand in a text."""
    for part in {value, *value.splitlines()}:
        least = 8 if part.isdigit() else _KNOWN_MIN  # small numbers are everywhere
        if len(part.strip()) >= least and part not in _PLAIN:
            yield part
            yield json.dumps(part)[1:-1]
            yield base64.b64encode(part.encode()).decode().rstrip("=")
            try:
                decoded = base64.b64decode(part, validate=True).decode()
            except (binascii.Error, ValueError):
                continue
            if len(decoded) >= _KNOWN_MIN and decoded.isprintable():
                yield decoded


def _line(line: str) -> str:
    """A line without the values of what is called a secret."""
    lowered = line.lower()
    if not any(hint in lowered for hint in _HINTS):
        return line
    line = _BEARER.sub(rf"\1 {REDACTED}", line)
    told: list[str] = []
    at = 0
    for name in _NAME.finditer(line):
        if name.start() < at:
            continue
        found = _PAIRED.match(line, name.end())
        if found is None and _FLAG.search(line[max(0, name.start() - 42) : name.start()]):
            found = _FLAGGED.match(line, name.end())
        if found is None:
            continue
        if value := literal(line, found.end()):
            quote = value.quote or found[1]  # so that JSON stays JSON
            told += [
                line[at : found.end()],
                quote,
                REDACTED,
                quote if not value.quote else line[value.end : value.after],
            ]
            at = value.after
        elif line[found.end() : found.end() + 1] == "[":
            for each in strings(line, found.end() + 1):
                told += [line[at : each.begin], REDACTED]
                at = each.end
    return "".join(told) + line[at:]


def _blob(found: re.Match[str]) -> str:
    """A long word with capitals, small letters and digits is taken for base64; an id or a path has not all of them."""
    word = found[0]
    counts = [sum(map(kind, word)) for kind in (str.isupper, str.islower, str.isdigit)]
    return REDACTED if min(counts) >= 2 and counts[0] * 8 >= len(word) else word


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _strings(value: object) -> list[str]:
    return [each for each in _list(value) if isinstance(each, str)]
