"""A node of a cluster: its capacity, its pods' machines, failures and pull secrets, at the API server.

Source: cloud-api-adaptor `pkg/adaptor/k8sops/{node,peerpod}.go`, `cmd/cloud-api-adaptor/main.go`.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import secrets as random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lightkube.resources.core_v1 import Node, NodeStatus, Pod, Secret, ServiceAccount

from kata_caa.config import AdaptorConfig
from kata_caa.k8s import news, peerpod, probe
from kata_caa.k8s.api import Api, ClusterError, connected
from kata_caa.k8s.peerpod import PeerPod, PeerPodObject
from kata_caa.k8s.secrets import auth_json
from kata_caa.peer import Failure
from kata_caa.pods import Pods
from kata_caa.pool.machine import Machine
from kata_caa.record import PodRecord, State

logger = logging.getLogger(__name__)

OWNER = "kata.peerpods.io/caa-owner"
RESOURCE = "kata.peerpods.io/vm"
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
NAMESPACE = "confidential-containers-system"
TIMEOUT = 10.0  # seconds that telling, or looking up, may take altogether

PAUSE = 1.0  # seconds before a PeerPod that could not be made is tried again; doubles
PAUSE_MAX = 300.0

T = TypeVar("T", Pod, Secret, ServiceAccount)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the cluster we are.

    Attributes:
        node: The node's name.
        uid: The UID of our own pod: of two adaptors on a node, the one that the node names counts.
        provider: The cloud, in the word that PeerPods have for it.
        limit: How many machines the node advertises; below 0 it does not.
        devices: The kubelet's directory of device plug-ins, if machines are advertised there and not in the node's
            status.
        probe: Where the kubelet asks whether we have started; None is nowhere.
        namespace: Our own.
    """

    node: str
    uid: str
    provider: str = ""
    limit: int = -1
    devices: Path | None = None
    probe: probe.Place | None = None
    namespace: str = NAMESPACE

    @classmethod
    def of(cls, config: AdaptorConfig, provider: str, environ: Mapping[str, str]) -> Place:
        """As settings and environment say.

        Args:
            config: The adaptor's settings.
            provider: The cloud's name on the command line; `CLOUD_PROVIDER` goes before.
            environ: `NODE_NAME` is in it.

        Raises:
            SettingError: A variable cannot be used.
        """
        return cls(
            node=environ["NODE_NAME"],
            uid=environ.get("POD_UID") or random.token_hex(16),
            provider=environ.get("CLOUD_PROVIDER") or provider,
            limit=config.peerpods_limit_per_node,
            devices=DEVICE_PLUGINS if config.device_plugin else None,
            probe=probe.Place.of(config.socket, environ),
            namespace=environ.get("POD_NAMESPACE") or NAMESPACE,
        )


