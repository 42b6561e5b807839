"""From which step a failed execution is restarted: decided from the steps that the service lists."""

from __future__ import annotations

import re
from collections.abc import Sequence

from m2async.errors import M2AsyncError
from m2async.service import JobStep, RestartJob

_NUMBER = re.compile(r"[0-9]{1,10}")


class NoRestartPointError(M2AsyncError):
    """An execution cannot be restarted as asked for; nothing was sent."""


def restart_job(execution_id: str, steps: Sequence[JobStep], from_step: str | None, max_rc: int | None) -> RestartJob:
    """Make the job that restarts an execution.

    Arguments:
        execution_id: what to restart.
        steps: its steps, as ListBatchJobRestartPoints gives them.
        from_step: the step's name, or STEP.PROCSTEP; by default the first step that did not end well.
        max_rc: the greatest condition code of a step that ended well; None for 0.

    Raises NoRestartPointError if there is no such step, or if the service says that it cannot be restarted.
    """
    if not steps:
        raise NoRestartPointError(f"the service lists no steps of execution {execution_id}")
    step = _first_that_failed(steps, max_rc or 0) if from_step is None else _named(steps, from_step)
    if step.step_restartable is False:
        raise NoRestartPointError(f"step {_name(step)} cannot be restarted; those that can: {_restartable(steps)}")
    return RestartJob(execution_id, step.step_name or "", step.proc_step_name or None)


def _named(steps: Sequence[JobStep], name: str) -> JobStep:
    for step in steps:
        if name in {_name(step), step.step_name}:
            return step
    raise NoRestartPointError(f"there is no step {name}; those that can be restarted: {_restartable(steps)}")


def _first_that_failed(steps: Sequence[JobStep], max_rc: int) -> JobStep:
    """Find where it went wrong; where no step has a condition code, nothing says so."""
    if any(step.step_cond_code for step in steps):
        for step in steps:
            code = (step.step_cond_code or "").strip()
            if not _NUMBER.fullmatch(code) or int(code) > max_rc:
                return step
        reason = "every step ended well"
    else:
        reason = "no step has a condition code"
    raise NoRestartPointError(f"{reason}: say with --from-step where to restart: {_restartable(steps)}")


def _restartable(steps: Sequence[JobStep]) -> str:
    return ", ".join(_name(step) for step in steps if step.step_restartable is not False) or "none"


def _name(step: JobStep) -> str:
    return f"{step.step_name}.{step.proc_step_name}" if step.proc_step_name else step.step_name or ""
