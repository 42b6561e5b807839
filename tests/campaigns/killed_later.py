"""The commands after `submit`, killed at random moments: what must hold then, and when each is given again.

| killed | the same command again, to its end |
|---|---|
| `restart --failed` | each failed execution was restarted once, and its row is that restart's |
| `track` | a line for each job, with what it came to; nothing false was printed or written before |
| `cancel` | every execution is cancelled |
| `reconcile` | no row is unknown; each is what is true of it, and `resume` starts the rest |
| `resolve` | the row is what the operator said, and any unknown row can be resolved so |
| `export`, beside a run in progress | all rows, in order and as they are; the run is not disturbed |
| `probe --start-real-jobs` | the next one tells of what was left, and what it tells cancels all of it |

None but `restart`, `resume` and `probe` starts a job. Each round has a run and an endpoint of its own, and all rounds
have one ledger.
"""

from __future__ import annotations

import csv
import json
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from m2async.ledger import LedgerRow, RowState, TrackedExecution, open_ledger
from m2async.service import RestartJob
from tests.campaigns.faults import audit, faulty, really_started, serving
from tests.campaigns.killing import KILLED, Campaign
from tests.cli.terminal import APPLICATION, Ended, running

ROWS = 40
SETTLING = ("--settle", "0.3", "--timeout", "2")
LOST = {"accept-then-drop": 0.25, "drop-before-accept": 0.25}
"""Of these calls it is not known whether they started a job, and half of them did."""
ENDED_BY_CANCEL = {"Cancelling", "Cancelled"}
Executions = Sequence[Mapping[str, Any]]


def definition(name: str, seconds: float = 0.0, return_code: int = 0, failures: int | None = None) -> dict[str, Any]:
    """One job of a definitions file; its first `failures` executions end with the return code, or all of them."""
    job = {"file": f"{name}.jcl", "jobName": name, "seconds": seconds, "returnCode": return_code}
    return {**job, "failures": failures, "steps": [{"step": f"STEP{number}"} for number in range(1, 4)]}


class KilledLater(Campaign):
    """Rounds: a run is submitted, and then a command is killed over it and given again until it ends."""

    faults: Mapping[str, float] = {}

    async def kill(self) -> None:
        while self.goes_on:
            self.runs += 1
            async with self._endpoint() as url:
                await self.round(url)
                self.executions += len(await really_started(url))

    @abstractmethod
    async def round(self, url: str) -> None:
        """Submit a run, and kill the command over it until it comes to its end."""

    def jobs(self) -> Sequence[str]:
        """The scripts of a run's rows."""
        return [f"JOB{number}" for number in range(ROWS)]

    def definitions(self) -> Sequence[Mapping[str, Any]]:
        """The jobs that the endpoint defines, if any."""
        return ()

    def command(self, name: str, *options: str | Path) -> list[str | Path]:
        """A command on the round's run."""
        return [name, str(self.runs), "--ledger", self.ledger, *options]

    def submission(self, *options: str) -> list[str | Path]:
        """The command that submits the round's manifest."""
        path = self.folder / f"{self.runs}.csv"
        rows = [f"row-{number},{APPLICATION},{script},{number}" for number, script in enumerate(self.jobs())]
        path.write_text("\n".join(["key,application_id,script,param.NUMBER", *rows, ""]))
        run = ("--ledger", self.ledger, "--run", str(self.runs))
        return ["submit", path, *run, "--rate", "400", "--burst", "10", "-q", *SETTLING, *options]

    async def nothing_is_started(self, url: str, before: Executions) -> Executions:
        """See that no job was started since; gives the executions as they are now."""
        executions: Executions = await really_started(url)
        self.expect(len(executions) == len(before), f"it started {len(executions) - len(before)} jobs")
        return executions

    async def audit(self, executions: Executions, *, ended: bool) -> Mapping[str, int]:
        """Compare the round's run with the truth; gives its rows by state."""
        found = await audit(self.ledger, str(self.runs), executions, ended=ended)
        self.problems += [f"{self.name}: {problem}" for problem in found.problems]
        self.resumed += not ended and bool(found.states["intent"] or found.states["unknown"])
        if ended:
            self.adopted += found.adopted
            self.unknown += found.states["unknown"]
        return found.states

    async def rows(self, *states: RowState) -> list[LedgerRow]:
        """The rows of the round's run."""
        async with open_ledger(self.ledger, must_exist=True) as ledger:
            return [row async for row in (await ledger.run(str(self.runs))).rows(*states)]

    async def tracked(self) -> list[TrackedExecution]:
        """The executions of the round's run, as the ledger has them."""
        async with open_ledger(self.ledger, must_exist=True) as ledger:
            return [execution async for execution in (await ledger.run(str(self.runs))).all_executions()]

    @asynccontextmanager
    async def _endpoint(self) -> AsyncIterator[str]:
        options = faulty(self.faults, self.seed % 2**16 * 10_000 + self.runs)  # no two give the same execution ids
        if jobs := self.definitions():
            path = self.folder / "definitions.json"
            path.write_text(json.dumps({"jobs": jobs}))
            options += ["--definitions", str(path)]
        async with serving(*options) as url:
            yield url


