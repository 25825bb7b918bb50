"""What the entry point `azure` names: the settings, and Azure's libraries only when it is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import ClassVar

from kata_caa.providers.api import ImageStore, Provider
from kata_caa.providers.azure.config import AzureConfig


class Azure:
    """Azure, as a context: entering it opens the provider.

    Args:
        config: The settings.
    """

    config: ClassVar[type] = AzureConfig

    def __init__(self, config: AzureConfig) -> None:
        self._config = config
        self._stack = AsyncExitStack()

    def images(self) -> AbstractAsyncContextManager[ImageStore]:
        """The resource group's images, or a gallery's, as a place of images."""
        from kata_caa.providers.azure.store import AzureImages

        return AzureImages(self._config)

    async def __aenter__(self) -> Provider:
        # A hundred megabytes and half a second, which whoever lists the settings of all clouds need not spend.
        from kata_caa.providers.azure.provider import open_provider

        return await self._stack.enter_async_context(open_provider(self._config))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
