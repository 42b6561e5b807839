"""Errors and outcomes go from process to process, and can be copied, with all that they hold."""

from __future__ import annotations

import asyncio
import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from threading import Lock
from typing import Any

import pytest

import m2async
from m2async import (
    CallError,
    ConnectionLostError,
    FileJob,
    InvalidRequestError,
    LocalEndpoint,
    M2AsyncError,
    M2Client,
    M2ServiceException,
    NotSentError,
    Outcome,
    Rejected,
    ResourceNotFoundException,
    S3Job,
    StartBatchJob,
    Started,
    SubmissionStoppedError,
    Submitter,
    Unknown,
)
from m2async.errors import ManifestError, ManifestProblem, RepeatedCallError
from m2async.ledger import Destination, LedgerError, RunInUseError
from m2async.ledger import errors as ledger_errors
from m2async.submitting import UnexplainedExecutionsError


def remembered() -> CallError:
    from m2async.submitting.recording import _RememberedError

    return _RememberedError("Crash", "the process ended")


HELD = RunInUseError("l.db", "night", pid=7, host="here", since=1.5)
PLACES = (Destination("https://a", "eu-central-1", "1"), Destination("https://b", "eu-west-1", None))
REQUEST = StartBatchJob("app1", S3Job("bucket", file_name="A.jcl"), {"Run1": "x"})
OF_A_KIND: Mapping[str, Callable[[], M2AsyncError]] = {
    "InvalidRequestError": lambda: InvalidRequestError("params", {"A": [1]}, "must be text"),
    "ManifestError": lambda: ManifestError([ManifestProblem("m.csv", 3, "job", "is empty")]),
    "SubmissionStoppedError": lambda: SubmissionStoppedError(of_service(m2async.AccessDeniedException)),
    "RepeatedCallError": lambda: RepeatedCallError("again", may_have_started=True),
    "MiddlewareError": lambda: m2async.MiddlewareError("failed", may_have_started=True),
    "ConnectionLostError": lambda: ConnectionLostError("lost", ended_by_service=True),
    "UnexplainedExecutionsError": partial(UnexplainedExecutionsError, "night", "one", "why", ["e1"], ["A"]),
    "_RememberedError": remembered,
    "LedgerVersionError": lambda: ledger_errors.LedgerVersionError("l.db", 9, 3),
    "LedgerNameError": lambda: ledger_errors.LedgerNameError("l.db"),
    "LedgerUpgradeError": lambda: ledger_errors.LedgerUpgradeError("l.db", 1, 3),
    "RunNotFoundError": lambda: ledger_errors.RunNotFoundError("l.db", "night"),
    "RowNotFoundError": lambda: ledger_errors.RowNotFoundError("l.db", "night", 4),
    "RunNotPlannedError": lambda: ledger_errors.RunNotPlannedError("l.db", "night"),
    "RunInUseError": lambda: HELD,
    "RunNotAnsweringError": lambda: ledger_errors.RunNotAnsweringError(HELD, may_be_written=True),
    "RunStoppedError": lambda: ledger_errors.RunStoppedError("l.db", "night", 2.5),
    "ClockSetBackError": lambda: ledger_errors.ClockSetBackError("l.db", "night", latest=2.0, now=1.0),
    "SentElsewhereError": lambda: ledger_errors.SentElsewhereError("l.db", "night", *PLACES, in_doubt=2),
    "DuplicateKeyError": lambda: ledger_errors.DuplicateKeyError("l.db", "k", 1, 2),
    "ManifestChangedError": lambda: ledger_errors.ManifestChangedError("l.db", "night", added=["k"]),
    "ExecutionClaimedError": lambda: ledger_errors.ExecutionClaimedError("l.db", "e1", "night", "k"),
    "IllegalTransitionError": lambda: ledger_errors.IllegalTransitionError("l.db", "night", 4, "is started"),
}


def pickled(protocol: int, value: object) -> object:
    return pickle.loads(pickle.dumps(value, protocol))


