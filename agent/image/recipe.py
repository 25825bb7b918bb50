"""What goes into a guest: every decision of the build, and no code.

The root is chosen by name. Of the packages below it gets the paths in `KEEP`; of their libraries those that a kept
program, extension module or library needs. A need that no package meets fails the build.

There are two flavours of it: this is the local guest, which a hypervisor of the node boots; `peer.py` tells what the
one that a cloud boots has beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from image.wheel import Wheel

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
SECURITY_MIRROR = "http://deb.debian.org/debian-security"
PYTHON = "python3.11"
IMAGE_LIMIT = 64 << 20  # bytes
INITRAMFS_LIMIT = 4 << 20

PACKAGES = (
    "busybox-static",  # the initramfs, modprobe, and a shell for who debugs a guest
    "crun",
    "e2fsprogs",  # mke2fs and resize2fs, for volumes that the host wants made here, or larger
    "iptables",  # for GetIPTables and SetIPTables
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3-protobuf",
    # Their libraries.
    "libblkid1",
    "libc6",
    "libcap2",
    "libcom-err2",
    "libexpat1",
    "libext2fs2",
    "libffi8",
    "libgcc-s1",
    "libgcrypt20",
    "libgpg-error0",
    "liblz4-1",
    "liblzma5",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libprotobuf32",
    "libseccomp2",
    "libstdc++6",
    "libsystemd0",
    "libuuid1",
    "libxtables12",
    "libyajl2",
    "libzstd1",
    "zlib1g",
)

STDLIB = f"usr/lib/{PYTHON}"
DIST_PACKAGES = "usr/lib/python3/dist-packages"
WHEELS_ROOT = DIST_PACKAGES  # Debian's packages do not know those names
KEEP = (
    "usr/bin/busybox",
    "usr/bin/crun",
    f"usr/bin/{PYTHON}",
    "usr/sbin/mke2fs",
    "usr/sbin/resize2fs",
    f"{STDLIB}/**",
    f"{DIST_PACKAGES}/google/**",
    # iptables by nf_tables, as Debian has it by default, and what it knows of matches and targets.
    "usr/sbin/xtables-nft-multi",
    *(f"usr/lib/*/xtables/lib{family}_*.so" for family in ("ip6t", "ipt", "xt")),
)

# Of the standard library, by module or package. What is not named here stays.
LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "for developing, testing and packaging": (
        "distutils", "doctest", "ensurepip", "idlelib", "lib2to3", "pdb", "pydoc", "pydoc_data", "sitecustomize",
        "test", "turtledemo", "unittest", "venv", "zipapp", "_ctypes_test", "_sysconfigdata__*", "_test*", "_xx*",
        "xx*",
    ),
    "for a screen or sound": (
        "curses", "_curses", "_curses_panel", "ossaudiodev", "readline", "tkinter", "turtle", "webbrowser",
    ),
    "drag OpenSSL in, which agent and asyncio do without (hashlib has its own SHA-2)": ("ssl", "_ssl", "_hashlib"),
    "drag a library in for a file format or service that no guest has": (
        "_bz2", "_crypt", "_dbm", "_gdbm", "_sqlite3", "_uuid", "dbm", "nis", "sqlite3",
    ),
    "character sets of East Asia": ("_codecs_*", "_multibytecodec"),
}  # fmt: skip

# The parts of this project that the guest carries, by their place in the checkout and on the guest's sys.path.
CODE_ROOT = "usr/lib/kata-agent"
CODE: Mapping[str, tuple[str, ...]] = {
    "agent": ("kata_agent",),
    "protos": ("kata_protos",),
    ".": ("kata_py/__init__.py", "kata_py/netlink", "kata_py/oci", "kata_py/ttrpc"),
}

# Packs of code that PID 1 reads in one go (guest/init.py), in the order of need: what is imported until the agent
# answers, and what its first real call needs. Named by what to import; the rest follows from it.
PACKS: Mapping[str, tuple[str, ...]] = {
    "boot": (
        "kata_agent.__main__",
        "kata_agent.cmdline",
        "kata_agent.init",
        "kata_agent.server",
        "kata_py.ttrpc.transport.serial",
        "ctypes",
    ),
    "service": (
        "kata_agent.container.crun",
        "kata_agent.device.finder",
        "kata_agent.device.table",
        "kata_agent.rpc.service",
    ),
    "network": (
        "kata_agent.network.device",
        "kata_agent.network.interface",
        "kata_agent.network.neighbour",
        "kata_agent.network.route",
    ),
}

# What most pods never read, by regular expression on its path: packed, which halves it. What a boot reads is not, as
# unpacking takes longer than reading.
COMPRESSED = (
    r"usr/lib/modules/",
    r"usr/lib/[^/]*/xtables/",
    r"usr/sbin/(mke2fs|resize2fs|xtables-nft-multi)$",
    r"/regorus/.*\.so$",
)

DIRECTORIES = ("dev", "mnt", "proc", "root", "run", "sys", "tmp", "usr/sbin", "var")
LINKS: Mapping[str, str] = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "sbin": "usr/sbin",
    "usr/bin/python3": PYTHON,
    "usr/bin/sh": "busybox",
    "usr/sbin/ip6tables-restore": "xtables-nft-multi",
    "usr/sbin/ip6tables-save": "xtables-nft-multi",
    "usr/sbin/iptables-restore": "xtables-nft-multi",
    "usr/sbin/iptables-save": "xtables-nft-multi",
    "usr/sbin/modprobe": "../bin/busybox",
    "var/run": "../run",
}
TEXTS: Mapping[str, str] = {
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/resolv.conf": "",  # CreateSandbox mounts the pod's over it
    "usr/sbin/init": f'#!/bin/sh\nexec /usr/bin/python3 -IS /{CODE_ROOT}/init.pyc "$@"\n',  # without our initramfs
    f"{DIST_PACKAGES}/google/__init__.py": "",  # else finding it is a search through all of sys.path
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """What differs between the machines that guests run on.

    Attributes:
        machine: What `uname -m` says.
        debian: Debian's name of it.
        multiarch: The directory of its libraries.
        loader: Path of the dynamic linker that programs name.
        kernel_package: Depends on the kernel's real package.
        kernel_compressed: Whether `vmlinuz` is a bzImage with a kernel inside that boots by itself.
        boot_modules: What the initramfs loads for the root to be there.
        found_modules: What it has besides, to be loaded for devices that it finds.
        disk_packages: Packages with what boots a disk, of which the guest itself has nothing.
        modules: What the root has for later: the kernel asks modprobe for the file systems and sockets among
            them when they are first used, the agent for the rest.
        parameters: Kernel parameters that this guest wants on any hypervisor.
        wheels: Python packages that Debian has not.
    """

    machine: str
    debian: str
    multiarch: str
    loader: str
    kernel_package: str
    kernel_compressed: bool
    boot_modules: tuple[str, ...]
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    wheels: tuple[Wheel, ...] = ()
    found_modules: tuple[str, ...] = ()
    disk_packages: tuple[str, ...] = ()


CHANNEL_MODULES = ("virtio_console", "vmw_vsock_virtio_transport")  # the initramfs loads that of the agent's address
_BOOT_MODULES = ("virtio_blk", "erofs")
# For the pod's network: the kernel asks for what a rule or a link needs, but for ip_tables and ip6_tables, the older
# kernel side of iptables, which a pod that uses it names in kernel_modules.
_NETWORK_MODULES = (
    # Links.
    "8021q", "bridge", "br_netfilter", "dummy", "ifb", "ipvlan", "macvlan", "macvtap", "tun", "veth", "vxlan",
    "wireguard",
    # Traffic that is redirected as it comes in, which ifb is for.
    "act_mirred", "cls_u32", "sch_ingress",
    # Connections that are followed, translated, logged.
    "nf_conntrack", "nf_conntrack_netlink", "nf_log_syslog", "nf_nat", "nfnetlink_log", "nfnetlink_queue",
    # nf_tables.
    "nf_tables", "nft_chain_nat", "nft_compat", "nft_connlimit", "nft_ct", "nft_fib_inet", "nft_fib_ipv4",
    "nft_fib_ipv6", "nft_hash", "nft_limit", "nft_log", "nft_masq", "nft_nat", "nft_numgen", "nft_objref", "nft_queue",
    "nft_quota", "nft_redir", "nft_reject_inet", "nft_reject_ipv4", "nft_reject_ipv6", "nft_socket", "nft_tproxy",
    # The tables of ip_tables and ip6_tables.
    "ip_tables", "iptable_filter", "iptable_mangle", "iptable_nat", "iptable_raw", "iptable_security",
    "ip6_tables", "ip6table_filter", "ip6table_mangle", "ip6table_nat", "ip6table_raw", "ip6table_security",
    # Targets.
    "ip6t_REJECT", "ipt_ECN", "ipt_REJECT", "xt_CLASSIFY", "xt_CT", "xt_DSCP", "xt_HL", "xt_LOG", "xt_MASQUERADE",
    "xt_NETMAP", "xt_NFLOG", "xt_NFQUEUE", "xt_REDIRECT", "xt_TCPMSS", "xt_TEE", "xt_TPROXY", "xt_TRACE", "xt_nat",
    # Matches, of which some are targets as well.
    "ip6t_rpfilter", "ip6t_rt", "ipt_rpfilter", "xt_addrtype", "xt_bpf", "xt_cgroup", "xt_comment", "xt_connbytes",
    "xt_connlimit", "xt_connmark", "xt_conntrack", "xt_dscp", "xt_ecn", "xt_hashlimit", "xt_helper", "xt_hl",
    "xt_iprange", "xt_length", "xt_limit", "xt_mac", "xt_mark", "xt_multiport", "xt_owner", "xt_physdev",
    "xt_pkttype", "xt_policy", "xt_quota", "xt_recent", "xt_sctp", "xt_set", "xt_socket", "xt_state", "xt_statistic",
    "xt_string", "xt_tcpmss", "xt_tcpudp", "xt_time", "xt_u32",
    # Sets of addresses and ports, for xt_set.
    "ip_set_bitmap_ip", "ip_set_bitmap_port", "ip_set_hash_ip", "ip_set_hash_ipport", "ip_set_hash_ipportnet",
    "ip_set_hash_net", "ip_set_hash_netport", "ip_set_list_set",
)  # fmt: skip
_FILE_SYSTEMS = ("ext4", "isofs", "overlay", "vfat", "nls_cp437", "nls_ascii", "virtiofs", "xfs")
_DISKS = ("virtio_scsi", "sd_mod")
_PMEM = ("nd_pmem", "nfit", "virtio_pmem")
_VFIO = ("vfio_iommu_type1", "vfio_pci")
_MODULES = (*_FILE_SYSTEMS, *_DISKS, "virtio_balloon", "virtio_net", "virtio_rng", *CHANNEL_MODULES, *_NETWORK_MODULES)
# Huge pages make the kernel hold back 66 MB, whatever it has.
_PARAMETERS = ("sysctl.vm.min_free_kbytes=8192",)

# The policy's evaluator, the one of upstream's agent; loaded with the first policy. PyPI has it for x86_64 alone.
_REGORUS = Wheel(
    name="celine-regorus",
    version="0.9.1.post20260227075446",
    file="celine_regorus-0.9.1.post20260227075446-cp310-abi3-manylinux_2_34_x86_64.whl",
    sha256="b1b5cd141ad6029b5e9e668b803516efc909aabbf3f3e480636f54fee56e5309",
    keep=("regorus/__init__.py", "regorus/*.so"),
)

ARCHITECTURES: Mapping[str, Architecture] = {
    architecture.machine: architecture
    for architecture in (
        Architecture(
            machine="x86_64",
            debian="amd64",
            multiarch="x86_64-linux-gnu",
            loader="lib64/ld-linux-x86-64.so.2",
            kernel_package="linux-image-cloud-amd64",
            kernel_compressed=True,
            boot_modules=("virtio_pci", *_BOOT_MODULES),
            modules=(*_MODULES, *_PMEM, *_VFIO, "virtio_mem"),
            parameters=_PARAMETERS,
            wheels=(_REGORUS,),
        ),
        Architecture(
            machine="s390x",
            debian="s390x",
            multiarch="s390x-linux-gnu",
            loader="lib/ld64.so.1",
            kernel_package="linux-image-s390x",
            kernel_compressed=False,
            boot_modules=_BOOT_MODULES,
            modules=_MODULES,
            parameters=_PARAMETERS,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Flavour:
    """One guest of those that are made from the same recipe.

    Attributes:
        name: What it is called on the command line.
        packages: Debian's packages, without the kernel's.
        keep: Patterns of the paths that the root gets of them.
        left_out: Of the standard library, by reason.
        code: The parts of this project, by their place in the checkout.
        programs: Sources from `guest/` that stand beside them.
        packs: Of modules, by name; see `PACKS`.
        compressed: Regular expressions of paths that are packed.
        directories: Made empty.
        links: Symbolic links, by path.
        texts: Files, by path.
        scripts: Files from `guest/`, by path.
        copies: Files that stand in the root twice, by the second path.
        certificates: Patterns of the certificates that are made one file; none, no file.
        initramfs: The script in `guest/` that the initramfs runs.
        kernel: The kernel's file name, which tells its form.
        architectures: By what `uname -m` says.
        image_limit: The most bytes of the root.
        initramfs_limit: The most bytes of the initramfs.
        root_label: What the root's partition is called on the disk that is made of it all; none, no disk.
        disk_limit: The most bytes of that disk, packed.
    """

    name: str
    packages: tuple[str, ...]
    keep: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]]
    code: Mapping[str, tuple[str, ...]]
    programs: tuple[str, ...]
    packs: Mapping[str, tuple[str, ...]]
    compressed: tuple[str, ...]
    directories: tuple[str, ...]
    links: Mapping[str, str]
    texts: Mapping[str, str]
    scripts: Mapping[str, str]
    copies: Mapping[str, str]
    certificates: tuple[str, ...]
    initramfs: str
    kernel: str
    architectures: Mapping[str, Architecture]
    image_limit: int
    initramfs_limit: int
    root_label: str = ""
    disk_limit: int = 0


LOCAL = Flavour(
    name="local",
    packages=PACKAGES,
    keep=KEEP,
    left_out=LEFT_OUT,
    code=CODE,
    programs=("init.py",),
    packs=PACKS,
    compressed=COMPRESSED,
    directories=DIRECTORIES,
    links=LINKS,
    texts=TEXTS,
    scripts={},
    copies={},
    certificates=(),
    initramfs="initramfs",
    kernel="vmlinux",
    architectures=ARCHITECTURES,
    image_limit=IMAGE_LIMIT,
    initramfs_limit=INITRAMFS_LIMIT,
)
