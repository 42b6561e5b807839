from __future__ import annotations

import asyncio

from m2async import ScriptJob, StartBatchJob
from m2async.submitting.intake import Caller, Submission
from m2async.submitting.tokens import Tokens
from tests.virtual_time import in_virtual_time, now


@in_virtual_time
async def test_whether_a_job_may_be_sent_is_asked_anew_after_each_pause() -> None:
    tokens = Tokens(rate=1.0, burst=2.0, adaptive=False, pacer=None, weight=1.0, buckets={})
    job = Submission("job", StartBatchJob("a" * 26, ScriptJob("JOB")), Caller())
    asked: list[float] = []

    def may_send() -> bool:
        asked.append(now())
        if len(asked) == 2:
            tokens.pause.begin()
        return len(asked) < 3

    tokens.pause.begin()
    for at in (60.0, 120.0):
        asyncio.get_running_loop().call_later(at, tokens.pause.end)
    assert not await tokens.take(job, may_send)
    assert asked == [0.0, 60.0, 120.0]
    assert job.grant is None
