"""What an answer, or none, says of a job, and which of the service's executions are ours."""

from m2async.certainty.adopt import (
    Adopted,
    Ambiguous,
    Decision,
    ListedExecution,
    Margins,
    NotStarted,
    StartedTogether,
)
from m2async.certainty.application import ApplicationOfRun, TellsClock, attempt_of
from m2async.certainty.calibration import ANY_TIME, Calibration
from m2async.certainty.doubts import Doubts, write_decision
from m2async.certainty.explained import as_foreign, foreign_among, not_explained
from m2async.certainty.law import Certainty, Law
from m2async.certainty.reconcile import ListsExecutions
from m2async.certainty.start_times import Apart
from m2async.certainty.verdict import OnUnknown, Verdict, verdict

__all__ = [
    "ANY_TIME",
    "Adopted",
    "Ambiguous",
    "Apart",
    "ApplicationOfRun",
    "Calibration",
    "Certainty",
    "Decision",
    "Doubts",
    "Law",
    "ListedExecution",
    "ListsExecutions",
    "Margins",
    "NotStarted",
    "OnUnknown",
    "StartedTogether",
    "TellsClock",
    "Verdict",
    "as_foreign",
    "attempt_of",
    "foreign_among",
    "not_explained",
    "verdict",
    "write_decision",
]
