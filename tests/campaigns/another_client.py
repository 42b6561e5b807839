"""Another client starts the same jobs: how often is its execution taken for one of ours?

    python -m tests.campaigns.another_client [--runs 300] [--seed N]

StartBatchJob has no client token and no list shows a job's parameters. So where an answer of ours was lost, nothing of
ours was started, and another client started the same job in the same seconds, its execution looks like ours: it is
adopted, and marked as inferred; so may one of several that are taken for the executions of as many jobs of ours
together. This counts how often, for other clients that start our jobs more or less often than we do, in random order
of time. Every doubt is decided a settling delay after its end, with what the list shows then. An execution that no
attempt explains ends the guessing for its job.

Ends with an error if a job that was started is called not started.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Hashable

from m2async import ScriptJob
from m2async.certainty.adopt import Adopted, Attempt, ListedExecution, Margins, NotStarted, StartedTogether, decide
from m2async.certainty.explained import not_explained

SETTLE = 5.0
ROWS = 100


def run(draw: random.Random, others: float, jobs: int, rate: float, lost: float) -> Counter[str]:
    """Send rows of so many job names at a rate; for each of them another client starts a share of the same."""
    margins, counts = Margins(late=SETTLE), Counter[str]()
    attempts: list[Attempt[int]] = []
    executions: list[ListedExecution] = []
    ours: dict[Hashable, str] = {}
    answered: list[tuple[Attempt[int], float]] = []
    now = 1_790_000_000.0
    for number in range(ROWS):
        job, sent_at = ScriptJob(f"JOB{draw.randrange(jobs)}"), now
        ended_at = sent_at + draw.expovariate(5)
        is_lost = draw.random() < lost
        if not is_lost or draw.random() < 0.5:
            ours[number] = f"ours-{number}"
            executions.append(ListedExecution(ours[number], "app", job, draw.uniform(sent_at, ended_at)))
        if is_lost:
            attempts.append(Attempt(number, "app", job, sent_at, ended_at, in_doubt=True))
        else:
            answered.append((Attempt(number, "app", job, sent_at, None, in_doubt=False), ended_at))
        for another in range(draw.randint(0, 2) if draw.random() < others else 0):
            at = now + draw.uniform(-30, 30)
            executions.append(ListedExecution(f"theirs-{number}-{another}", "app", job, at))
        now += draw.expovariate(rate)
    held: set[ScriptJob] = set()
    claimed, decided = set[str](), set[Hashable]()
    for attempt in attempts:
        if attempt.id in decided:
            continue
        assert attempt.ended_at is not None
        at = attempt.ended_at + SETTLE
        claimed |= {ours[each.id] for each, when in answered if when <= at}
        listed = [each for each in executions if each.start_time <= at]
        opened = [each for each in attempts if each.sent_at <= at and each.id not in decided]
        opened += [each for each, when in answered if each.sent_at <= at < when]
        seen = [each for each in listed if abs(each.start_time - attempt.sent_at) < margins.vicinity + 20]
        attempted = {each.job for each in opened}
        seen = [each for each in seen if each.job in attempted and each.execution_id not in claimed]
        foreign = not_explained(seen, opened, margins)
        held |= {each.job for each in foreign if isinstance(each.job, ScriptJob)}
        due = [each for each in opened if each.ended_at is not None and each.ended_at + SETTLE <= at]
        opened = [each if each in due else _in_flight(each) for each in opened]
        decision = decide(opened, listed, claimed=claimed, margins=margins)[attempt.id]
        if attempt.job in held or not isinstance(decision, Adopted | NotStarted | StartedTogether):
            counts["unknown"] += 1
            continue
        ids = decision.ids if isinstance(decision, StartedTogether) else (attempt.id,)
        executions_of = () if isinstance(decision, NotStarted) else decision.execution_ids
        truth = {ours[id_] for id_ in ids if id_ in ours}
        claimed.update(executions_of)
        decided.update(ids)
        counts[f"{'' if truth == set(executions_of) else 'wrongly '}{_SAID[type(decision)]}"] += len(ids)
    return counts


_SAID = {Adopted: "adopted", StartedTogether: "together", NotStarted: "not started"}


def _in_flight(attempt: Attempt[int]) -> Attempt[int]:
    return Attempt(attempt.id, attempt.application_id, attempt.job, attempt.sent_at, attempt.ended_at, in_doubt=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    wrong = 0
    for others in (0.0, 0.02, 0.2, 1.0):
        counts = Counter[str]()
        for number in range(given.runs):
            draw = random.Random(f"{given.seed}/{others}/{number}")
            jobs, rate, lost = draw.choice([1, 10, 100]), draw.choice([0.2, 2.0]), draw.choice([0.05, 0.2])
            counts += run(draw, others, jobs, rate, lost)
        doubts = sum(counts.values())
        wrong += counts["wrongly not started"]
        told = ", ".join(
            f"{counts[what]:,} {what}"
            for what in (*[f"{how}{said}" for said in _SAID.values() for how in ("", "wrongly ")], "unknown")
        )
        print(f"others start {others:4.0%} of our jobs as well: {doubts:,} in doubt: {told}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
