"""What moto lacks of the EBS direct API: checksums that are held against blocks, and snapshots that are pending."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from moto.ebs.models import EBSSnapshot, ebs_backends
from moto.ec2.models import ec2_backends

ACCOUNT = "123456789012"  # moto's
_PATHS = {
    ("POST", re.compile(r"/snapshots")): "StartSnapshot",
    ("PUT", re.compile(r"/snapshots/(?P<id>[^/]+)/blocks/(?P<number>\d+)")): "PutSnapshotBlock",
    ("POST", re.compile(r"/snapshots/completion/(?P<id>[^/]+)")): "CompleteSnapshot",
}


class Call(NamedTuple):
    """A call: its action and what its path names."""

    action: str
    parameters: Mapping[str, str]


def call_of(method: str, path: str) -> Call | None:
    """The call of a request's first line, if it is one of EBS's."""
    for (verb, form), action in _PATHS.items():
        if verb == method and (found := form.fullmatch(path.partition("?")[0])):
            return Call(action, found.groupdict())
    return None


def objection(call: Call, headers: Mapping[str, str], body: bytes, region: str) -> str:
    """What EBS would not take of a call; empty if nothing."""
    match call.action:
        case "PutSnapshotBlock":
            if len(body) != 512 << 10 or headers["x-amz-Data-Length"] != str(len(body)):
                return "a block has 512 KiB"
            if headers["x-amz-Checksum"] != _base64(hashlib.sha256(body).digest()):
                return "the block's checksum is another"
            if snapshot(call.parameters["id"], region).status != "pending":
                return "the snapshot is complete"
        case "CompleteSnapshot":
            blocks = snapshot(call.parameters["id"], region).blocks
            sums = [base64.b64decode(blocks[number].checksum or "") for number in sorted(blocks)]
            if headers["x-amz-ChangedBlocksCount"] != str(len(blocks)):
                return "the number of blocks is another"
            if headers["x-amz-Checksum-Aggregation-Method"] != "LINEAR":
                return "there is no such method"
            if headers["x-amz-Checksum"] != _base64(hashlib.sha256(b"".join(sums)).digest()):
                return "the snapshot's checksum is another"
    return ""


def done(call: Call, answered: str, region: str) -> None:
    """Have EC2 show what a call has done."""
    ec2 = ec2_backends[ACCOUNT][region]
    match call.action:
        case "StartSnapshot":
            made = ec2.snapshots[answered]
            made.status = "pending"
            ec2.delete_volume(made.volume.id)  # which moto makes beside it
        case "CompleteSnapshot":
            ec2.snapshots[call.parameters["id"]].status = "completed"


def snapshot(id: str, region: str) -> EBSSnapshot:
    """A snapshot with its blocks."""
    return ebs_backends[ACCOUNT][region].snapshots[id]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
