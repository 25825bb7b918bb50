"""What the node's own metadata service tells: where the node runs, so that pod VMs can run beside it.

Source: Amazon EC2 User Guide, "Instance metadata and user data" (IMDSv2); cloud-api-adaptor `aws/imds.go`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from kata_caa.errors import AdaptorError
from kata_caa.providers.aws.config import AwsConfig

logger = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[str]]
"""Reads one value under `/latest/meta-data/`; raises MetadataError."""

_ENDPOINT: Final = "http://169.254.169.254"
_TIMEOUT: Final = 2.0  # seconds; it is on the same host, or not there
_TOKEN_TTL: Final = "60"  # seconds


class MetadataError(AdaptorError):
    """The node's metadata service does not tell something."""


async def fetch(path: str) -> str:
    """Read one value of the node's metadata, by IMDSv2; AWS_EC2_METADATA_SERVICE_ENDPOINT says where it is served.

    Raises:
        MetadataError: It is not there, or not within two seconds.
    """
    endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _ENDPOINT).rstrip("/")
    return await asyncio.to_thread(_read, endpoint, path)


async def complete(config: AwsConfig, fetch: Fetch) -> AwsConfig:
    """A configuration whose gaps are filled by the node's metadata; what these do not tell stays empty.

    Args:
        config: What is set.
        fetch: Reads the metadata.
    """
    if config.region and config.places() and config.security_groups and config.key_name:
        return config
    if config.use_launch_template and config.region:
        return config
    try:
        mac = await fetch("mac")
    except MetadataError as error:
        logger.info("the node's metadata cannot be read, what is not set stays empty: %s", error)
        return config
    found: dict[str, str] = {}
    for name, there, path in (
        ("region", config.region, "placement/region"),
        ("subnet", "".join(config.places()), f"network/interfaces/macs/{mac}/subnet-id"),
        ("groups", "".join(config.security_groups), f"network/interfaces/macs/{mac}/security-group-ids"),
        ("key", config.key_name, "public-keys"),
    ):
        if there:
            continue
        try:
            found[name] = await fetch(path)
        except MetadataError as error:
            logger.info("%s is neither set nor among the node's metadata: %s", name, error)
    _, _, key = found.get("key", "").partition("=")  # "0=name"
    return replace(
        config,
        region=found.get("region", config.region).strip(),
        subnet=found.get("subnet", config.subnet).strip(),
        security_groups=tuple(found["groups"].split()) if "groups" in found else config.security_groups,
        key_name=config.key_name or " ".join(key.split()[:1]),
    )


def _read(endpoint: str, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    token = urllib.request.Request(
        f"{endpoint}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_TTL}
    )
    try:
        with opener.open(token, timeout=_TIMEOUT) as answer:
            secret = answer.read().decode()
        request = urllib.request.Request(
            f"{endpoint}/latest/meta-data/{path}", headers={"X-aws-ec2-metadata-token": secret}
        )
        with opener.open(request, timeout=_TIMEOUT) as answer:
            text: str = answer.read().decode()
            return text
    except (OSError, UnicodeDecodeError) as error:
        raise MetadataError(f"{path} at {endpoint}: {error}") from error
