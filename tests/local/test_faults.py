from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.errors import ConfigurationError
from m2async.local import LocalEndpoint, parse_fault
from m2async.local.faults import Fault, Faults
from tests.local.raw import EXECUTIONS_PATH, SCRIPT, call, start, started

SHARES = st.dictionaries(st.sampled_from([fault.value for fault in Fault]), st.floats(0, 1 / len(Fault)))


def test_a_fault_is_given_by_name_and_share() -> None:
    assert parse_fault("accept-then-drop=0.05") == ("accept-then-drop", 0.05)
    assert parse_fault("500=1") == ("500", 1.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("500", "must be NAME=SHARE"),
        ("drop=0.1", r"'drop' is not known; the names are 500, throttle, drop-before-accept, accept-then-500,"),
        ("500=", "the share must be a number from 0 to 1"),
        ("500=often", "the share must be a number from 0 to 1"),
        ("500=1.5", "the share must be a number from 0 to 1, not 1.5"),
        ("500=-0.1", "the share must be a number from 0 to 1, not -0.1"),
        ("500=nan", "the share must be a number from 0 to 1, not nan"),
    ],
)
def test_a_wrong_fault_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        parse_fault(text)


def test_wrong_shares_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"sum up to 1\.1, which is more than 1"):
        LocalEndpoint(faults={"500": 0.6, "throttle": 0.5})
    with pytest.raises(ConfigurationError, match="'none' is not known"):
        LocalEndpoint(faults={"none": 0.1})
    with pytest.raises(ConfigurationError, match="'500': the share"):
        LocalEndpoint(faults={"500": 2})
    Faults(dict.fromkeys(list(Fault)[:3], 1 / 3), 1)  # rounding is no excess


def test_the_shares_are_kept() -> None:
    faults = Faults({"500": 0.2, "latency": 0.3}, 1)
    drawn = Counter(faults.draw() for _ in range(20_000))
    assert set(drawn) == {Fault.INTERNAL_ERROR, Fault.LATENCY, None}
    assert drawn[Fault.INTERNAL_ERROR] == pytest.approx(4_000, rel=0.05)
    assert drawn[Fault.LATENCY] == pytest.approx(6_000, rel=0.05)


@given(SHARES, st.integers())
def test_the_same_seed_and_shares_give_the_same_faults(shares: dict[str, float], seed: int) -> None:
    one, other = Faults(shares, seed), Faults(dict(reversed(shares.items())), seed)
    assert [(one.draw(), one.delay()) for _ in range(50)] == [(other.draw(), other.delay()) for _ in range(50)]


def test_another_seed_gives_other_faults() -> None:
    one, other = Faults({"500": 0.5}, 1), Faults({"500": 0.5}, 2)
    assert [one.draw() for _ in range(50)] != [other.draw() for _ in range(50)]


@pytest.mark.parametrize(
    ("fault", "status", "code"), [("500", 500, "InternalServerException"), ("throttle", 429, "ThrottlingException")]
)
async def test_a_refusing_fault_answers_its_error_and_starts_nothing(fault: str, status: int, code: str) -> None:
    async with LocalEndpoint(faults={fault: 1}) as endpoint:
        reply = await start(endpoint)
        assert (reply.status, reply.code) == (status, code)
        assert "retry-after" not in reply.headers
        assert await started(endpoint) == []


async def test_drop_before_accept_ends_the_connection_and_starts_nothing() -> None:
    async with LocalEndpoint(faults={"drop-before-accept": 1}) as endpoint:
        with pytest.raises(ConnectionError):
            await start(endpoint)
        assert await started(endpoint) == []


async def test_accept_then_500_starts_the_job_and_answers_an_error() -> None:
    async with LocalEndpoint(faults={"accept-then-500": 1}) as endpoint:
        reply = await start(endpoint, {**SCRIPT, "jobParams": {"RUNDATE": "20261123"}})
        assert (reply.status, reply.code) == (500, "InternalServerException")
        [execution] = await started(endpoint)
        assert execution["jobParams"] == {"RUNDATE": "20261123"}


async def test_accept_then_drop_starts_the_job_and_ends_the_connection() -> None:
    async with LocalEndpoint(faults={"accept-then-drop": 1}) as endpoint:
        with pytest.raises(ConnectionError):
            await start(endpoint)
        assert len(await started(endpoint)) == 1


async def test_accept_then_hang_starts_the_job_and_never_answers() -> None:
    async with LocalEndpoint(faults={"accept-then-hang": 1}) as endpoint:
        starting = asyncio.create_task(start(endpoint))
        while not await started(endpoint):
            pass
        for _ in range(20):
            assert len(await started(endpoint)) == 1
        assert not starting.done()
        starting.cancel()
        await asyncio.wait([starting])


async def test_latency_starts_the_job_and_answers_late() -> None:
    async with LocalEndpoint(faults={"latency": 1}, seed=1) as endpoint:
        due = Faults({"latency": 1}, 1).delay()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        reply = await start(endpoint)
        assert loop.time() - begin >= due
        [execution] = await started(endpoint)
        assert reply.json == {"executionId": execution["executionId"]}


async def test_an_invalid_request_is_started_by_no_fault() -> None:
    async with LocalEndpoint(faults={"accept-then-500": 0.5, "accept-then-drop": 0.5}) as endpoint:
        reply = await start(endpoint, {"batchJobIdentifier": {}})
        assert (reply.status, reply.code) == (400, "ValidationException")
        assert await started(endpoint) == []


async def test_faults_meet_start_batch_job_alone() -> None:
    async with LocalEndpoint(faults={"500": 1}) as endpoint:
        assert (await call(endpoint, "GET", EXECUTIONS_PATH)).status == 200


async def test_the_same_seed_meets_the_same_calls_with_the_same_faults_and_ids() -> None:
    async def outcomes(seed: int) -> list[str]:
        shares = {"500": 0.2, "throttle": 0.2, "accept-then-500": 0.2, "accept-then-drop": 0.2}
        seen = []
        async with LocalEndpoint(faults=shares, seed=seed) as endpoint:
            for _ in range(12):
                try:
                    seen.append((await start(endpoint)).json.get("executionId", "refused"))
                except ConnectionError:
                    seen.append("dropped")
            seen += [execution["executionId"] for execution in await started(endpoint)]
        return seen

    assert await outcomes(7) == await outcomes(7)
    assert await outcomes(7) != await outcomes(8)
