"""One batch job execution, and what can be seen of it at a given time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from m2async.local.definitions import JobDefinition
from m2async.service import TERMINAL_STATUSES, RestartJob, StartBatchJob

STATUSES = (  # BatchJobExecutionStatus
    "Submitting", "Holding", "Dispatching", "Running", "Cancelling", "Cancelled", "Succeeded", "Failed", "Purged",
    "Succeeded With Warning",
)  # fmt: skip


@dataclass(slots=True)
class Execution:
    """A started job; every time is in seconds of the epoch.

    Its status is a function of the time: Submitting from `start_time`, Dispatching from `dispatching_at`, Running
    from `running_at`, Succeeded or Failed from `ends_at`; after a cancellation Cancelling until `cancelled_at`.
    """

    number: int
    execution_id: str
    request: StartBatchJob
    definition: JobDefinition
    start_time: float
    dispatching_at: float
    running_at: float
    ends_at: float
    cancelling_seconds: float
    cancelled_at: float | None = None

    def status(self, now: float) -> str:
        """Tell where the execution is, in the words of BatchJobExecutionStatus."""
        if self.cancelled_at is not None:
            return "Cancelled" if now >= self.cancelled_at else "Cancelling"
        if now < self.dispatching_at:
            return "Submitting"
        if now < self.running_at:
            return "Dispatching"
        if now < self.ends_at:
            return "Running"
        return "Failed" if self.definition.return_code else "Succeeded"

    def cancel(self, now: float) -> bool:
        """Begin to cancel it, unless that was done before; gives False if it has ended."""
        if self.status(now) in TERMINAL_STATUSES:
            return False
        if self.cancelled_at is None:
            self.cancelled_at = now + self.cancelling_seconds
        return True

    def summary(self, now: float) -> dict[str, Any]:
        """Give its BatchJobExecutionSummary."""
        job = self.request.job
        status = self.status(now)
        summary: dict[str, Any] = {
            "applicationId": self.request.application_id,
            "executionId": self.execution_id,
            "batchJobIdentifier": {job.member: job.to_members()},
            "jobId": f"J{self.number:07}",
            "jobName": self.definition.job_name,
            "jobType": "JES2",
            "startTime": self.start_time,
            "status": status,
        }
        if status == "Cancelled":
            summary["endTime"] = _milliseconds(self.cancelled_at or now)
        elif status in TERMINAL_STATUSES:
            summary["endTime"] = _milliseconds(self.ends_at)
            summary["returnCode"] = str(self.definition.return_code)
        return summary

    def details(self, now: float) -> dict[str, Any]:
        """Give its GetBatchJobExecutionResponse."""
        details = self.summary(now)
        if isinstance(self.request.job, RestartJob):
            details["jobStepRestartMarker"] = self.request.job.to_members()["jobStepRestartMarker"]
        if details["status"] == "Failed":
            step = self.definition.steps[-1].step
            details["statusReason"] = f"Step {step} ended with return code {self.definition.return_code}."
        return details

    def restart_points(self, now: float) -> list[dict[str, Any]]:
        """Give its steps (BatchJobStepList), with their condition codes once it has run to its end."""
        ended = self.status(now) in {"Succeeded", "Failed"}
        points: list[dict[str, Any]] = []
        for number, step in enumerate(self.definition.steps, 1):
            point: dict[str, Any] = {"stepNumber": number, "stepName": step.step, "stepRestartable": True}
            if ended:
                last = number == len(self.definition.steps)
                point["stepCondCode"] = str(self.definition.return_code if last else 0)
            points.append(point)
        return points


def schedule(
    number: int,
    execution_id: str,
    request: StartBatchJob,
    definition: JobDefinition,
    now: float,
    draw: random.Random,
) -> Execution:
    """Lay out the life of a job that starts now: about a second, unless its definition says how long it runs."""
    start_time = _milliseconds(now)
    dispatching_at = start_time + draw.uniform(0.05, 0.15)
    running_at = dispatching_at + draw.uniform(0.05, 0.15)
    seconds = draw.uniform(0.4, 1.2)  # drawn in any case, so that a definition changes no other job's life
    ends_at = running_at + (seconds if definition.seconds is None else definition.seconds)
    cancelling = draw.uniform(0.05, 0.15)
    return Execution(
        number, execution_id, request, definition, start_time, dispatching_at, running_at, ends_at, cancelling
    )


def _milliseconds(seconds: float) -> float:
    """Cut a time to what the service shows, milliseconds, so that filters go by what is shown."""
    return int(seconds * 1_000) / 1_000
