from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from m2async import Destination, ExecutionClaimedError, RestartJob, SentElsewhereError
from m2async.clock import ClockOffset
from m2async.ledger import Ledger, RowState, open_ledger
from m2async.ledger.destinations import REHEARSAL, normal_endpoint
from tests.ledger.samples import APPLICATION, JOBS, OTHER_APPLICATION, planned, request, rows

HERE = Destination("https://m2.eu-west-1.amazonaws.com", "eu-west-1")
THERE = Destination("http://127.0.0.1:8200", "eu-west-1")


@pytest.mark.parametrize(
    "url",
    [
        "https://m2.eu-west-1.amazonaws.com",
        "https://m2.eu-west-1.amazonaws.com/",
        "https://m2.eu-west-1.amazonaws.com.",
        "https://M2.EU-West-1.AmazonAWS.com:443",
        "HTTPS://user:word@m2.eu-west-1.amazonaws.com?x=y#z",
        "https://m2-fips.eu-west-1.amazonaws.com",
        "https://m2.eu-west-1.api.aws",
        "https://m2-fips.eu-west-1.api.aws/",
    ],
)
def test_names_of_one_regional_service_are_the_same_endpoint(url: str) -> None:
    assert normal_endpoint(url) == HERE.endpoint_url


def test_what_may_be_another_service_is_another_endpoint() -> None:
    urls = [
        "https://m2.eu-west-1.amazonaws.com",
        "https://m2.eu-west-2.amazonaws.com",
        "https://m2.cn-north-1.amazonaws.com.cn",
        "https://m2.eu-west-1.amazonaws.com.example.org",
        "https://m2.eu-west-1.amazonaws.com:8443",
        "https://vpce-1-a.m2.eu-west-1.vpce.amazonaws.com",
        "https://example.org/m2",
        "https://example.org/M2",
        "http://example.org/m2",
        "http://127.0.0.1:8200",
        "http://127.0.0.1:8201",
        "http://[::1]:8200",
    ]
    assert len({normal_endpoint(url) for url in urls}) == len(urls)
    assert normal_endpoint("https://m2.cn-north-1.api.amazonwebservices.com.cn") == normal_endpoint(urls[2])
    assert normal_endpoint("http://[::1]:8200/") == urls[-1]


async def test_a_run_belongs_where_it_was_first_sent_also_for_a_later_process(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger) as run:
        assert (await ledger.run("run")).info.sent_to is None
        assert await run.belong_to(HERE) is None
        assert run.info.sent_to == HERE
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "e")
    async with open_ledger(path) as ledger:
        view = await ledger.run("run")
        assert await view.belong_to(HERE) is None
        with pytest.raises(SentElsewhereError) as caught:
            await view.belong_to(THERE)
        assert (caught.value.run, caught.value.sent_to, caught.value.goes_to) == ("run", HERE, THERE)
        [summary] = await ledger.runs()
        assert summary.info.sent_to == HERE


async def test_it_moves_on_purpose_and_that_is_written_down(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.belong_to(HERE)
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "e")
        note = await run.belong_to(THERE, moved=True)
        assert note == f"moved on purpose from {HERE} to {THERE}"
        assert await run.belong_to(THERE) is None
        with pytest.raises(SentElsewhereError):
            await run.belong_to(HERE)


async def test_where_nothing_was_started_it_moves_by_itself(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.belong_to(HERE)
        await run.intend(1, 1, 1.0)
        await run.rejected(1, 1, "ValidationException", "no")
        assert await run.belong_to(THERE) == f"moved where nothing was started from {HERE} to {THERE}"
        await run.intend(2, 1, 1.0)
        await run.unknown(2, 1, "AnswerTimeoutError", "no answer")
        with pytest.raises(SentElsewhereError):
            await run.belong_to(HERE)


async def test_jobs_in_doubt_keep_a_run_in_its_region_and_account(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.belong_to(HERE)
        await run.intend(1, 1, 1.0)
        await run.unknown(1, 1, "AnswerTimeoutError", "no answer")
        with pytest.raises(SentElsewhereError, match="1 of its jobs may have been started there") as caught:
            await run.belong_to(Destination(HERE.endpoint_url, "eu-west-2"), moved=True)
        assert caught.value.in_doubt == 1
        assert await run.belong_to(THERE, moved=True) is not None  # the same region by another name
        await run.not_started(1, 1, "an operator's word")
        assert await run.belong_to(Destination(HERE.endpoint_url, "eu-west-2"), moved=True) is not None


async def test_an_account_counts_where_both_are_known(ledger: Ledger) -> None:
    one, two = (Destination(HERE.endpoint_url, HERE.region_name, account * 12) for account in "12")
    async with planned(ledger) as run:
        await run.belong_to(HERE)
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "e")
        assert await run.belong_to(one) is None
        assert run.info.sent_to == one
        assert await run.belong_to(HERE) is None
        assert run.info.sent_to == one
        with pytest.raises(SentElsewhereError, match="another account"):
            await run.belong_to(two)


async def test_a_rehearsal_is_never_gone_on_with_elsewhere(ledger: Ledger) -> None:
    rehearsal = Destination(REHEARSAL, HERE.region_name)
    for first, second, name in ((rehearsal, HERE, "rehearsed"), (HERE, rehearsal, "real")):
        async with planned(ledger, name=name) as run:
            await run.belong_to(first)
            for moved in (False, True):
                with pytest.raises(SentElsewhereError, match="a rehearsal is never continued as a real run"):
                    await run.belong_to(second, moved=moved)


async def test_a_run_of_which_it_was_not_written_down_is_taken_as_it_is_and_told(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger) as run:
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "e")
        assert await run.belong_to(HERE) == f"the ledger does not say where it was sent before; now assumed: {HERE}"


