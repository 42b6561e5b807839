"""What an answer, or none, says of a job, and which of the service's executions are ours."""

from m2async.certainty.adopt import Adopted, Ambiguous, Decision, NotStarted
from m2async.certainty.doubts import Doubts, write_decision
from m2async.certainty.reconcile import ListsExecutions
from m2async.certainty.verdict import OnUnknown, Verdict, verdict

__all__ = [
    "Adopted",
    "Ambiguous",
    "Decision",
    "Doubts",
    "ListsExecutions",
    "NotStarted",
    "OnUnknown",
    "Verdict",
    "verdict",
    "write_decision",
]
