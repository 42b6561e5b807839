"""What follows from an answer, or from none: which executions are ours, and what may be sent again."""

from m2async.certainty.adopt import Adopted, Ambiguous, Decision, Margins, NotStarted
from m2async.certainty.reconcile import ListsExecutions, RowId, reconcile
from m2async.certainty.retry import OnUnknown, RetryPolicy, Verdict, repeated, verdict, wait_before_resend

__all__ = [
    "Adopted",
    "Ambiguous",
    "Decision",
    "ListsExecutions",
    "Margins",
    "NotStarted",
    "OnUnknown",
    "RetryPolicy",
    "RowId",
    "Verdict",
    "reconcile",
    "repeated",
    "verdict",
    "wait_before_resend",
]
