"""The pipeline from a request to its outcome; read submitter.py first."""

from m2async.submitting.dispatch import Dispatch
from m2async.submitting.intake import Request, SubmittedJobs
from m2async.submitting.lanes import WaitingName
from m2async.submitting.listing import why_refused
from m2async.submitting.outcomes import Outcome, OutcomeState, Rejected, Started, Unknown
from m2async.submitting.patient_lists import PatientLists
from m2async.submitting.preflight import Finding, NamedJobs, Report, preflight
from m2async.submitting.recording import outcome_of
from m2async.submitting.sender import StartsBatchJobs
from m2async.submitting.steering import LOOK_EVERY, Steering
from m2async.submitting.submitter import Submitter
from m2async.submitting.unexplained import UnexplainedExecutionsError, refuse_restarted

__all__ = [
    "LOOK_EVERY",
    "Dispatch",
    "Finding",
    "NamedJobs",
    "Outcome",
    "OutcomeState",
    "PatientLists",
    "Rejected",
    "Report",
    "Request",
    "Started",
    "StartsBatchJobs",
    "Steering",
    "SubmittedJobs",
    "Submitter",
    "UnexplainedExecutionsError",
    "Unknown",
    "WaitingName",
    "outcome_of",
    "preflight",
    "refuse_restarted",
    "why_refused",
]
