"""Every log event, and its fields.

Events go to the host's structlog pipeline if the host has configured one, and otherwise to the
standard logger "m2async" with their fields both in the message and in the record's `m2async`
attribute. Nothing of the host's logging is configured here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from m2async.errors import CallError, M2AsyncError, M2ServiceException
from m2async.service import Judgement, Result, StartBatchJob

logging.getLogger("m2async").addHandler(logging.NullHandler())

_render_logfmt = structlog.processors.LogfmtRenderer(bool_as_flag=False)


class Events:
    """Writes the log events of a submitter or tracker; parameters and secrets only if `log_params`."""

    def __init__(self, *, logger: FilteringBoundLogger | None = None, log_params: bool = False) -> None:
        self._given = logger
        self._log_params = log_params
        self._bound: Any = None
        self._bound_by: dict[str, Any] | None = None
        self._has_failed = False

    def _write(self, level: str, event: str, **fields: Any) -> None:
        """Write an event. Where the logger fails, that goes once to the event loop's exception handler."""
        try:
            getattr(self._logger(), level)(event, **fields)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - whatever the host's logger raises
            self._failed(exc)

    def _would_write(self, level: int) -> bool:
        """Whether the logger writes events of a level."""
        try:
            self._logger()
            return self._is_enabled(level)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - as above
            self._failed(exc)
            return False

    def _failed(self, error: BaseException) -> None:
        if not self._has_failed:
            self._has_failed = True
            told = {"message": "m2async: the logger failed, and events are lost; the jobs go on", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)

    def _logger(self) -> Any:
        """Give the logger by what structlog is configured with now, which may come after whoever logs."""
        config = structlog.get_config() if structlog.is_configured() else None
        if self._bound is None or config != self._bound_by:
            logger = self._given or _default_logger()
            # A lazy proxy finds its methods anew at each use, which takes long; what it binds to does not.
            self._bound = logger.bind() if hasattr(type(logger), "bind") else logger
            self._bound_by = config
            self._is_enabled = _level_check(self._bound)
        return self._bound

    def started(
        self,
        key: str,
        request: StartBatchJob,
        execution_id: str | None,
        request_id: str | None,
        attempt: int,
        elapsed: float,
        *,
        adopted: bool = False,
        candidates: Sequence[str] = (),
    ) -> None:
        """The job was started: one event for every execution id, or for one of the candidates."""
        if not self._would_write(logging.INFO):
            return
        self._write(
            "info",
            "batch_job.started",
            **self._job(key, request),
            execution_id=execution_id,
            request_id=request_id,
            attempt=attempt,
            elapsed=round(elapsed, 6),
            adopted=adopted,
            **({"candidates": list(candidates)} if candidates else {}),
        )

    def rejected(self, key: str, request: StartBatchJob, error: CallError, attempt: int, elapsed: float) -> None:
        """The job was surely not started, and is given up."""
        self._write(
            "error",
            "batch_job.rejected",
            **self._job(key, request),
            **_error(error),
            attempt=attempt,
            elapsed=round(elapsed, 6),
        )

    def unknown(self, key: str, request: StartBatchJob, error: CallError, attempt: int, elapsed: float) -> None:
        """The job may have been started, and nothing says so."""
        self._write(
            "error",
            "batch_job.unknown",
            **self._job(key, request),
            **_error(error),
            attempt=attempt,
            elapsed=round(elapsed, 6),
        )

    def retry(self, key: str, request: StartBatchJob, error: CallError, attempt: int, wait: float) -> None:
        """An attempt failed, and another follows after `wait` seconds."""
        self._write(
            "warning",
            "batch_job.retry",
            **self._job(key, request),
            **_error(error),
            attempt=attempt,
            wait=round(wait, 6),
        )

    def retry_after_cut(self, error: CallError, asked: float, heeded: float) -> None:
        """The service asks for a longer wait than is heeded; of one submitter, only the first is logged."""
        self._write("warning", "retry_after.cut", **_error(error), retry_after=asked, heeded=heeded)

    def not_started(self, key: str, request: StartBatchJob, attempt: int) -> None:
        """It was found that the job was not started, and nobody waits for it: it is sent once it is submitted again."""
        self._write("warning", "batch_job.not_started", **self._job(key, request), attempt=attempt)

    def left(self, run: str, in_doubt: int, pending: int) -> None:
        """An earlier process left jobs of a run: those in doubt are looked for, those not started wait for a submit."""
        self._write("warning", "run.left_open", run=run, in_doubt=in_doubt, pending=pending)

    def reconcile_failed(self, application_id: str, error: CallError) -> None:
        """The executions could not be listed, so nothing is known of jobs in doubt, nor of what others started."""
        self._write("warning", "reconcile.failed", application_id=application_id, **_error(error))

    def listed_again(self, application_id: str) -> None:
        """The executions of an application can be listed, after they could not be."""
        self._write("info", "executions.listed_again", application_id=application_id)

    def foreign_execution(self, application_id: str, job: str, execution_id: str, start_time: float) -> None:
        """Somebody else started a job of this run: who started an execution of it can no longer be told."""
        self._write(
            "warning",
            "execution.foreign",
            application_id=application_id,
            job=job,
            execution_id=execution_id,
            start_time=start_time,
        )

    def application_held(self, application_id: str, error: CallError) -> None:
        """The application refuses its jobs; they wait."""
        self._write("warning", "application.held", application_id=application_id, **_error(error))

    def ended(
        self,
        key: str,
        application_id: str,
        job: str,
        execution_id: str | None,
        status: str | None,
        return_code: str | None,
        judgement: Judgement,
    ) -> None:
        """The execution has ended, as the service says, or it is no longer known to it.

        Without an id, all have ended of which it is one.
        """
        self._write(
            "info" if judgement.result is Result.SUCCESS else "error",
            "execution.ended",
            key=key,
            application_id=application_id,
            job=job,
            execution_id=execution_id,
            status=status,
            return_code=return_code,
            result=judgement.result.value,
            reason=judgement.reason,
        )

    def opened_with(self, warning: str) -> None:
        """Something about a run that somebody should know before it is sent."""
        self._write("warning", "run.opened_with", warning=warning)

    def stopped(self, error: M2AsyncError) -> None:
        """Nothing more is sent at all."""
        self._write("error", "submission.stopped", **_error(error))

    def _job(self, key: str, request: StartBatchJob) -> dict[str, Any]:
        fields: dict[str, Any] = {"key": key, "application_id": request.application_id, "job": request.job.name}
        if self._log_params:
            fields["params"] = dict(request.params)
            fields["auth_secrets_manager_arn"] = request.auth_secrets_manager_arn
        return fields


