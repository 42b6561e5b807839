"""What is decided of single rows from outside: written here, or by the process that has the run open for writing.

A run has one writer. Where another process is that, a decision is put into the ledger as a row that it finds there
twice a second (submitting/steering.py), carries out, and answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Literal

import anyio
import msgspec

from m2async.ledger.errors import (
    ExecutionClaimedError,
    IllegalTransitionError,
    LedgerError,
    RunInUseError,
    RunNotAnsweringError,
)
from m2async.ledger.interface import Ledger, Run, RunView
from m2async.ledger.requests import canonical_identifier, job_of_identifier
from m2async.ledger.rows import HistoryEntry
from m2async.service import RestartJob

_ANSWERED_WITHIN = 10.0  # seconds: the other process looks twice a second
_LOOK_EVERY = 0.1  # seconds


class Deed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decision on a row, as `Run` has a method for it; `execution_id` and the rest are what that takes."""

    what: Literal[
        "claim", "claim_together", "not_started", "confirm", "resolve", "resolve_all", "restart", "candidates"
    ]
    number: int
    attempt: int = 0
    note: str = ""
    execution_id: str | None = None
    inferred: bool = True
    job: str = ""
    execution_ids: tuple[str, ...] = ()
    rows: tuple[tuple[int, int], ...] = ()
    words: tuple[tuple[int, int, str | None], ...] = ()


