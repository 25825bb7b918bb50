"""All peer pods of this node: by sandbox for the runtime, on record for the next adaptor, by tag for the sweep."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from kata_caa import apf, userdata
from kata_caa.credentials import Credentials
from kata_caa.errors import InvalidRequest, ProviderError, UnknownSandbox
from kata_caa.instance import instance_name
from kata_caa.orphans import OnRecord, orphans, target_of
from kata_caa.peer import Failure, Late, Parts, PeerPod, words
from kata_caa.record import PodRecord, RecordError, State
from kata_caa.request import PodRequest, is_sandbox_id
from kata_caa.userdata import File, render
from kata_py.resource.blocking import off_loop

logger = logging.getLogger(__name__)

ABANDONED_AFTER = 120.0  # seconds that a pod which was announced, or not yet up when the adaptor ended, is waited for
VANISHED_AFTER = 2  # sweeps that a pod's namespace is not there any more


class PullSecrets(Protocol):
    """Credentials for the registries that a pod's images come from."""

    async def auth_json(self, namespace: str, pod: str) -> str:
        """Text of a containers-auth.json(5); empty is none. Never fails."""


class Pods:
    """The peer pods of this node.

    Args:
        parts: What they are made with.
        credentials: Makes the machines' keys.
        pull_secrets: Finds their registries' credentials.
        owner: Who all of it belongs to, in the cloud.
        on_record: Gives what is on record here; blocks.
        initdata: Of pods that bring none: base64 of gzip of TOML.
        scratch: Whether machines make themselves an encrypted scratch space.
    """

    def __init__(
        self,
        parts: Parts,
        credentials: Credentials,
        pull_secrets: PullSecrets,
        *,
        owner: str,
        on_record: Callable[[], OnRecord],
        initdata: str = "",
        scratch: bool = False,
    ) -> None:
        self._parts = parts
        self._credentials = credentials
        self._pull_secrets = pull_secrets
        self._owner = owner
        self._on_record = on_record
        self._initdata = initdata
        self._scratch = scratch
        self._pods: dict[str, PeerPod] = {}
        self._damaged: set[str] = set()
        self._abandoned: dict[str, asyncio.TimerHandle] = {}
        self._vanished: dict[str, int] = defaultdict(int)
        self._news = asyncio.Condition()
        self._announcing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def records(self) -> tuple[PodRecord, ...]:
        """The pods, as they were last written."""
        return tuple(pod.record for pod in self._pods.values())

    async def restore(self, *, alone: bool = True) -> None:
        """Take up the pods that an earlier adaptor had: those that run are reached again, deletions go on.

        One whose record is damaged is left as it is, and the others are served.

        Args:
            alone: Whether it has ended. One that has not is left what is not done yet; once it has, this is called
                again.

        Raises:
            RecordError: What is left of an announcement cannot be removed.
        """
        async with self._announcing:  # what is half announced here is not taken for left over
            for sandbox_id in await off_loop(lambda: list(self._parts.records.ids())):
                if sandbox_id in self._pods:
                    continue
                try:
                    record = await off_loop(self._parts.records.load, sandbox_id)
                except RecordError as error:
                    self._pass_over(sandbox_id, error)
                    continue
                if record is None and alone:  # an announcement that was never answered
                    await off_loop(self._parts.records.remove, sandbox_id)
                elif record is not None and (alone or record.state is State.RUNNING):
                    self._take_up(record)

    def _pass_over(self, sandbox_id: str, error: RecordError) -> None:
        """Its machine may run, and may be one that has waited for a pod, which the record alone would tell."""
        if sandbox_id in self._damaged:
            return
        self._damaged.add(sandbox_id)
        logger.error(
            "the record of sandbox %s is damaged, and its pod is not served: %s. Until its directory %s is gone, "
            "what may be its machine is left alone: delete the pod, then remove that; the sweep deletes the machine",
            sandbox_id, error, self._parts.records.socket(sandbox_id).parent,
        )  # fmt: skip

    def _take_up(self, record: PodRecord) -> None:
        pod = self._add(record)
        logger.info("%s was %s when the last adaptor ended", record.instance_name, record.state)
        match record.state:
            case State.STOPPING:
                pod.stop()
            case State.RUNNING:
                pod.begin()
            case State.STARTING:
                pod.begin()
                self._expect(record.sandbox_id)
            case State.CREATED:
                self._expect(record.sandbox_id)

    async def create(self, request: PodRequest) -> Path:
        """Announce a pod; returns the socket behind which its agent will be.

        Raises:
            SandboxExists: There is a sandbox of this id.
            InvalidRequest: Its network is another pod's.
            AdaptorError: Its network cannot be used, or nothing can be written.
        """
        try:
            await self._announce(request)
        except Exception as error:
            await self.refused(request.namespace, request.name, error, request.sandbox_id)
            raise
        self._expect(request.sandbox_id)
        return self._parts.records.socket(request.sandbox_id)

    async def refused(self, namespace: str, name: str, error: Exception, sandbox_id: str = "") -> None:
        """Tell the user of a pod that it cannot even be announced.

        Args:
            namespace: The pod's.
            name: The pod's.
            error: Why.
            sandbox_id: What the runtime calls it, if that is known to be an id.
        """
        particulars = (instance_name(name, sandbox_id), sandbox_id) if sandbox_id else ()
        await self._tell(Failure(namespace, name, words(error), particulars))

    async def _announce(self, request: PodRequest) -> None:
        auth = await self._pull_secrets.auth_json(request.namespace, request.name)
        name = instance_name(request.name, request.sandbox_id)
        async with self._announcing:  # a tunnel's number is free until it is on record
            self._refuse_shared(request)
            network = await self._parts.tunnel.inspect(Path(request.netns))
            issued = await off_loop(self._credentials.issue, name)
            config = replace(
                issued.config,
                network=network,
                pod_name=request.name,
                pod_namespace=request.namespace,
            )
            user_data = render(self._files(apf.dump(config), auth, request.initdata or self._initdata))
            record = PodRecord(
                sandbox_id=request.sandbox_id,
                name=request.name,
                namespace=request.namespace,
                netns=request.netns,
                instance_name=name,
                material=issued.material,
                token=secrets.token_hex(16),
                spec=replace(request.spec, multi_nic=network.external_via_pod_vm),
                network=network,
            )
            await off_loop(self._parts.records.create, record, config, user_data)
        self._add(record)

    async def start(self, sandbox_id: str, patience: float | None = None) -> None:
        """Have a pod's machine run.

        Args:
            sandbox_id: The pod's sandbox.
            patience: Seconds that it is waited for.

        Raises:
            UnknownSandbox: It was not announced.
            Late: It does not run in time; its start goes on until it is stopped.
            AdaptorError: It cannot run; says why, and is being deleted.
        """
        pod = await self._find(sandbox_id)
        self._expected(sandbox_id)
        try:
            await pod.start(patience)
        except Late as late:  # the caller waits no longer, and not for this either
            self._begin(self._tell(Failure.of(pod.record, late)), f"news of {pod.record.instance_name}")
            raise
        finally:
            async with self._news:
                self._news.notify_all()

    async def stop(self, sandbox_id: str) -> None:
        """Begin to delete a pod's machine; it goes on until the cloud confirms, and from now on in the next adaptor.

        Raises:
            UnknownSandbox: There is none.
        """
        pod = await self._find(sandbox_id)
        self._expected(sandbox_id)
        await pod.stop_on_record()

    async def instance_id(self, namespace: str, name: str, *, wait: bool) -> str:
        """The cloud's id of a pod's machine; empty while there is none. Waiting ends with whoever waits.

        Raises:
            UnknownSandbox: There is no such pod, and it is not waited for.
        """
        async with self._news:
            while True:
                found = [
                    pod for pod in self._pods.values() if (pod.record.namespace, pod.record.name) == (namespace, name)
                ]
                for pod in found:
                    if pod.record.instance_id or not wait:
                        return pod.record.instance_id
                if not wait:
                    raise UnknownSandbox(f"no peer pod {namespace}/{name} on this node")
                await self._news.wait()

    async def sweep(self) -> int:
        """Delete what belongs to no sandbox, and stop pods whose namespace has gone; returns how many were found."""
        await self._stop_vanished()
        found = await orphans(self._parts.provider, self._owner, self._on_record)
        for sandbox_id, objects in found.items():
            text = ", ".join(f"{each.kind} {each.id}" for each in objects)
            logger.warning("deleting what no sandbox owns: %s of sandbox %s", text, sandbox_id or "(unknown)")
            try:
                await self._parts.provider.delete(target_of(sandbox_id, objects))
            except ProviderError as error:
                logger.error("what no sandbox owns cannot be deleted: %s: %s", text, error)
        return len(found)

    async def aclose(self) -> None:
        """Let go of all pods, which run on."""
        for handle in self._abandoned.values():
            handle.cancel()
        for task in self._tasks:
            task.cancel()
        for pod in list(self._pods.values()):
            await pod.leave()

    async def _stop_vanished(self) -> None:
        """Stop pods that the runtime has forgotten: their network namespaces are gone, and so are they."""
        for sandbox_id, pod in list(self._pods.items()):
            if await off_loop(Path(pod.record.netns).exists):
                self._vanished.pop(sandbox_id, None)
                continue
            self._vanished[sandbox_id] += 1
            if self._vanished[sandbox_id] >= VANISHED_AFTER and pod.record.state is not State.STOPPING:
                logger.warning("%s is stopped: %s is gone", pod.record.instance_name, pod.record.netns)
                pod.stop()

    def _refuse_shared(self, request: PodRequest) -> None:
        """A network namespace has one tunnel: a second pod in it would be refused when its machine runs already."""
        for other in (pod.record for pod in self._pods.values()):
            if (
                other.netns == request.netns
                and other.sandbox_id != request.sandbox_id
                and other.state is not State.STOPPING
            ):
                raise InvalidRequest(f"{other.netns} is the network of {other.instance_name}: a peer pod wants its own")

    def _files(self, config: str, auth: str, initdata: str) -> list[File]:
        """What a machine is given to read when it boots."""
        files = [File(userdata.APF, config)]
        if auth and len(auth.encode()) > userdata.AUTH_MAX:
            logger.warning("the registries' credentials are left out: more than %d bytes", userdata.AUTH_MAX)
        elif auth:
            files.append(File(userdata.AUTH, auth))
        if initdata:
            files.append(File(userdata.INITDATA, initdata))
        if self._scratch:
            files.append(File(userdata.SCRATCH_MARKER, ""))
        return files

    def _add(self, record: PodRecord) -> PeerPod:
        pod = PeerPod(record, self._parts, self._forget)
        self._pods[record.sandbox_id] = pod
        return pod

    async def _find(self, sandbox_id: str) -> PeerPod:
        """A pod that was announced here, or to another adaptor while this one came."""
        if (pod := self._pods.get(sandbox_id)) is not None:
            return pod
        async with self._announcing:
            if (pod := self._pods.get(sandbox_id)) is not None:
                return pod
            known = is_sandbox_id(sandbox_id)  # it becomes a path
            record = await off_loop(self._parts.records.load, sandbox_id) if known else None
            if record is None:
                raise UnknownSandbox(f"sandbox {sandbox_id} does not exist")
            logger.info("%s was announced to another adaptor", record.instance_name)
            return self._add(record)

    def _forget(self, sandbox_id: str) -> None:
        del self._pods[sandbox_id]
        self._vanished.pop(sandbox_id, None)

    def _expect(self, sandbox_id: str) -> None:
        """Unless the runtime starts it soon, a pod is deleted: the runtime has died."""
        loop = asyncio.get_running_loop()
        self._abandoned[sandbox_id] = loop.call_later(ABANDONED_AFTER, self._abandon, sandbox_id)

    def _expected(self, sandbox_id: str) -> None:
        if handle := self._abandoned.pop(sandbox_id, None):
            handle.cancel()

    def _abandon(self, sandbox_id: str) -> None:
        del self._abandoned[sandbox_id]
        if (pod := self._pods.get(sandbox_id)) is not None:
            self._begin(self._give_up(pod), f"end of {pod.record.instance_name}, abandoned")

    def _begin(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, failure: Failure) -> None:
        try:
            await self._parts.observer.failed(failure)
        except Exception:
            logger.exception("pod %s/%s: its user cannot be told", failure.namespace, failure.name)

    async def _give_up(self, pod: PeerPod) -> None:
        with suppress(RecordError):  # then nobody can have gone on with it
            known = await off_loop(self._parts.records.load, pod.record.sandbox_id)
            if known is None or known.state is not pod.record.state:
                return  # the runtime has asked the adaptor that takes our place
        logger.warning("%s is deleted: the runtime has not asked for it", pod.record.instance_name)
        pod.stop()