class Cluster:
    """Satisfies `kata_caa.surroundings.Surroundings`. But for `joined`, nothing fails or takes longer than `TIMEOUT`.

    Args:
        api: The API server.
        place: Where we are.
    """

    def __init__(self, api: Api, place: Place) -> None:
        self._api = api
        self._place = place
        self._pods: Pods | None = None
        self._owed: dict[str, asyncio.Task[None]] = {}  # PeerPods that could not be made yet, by sandbox

    @asynccontextmanager
    async def joined(self, pods: Pods) -> AsyncIterator[None]:
        """Advertise the node's capacity; on leaving it is taken back, unless another adaptor has taken the node over.

        Raises:
            ClusterError: The API server does not let us; says which verb is missing.
            AdaptorError: The probe's port, or the kubelet's directory, cannot be used.
        """
        async with AsyncExitStack() as stack:
            if self._place.limit >= 0 and self._place.devices is not None:
                await stack.enter_async_context(_devices(self._place.limit, self._place.uid, self._place.devices))
            elif self._place.limit >= 0:
                await self._advertise()
                stack.push_async_callback(self._withdraw)
            if self._place.probe is not None:
                await stack.enter_async_context(probe.serving(self._api, self._place.node, self._place.probe, pods))
            self._pods = pods
            stack.push_async_callback(self._leave)
            for record in pods.records:  # what an earlier adaptor could not put down
                if record.instance_id:
                    self._put_down_later(record)
            yield

    async def created(self, record: PodRecord) -> None:
        """Put down that the pod has a machine, once; what fails is tried again, and not waited for."""
        if not await self._put_down(record):
            self._put_down_later(record)

    async def failed(self, failure: Failure) -> None:
        """Tell the pod's user, by an event."""
        async with _bounded(f"pod {failure.namespace}/{failure.name}", "its failure cannot be told"):
            pod = await self._api.get(Pod, failure.name, failure.namespace)
            now = datetime.datetime.now(datetime.UTC)
            await news.warn(self._api, self._place.node, pod, failure, now)

    async def deleted(self, record: PodRecord) -> None:
        """Let the pod's objects go: nothing of the machine is left."""
        await self._forget(record.sandbox_id)
        async with _bounded(record.instance_name, "its PeerPod cannot be deleted"):
            await self._let_go(record.sandbox_id, record.namespace)

    async def waits(self, machine: Machine) -> None:
        """Put down that a machine waits for a pod, so that it does not outlive a node that is lost."""
        place = self._place
        async with _bounded(machine.name, "its PeerPod cannot be made"):
            if not await self._of(machine.id, place.namespace):
                node = await self._api.get(Node, place.node)
                uid = str(node.metadata.uid if node.metadata else "")
                body = peerpod.waiting_body(machine, place.provider, place.node, uid)
                await self._api.create(PeerPod(**body), place.namespace)

    async def waited(self, machine: Machine) -> None:
        """Let that object go: the machine is a pod's, which has one of its own, or nothing of it is left.

        What stays because the API server is not there goes with the node.
        """
        async with _bounded(machine.name, "its PeerPod cannot be deleted"):
            await self._let_go(machine.id, self._place.namespace)

    async def auth_json(self, namespace: str, pod: str) -> str:
        """The pull secrets of the pod's service account and of the pod, which go before; empty is none."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return auth_json(await self._pull_secrets(namespace, pod))
        except (ClusterError, TimeoutError) as error:
            logger.warning("pod %s/%s: its pull secrets cannot be read: %s", namespace, pod, _reason(error))
        except Exception:
            logger.exception("pod %s/%s: its pull secrets cannot be read", namespace, pod)
        return ""

    async def _advertise(self) -> None:
        node, limit = self._place.node, self._place.limit
        try:
            await self._api.merge(Node, node, {"metadata": {"annotations": {OWNER: self._place.uid}}})
            capacity = {"op": "add", "path": f"/status/capacity/{_pointer(RESOURCE)}", "value": str(limit)}
            await self._api.patch(NodeStatus, node, [capacity])
        except ClusterError as error:
            raise ClusterError(f"the node's capacity of peer pods cannot be advertised: {error}", error.code) from error
        logger.info("node %s advertises %d of %s", node, limit, RESOURCE)

    async def _withdraw(self) -> None:
        """The test is made with the change: no adaptor that takes the node over meanwhile loses its capacity."""
        annotation = f"/metadata/annotations/{_pointer(OWNER)}"
        ours = {"op": "test", "path": annotation, "value": self._place.uid}
        capacity = {"op": "remove", "path": f"/status/capacity/{_pointer(RESOURCE)}"}
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._api.patch(NodeStatus, self._place.node, [ours, capacity])
                await self._api.patch(Node, self._place.node, [ours, {"op": "remove", "path": annotation}])
        except ClusterError as error:
            if error.unfit:
                logger.info("node %s has another adaptor by now, which keeps its capacity", self._place.node)
            else:
                logger.warning("the node's capacity of peer pods stays: %s", error)
        except TimeoutError as error:
            logger.warning("the node's capacity of peer pods stays: %s", _reason(error))

    async def _put_down(self, record: PodRecord) -> bool:
        """Whether the pod's object is there now, or has no pod on this node to belong to any more."""
        async with _bounded(record.instance_name, "its PeerPod cannot be made") as telling:
            for each in await self._of(record.sandbox_id, record.namespace):
                if peerpod.target_of(each).instance_id == record.instance_id:
                    return True
            pod = await self._found(Pod, record.name, record.namespace)
            here = pod is not None and pod.spec is not None and pod.spec.nodeName == self._place.node
            if pod is not None and pod.metadata is not None and here:
                body = peerpod.body(record, self._place.provider, str(pod.metadata.uid))
                await self._api.create(PeerPod(**body), record.namespace)
        return not telling.failed

    def _put_down_later(self, record: PodRecord) -> None:
        """Go on until it is put down: without its object, a machine outlives a node that is lost.

        Of a pod's objects the youngest counts for the controller, and the others' machines are deleted. So an object
        that is late is made only while the pod has no other machine.
        """

        async def persist() -> None:
            pause = PAUSE
            while True:
                await asyncio.sleep(pause)
                machines = self._machines(record)
                if self._pods is not None and record.sandbox_id not in machines:
                    return  # it is being deleted
                if machines == [record.sandbox_id] and await self._put_down(record):
                    return
                pause = min(2 * pause, PAUSE_MAX)

        if record.sandbox_id not in self._owed:
            task = asyncio.create_task(persist(), name=f"PeerPod of {record.instance_name}")
            self._owed[record.sandbox_id] = task
            task.add_done_callback(lambda _: self._owed.pop(record.sandbox_id, None))

    def _machines(self, record: PodRecord) -> list[str]:
        """The sandboxes of the pod's name whose machines are to stay."""
        return [
            each.sandbox_id
            for each in (self._pods.records if self._pods is not None else ())
            if (each.namespace, each.name) == (record.namespace, record.name) and each.state is not State.STOPPING
        ]

    async def _forget(self, *sandbox_ids: str) -> None:
        tasks = [task for each in sandbox_ids if (task := self._owed.get(each)) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _leave(self) -> None:
        await self._forget(*self._owed)

    async def _of(self, id: str, namespace: str) -> Sequence[PeerPodObject]:
        """The objects of a sandbox, or of a machine that waits; the label is shorter than some ids."""
        labels = {peerpod.SANDBOX_LABEL: peerpod.sandbox_label(id)}
        found, _ = await self._api.list(PeerPod, namespace, labels=labels)
        return [each for each in found if peerpod.sandbox_of(each) == id]

    async def _let_go(self, id: str, namespace: str) -> None:
        """Delete its objects, and nothing that they stand for."""
        for each in await self._of(id, namespace):
            await peerpod.release(self._api, each)
            try:
                await self._api.delete(PeerPod, each["metadata"]["name"], namespace)
            except ClusterError as error:
                if not error.missing:
                    raise

    async def _pull_secrets(self, namespace: str, name: str) -> list[Mapping[str, str]]:
        pod = await self._api.get(Pod, name, namespace)
        spec = pod.spec
        account = await self._found(ServiceAccount, (spec and spec.serviceAccountName) or "default", namespace)
        # Without a secret the image may be had, and if not, the pull says so.
        references = [*((account and account.imagePullSecrets) or ()), *((spec and spec.imagePullSecrets) or ())]
        found = [await self._found(Secret, each.name, namespace) for each in references if each.name]
        return [each.data for each in found if each is not None and each.data]

    async def _found(self, kind: type[T], name: str, namespace: str) -> T | None:
        """An object that need not be there."""
        try:
            return await self._api.get(kind, name, namespace)
        except ClusterError as error:
            if error.missing:
                return None
            raise


@asynccontextmanager
async def open_cluster(place: Place) -> AsyncIterator[Cluster]:
    """The cluster that we are in; leaving closes the connections.

    Raises:
        ClusterError: There is no API server to be found.
    """
    async with connected() as api:
        yield Cluster(api, place)


def _devices(limit: int, uid: str, directory: Path) -> AbstractAsyncContextManager[None]:
    from kata_caa.k8s.device_plugin import DevicePlugin  # gRPC is for those who ask for it

    return DevicePlugin(limit, RESOURCE, f"kata-peerpods-{uid[:8]}.sock", directory).serving()


@dataclass(slots=True)
class _Telling:
    failed: bool = False


@asynccontextmanager
async def _bounded(name: str, stage: str) -> AsyncIterator[_Telling]:
    """What is done here holds up no pod for long, and fails none."""
    telling = _Telling()
    try:
        async with asyncio.timeout(TIMEOUT):
            yield telling
    except (ClusterError, TimeoutError) as error:
        telling.failed = True
        logger.warning("%s: %s: %s", name, stage, _reason(error))
    except Exception:
        telling.failed = True
        logger.exception("%s: %s", name, stage)


def _reason(error: Exception) -> str:
    return str(error) or f"the API server has not answered in {TIMEOUT:.0f} s"


def _pointer(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