class _DeedAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a deed: done, or why not."""

    illegal: str | None = None
    number: int = 0
    claimed: tuple[str, str, str] | None = None
    failed: str | None = None


async def carry_out(run: Run, deed: Deed) -> None:
    """Write a decision; raises what writing it raises."""
    number, attempt, note = deed.number, deed.attempt, deed.note
    match deed.what:
        case "claim":
            await run.claim(number, attempt, deed.execution_id or "", note, inferred=deed.inferred)
        case "claim_together":
            await run.claim_together(number, deed.rows, deed.execution_ids, note)
        case "not_started":
            await run.not_started(number, attempt, note)
        case "confirm":
            await run.confirm(number, attempt, note)
        case "resolve":
            await run.resolve(number, attempt, deed.execution_id, note)
        case "resolve_all":
            await run.resolve_all(deed.words, note)
        case "candidates":
            await run.candidates(number, deed.execution_ids)
        case "restart":
            job = job_of_identifier(deed.job)
            assert isinstance(job, RestartJob)  # noqa: S101 - a later m2async's ledger is refused at its opening
            await run.restart(number, attempt, job, note)


async def carry_out_what_is_asked(run: Run, done: Callable[[Deed], object]) -> None:
    """Carry out and answer what other processes ask of the run; `done` is told what was done."""
    for entry, what in await run.asked():
        if not await run.take_on(entry):  # it was withdrawn meanwhile
            continue
        answer = _DeedAnswer()
        try:
            deed = msgspec.json.decode(what, type=Deed)
            await carry_out(run, deed)
            done(deed)
        except IllegalTransitionError as error:
            answer = _DeedAnswer(illegal=error.reason, number=error.number)
        except ExecutionClaimedError as error:
            answer = _DeedAnswer(claimed=(error.execution_id, error.run, error.key))
        except (LedgerError, msgspec.ValidationError) as error:
            answer = _DeedAnswer(failed=str(error))
        await run.answer(entry, msgspec.json.encode(answer).decode())


class RowDecisions:
    """Decisions on the rows of a run, several at once too; make it with `open_for_decisions`."""

    def __init__(
        self, stack: AsyncExitStack, ledger: Ledger, view: RunView, run: Run | RunInUseError, *, by_hand: bool
    ) -> None:
        self.view = view
        self._stack = stack
        self._ledger = ledger
        self._run = run
        self._by_hand = by_hand
        self._opening = asyncio.Lock()

    @property
    def held_by(self) -> RunInUseError | None:
        """Who has the run open for writing elsewhere; None where it is open here."""
        return self._run if isinstance(self._run, RunInUseError) else None

    async def history(self, number: int) -> list[HistoryEntry]:
        """As the run's."""
        return await self.view.history(number)

    async def claim(self, number: int, attempt: int, execution_id: str, note: str, *, inferred: bool = True) -> None:
        """As the run's."""
        await self._write(Deed("claim", number, attempt, note, execution_id, inferred))

    async def claim_together(
        self, number: int, rows: Sequence[tuple[int, int]], execution_ids: Sequence[str], note: str
    ) -> None:
        """As the run's."""
        ids = tuple(execution_ids)
        await self._write(Deed("claim_together", number, note=note, execution_ids=ids, rows=tuple(rows)))

    async def not_started(self, number: int, attempt: int, note: str) -> None:
        """As the run's."""
        await self._write(Deed("not_started", number, attempt, note))

    async def confirm(self, number: int, attempt: int, note: str) -> None:
        """As the run's."""
        await self._write(Deed("confirm", number, attempt, note))

    async def resolve(self, number: int, attempt: int, execution_id: str | None, note: str) -> None:
        """As the run's."""
        await self._write(Deed("resolve", number, attempt, note, execution_id))

    async def resolve_all(self, words: Sequence[tuple[int, int, str | None]], note: str) -> None:
        """As the run's."""
        await self._write(Deed("resolve_all", words[0][0], note=note, words=tuple(words)))

    async def restart(self, number: int, attempt: int, job: RestartJob, note: str) -> None:
        """As the run's."""
        await self._write(Deed("restart", number, attempt, note, job=canonical_identifier(job)))

    async def candidates(self, number: int, execution_ids: Sequence[str]) -> None:
        """As the run's."""
        await self._write(Deed("candidates", number, execution_ids=tuple(execution_ids)))

    async def _write(self, deed: Deed) -> None:
        while isinstance(self._run, RunInUseError):
            held = self._run
            if await self._ask(deed, held):
                return
            async with self._opening:  # else one who asks would find the run held by another, here
                if self._run is held:
                    self._run = await _opened(self._stack, self._ledger, self.view.info.name, by_hand=self._by_hand)
        await carry_out(self._run, deed)

    async def _ask(self, deed: Deed, held: RunInUseError) -> bool:
        """Have a decision written elsewhere; gives False where that one has the run open no more, and it is not."""
        view, until = self.view, monotonic() + _ANSWERED_WITHIN
        entry = await view.ask(msgspec.json.encode(deed).decode())
        while True:
            in_use = await view.in_use()  # before the answer is read, which may be the last thing that it does
            answer = await view.answer_to(entry)
            if answer:
                await view.withdraw(entry)
                self._raise(deed, msgspec.json.decode(answer, type=_DeedAnswer))
                return True
            if not in_use or self._run is not held:
                await view.withdraw(entry)
                return False
            if answer is None:  # another process opened the run meanwhile, and forgot it
                entry = await view.ask(msgspec.json.encode(deed).decode())
            elif monotonic() > until:
                raise RunNotAnsweringError(held, may_be_written=not await view.withdraw(entry))
            await anyio.sleep(_LOOK_EVERY)

    def _raise(self, deed: Deed, answer: _DeedAnswer) -> None:
        address, name = self._ledger.address, self.view.info.name
        if answer.illegal is not None:
            raise IllegalTransitionError(address, name, answer.number or deed.number, answer.illegal)
        if answer.claimed is not None:
            raise ExecutionClaimedError(address, *answer.claimed)
        if answer.failed is not None:
            raise LedgerError(address, f"the process that has run {name!r} open could not write it: {answer.failed}")


@asynccontextmanager
async def open_for_decisions(
    ledger: Ledger, name: str, *, by_hand: bool = False, to_send: bool = False
) -> AsyncGenerator[RowDecisions, None]:
    """Open a run that exists for decisions on its rows, whether or not another process has it open for writing.

    `by_hand` and `to_send` as in `Ledger.open_run`.
    """
    async with AsyncExitStack() as stack:
        view = await ledger.run(name)
        run = await _opened(stack, ledger, name, by_hand=by_hand, to_send=to_send)
        yield RowDecisions(stack, ledger, view, run, by_hand=by_hand)


async def _opened(
    stack: AsyncExitStack, ledger: Ledger, name: str, *, by_hand: bool, to_send: bool = False
) -> Run | RunInUseError:
    try:
        return await stack.enter_async_context(await ledger.open_run(name, by_hand=by_hand, to_send=to_send))
    except RunInUseError as error:
        return error
