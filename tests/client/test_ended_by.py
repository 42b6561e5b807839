"""Who ended an exchange that was not answered: after the service's own end nothing starts late."""

from __future__ import annotations

import pytest

from m2async import CallError, M2Client
from tests.client.test_hostile import REQUEST, WAYS, Way, says, settings, then
from tests.scripted import Step, answer, close, error, hang, reset, scripted

CASES: dict[str, tuple[Step, bool]] = {
    "closes": (close, True),
    "resets": (reset, True),
    "an error of its own": (error(500, "InternalServerException"), True),
    "an error with no request id": (says(500), False),
    "a bad gateway": (answer(502, {}), False),
    "a gateway's timeout": (answer(504, {}), False),
    "not available": (answer(503, {}), False),
    "is silent": (hang, False),
    "cannot be read": (then(says(200, b"<html>"), close), False),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_failure_says_whether_the_service_itself_ended_the_exchange(way: Way) -> None:
    said: dict[str, bool] = {}
    async with scripted(close) as server, M2Client(**settings(server, way)) as client:
        for name, (step, _) in CASES.items():
            server.steps = [step]
            with pytest.raises(CallError) as caught:
                await client.start_batch_job(REQUEST)
            assert caught.value.may_have_started
            said[name] = caught.value.ended_by_service
    # A proxy that closes a connection says nothing of the service.
    behind = {"closes", "resets"} if way.through_proxy else set()
    assert said == {name: ended and name not in behind for name, (_, ended) in CASES.items()}