class KilledRestart(KilledLater):
    """`restart --failed`, of jobs that fail the first time, while calls are answered late or not at all."""

    name = "restart"
    within = 2.0
    faults: Mapping[str, float] = {"latency": 0.1, "accept-then-drop": 0.05, "drop-before-accept": 0.05}

    def definitions(self) -> Sequence[Mapping[str, Any]]:
        return [definition(name, return_code=8, failures=1) for name in self.jobs()]

    async def round(self, url: str) -> None:
        await self.to_its_end(url, *self.submission("--wait"))
        await self.audit(await really_started(url), ended=True)
        left = ROWS
        while True:
            before = left
            ended = await self.live(url, *self.command("restart", "--failed", "--rate", "100", "-q", *SETTLING))
            left = await self._left(await really_started(url), is_over=ended.code != KILLED)
            if ended.code != KILLED:
                break
        self.expect("is not restarted" not in ended.err, ended.err)
        self.expect(ended.code == (0 if before else 1), f"{before} were left, and it ended with {ended}")
        self.expect(not left, f"it ended, and {left} are not restarted")

    async def _left(self, executions: Executions, *, is_over: bool) -> int:
        """How many rows are not the restart's yet; notes whatever the ledger has of them that is not true."""
        first: dict[str, str] = {}
        again: dict[str, list[str]] = defaultdict(list)
        for execution in executions:
            if restarted := execution["batchJobIdentifier"].get("restartBatchJobIdentifier"):
                again[restarted["executionId"]].append(execution["executionId"])
            else:
                self.expect(
                    first.setdefault(number_of(execution), execution["executionId"]) == execution["executionId"],
                    f"{number_of(execution)} was started twice",
                )
        for restarts in again.values():
            self.expect(len(restarts) == 1, f"one execution was restarted {len(restarts)} times")
        self.expect(again.keys() <= set(first.values()), "a restart was restarted, or what nobody started")
        left = in_doubt = 0
        for row in await self.rows():
            original = first[row.request.params["NUMBER"]]
            restarts = again[original]
            is_marked = isinstance(row.request.job, RestartJob)
            match row.state:
                case RowState.STARTED if is_marked:
                    self.expect([row.execution_id] == restarts, f"it is {row.execution_id}, and not of {restarts}")
                case RowState.STARTED:
                    self.expect(row.execution_id == original and not restarts, f"it was restarted as {restarts}")
                case RowState.PENDING | RowState.REJECTED:
                    self.expect(is_marked and not restarts, f"it is {row.state.label}, restarted as {restarts}")
                case _:
                    self.expect(is_marked and not is_over, f"it is {row.state.label}")
                    in_doubt += 1
            left += row.state is not RowState.STARTED or not is_marked
        self.resumed += bool(in_doubt) and not is_over
        return left


