"""The OCI runtime specification's config.json, as far as a sandboxed runtime touches it.

Every key the agent can be told stands here, in the specification's spelling (opencontainers/runtime-spec:
config.md, config-linux.md), with what it says is REQUIRED. Documents may hold more: other keys are kept as they
are. A key that is null counts as missing.
"""

# No `from __future__ import annotations`: it would hide Required from __required_keys__.
from typing import Required, TypedDict


class Box(TypedDict):
    """A terminal's size in characters."""

    height: int
    width: int


class User(TypedDict, total=False):
    """Who a process runs as."""

    uid: Required[int]
    gid: Required[int]
    additionalGids: list[int]
    username: str


class LinuxCapabilities(TypedDict, total=False):
    """Capability sets; a set that is missing is empty."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class POSIXRlimit(TypedDict):
    """A resource limit."""

    type: str
    hard: int
    soft: int


class Process(TypedDict, total=False):
    """A container's first process, or one that is run in it later."""

    terminal: bool
    consoleSize: Box
    user: Required[User]
    args: Required[list[str]]
    env: list[str]
    cwd: Required[str]
    capabilities: LinuxCapabilities
    rlimits: list[POSIXRlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    oomScoreAdj: int
    selinuxLabel: str


class Root(TypedDict, total=False):
    """The root file system; a relative path starts at the bundle."""

    path: Required[str]
    readonly: bool


class Mount(TypedDict, total=False):
    """A mount in the container."""

    destination: Required[str]
    source: str
    type: str
    options: list[str]


class Hook(TypedDict, total=False):
    """A program run at a point of the container's life; the timeout is in seconds."""

    path: Required[str]
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    """Hooks by when they run."""

    prestart: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]


class LinuxIDMapping(TypedDict):
    """A range of user or group ids, outside and inside."""

    hostID: int
    containerID: int
    size: int


class LinuxNamespace(TypedDict, total=False):
    """A namespace: a new one, or the one at the path."""

    type: Required[str]
    path: str


class LinuxDevice(TypedDict, total=False):
    """A device node made in the container."""

    path: Required[str]
    type: Required[str]
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class LinuxDeviceCgroup(TypedDict, total=False):
    """A rule of the device cgroup; a number that is missing matches all."""

    allow: Required[bool]
    type: str
    major: int
    minor: int
    access: str


class LinuxMemory(TypedDict, total=False):
    """Limits in bytes; -1 is none."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool


class LinuxCPU(TypedDict, total=False):
    """CPU time in microseconds, and sets of CPUs and memory nodes (`0-3,7`)."""

    shares: int
    quota: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str


class LinuxPids(TypedDict):
    """How many processes; -1 is no limit."""

    limit: int


class LinuxWeightDevice(TypedDict, total=False):
    """A block device's weight."""

    major: Required[int]
    minor: Required[int]
    weight: int
    leafWeight: int


class LinuxThrottleDevice(TypedDict):
    """A block device's limit, in bytes or operations per second."""

    major: int
    minor: int
    rate: int


class LinuxBlockIO(TypedDict, total=False):
    """Weights and limits of block devices."""

    weight: int
    leafWeight: int
    weightDevice: list[LinuxWeightDevice]
    throttleReadBpsDevice: list[LinuxThrottleDevice]
    throttleWriteBpsDevice: list[LinuxThrottleDevice]
    throttleReadIOPSDevice: list[LinuxThrottleDevice]
    throttleWriteIOPSDevice: list[LinuxThrottleDevice]


class LinuxHugepageLimit(TypedDict):
    """A limit in bytes for pages of one size (`2MB`)."""

    pageSize: str
    limit: int


class LinuxInterfacePriority(TypedDict):
    """The priority of traffic that leaves by an interface."""

    name: str
    priority: int


class LinuxNetwork(TypedDict, total=False):
    """Class and priorities of the container's traffic (cgroup v1)."""

    classID: int
    priorities: list[LinuxInterfacePriority]


class LinuxResources(TypedDict, total=False):
    """What the container's cgroup is given."""

    devices: list[LinuxDeviceCgroup]
    memory: LinuxMemory
    cpu: LinuxCPU
    pids: LinuxPids
    blockIO: LinuxBlockIO
    hugepageLimits: list[LinuxHugepageLimit]
    network: LinuxNetwork


class LinuxSeccompArg(TypedDict, total=False):
    """A condition on an argument of a system call."""

    index: Required[int]
    value: Required[int]
    valueTwo: int
    op: Required[str]


class LinuxSyscall(TypedDict, total=False):
    """What happens to some system calls; without errnoRet a refusal is EPERM."""

    names: Required[list[str]]
    action: Required[str]
    errnoRet: int
    args: list[LinuxSeccompArg]


class LinuxSeccomp(TypedDict, total=False):
    """A seccomp profile."""

    defaultAction: Required[str]
    architectures: list[str]
    flags: list[str]
    syscalls: list[LinuxSyscall]


class LinuxIntelRdt(TypedDict, total=False):
    """Cache allocation."""

    l3CacheSchema: str


class Linux(TypedDict, total=False):
    """What only Linux has."""

    uidMappings: list[LinuxIDMapping]
    gidMappings: list[LinuxIDMapping]
    sysctl: dict[str, str]
    resources: LinuxResources
    cgroupsPath: str
    namespaces: list[LinuxNamespace]
    devices: list[LinuxDevice]
    seccomp: LinuxSeccomp
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: LinuxIntelRdt


class Spec(TypedDict, total=False):
    """A config.json."""

    ociVersion: Required[str]
    process: Process
    root: Root
    hostname: str
    mounts: list[Mount]
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux
