"""Executions after their start: followed to their ends, cancelled, restarted, their logs read."""

from m2async.following.calls import Calls
from m2async.following.cancel import OF_ALL, CancelsExecutions, Fate, cancel_execution, cancel_executions
from m2async.following.logs import JobLogs, LogsError
from m2async.following.restart import NoRestartPointError, restart_job
from m2async.following.tracker import Change, Tracker, TracksExecutions

__all__ = [
    "OF_ALL",
    "Calls",
    "CancelsExecutions",
    "Change",
    "Fate",
    "JobLogs",
    "LogsError",
    "NoRestartPointError",
    "Tracker",
    "TracksExecutions",
    "cancel_execution",
    "cancel_executions",
    "restart_job",
]
