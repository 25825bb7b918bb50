"""The call for figures."""

from __future__ import annotations

import asyncio

from kata_agent.rpc.boundary import Calls
from kata_protos import agent_pb2
from kata_py.ttrpc.context import Context


class MetricsCalls(Calls):
    """Figures of agent and guest."""

    _scrapes = 0

    async def GetMetrics(self, request: agent_pb2.GetMetricsRequest, context: Context) -> agent_pb2.Metrics:
        """All figures, as Prometheus reads them."""
        from kata_agent.metrics.scrape import scrape  # many guests are never asked

        self._scrapes += 1
        return agent_pb2.Metrics(metrics=await asyncio.to_thread(scrape, self._scrapes))