async def test_a_run_that_is_removed_leaves_nothing_to_the_next(path: Path) -> None:
    async with open_ledger(path) as ledger:
        async with await ledger.open_run("one") as run:
            await run.belong_to(HERE)
            await run.accept(5.0)
        async with await ledger.open_run("two") as run:
            assert (run.info.sent_to, await run.accepted()) == (None, None)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM destinations").fetchone() == (0,)


# What is asked before a run is sent


async def test_a_ledger_is_new_until_it_has_a_run(ledger: Ledger) -> None:
    assert await ledger.is_new()
    async with planned(ledger):
        assert not await ledger.is_new()


async def test_applications_and_the_jobs_that_are_left_are_named(ledger: Ledger) -> None:
    given = [("a", request(job=JOBS[0])), ("b", request(job=JOBS[1])), ("c", request(1, OTHER_APPLICATION, JOBS[2]))]
    async with planned(ledger, given) as run:
        assert await run.applications() == [APPLICATION, OTHER_APPLICATION]
        await run.intend(1, 1, 1.0)
        left = [state for state in RowState if state is not RowState.STARTED]
        assert await run.named_jobs(APPLICATION, set(JOBS), *left) == {JOBS[0], JOBS[1]}
        assert await run.named_jobs(APPLICATION, set(JOBS), RowState.PENDING) == {JOBS[1]}
        await run.started(1, 1, "e")
        assert await run.named_jobs(APPLICATION, set(JOBS), *left) == {JOBS[1]}
        assert await run.named_jobs(APPLICATION, set(JOBS)) == {JOBS[0], JOBS[1]}
        assert await run.named_jobs(OTHER_APPLICATION, JOBS[:2]) == set()
    async with planned(ledger, [("a", request(job=RestartJob("e", "ONE")))], name="again") as run:
        others = {RestartJob("e", "TWO"), RestartJob("e", "ONE", skip=True)}  # of the same execution
        assert await run.named_jobs(APPLICATION, {*others, RestartJob("f", "ONE"), JOBS[0]}) == others
    async with await ledger.open_run("added") as run:  # its jobs come one by one, and come again
        await run.add("a", request(job=JOBS[0]))
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "f")
        assert await run.named_jobs(APPLICATION, set(JOBS), RowState.PENDING) == {JOBS[0]}


async def test_the_last_send_is_no_crash_and_no_decision(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger) as run:
        assert await run.last_sent() is None
        await run.note_clock(ClockOffset(-100.0, -99.0))  # what is given is a time of the service's
        for number in (1, 2, 3):
            await run.intend(number, 1, 10.0 * number)
        await run.started(2, 1, "e")
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        assert await run.last_sent() == -70.0
        await run.not_started(3, 1, "none")
        await run.claim(1, 1, "f", "found")
        assert await run.last_sent() == -70.0


async def test_what_was_accepted_is_not_taken_back(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        assert await run.accepted() is None
        await run.accept(7.0)
        await run.accept(5.0)
        assert await run.accepted() == 7.0


async def test_claims_are_told_without_an_index_too(ledger: Ledger) -> None:
    async with planned(ledger, rows(2)) as run:
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "e")
        for often in (False, True, False):
            assert await ledger.claimed(APPLICATION, ["e", "f"], often=often) == {"e"}
            assert await ledger.claimed(OTHER_APPLICATION, ["e", "f"], often=often) == set()
        await run.intend(2, 1, 1.0)
        await run.unknown(2, 1, "AnswerTimeoutError", "no answer")
        with pytest.raises(ExecutionClaimedError):
            await run.claim(2, 1, "e", "found")
