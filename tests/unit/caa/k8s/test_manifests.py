"""The manifests: Kubernetes' own models take each of them, and what one names another one has."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kata_caa.config import AdaptorConfig
from kata_caa.k8s import probe, webhook
from kata_caa.k8s.cluster import RESOURCE
from kata_caa.k8s.mutation import Rules
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.azure.config import AzureConfig
from kata_caa.providers.libvirt.config import LibvirtConfig
from kata_caa.settings import settings_of
from tests.kube import schema
from tests.kube.rbac import MANIFESTS, NODE, documents

REPOSITORY = MANIFESTS.parents[1]
FILES = sorted(path for path in MANIFESTS.rglob("*.yaml") if NODE not in path.parents)
NAMESPACE = "confidential-containers-system"
CERT_MANAGER = "cert-manager.io/v1"  # not Kubernetes' own
CLUSTER_WIDE = ("Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "RuntimeClass")


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [each for each in documents() if each["kind"] == kind]


def pod_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    for each in (*of_kind("DaemonSet"), *of_kind("Deployment")):
        yield each["metadata"]["name"], each["spec"]["template"]["spec"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_of_its_kind(path: Path):
    for document in yaml.safe_load_all(path.read_text()):
        if document["apiVersion"] != CERT_MANAGER:
            schema.check(document, f"V1{document['kind']}")
        cluster_wide = (*CLUSTER_WIDE, "MutatingWebhookConfiguration")
        assert document["metadata"].get("namespace") == (None if document["kind"] in cluster_wide else NAMESPACE)


def test_a_field_that_kubernetes_has_not_would_be_seen():
    (daemon_set,) = of_kind("DaemonSet")
    daemon_set["spec"]["template"]["spec"]["hostNetworks"] = True
    with pytest.raises(schema.Invalid, match='unknown field "hostNetworks"'):
        schema.check(daemon_set, "V1DaemonSet")


def test_selectors_find_their_pods():
    for each in (*of_kind("DaemonSet"), *of_kind("Deployment")):
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (service,) = of_kind("Service")
    (behind,) = (each for each in of_kind("Deployment") if each["metadata"]["name"] == "peer-pods-webhook")
    assert service["spec"]["selector"] == behind["spec"]["selector"]["matchLabels"]


def test_accounts_volumes_and_commands_exist():
    accounts = {each["metadata"]["name"] for each in of_kind("ServiceAccount")}
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    for name, spec in pod_specs():
        assert spec["serviceAccountName"] in accounts, name
        (container,) = spec["containers"]
        assert container["command"][0] in scripts
        volumes = {each["name"] for each in spec.get("volumes", ())}
        assert volumes == {each["name"] for each in container.get("volumeMounts", ())}, name


@pytest.mark.parametrize(
    ("provider", "keys"),
    [
        ("aws", {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_SUBNET_ID", "AWS_VPC_ID",
                 "AWS_SG_IDS", "PODVM_AMI_ID"}),
        ("azure", {"AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "AZURE_SUBSCRIPTION_ID", "AZURE_REGION",
                   "AZURE_RESOURCE_GROUP", "AZURE_SUBNET_ID", "AZURE_IMAGE_ID"}),
        ("libvirt", {"LIBVIRT_URI", "LIBVIRT_POOL", "LIBVIRT_VOL_NAME"}),
    ],
)  # fmt: skip
def test_each_cloud_has_a_secret_and_a_map_of_the_names_that_the_daemons_take(provider: str, keys: set[str]):
    secret, settings = yaml.safe_load_all((MANIFESTS / "providers" / f"{provider}.yaml").read_text())
    assert keys | {"CLOUD_PROVIDER"} <= secret["stringData"].keys() | settings["data"].keys()
    assert settings["data"]["CLOUD_PROVIDER"] == provider
    for name, spec in pod_specs():
        if name != "peer-pods-webhook":
            (container,) = spec["containers"]
            assert container["envFrom"] == [
                {"secretRef": {"name": secret["metadata"]["name"]}},
                {"configMapRef": {"name": settings["metadata"]["name"]}},
            ]


def test_the_adaptor_has_what_upstreams_has_of_the_node_and_no_more_privileges():
    (spec,) = (spec for name, spec in pod_specs() if name == "cloud-api-adaptor-daemonset")
    (container,) = spec["containers"]
    assert spec["hostNetwork"]
    assert container["securityContext"]["capabilities"] == {"add": ["NET_ADMIN", "SYS_ADMIN"]}
    assert "privileged" not in container["securityContext"]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    assert mounts["/run/netns"]["mountPropagation"] == "HostToContainer"
    defaults = AdaptorConfig()
    assert Path(defaults.socket).parent == Path("/run/peerpod")
    assert {"/run/peerpod", "/run/xtables.lock", "/lib/modules", "/root/.ssh", "/etc/machine-id"} <= mounts.keys()
    asked = container["startupProbe"]["httpGet"]
    assert asked == {"host": probe.ADDRESS, "port": probe.PORT, "path": "/startup"}
    assert {each["name"] for each in container["env"]} == {"NODE_NAME", "POD_UID", "POD_NAMESPACE"}


def test_whoever_calls_the_cloud_has_the_key_that_opens_qemu_ssh():
    for name, spec in pod_specs():
        (container,) = spec["containers"]
        if any("secretRef" in each for each in container.get("envFrom", ())):
            mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            (volume,) = (each for each in spec["volumes"] if each["name"] == mounts["/root/.ssh"])
            assert volume["secret"] == {"secretName": "ssh-key-secret", "defaultMode": 0o600, "optional": True}, name
            assert container["securityContext"]["runAsUser"] == 0, name


def test_the_webhook_leaves_the_systems_namespaces_alone():
    (configuration,) = of_kind("MutatingWebhookConfiguration")
    (hook,) = configuration["webhooks"]
    (names,) = hook["namespaceSelector"]["matchExpressions"]
    assert (names["key"], names["operator"]) == ("kubernetes.io/metadata.name", "NotIn")
    assert set(names["values"]) == {
        "kube-system", "kube-node-lease", "peer-pods-webhook-system", "openshift", NAMESPACE,
    }  # fmt: skip
    assert hook["matchConditions"][1]["expression"] == "!request.namespace.startsWith('openshift-')"
    assert hook["rules"][0]["operations"] == ["CREATE"]  # a pod's resources cannot be changed later
    assert (hook["failurePolicy"], hook["reinvocationPolicy"], hook["sideEffects"]) == ("Fail", "IfNeeded", "None")


def test_the_webhook_is_called_where_it_serves():
    (configuration,) = of_kind("MutatingWebhookConfiguration")
    (hook,) = configuration["webhooks"]
    (service,) = of_kind("Service")
    assert hook["clientConfig"]["service"] == {
        "name": service["metadata"]["name"], "namespace": NAMESPACE, "path": webhook.PATH,
    }  # fmt: skip
    (spec,) = (spec for name, spec in pod_specs() if name == "peer-pods-webhook")
    (container,) = spec["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    config = webhook.WebhookConfig()
    assert (ports[service["spec"]["ports"][0]["targetPort"]], ports["health"]) == (config.port, config.health_port)
    assert container["volumeMounts"][0]["mountPath"] == config.cert_dir
    environment = {each["name"]: each["value"] for each in container["env"]}
    rules = Rules.of(environment)
    assert rules.resource == RESOURCE
    assert f"== '{rules.runtime_class}'" in hook["matchConditions"][0]["expression"]
    (runtime_class,) = of_kind("RuntimeClass")
    assert runtime_class["metadata"]["name"] == runtime_class["handler"] == rules.runtime_class
    (certificate,) = of_kind("Certificate")
    assert certificate["spec"]["secretName"] == spec["volumes"][0]["secret"]["secretName"]
    assert certificate["spec"]["dnsNames"][0] == f"{service['metadata']['name']}.{NAMESPACE}.svc"


@pytest.mark.parametrize(
    ("provider", "config"), [("aws", AwsConfig), ("azure", AzureConfig), ("libvirt", LibvirtConfig)]
)
def test_every_key_of_a_clouds_secret_and_map_is_a_setting_of_the_adaptors_or_of_the_clouds(
    provider: str, config: type
):
    known = {how.environment for each in (AdaptorConfig, config) for _, how in settings_of(each)}
    secret, settings = yaml.safe_load_all((MANIFESTS / "providers" / f"{provider}.yaml").read_text())
    assert secret["stringData"].keys() | settings["data"].keys() <= known | {"CLOUD_PROVIDER"}
