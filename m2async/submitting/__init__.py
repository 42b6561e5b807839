"""The pipeline from a request to its outcome; read submitter.py first."""

from m2async.submitting.dispatch import Dispatch
from m2async.submitting.outcomes import Outcome, Rejected, Started, Unknown
from m2async.submitting.preflight import Finding, NamedJobs, Report, preflight
from m2async.submitting.recording import outcome_of
from m2async.submitting.submitter import Submitter

__all__ = [
    "Dispatch",
    "Finding",
    "NamedJobs",
    "Outcome",
    "Rejected",
    "Report",
    "Started",
    "Submitter",
    "Unknown",
    "outcome_of",
    "preflight",
]
