"""Calls for files that the host sends."""

from __future__ import annotations

import asyncio

from google.protobuf.empty_pb2 import Empty

from kata_agent import shared_file
from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.ttrpc.context import Context


class FileCalls(Calls):
    """Files for containers where host and guest share no file system."""

    async def CopyFile(self, request: agent_pb2.CopyFileRequest, context: Context) -> Empty:
        """Make a directory or link, or take the next piece of a file."""
        await asyncio.to_thread(shared_file.copy, request)
        return Empty()
