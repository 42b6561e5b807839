"""The pipeline from a request to its outcome; read submitter.py first."""

from m2async.submitting.dispatch import Dispatch
from m2async.submitting.intake import Request, SubmittedJobs
from m2async.submitting.outcomes import Outcome, OutcomeState, Rejected, Started, Unknown
from m2async.submitting.preflight import Finding, NamedJobs, Report, preflight
from m2async.submitting.recording import outcome_of
from m2async.submitting.submitter import StartsBatchJobs, Submitter

__all__ = [
    "Dispatch",
    "Finding",
    "NamedJobs",
    "Outcome",
    "OutcomeState",
    "Rejected",
    "Report",
    "Request",
    "Started",
    "StartsBatchJobs",
    "SubmittedJobs",
    "Submitter",
    "Unknown",
    "outcome_of",
    "preflight",
]
