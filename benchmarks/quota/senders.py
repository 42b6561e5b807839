"""Those who are compared: each sends as much as it may until its time is over, and prints what it knows at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from benchmarks.submit import APPLICATION, requests
from m2async import M2Client, SubmissionStoppedError, Submitter

OURS = "m2async"


class Task(NamedTuple):
    """What a sender is to do: where to, for how many seconds, with how many workers, and what it knows of the quota."""

    url: str
    seconds: float
    workers: int
    rate: float | None = None
    burst: float | None = None


async def m2async(task: Task) -> None:
    """Submit without end; what fails with a 5xx is sent again, which a ledger would have do only where it is safe."""
    pace: dict[str, Any] = {"adaptive": True} if task.rate is None else {"rate": task.rate, "burst": task.burst}
    sent_again = 0
    with contextlib.suppress(SubmissionStoppedError):
        async with (
            M2Client(endpoint_url=task.url, max_connections=task.workers) as client,
            Submitter(client, concurrency=task.workers, on_unknown="resend", grace=0, **pace) as submitter,
        ):
            asyncio.get_running_loop().call_later(task.seconds, submitter.stop, "its time is over")
            async for outcome in submitter.submit_many(requests(10_000_000)):
                sent_again += outcome.attempts - 1
    print(json.dumps({"found_rate": submitter.found_rate, "sent_again": sent_again}))


async def _aiobotocore(task: Task, mode: Literal["standard", "adaptive"]) -> None:
    config = AioConfig(max_pool_connections=task.workers, retries={"mode": mode})
    async with AioSession().create_client("m2", endpoint_url=task.url, config=config) as client:

        async def work() -> None:
            while True:
                with contextlib.suppress(client.exceptions.ClientError):
                    await client.start_batch_job(
                        applicationId=APPLICATION,
                        batchJobIdentifier={"scriptBatchJobIdentifier": {"scriptName": "POSTTRAN"}},
                        jobParams={"RUNDATE": "20261123", "BRANCH": "0000000"},
                    )

        await _for_a_time(task, work)
    print(json.dumps({}))


async def aiobotocore_standard(task: Task) -> None:
    await _aiobotocore(task, "standard")


async def aiobotocore_adaptive(task: Task) -> None:
    await _aiobotocore(task, "adaptive")


async def _for_a_time(task: Task, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    workers = [asyncio.create_task(work()) for _ in range(task.workers)]
    done, _ = await asyncio.wait(workers, timeout=task.seconds, return_when=asyncio.FIRST_EXCEPTION)
    for one in workers:
        one.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    for one in done:
        one.result()


SENDERS: dict[str, Callable[[Task], Coroutine[Any, Any, None]]] = {
    OURS: m2async,
    "aiobotocore standard": aiobotocore_standard,
    "aiobotocore adaptive": aiobotocore_adaptive,
}
