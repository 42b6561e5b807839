"""Every log event, and its fields.

Events go to the host's structlog pipeline if the host has configured one, and otherwise to the
standard logger "m2async" with their fields both in the message and in the record's `m2async`
attribute. Nothing of the host's logging is configured here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
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
        logger = logger or _default_logger()
        # A lazy proxy finds its methods anew at each use; what it binds to does not.
        self._logger = logger.bind() if hasattr(type(logger), "bind") else logger
        self._is_enabled = _level_check(self._logger)
        self._log_params = log_params

    def started(
        self,
        key: str,
        request: StartBatchJob,
        execution_id: str,
        request_id: str | None,
        attempt: int,
        elapsed: float,
        *,
        adopted: bool = False,
    ) -> None:
        """The job was started: one event for every execution id."""
        if not self._is_enabled(logging.INFO):
            return
        self._logger.info(
            "batch_job.started",
            **self._job(key, request),
            execution_id=execution_id,
            request_id=request_id,
            attempt=attempt,
            elapsed=round(elapsed, 6),
            adopted=adopted,
        )

    def rejected(self, key: str, request: StartBatchJob, error: CallError, attempt: int, elapsed: float) -> None:
        """The job was surely not started, and is given up."""
        self._logger.error(
            "batch_job.rejected", **self._job(key, request), **_error(error), attempt=attempt, elapsed=round(elapsed, 6)
        )

    def unknown(self, key: str, request: StartBatchJob, error: CallError, attempt: int, elapsed: float) -> None:
        """The job may have been started, and nothing says so."""
        self._logger.error(
            "batch_job.unknown", **self._job(key, request), **_error(error), attempt=attempt, elapsed=round(elapsed, 6)
        )

    def retry(self, key: str, request: StartBatchJob, error: CallError, attempt: int, wait: float) -> None:
        """An attempt failed, and another follows after `wait` seconds."""
        self._logger.warning(
            "batch_job.retry", **self._job(key, request), **_error(error), attempt=attempt, wait=round(wait, 6)
        )

    def reconcile_failed(self, application_id: str, error: CallError) -> None:
        """The executions could not be listed, so nothing is known yet of the jobs in doubt."""
        self._logger.warning("reconcile.failed", application_id=application_id, **_error(error))

    def application_held(self, application_id: str, error: CallError) -> None:
        """The application refuses its jobs; they wait."""
        self._logger.warning("application.held", application_id=application_id, **_error(error))

    def ended(
        self,
        key: str,
        application_id: str,
        job: str,
        execution_id: str,
        status: str | None,
        return_code: str | None,
        judgement: Judgement,
    ) -> None:
        """The execution has ended, as the service says, or it is no longer known to it."""
        write = self._logger.info if judgement.result is Result.SUCCESS else self._logger.error
        write(
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

    def stopped(self, error: M2AsyncError) -> None:
        """Nothing more is sent at all."""
        self._logger.error("submission.stopped", **_error(error))

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
