"""EC2 on this machine as a cloud to try the AWS provider on (`tests/conformance/provider`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace

from kata_caa.errors import Fault
from kata_caa.faults import Backoff, RetryPolicy
from kata_caa.providers.api import Provider
from kata_caa.providers.aws.config import AwsConfig
from kata_caa.providers.aws.metadata import MetadataError
from kata_caa.providers.aws.provider import Aws, Pace
from kata_caa.settings import Duration
from tests.drivers.cloud import Calls
from tests.moto import KEYS, REGION, Ec2Server, ec2_server

FAST = RetryPolicy(
    {fault: Backoff(again=3, first=0.01, ceiling=0.01) for fault in (Fault.TRANSIENT, Fault.THROTTLE)}, total=10
)
ONCE = RetryPolicy({})


def config_of(ec2: Ec2Server) -> AwsConfig:
    """A configuration for the server, which shows at once what was made."""
    return AwsConfig(
        access_key_id=KEYS["aws_access_key_id"], secret_key=KEYS["aws_secret_access_key"], region=REGION,
        image=ec2.image, subnet=ec2.subnets[0], security_groups=(ec2.group,), endpoint_url=ec2.url,
        settle_time=Duration(0.0), running_timeout=Duration(10.0), delete_timeout=Duration(20.0),
    )  # fmt: skip


def opened(config: AwsConfig, policy: RetryPolicy = FAST) -> AbstractAsyncContextManager[Provider]:
    """The provider, on a node without metadata, in a hurry."""
    return Aws(config, fetch=_no_metadata, policy=policy, pace=Pace(0.01, 0.05))


async def _no_metadata(path: str) -> str:
    raise MetadataError(path)


@dataclass
class AwsCloud:
    """A moto server behind a proxy; a call is a request, and one that breaks ends its connection.

    Nothing is tried again, so that what breaks makes its caller fail.
    """

    ec2: Ec2Server
    missing_image: str = "ami-0123456789abcdef0"
    _calls: Calls = field(default_factory=Calls)

    @property
    def calls(self) -> Calls:
        return self._calls

    @calls.setter
    def calls(self, calls: Calls) -> None:
        self._calls = calls
        self.ec2.before = lambda action, parameters: calls.before(action)
        self.ec2.after = lambda action, parameters: calls.after(action)

    def open(self, *, image: str = "") -> AbstractAsyncContextManager[Provider]:
        config = config_of(self.ec2)
        return opened(replace(config, image=image) if image else config, ONCE)

    def broken(self) -> Exception:
        return ConnectionResetError()

    def objects(self) -> Sequence[str]:
        return self.ec2.objects()

    @contextmanager
    def stranger(self, name: str) -> Iterator[Sequence[str]]:
        tags = [{"Key": "Name", "Value": name}]
        (made,) = self.ec2.api.run_instances(
            ImageId=self.ec2.image, MinCount=1, MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],  # type: ignore[list-item]
        )["Instances"]  # fmt: skip
        yield [made["InstanceId"]]
        self.ec2.api.terminate_instances(InstanceIds=[made["InstanceId"]])


@contextmanager
def aws_cloud() -> Iterator[AwsCloud]:
    """The cloud, for as long as the context lasts."""
    with ec2_server() as ec2:
        yield AwsCloud(ec2)
