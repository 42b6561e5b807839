"""What stands in the place of aiobotocore's HTTP session: each request goes to the call that it belongs to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Self

SENDER: ContextVar[Callable[[Any], Awaitable[Any]]] = ContextVar("m2async sender")
"""What sends the request of the call that is under way."""


class HttpSession:
    """What aiobotocore sends by."""

    def __init__(self, **settings: Any) -> None:
        """Take what aiobotocore would set; it is the connections' to know."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def close(self) -> None: ...

    async def send(self, request: Any) -> Any:
        """Send a signed request."""
        return await SENDER.get()(request)
