"""Run kubernetes-sigs/cri-tools' `critest` over this shim, as `make conformance` does.

critest is built below build/ once, from the Go module proxy. Its images come from registries; here stand-ins of
busybox under the same names are imported before it starts, so that nothing is pulled. What it must not be asked here
is told in tests/cri/critest-reasons.toml; how it came out is recorded in tests/cri/critest-results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kata_py.resource import mount
from tools import configuration
from tools.containerd import ContainerdError
from tools.cri import PAUSE, REFERENCE, CriContainerd
from tools.critest_results import REASONS, RESULTS, CritestError, Reasons, Run, record, summary
from tools.oci_image import File

VERSION = "v1.34.0"
MODULE = "sigs.k8s.io/cri-tools"
GO = (1, 24)  # what the module asks for
REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build" / "critest"
GUEST = REPOSITORY / "build" / "guest"
DRIVERS = REPOSITORY / "tests" / "drivers"
LAUNCHER = Path(sys.executable).with_name("containerd-shim-kata-v2")
BUILD_TIMEOUT = 1800.0  # seconds
RUN_TIMEOUT = 3600.0

_REGISTRY = "registry.k8s.io/e2e-test-images"
DEFAULT_IMAGE = f"{_REGISTRY}/busybox:1.29-2"
NGINX_IMAGE = f"{_REGISTRY}/nginx:1.14-2"
HTTPD_IMAGE = f"{_REGISTRY}/httpd:2.4.39-4"
NO_NEW_PRIVILEGES_IMAGE = f"{_REGISTRY}/nonewprivs:1.3"
HOST_NETWORK_IMAGE = "gcr.io/k8s-staging-cri-tools/hostnet-nginx-amd64:latest"

# What Debian's busybox lacks. The kernel tells the same.
_IPCS = File(b"#!/bin/sh\nexec cat /proc/sysvipc/shm\n")
_PGREP = File(
    b"""\
#!/bin/sh
found=1
for stat in /proc/[0-9]*/stat; do
    read -r pid name rest <"$stat" 2>/dev/null || continue
    [ "$name" = "($1)" ] && echo "$pid" && found=0
done
exit $found
"""
)

# critest looks for a process named sleep in a pod whose containers share the pause program's pid namespace.
_PAUSE_COMMAND = ("/bin/sh", "-c", "trap exit TERM INT; while :; do usleep 3600000000 & wait; done")

# What critest looks at of these servers: the port, a page, a line in the log, the pid file and the process's names.
_SERVER = """\
#!/bin/sh
mkdir -p /var/run /www
echo "It works" >/www/index.html
httpd -p {port} -h /www
echo $$ >/var/run/{name}.pid
echo "{name}: serves port {port}"
trap exit TERM INT QUIT
while :; do sleep 86400 & wait; done
"""

# Stands for the program of the image nonewprivs: set-user-id root, tells who it is.
_NO_NEW_PRIVILEGES = """\
package main

import (
	"fmt"
	"syscall"
)

