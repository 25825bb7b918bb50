"""What a pod VM must carry for the forwarder: this project's wire, the standard library, protobuf, and nothing else."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
import kata_caa.forwarder
for module in pkgutil.iter_modules(kata_caa.forwarder.__path__):
    importlib.import_module(f"kata_caa.forwarder.{module.name}")
import kata_protos.agent_pb2
foreign = {name.partition(".")[0] for name, module in sys.modules.items() if "site-packages" in (getattr(module, "__file__", None) or "")}
own = {".".join(name.split(".")[:2]) for name in sys.modules if name.startswith(("kata_py.", "kata_agent", "kata_caa."))}
print(*sorted(foreign))
print(*sorted(own))
"""  # noqa: E501

FIRST = """
import sys
import kata_caa.forwarder.boot
print(*sorted({"asyncio", "ssl", "http", "urllib.request", "google", "tomllib", "subprocess"} & set(sys.modules)))
"""


def printed(program: str) -> list[str]:
    line = [sys.executable, "-c", program]
    return subprocess.run(line, check=True, text=True, stdout=subprocess.PIPE, timeout=60).stdout.splitlines()


def test_nothing_is_loaded_that_a_pod_vm_does_not_carry():
    foreign, own = printed(PROGRAM)
    assert set(foreign.split()) <= {"google", "_editable_impl_kata_py", "_virtualenv", "_distutils_hack"}
    assert set(own.split()) == {
        "kata_caa.apf", "kata_caa.errors", "kata_caa.flags", "kata_caa.forwarder", "kata_caa.notice",
        "kata_caa.userdata", "kata_py.ttrpc",
    }  # fmt: skip


def test_what_costs_is_loaded_when_it_is_needed():
    assert printed(FIRST) == [""]
