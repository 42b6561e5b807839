"""`m2async resolve`: the operator's word on what became of jobs in doubt, of one or of many at once."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from m2async.cli.ledgers import some, with_ledger
from m2async.cli.output import BAD_INPUT, fail, say
from m2async.errors import InvalidRequestError
from m2async.ledger import (
    ExecutionClaimedError,
    IllegalTransitionError,
    Ledger,
    LedgerRow,
    RowEvent,
    RowNotFoundError,
    RowState,
    RunView,
    open_for_decisions,
)
from m2async.service import check_execution_id
from m2async.texts import plural

_NOTE = "an operator's word"
_COLUMNS = ("key", "execution_id")
_MOST_SAID = 20
_BESIDE = frozenset({RowEvent.RETRY, RowEvent.GIVEN_UP, RowEvent.CONFIRMED})  # what leaves a decision as it is
_DECIDED_BY = {
    RowState.STARTED: {RowEvent.CLAIMED, RowEvent.GROUPED},
    RowState.PENDING: {RowEvent.NOT_STARTED},
    RowState.REJECTED: {RowEvent.NOT_STARTED},
}


class _SpokenWord(NamedTuple):
    """What a line of a file says of a row: its execution, or with None that it was not started."""

    line: int
    key: str
    execution_id: str | None


class _Problem(NamedTuple):
    """What is wrong with a field of a line."""

    line: int
    field: str
    reason: str


def resolve(url: str | None, run_name: str, key: str, started: str | None, *, not_started: bool) -> None:
    """Take the operator's word for what became of a row in doubt, also in place of an earlier word."""
    if (started is None) is not not_started:
        fail("give either --started EXECUTION_ID or --not-started", BAD_INPUT)
    if started is not None:
        try:
            check_execution_id("--started", started)
        except InvalidRequestError as error:
            fail(error.message, BAD_INPUT)

    async def write(ledger: Ledger) -> LedgerRow:
        async with open_for_decisions(ledger, run_name, by_hand=True) as decisions:
            row = await decisions.view.row(key)
            await decisions.resolve(row.number, row.attempts, started, _NOTE)
            return await decisions.view.row(key)

    row = with_ledger(url, write)
    say(f"{key} is {row.state.label}" + (f" as {row.execution_id}" if row.execution_id else ""))


def resolve_all_not_started(url: str | None, run_name: str) -> None:
    """Take the operator's word that no row in doubt of a run was started."""

    async def write(ledger: Ledger) -> int:
        async with open_for_decisions(ledger, run_name, by_hand=True) as decisions:
            if decisions.held_by is not None:
                fail(
                    f"run {run_name} is in progress: other jobs may be in doubt by now than those that you have seen; "
                    "nothing was written: stop the run first (m2async stop), or name the jobs (--key, --from)",
                    BAD_INPUT,
                )
            words = [(row.number, row.attempts, None) async for row in decisions.view.rows(RowState.UNKNOWN)]
            if words:
                await decisions.resolve_all(words, _NOTE)
            return len(words)

    count = with_ledger(url, write)
    say(f"{plural(count, 'job')} in doubt: not started" if count else f"run {run_name} has no job in doubt")


def resolve_from(url: str | None, run_name: str, file: Path) -> None:
    """Take the operator's words from a file: it is checked as a whole first, and then written as a whole."""
    words, problems = _read(file)

    async def write(ledger: Ledger) -> list[_Problem]:
        async with open_for_decisions(ledger, run_name, by_hand=True) as decisions:
            rows = {row.key: row for row in await _rows(decisions.view, words, problems)}
            await _check(ledger, decisions.view, words, rows, problems)
            if problems or not words:
                return problems
            said = [(rows[word.key].number, rows[word.key].attempts, word.execution_id) for word in words]
            try:
                await decisions.resolve_all(said, _NOTE)
            except IllegalTransitionError as error:
                at = next(word for word, (number, *_) in zip(words, said, strict=True) if number == error.number)
                return [_Problem(at.line, "key", error.reason)]
            except ExecutionClaimedError as error:
                at = next(word for word in words if word.execution_id == error.execution_id)
                return [_Problem(at.line, "execution_id", f"belongs to {error.key} of run {error.run}")]
            return []

    if found := with_ledger(url, write):
        _refuse(file, found)
    started = sum(word.execution_id is not None for word in words)
    say(f"{plural(len(words), 'job')} resolved: {started:,} started, {len(words) - started:,} not started")


