"""One call, one request: what stands around a call may call on again only while surely nothing was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from m2async.errors import CallCancelledError, CallError, M2AsyncError, M2ServiceException, RepeatedCallError
from m2async.loops import times_cancelled

Request = TypeVar("Request")
Response = TypeVar("Response")


class OnlyRequest(Generic[Request, Response]):
    """The one request of a call, and what it brought.

    `send` is what everything around the call, such as a middleware, calls on with. It refuses once a request was sent,
    or the call has ended; so it does not matter how often, from where and with which request it is called.
    """

    def __init__(self, send: Callable[[Request], Awaitable[Response]]) -> None:
        self._send = send
        self._brought: asyncio.Future[Response | BaseException] | None = None
        self._ended = False

    async def send(self, request: Request) -> Response:
        """Send the request; raises RepeatedCallError if this call has sent one."""
        if self._brought is not None or self._ended:
            when = "after the call had ended" if self._ended else "a second time in one call"
            raise RepeatedCallError(
                f"a middleware called on {when}: a call sends one request", may_have_started=self._may_have_started()
            )
        brought = self._brought = asyncio.get_running_loop().create_future()
        try:
            response = await self._send(request)
        except BaseException as exc:
            if _nothing_was_sent(exc):
                self._brought = None
            brought.set_result(_lost() if isinstance(exc, asyncio.CancelledError) else exc)
            raise
        brought.set_result(response)
        return response

    async def outcome_of(self, call: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
        """Run all that stands around the call. Whatever that makes of it, what the request brought stands.

        A middleware may say in its own CallError how a request failed, as long as it denies nothing. An error of its
        own, once a request was sent, goes to the event loop's exception handler.
        """
        error: Exception | asyncio.CancelledError | None = None
        before = times_cancelled()
        try:
            response = await call(request)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - of others' code, anything
            error = exc
        finally:
            self._ended = True  # nothing is sent on it any more; what was, is waited for
        brought, is_ended = self._brought, isinstance(error, asyncio.CancelledError) and times_cancelled() > before
        if error is not None and (brought is None or is_ended):
            raise error
        if brought is None:
            return response
        found = await asyncio.shield(brought)
        if not isinstance(error, CallError):
            if error is not None and error is not found:
                _tell(error)
            return _given(found)
        denies = isinstance(error, RepeatedCallError) or (_may_have_started(found) and not error.may_have_started)
        if denies or not isinstance(found, BaseException):
            return _given(found)
        raise error

    def _may_have_started(self) -> bool:
        if self._brought is None:
            return False
        return not self._brought.done() or _may_have_started(self._brought.result())


def _may_have_started(brought: object) -> bool:
    """Whether what a request brought leaves open, or says, that the job was started."""
    return not isinstance(brought, CallError) or brought.may_have_started


def _nothing_was_sent(exc: BaseException) -> bool:
    """Whether a request that ended so surely had no byte taken by the service."""
    if isinstance(exc, M2ServiceException) or not isinstance(exc, M2AsyncError):
        return False
    return not isinstance(exc, CallError) or not exc.may_have_started


def _given(brought: Response | BaseException) -> Response:
    """Give what a request brought, or raise it."""
    if isinstance(brought, BaseException):
        raise brought from None
    return brought


def _tell(error: BaseException) -> None:
    """Tell of an error that changes nothing, where the host looks for those that nobody gets."""
    told = {"message": "a middleware failed after its request was sent; what that brought stands", "exception": error}
    asyncio.get_running_loop().call_exception_handler(told)


def _lost() -> CallError:
    return CallCancelledError("a middleware cancelled the call while it was under way")