class KilledTrack(KilledLater):
    """`track`, while jobs end: every second run has some that fail."""

    name = "track"
    within = 2.0

    def definitions(self) -> Sequence[Mapping[str, Any]]:
        return [definition("GOOD"), definition("BAD", return_code=8), definition("SLOW", 2.0)]

    def jobs(self) -> Sequence[str]:
        return [("GOOD", "BAD" if self.runs % 2 else "GOOD", "SLOW")[number % 3] for number in range(ROWS)]

    async def round(self, url: str) -> None:
        await self.to_its_end(url, *self.submission())
        executions: Executions = await really_started(url)
        while True:
            ended = await self.live(url, *self.command("track", "--output", "jsonl", "-q"))
            executions = await self.nothing_is_started(url, executions)
            await self.audit(executions, ended=True)
            true_ends = {
                execution["executionId"]: (execution["status"], execution.get("returnCode"))
                for execution in executions
                if "endTime" in execution
            }
            printed = [json.loads(line) for line in whole_lines(ended.out)]
            for line in printed:
                told = (line["status"], line["return_code"])
                self.expect(true_ends.get(line["execution_id"]) == told, f"it printed {told}, which is not so")
            for each in await self.tracked():
                if each.ended:
                    self.expect(
                        true_ends.get(each.execution_id) == (each.status, each.return_code),
                        f"the ledger has {each.status}, which is not so",
                    )
            if ended.code != KILLED:
                break
        failed = self.runs % 2
        self.expect(ended.code == failed, f"it ended with {ended.code} instead of {failed}: {ended.err}")
        self.expect(sorted(line["execution_id"] for line in printed) == sorted(true_ends), "lines are missing")
        self.expect(len(true_ends) == ROWS, "it ended before the jobs had")


class KilledCancel(KilledLater):
    """`cancel`, of jobs that would run for long."""

    name = "cancel"
    within = 0.8

    def definitions(self) -> Sequence[Mapping[str, Any]]:
        return [definition(name, 600.0) for name in self.jobs()]

    async def round(self, url: str) -> None:
        await self.to_its_end(url, *self.submission())
        executions: Executions = await really_started(url)
        while True:
            ended = await self.live(url, *self.command("cancel", "--rate", "60", "--output", "jsonl"))
            executions = await self.nothing_is_started(url, executions)
            await self.audit(executions, ended=True)
            if ended.code != KILLED:
                break
        lines = [json.loads(line) for line in whole_lines(ended.out)]
        self.expect(ended.code == 0, f"it ended with {ended.code}: {ended.err}")
        self.expect([line["key"] for line in lines] == [f"row-{number}" for number in range(ROWS)], "lines are missing")
        self.expect({line["outcome"] for line in lines} <= {"cancelling", "had ended"}, f"it printed {ended.out}")
        if {each["status"] for each in executions} - ENDED_BY_CANCEL:
            self.problems.append("cancel: it ended, and some are not cancelled")
            return  # they would be tracked for long
        tracked = await self.to_its_end(url, *self.command("track", "-q"))
        self.expect(tracked.code == 1, f"track ended with {tracked.code}: {tracked.err}")
        self.expect({each.status for each in await self.tracked()} == {"Cancelled"}, "the ledger has another status")


class KilledReconcile(KilledLater):
    """`reconcile`, of jobs whose names tell which execution is whose."""

    name = "reconcile"
    within = 0.6
    faults: Mapping[str, float] = LOST

    async def round(self, url: str) -> None:
        await self.to_its_end(url, *self.submission("--on-unknown", "hold"))
        executions: Executions = await really_started(url)
        while True:
            unknown = {row.key for row in await self.rows(RowState.UNKNOWN)}
            ended = await self.live(url, *self.command("reconcile", "--settle", "0.3", "--output", "jsonl"))
            executions = await self.nothing_is_started(url, executions)
            states = await self.audit(executions, ended=ended.code != KILLED)
            if ended.code != KILLED:
                break
        self.expect(ended.code == 0, f"it ended with {ended.code}: {ended.err}")
        self.expect({json.loads(line)["key"] for line in whole_lines(ended.out)} == unknown, "lines are missing")
        self.expect(set(states) <= {"started", "pending"}, f"it ended with {dict(states)}")
        await resumed(self, url)


class KilledResolve(KilledLater):
    """`resolve`, of one row after the other, of jobs that all have one name: only the operator can tell."""

    name = "resolve"
    within = 0.15
    faults: Mapping[str, float] = LOST

    def jobs(self) -> Sequence[str]:
        return ["SAME"] * ROWS

    async def round(self, url: str) -> None:
        await self.to_its_end(url, *self.submission("--on-unknown", "hold"))
        executions: Executions = await really_started(url)
        true_ids = {number_of(execution): execution["executionId"] for execution in executions}
        for unknown in await self.rows(RowState.UNKNOWN):
            started = true_ids.get(unknown.request.params["NUMBER"])
            word = ("--not-started",) if started is None else ("--started", started)
            while (ended := await self.live(url, *self.command("resolve", "--key", unknown.key, *word))).code == KILLED:
                await self.audit(executions, ended=False)
            self.expect(ended.code == 0, f"it ended with {ended.code}: {ended.err}")
            [row] = [row for row in await self.rows() if row.key == unknown.key]
            expected = (RowState.PENDING if started is None else RowState.STARTED, started)
            self.expect((row.state, row.execution_id) == expected, f"the row is {row.state.label} and not {word}")
        await self.nothing_is_started(url, executions)
        self.expect(not await self.rows(RowState.UNKNOWN, RowState.INTENT), "a row is unknown still")
        await resumed(self, url, "--exact")