def _refuse(file: Path, problems: Sequence[_Problem]) -> NoReturn:
    in_order = sorted(problems)
    for line, field, reason in in_order[:_MOST_SAID]:
        say(f"m2async: {file}:{line}: {field}: {reason}")
    more = len(in_order) - _MOST_SAID
    fail(f"{file}: nothing was written" + (f"; {more:,} more such lines" if more > 0 else ""), BAD_INPUT)


def _read(file: Path) -> tuple[list[_SpokenWord], list[_Problem]]:
    """Read the lines of a file, and see what is wrong with them by themselves."""
    problems: list[_Problem] = []
    words: list[_SpokenWord] = []
    lines_of: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for line, cells in _records(file):
        if len(cells) != len(_COLUMNS):
            problems.append(_Problem(line, "key", f"{len(cells)} fields, and not {len(_COLUMNS)}"))
            continue
        key, execution_id = cells["key"], cells["execution_id"].strip()
        if execution_id:
            try:
                check_execution_id("execution_id", execution_id)
            except InvalidRequestError as error:
                problems.append(_Problem(line, "execution_id", error.message))
        for field, value, seen in zip(_COLUMNS, (key, execution_id), lines_of, strict=True):
            if value and seen.setdefault(value, line) != line:
                problems.append(_Problem(line, field, f"{value!r} stands in line {seen[value]} as well"))
        words.append(_SpokenWord(line, key, execution_id or None))
    return words, problems


def _records(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Give each record by the names of its columns, and the line that it begins on; it may have too few or too many."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if sorted(header) != sorted(_COLUMNS):
                fail(f"{file}:1: the columns must be {' and '.join(_COLUMNS)}, not {', '.join(header)}", BAD_INPUT)
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    given = dict(zip(header, cells, strict=False))
                    yield line, given if len(cells) <= len(header) else given | {"": "more"}
                line = reader.line_num + 1
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", BAD_INPUT)
    except (csv.Error, UnicodeError) as error:
        fail(f"{file} is not CSV in UTF-8: {error}", BAD_INPUT)


async def _rows(view: RunView, words: Sequence[_SpokenWord], problems: list[_Problem]) -> list[LedgerRow]:
    rows = []
    for word in words:
        try:
            rows.append(await view.row(word.key))
        except RowNotFoundError:
            problems.append(_Problem(word.line, "key", f"the run has no row {word.key!r}"))
    return rows


async def _check(
    ledger: Ledger, view: RunView, words: Sequence[_SpokenWord], rows: Mapping[str, LedgerRow], problems: list[_Problem]
) -> None:
    """See which rows are not in doubt, and which executions are others' that the words do not speak of."""
    given = {word.execution_id: word for word in words if word.execution_id is not None and word.key in rows}
    started = [row for row in rows.values() if row.state is RowState.STARTED]
    own = {id_ for row in started for id_ in (row.execution_id, *row.candidates)}
    for application_id in {row.request.application_id for row in rows.values()}:
        problems += [
            _Problem(given[claimed].line, "execution_id", f"{claimed} belongs to another row")
            for claimed in await ledger.claimed(application_id, given.keys() - own)
        ]
    for word in words:
        row = rows.get(word.key)
        if row is not None and not await _may_be_told(view, row, word.execution_id):
            as_what = f" as {row.execution_id or some(row.candidates)}" if row.state is RowState.STARTED else ""
            reason = f"{word.key!r} is not in doubt: it is {row.state.label}{as_what}"
            problems.append(_Problem(word.line, "key", reason))


async def _may_be_told(view: RunView, row: LedgerRow, execution_id: str | None) -> bool:
    """Whether a row is in doubt, or what is said stands already, or replaces what was said before of a doubt."""
    if row.state is RowState.UNKNOWN or (row.state is RowState.STARTED and execution_id == row.execution_id):
        return True
    events = [entry.event for entry in await view.history(row.number) if entry.event not in _BESIDE]
    return bool(events) and events[-1] in _DECIDED_BY.get(row.state, set())