TRAVELS: Mapping[str, Callable[[Any], Any]] = {
    **{f"pickle {each}": partial(pickled, each) for each in range(6)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def of_service(kind: type[M2ServiceException]) -> M2ServiceException:
    details = {"fieldList": [{"name": "a", "message": "b"}], "resourceId": "r"}
    said: dict[str, Any] = {"code": kind.__name__, "http_status": 500, "request_id": "q1", "details": details}
    return kind("said", retry_after=2.5, **said)


def errors_of_the_library() -> Iterator[type[M2AsyncError]]:
    for module in pkgutil.walk_packages(m2async.__path__, "m2async."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kinds = [M2AsyncError]
    for kind in kinds:
        kinds += [each for each in kind.__subclasses__() if each not in kinds]
        if kind.__module__.startswith("m2async."):
            yield kind


def an_error(kind: type[M2AsyncError]) -> M2AsyncError:
    if kind.__name__ in OF_A_KIND:
        error = OF_A_KIND[kind.__name__]()
    elif issubclass(kind, M2ServiceException):
        error = of_service(kind)
    else:
        error = kind("l.db", "said") if issubclass(kind, LedgerError) else kind("said")
    error.add_note("seen at night")
    return error


def seen(value: object) -> object:
    """All that a user can see of an error, and of the errors in it."""
    if not isinstance(value, BaseException):
        return value
    of_class = {name: seen(getattr(value, name)) for name in dir(value) if not name.startswith("_")}
    shown = {name: each for name, each in of_class.items() if not callable(each)}
    return type(value), str(value), value.args, {name: seen(each) for name, each in vars(value).items()}, shown


@pytest.mark.parametrize("travel", TRAVELS.values(), ids=TRAVELS)
def test_every_error_survives_its_travel_with_all_that_it_holds(travel: Callable[[Any], Any]) -> None:
    kinds = list(errors_of_the_library())
    assert len(kinds) > 50
    for kind in kinds:
        error = an_error(kind)
        assert seen(travel(error)) == seen(error)


@pytest.mark.parametrize("travel", TRAVELS.values(), ids=TRAVELS)
def test_every_outcome_survives_its_travel(travel: Callable[[Any], Any]) -> None:
    error = of_service(ResourceNotFoundException)
    common: dict[str, Any] = {"key": "k", "request": REQUEST, "attempts": 2}
    started = Started(**common, execution_id=None, adopted=True, candidates=("e1", "e2"), before=True)
    assert travel(started) == started
    rejected = travel(Rejected(**common, error=SubmissionStoppedError(error)))
    assert (rejected.request, seen(rejected.error)) == (REQUEST, seen(SubmissionStoppedError(error)))
    unknown = travel(Unknown(**common, error=error, candidates=("e1",)))
    assert (unknown.key, unknown.candidates, seen(unknown.error)) == ("k", ("e1",), seen(error))


def test_a_deep_copy_shares_nothing_that_can_change() -> None:
    error = of_service(ResourceNotFoundException)
    other = copy.deepcopy(error)
    other.details["fieldList"].clear()
    assert error.details["fieldList"]


def test_of_what_cannot_be_pickled_the_text_travels() -> None:
    lock = Lock()
    error = InvalidRequestError("params", lock, "must be text")
    assert pickle.loads(pickle.dumps(error)).value == repr(lock)
    assert copy.copy(error).value is lock
    assert copy.deepcopy(error).value is lock
    stopped = SubmissionStoppedError(NotSentError("x"))
    stopped.cause = copy.copy(error)
    assert pickle.loads(pickle.dumps(stopped)).cause.rule == "must be text"


def in_a_worker(*, raising: bool) -> object:
    async def start() -> object:
        async with LocalEndpoint() as endpoint, M2Client(**endpoint.client_settings()) as client:
            request = StartBatchJob(endpoint.application_ids[0], FileJob("NOSUCH.jcl"))
            if raising:
                return await client.start_batch_job(request)
            async with Submitter(client) as submitter:
                return await submitter.submit(request)

    return asyncio.run(start())


def test_of_what_can_be_pickled_and_not_made_again_the_text_travels() -> None:
    error = InvalidRequestError("params", NotMadeAgainError(1, 2), "must be text")
    travelled = pickle.loads(pickle.dumps(error))
    assert (travelled.value, travelled.rule) == ("NotMadeAgainError(1)", "must be text")


class NotMadeAgainError(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__(one)
        self.other = other


def test_a_worker_process_raises_and_gives_back_what_the_service_answered() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(ResourceNotFoundException) as raised:
            pool.submit(partial(in_a_worker, raising=True)).result()
        outcome: Outcome = pool.submit(partial(in_a_worker, raising=False)).result()  # type: ignore[assignment]
    assert (raised.value.http_status, raised.value.resource_id) == (404, "NOSUCH.jcl")
    assert isinstance(outcome, Rejected)
    assert outcome.error.code == "ResourceNotFoundException"