class KilledExport(KilledLater):
    """`export`, beside the submission of the run."""

    name = "export"
    within = 0.15
    prints_when_at_work = "stdout"
    faults: Mapping[str, float] = {"latency": 0.2}

    def jobs(self) -> Sequence[str]:
        return [f"JOB{number}" for number in range(20 * ROWS)]

    async def round(self, url: str) -> None:
        form = ("csv", "jsonl")[self.runs % 2]
        keys = [f"row-{number}" for number in range(len(self.jobs()))]
        async with running(*self.submission("--output", "jsonl"), url=url) as submitting:
            assert submitting.stdout is not None
            await submitting.stdout.receive()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_drain, submitting.stdout)
                while self.goes_on and submitting.returncode is None:
                    ended = await self.live(url, *self.command("export", "--format", form))
                    self.expect(ended.code in {0, KILLED}, f"it ended with {ended.code}: {ended.err}")
                    told = [row["key"] for row in exported(ended.out, form)]
                    whole = keys if ended.code == 0 else keys[: len(told)]
                    self.expect(told == whole, f"it printed {len(told)} rows, or in another order")
            code = await submitting.wait()
        self.expect(code == 0, f"the run beside it ended with {code}")
        executions: Executions = await really_started(url)
        await self.audit(executions, ended=True)
        while (ended := await self.live(url, *self.command("export", "--format", form))).code == KILLED:
            await self.audit(executions, ended=True)
        self.expect(ended.code == 0, f"it ended with {ended.code}: {ended.err}")
        true_ids = {f"row-{number_of(execution)}": execution["executionId"] for execution in executions}
        told_ids = [(row["key"], row["state"], row["execution_id"]) for row in exported(ended.out, form)]
        self.expect(told_ids == [(key, "started", true_ids.get(key)) for key in keys], "what it printed is not so")


