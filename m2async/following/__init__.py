"""Executions after their start: followed to their ends, cancelled, restarted, their logs read."""

from m2async.following.cancel import OF_ALL, CancelsExecutions, Fate, cancel_execution, cancel_executions
from m2async.following.evidence import LogEvidence, Telling
from m2async.following.logs import JobLogs, LogsError
from m2async.following.restart import NoRestartPointError, restart_job
from m2async.following.tracker import Change, Tracker, TracksExecutions, observation, seen

__all__ = [
    "OF_ALL",
    "CancelsExecutions",
    "Change",
    "Fate",
    "JobLogs",
    "LogEvidence",
    "LogsError",
    "NoRestartPointError",
    "Telling",
    "Tracker",
    "TracksExecutions",
    "cancel_execution",
    "cancel_executions",
    "observation",
    "restart_job",
    "seen",
]
