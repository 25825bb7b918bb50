"""What an adaptor is told of a pod."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path
from typing import Any

import pytest

from kata_py.config.model import Configuration, HypervisorConfig, RuntimeConfig
from kata_py.sandbox.agent import CALL_TIMEOUT
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.peer import INITDATA_MAX, request
from kata_py.sandbox.pod import Role
from kata_py.sandbox.sandbox_plan import REMOTE_TIMEOUT, SandboxPlan, plan_sandbox
from tests.unit.sandbox import plans

HYPERVISOR = "io.katacontainers.config.hypervisor."
NAME, NAMESPACE = "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace"
TOML = 'algorithm = "sha256"\nversion = "0.1.0"\n'


def configuration(*, static: bool = True, **hypervisor: Any) -> Configuration:
    values = {"shared_fs": "none", "default_vcpus": 0.0, "default_memory": 0, **hypervisor}
    return Configuration(
        HypervisorConfig("remote", **values),
        Path("/etc/kata-containers/configuration-remote.toml"),
        runtime=RuntimeConfig(static_sandbox_resource_mgmt=static),
    )


def packed(text: bytes) -> str:
    return base64.b64encode(gzip.compress(text, mtime=0)).decode()


def test_the_adaptor_gets_upstream_s_nine_annotations_and_nothing_else():
    asked = request(configuration(), {NAME: "web", NAMESPACE: "shop", "else": "x"}, "id")
    assert asked == {
        NAME: "web",
        NAMESPACE: "shop",
        f"{HYPERVISOR}machine_type": "",
        f"{HYPERVISOR}image": "",
        f"{HYPERVISOR}default_vcpus": "0",
        f"{HYPERVISOR}default_memory": "0",
        f"{HYPERVISOR}default_gpus": "0",
        f"{HYPERVISOR}default_gpu_model": "",
        f"{HYPERVISOR}cc_init_data": "",
    }


def test_cri_o_s_name_of_a_sandbox_is_handed_on():
    asked = request(
        configuration(),
        {"io.kubernetes.cri-o.SandboxName": "k8s_web_shop_uid_0", "io.kubernetes.cri-o.Namespace": "shop"},
        "id",
    )
    assert (asked[NAME], asked[NAMESPACE]) == ("k8s_web_shop_uid_0", "shop")


def test_a_container_of_no_pod_goes_by_its_id():
    asked = request(configuration(), {}, "c1")
    assert (asked[NAME], asked[NAMESPACE]) == ("c1", "default")


def test_what_a_pod_asks_for_and_what_its_manager_tells_of_its_size_add_up():
    told = {
        "io.kubernetes.cri.sandbox-cpu-quota": "150000",
        "io.kubernetes.cri.sandbox-cpu-period": "100000",
        "io.kubernetes.cri.sandbox-memory": str(512 << 20),
    }
    asked = request(configuration(default_vcpus=1.0, default_memory=1024, default_gpus=2), told, "id")
    assert asked[f"{HYPERVISOR}default_vcpus"] == "3"
    assert asked[f"{HYPERVISOR}default_memory"] == "1536"
    assert asked[f"{HYPERVISOR}default_gpus"] == "2"
    asked = request(configuration(static=False), told, "id")
    assert asked[f"{HYPERVISOR}default_vcpus"] == "0"


def test_initdata_is_handed_on_as_the_text_inside():
    asked = request(configuration(cc_init_data=packed(TOML.encode())), {}, "id")
    assert asked[f"{HYPERVISOR}cc_init_data"] == TOML


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not base64!", "is not base64 of gzip of TOML"),
        (base64.b64encode(b"no gzip").decode(), "is not base64 of gzip of TOML"),
        (packed(b"no toml"), "is not base64 of gzip of TOML"),
        (packed(b"\xff"), "is not base64 of gzip of TOML"),
        (base64.b64encode(gzip.compress(TOML.encode(), mtime=0)[:-9]).decode(), "cut short"),
        (packed(b"#" * (INITDATA_MAX + 1)), "more than 1 MiB"),
    ],
)
def test_initdata_that_cannot_be_read_is_refused(text: str, said: str):
    with pytest.raises(InvalidArgument, match=f"cc_init_data: .*{said}"):
        request(configuration(cc_init_data=text), {}, "id")


def planned(config: Configuration) -> SandboxPlan:
    namespaces = [{"type": kind} for kind in plans.ALL if kind != "network"]
    linux = {"namespaces": [*namespaces, {"type": "network", "path": "/run/netns/pod"}]}
    return plan_sandbox(config, plans.spec(linux=linux), sandbox_id="pod", role=Role.SANDBOX, host=plans.HOST)


def test_a_sandbox_elsewhere_is_planned_without_anything_of_this_host():
    plan = planned(configuration())
    assert plan.vm.elsewhere
    assert plan.vm.devices == ()
    assert plan.vm.network_namespace == Path("/run/netns/pod")
    assert plan.network is None
    assert not plan.shared
    assert not plan.guest.kernel_modules
    assert plan.guest_timeout == REMOTE_TIMEOUT


def test_one_here_takes_the_usual_time():
    assert planned(plans.configuration()).guest_timeout == CALL_TIMEOUT
    assert not planned(plans.configuration()).vm.elsewhere