def transport_chosen(transport: str, reason: str) -> None:
    """A client does not use the wire."""
    _default_logger().info("client.transport_chosen", transport=transport, reason=reason)


def _error(error: M2AsyncError) -> dict[str, Any]:
    fields: dict[str, Any] = {"code": error.code, "error": error.message}
    if isinstance(error, M2ServiceException):
        fields |= {"http_status": error.http_status, "request_id": error.request_id}
    return fields


def _level_check(logger: Any) -> Callable[[int], bool]:
    """The logger's own way to tell whether it would write events of a level; without one, it may."""
    for name in ("is_enabled_for", "isEnabledFor"):
        if hasattr(type(logger), name):
            check: Callable[[int], bool] = getattr(logger, name)
            return check
    return lambda level: True


def _default_logger() -> FilteringBoundLogger:
    if structlog.is_configured():
        logger: FilteringBoundLogger = structlog.get_logger("m2async")
        return logger
    wrapped: FilteringBoundLogger = structlog.wrap_logger(
        logging.getLogger("m2async"),
        processors=[structlog.stdlib.filter_by_level, _to_standard_logging],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return wrapped


def _to_standard_logging(
    logger: WrappedLogger, method: str, event: EventDict
) -> tuple[tuple[str, str, str], dict[str, Any]]:
    name = event.pop("event")
    return ("%s %s", name, str(_render_logfmt(logger, method, dict(event)))), {"extra": {"m2async": event}}