class KilledProbe(KilledLater):
    """`probe --start-real-jobs`, and the ways out that the next probe tells of."""

    name = "probe"
    within = 2.5
    faults: Mapping[str, float] = {"latency": 0.2, "accept-then-drop": 0.05}
    kills_a_round = 3

    def definitions(self) -> Sequence[Mapping[str, Any]]:
        return [definition("LONG", 600.0)]

    async def round(self, url: str) -> None:
        what = ("-a", APPLICATION, "--start-real-jobs", "--script", "LONG")
        probe = ("probe", *what, "--rate", "60", "--seconds", "1", "--ledger", self.ledger, "--timeout", "2")
        last = self.kills + self.kills_a_round
        while self.goes_on and self.kills < last:
            left = await self._left(url)
            ended = await self.live(url, *probe)
            self._is_told(ended, left)
            if ended.code == KILLED:
                self.resumed += len(await self._left(url)) > len(left)
            else:
                self.expect(
                    ended.code == ("may have started a job" in ended.err.partition("recorded in run")[2]),
                    f"it ended with {ended.code}: {ended.err}",
                )
        left = await self._left(url)
        self._is_told(await self.to_its_end(url, *probe), left)
        await self._cancel_all(url)
        self.expect({each["status"] for each in await really_started(url)} <= ENDED_BY_CANCEL, "some go on running")
        told = (await self.to_its_end(url, *probe)).err.partition("Every call is recorded")[0]
        self.expect("earlier probe" not in told, f"all is cancelled, and the next probe says: {told}")
        await self._cancel_all(url)

    def _is_told(self, ended: Ended, left: Sequence[str]) -> None:
        """See that a probe told of what earlier ones had left, before it started anything."""
        told, came_so_far, _ = ended.err.partition("Every call is recorded")
        if came_so_far:
            named = set(re.findall(r"m2async cancel (\S+)", told))
            self.expect(named == set(left), f"it told of {named} instead of {left}")

    async def _left(self, url: str) -> list[str]:
        """The probes of which something may run; each execution is a row's, or there is a row in doubt for it."""
        status = {each["executionId"]: each["status"] for each in await really_started(url)}
        left, in_doubt = [], 0
        if not self.ledger.exists():
            return []
        async with open_ledger(self.ledger, must_exist=True) as ledger:
            for summary in await ledger.runs():
                doubts = summary.counts[RowState.INTENT] + summary.counts[RowState.UNKNOWN]
                view = await ledger.run(summary.info.name)
                own = [
                    execution_id
                    async for row in view.rows(RowState.STARTED)
                    for execution_id in ([row.execution_id] if row.execution_id else row.candidates)
                ]
                open_ones = [each async for each in view.all_executions() if not each.ended]
                if doubts or any(each.status != "Cancelling" for each in open_ones):
                    left.append(summary.info.name)
                in_doubt += doubts
                for execution_id in own:
                    status.pop(execution_id, None)
        self.expect(len(status) <= in_doubt, f"{len(status)} executions have no row, and {in_doubt} rows are in doubt")
        return left

    async def _cancel_all(self, url: str) -> None:
        """Do what the probes say: reconcile and cancel; and say of the calls still in doubt what is true."""
        left = await self._left(url)
        for run in left:
            reconciled = await self.to_its_end(url, "reconcile", run, "--ledger", self.ledger, "--settle", "0.3")
            self.expect(reconciled.code in {0, 1}, f"reconcile ended with {reconciled}")
        await self._resolve(left, {each["executionId"] for each in await really_started(url)})
        for run in 2 * left:  # the second time sees that all have ended
            cancelled = await self.to_its_end(url, "cancel", run, "--ledger", self.ledger, "--rate", "1000")
            self.expect(cancelled.code == 0, f"cancel ended with {cancelled}")
            while "Cancelling" in {each["status"] for each in await really_started(url)}:
                pass

    async def _resolve(self, runs: Sequence[str], executions: set[str]) -> None:
        """Resolve all that is in doubt, where it does not matter which call started which execution."""
        async with AsyncExitStack() as stack:
            ledger = await stack.enter_async_context(open_ledger(self.ledger, must_exist=True))
            for summary in await ledger.runs():
                view = await ledger.run(summary.info.name)
                async for row in view.rows(RowState.STARTED):
                    executions -= {row.execution_id or "", *row.candidates}
            opened = [await stack.enter_async_context(await ledger.open_run(run, by_hand=True)) for run in runs]
            unknown = [(run, row) for run in opened async for row in run.rows(RowState.UNKNOWN)]
            self.unknown += len(unknown)
            told = {candidate for _, row in unknown for candidate in row.candidates}
            self.expect(executions <= told, f"{len(executions - told)} executions are no row's candidates")
            self.expect(len(executions) <= len(unknown), "there are more executions than rows in doubt")
            for run, row in unknown:
                started = executions.pop() if executions else None
                await run.resolve(row.number, row.attempts, started, "the truth")


async def resumed(campaign: KilledLater, url: str, *options: str) -> None:
    """Go on with the run to its end: each job was started once, and which execution is whose is known."""
    for _ in range(2):  # what is left unknown is looked for once more, when nothing competes any more
        ended = await campaign.to_its_end(url, *campaign.command("resume", "--rate", "400", "-q", *SETTLING, *options))
    states = await campaign.audit(await really_started(url), ended=True)
    campaign.expect((ended.code, states) == (0, {"started": ROWS}), f"resume ended with {dict(states)}: {ended}")


async def _drain(stream: AsyncIterator[bytes]) -> None:
    async for _ in stream:
        pass


def number_of(execution: Mapping[str, Any]) -> str:
    """Which row an execution was started for."""
    number: str = execution["jobParams"]["NUMBER"]
    return number


def whole_lines(out: str) -> list[str]:
    """What was printed, without a last line that was cut."""
    return out.split("\n")[:-1]


def exported(out: str, form: str) -> list[dict[str, Any]]:
    """The rows that were printed."""
    lines = whole_lines(out)
    return [json.loads(line) for line in lines] if form == "jsonl" else list(csv.DictReader(lines))


KILLED_LATER: Mapping[str, type[KilledLater]] = {
    each.name: each
    for each in (
        KilledRestart, KilledTrack, KilledCancel, KilledReconcile, KilledResolve, KilledExport, KilledProbe
    )
}  # fmt: skip