func main() { fmt.Printf("Effective uid: %d\\n", syscall.Geteuid()) }
"""


def build() -> Path:
    """Build critest and the set-user-id program, unless they are there; return the directory of both.

    Raises:
        CritestError: There is no Go, or it cannot build them.
    """
    directory = BUILD / VERSION
    if (directory / "critest").exists() and (directory / "nonewprivs").exists():
        return directory
    if shutil.which("go") is None:
        raise CritestError(
            f"building critest {VERSION} needs Go {'.'.join(map(str, GO))} or later, and there is no `go` in PATH; "
            "Debian 12's is older: install one from https://go.dev/dl/ and put its bin directory into PATH"
        )
    print(f"==> critest {VERSION} (some minutes)", flush=True)
    module = directory / "module"
    (module / "nonewprivs").mkdir(parents=True, exist_ok=True)
    (module / "nonewprivs" / "main.go").write_text(_NO_NEW_PRIVILEGES)
    (module / "go.mod").unlink(missing_ok=True)
    _go(module, "mod", "init", "example.com/critest")
    _go(module, "get", f"{MODULE}@{VERSION}")
    _go(module, "build", "-o", str(directory / "nonewprivs"), "./nonewprivs")
    version = f"-X {MODULE}/pkg/version.Version={VERSION}"
    _go(
        module, "test", "-c", "-mod=mod", "-ldflags", version, "-o", str(directory / "critest"), f"{MODULE}/cmd/critest"
    )
    return directory


def _go(directory: Path, *arguments: str) -> None:
    try:
        subprocess.run(
            ["go", *arguments], cwd=directory, env=os.environ | {"CGO_ENABLED": "0"}, check=True, timeout=BUILD_TIMEOUT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        said = "\n".join(str(error.stdout).splitlines()[-10:])
        raise CritestError(
            f"go {' '.join(arguments)} in {directory}: {said}\nIt needs Go {'.'.join(map(str, GO))} or later and "
            "a Go module proxy (GOPROXY) that can be reached"
        ) from error


class CritestContainerd(CriContainerd):
    """A containerd that has critest's images already.

    Args:
        directory: Where all of it lives; made when missing.
        handlers: `configuration.toml` of each runtime handler; the first is the default.
        programs: The directory that `build` returned.
    """

    def __init__(self, directory: Path, handlers: Mapping[str, Path], programs: Path) -> None:
        super().__init__(directory, LAUNCHER, handlers, env={"PYTHONPATH": str(DRIVERS)})
        self._programs = programs

    def _import_images(self) -> None:
        self._import_image(PAUSE, _PAUSE_COMMAND)
        super()._import_images()
        self._import_image(DEFAULT_IMAGE, ["/bin/sh"], {"bin/ipcs": _IPCS, "bin/pgrep": _PGREP})
        for reference, name, port in (
            (NGINX_IMAGE, "nginx", 80),
            (HTTPD_IMAGE, "httpd", 80),
            (HOST_NETWORK_IMAGE, "nginx", 12003),
        ):
            server = File(_SERVER.format(name=name, port=port).encode())
            self._import_image(reference, [f"/usr/bin/{name}", "master process"], {f"usr/bin/{name}": server})
        program = File((self._programs / "nonewprivs").read_bytes(), mode=0o4755)
        self._import_image(NO_NEW_PRIVILEGES_IMAGE, ["/bin/nonewprivs"], {"bin/nonewprivs": program})


def run(driver: str, *, focus: Sequence[str] = (), reasons: Reasons) -> Run:
    """Run critest with a runtime handler.

    Args:
        driver: A hypervisor driver's name, or `runc`.
        focus: Regular expressions of the specs to run; all when empty.
        reasons: Tells which it shall leave out.

    Raises:
        CritestError: It gave no report.
        ContainerdError: containerd did not come up.
    """
    programs = build()
    log, report = BUILD / f"{driver}.log", BUILD / f"{driver}.json"
    report.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        own = "namespace" if driver == REFERENCE else driver
        guest = GUEST if own == "qemu" else None
        config = configuration.write(
            directory / f"{own}.toml", guest, program="make conformance", hypervisor=own, memory=256
        )  # fmt: skip
        config.write_text(config.read_text() + "disable_guest_seccomp = false\n")
        with CritestContainerd(directory / "cri", {own: config}, programs) as containerd, log.open("w") as output:
            images = directory / "images.yaml"
            # JSON is YAML.
            images.write_text(
                json.dumps({"defaultTestContainerImage": DEFAULT_IMAGE, "webServerTestImage": NGINX_IMAGE})
            )
            try:
                subprocess.run(
                    [programs / "critest",
                     f"-runtime-endpoint=unix://{containerd.address}", f"-image-endpoint=unix://{containerd.address}",
                     f"-runtime-handler={driver}", f"-test-images-file={images}", f"-config={directory}/none.yaml",
                     f"-ginkgo.json-report={report}", "-ginkgo.no-color",
                     f"-test.timeout={RUN_TIMEOUT:g}s",
                     *(f"-ginkgo.focus={expression}" for expression in focus),
                     *(f"-ginkgo.skip={expression}" for expression in reasons.not_run())],
                    cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    timeout=RUN_TIMEOUT, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise CritestError(
                    f"critest has not ended in {RUN_TIMEOUT:g} s; how far it came stands in {log}"
                ) from error
            finally:
                shutil.copy(containerd.log, BUILD / f"{driver}-containerd.log")
    if not report.exists():
        said = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
        raise CritestError(f"critest wrote no report; the end of {log}:\n{said}")
    return Run.parse(report.read_text(), VERSION)


def _share_mounts() -> None:
    """Let mounts be shared, as systemd does on a node and not everything else; outside nothing of it is seen."""
    mount.unshare(mount.CLONE_NEWNS)
    mount.mount("", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
    mount.mount("", "/", flags=mount.MS_REC | mount.MS_SHARED)


def main(arguments: list[str] | None = None) -> int:
    """Build critest, run it and record how it came out; 0 when what failed has a written reason."""
    parser = argparse.ArgumentParser(prog="python -m tools.critest", description=__doc__)
    parser.add_argument("--build", action="store_true", help="build critest, no more")
    parser.add_argument("--driver", default="namespace", help="hypervisor driver, or runc, whose results are not kept")
    parser.add_argument("--focus", action="append", default=[], help="a regular expression of the specs to run")
    options = parser.parse_args(arguments)
    try:
        if options.build:
            print(build())
            return 0
        if os.geteuid() != 0:
            raise CritestError("critest needs root: containerd mounts")
        reasons = Reasons.parse(REASONS.read_text())
        _share_mounts()
        outcome = run(options.driver, focus=options.focus, reasons=reasons)
        print(summary(outcome, reasons, options.driver))
        if options.driver != REFERENCE:
            record(options.driver, outcome, RESULTS)
            reasons.check(options.driver, outcome)
    except (CritestError, ContainerdError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
