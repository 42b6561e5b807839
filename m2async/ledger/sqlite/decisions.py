"""What is found out or decided about single rows in SQLite; each gives False where the row does not allow it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from m2async.ledger.errors import ExecutionClaimedError, IllegalTransitionError
from m2async.ledger.sqlite.statements import as_json, named_statements
from m2async.ledger.states import RowEvent, RowState, Standing, illegal_reason

_SQL = named_statements("decisions")


def claim(
    connection: sqlite3.Connection,
    *,
    address: str,
    row: int,
    attempt: int,
    at: int,
    execution_id: str,
    inferred: bool,
    note: str,
) -> bool:
    """Give an execution to an UNKNOWN row's attempt in doubt; raises ExecutionClaimedError."""
    _check_free(connection, address, execution_id)
    values = {"id": row, "attempt": attempt, "at": at, "execution_id": execution_id, "note": note}
    if connection.execute(_SQL["attempt_in_doubt"], {"id": row, "attempt": attempt}).fetchone() is None:
        return False
    connection.execute(_SQL["forget_settled"], {"id": row})
    connection.execute(_SQL["settle_attempt"], {"id": row, "attempt": attempt})
    connection.execute(_SQL["claim"], {**values, "inferred": inferred})
    connection.execute(_SQL["decision"], {**values, "event": RowEvent.CLAIMED.value})
    return True


def not_started(connection: sqlite3.Connection, *, row: int, attempt: int, at: int, note: str) -> bool:
    """Make an UNKNOWN row PENDING: none of its attempts started anything."""
    if not _decide(connection, "not_started", RowEvent.NOT_STARTED, row, attempt, at, note):
        return False
    connection.execute(_SQL["forget_settled"], {"id": row})
    connection.execute(_SQL["settle_row"], {"id": row})
    return True


def confirm(connection: sqlite3.Connection, *, row: int, attempt: int, at: int, note: str) -> bool:
    """Settle the attempts in doubt of a STARTED row: they started nothing."""
    if not _decide(connection, "confirm", RowEvent.CONFIRMED, row, attempt, at, note):
        return False
    connection.execute(_SQL["settle_row"], {"id": row})
    return True


def claim_together(
    connection: sqlite3.Connection,
    *,
    address: str,
    row: int,
    rows: Sequence[tuple[int, int]],
    at: int,
    execution_ids: Sequence[str],
    note: str,
) -> bool:
    """Give executions to as many UNKNOWN rows, each with its attempt in doubt; raises ExecutionClaimedError.

    Which row holds which of them says nothing of whose it is. It stands already where `row` holds one so.
    """
    found = connection.execute(_SQL["group_of"], {"id": row}).fetchone()
    if found is not None and found[1] in execution_ids:
        return True
    if not len({id_ for id_, _ in rows}) == len(set(execution_ids)) == len(rows) == len(execution_ids):
        return False
    if any(connection.execute(_SQL["alone_in_doubt"], {"id": id_, "attempt": a}).fetchone() is None for id_, a in rows):
        return False
    for execution_id in execution_ids:
        _check_free(connection, address, execution_id)
    group: int | None = None
    for (id_, attempt), execution_id in zip(rows, execution_ids, strict=True):
        values = {"id": id_, "attempt": attempt, "at": at, "execution_id": execution_id, "note": note}
        connection.execute(_SQL["forget_settled"], {"id": id_})
        connection.execute(_SQL["settle_attempt"], {"id": id_, "attempt": attempt})
        entry = connection.execute(_SQL["decision"], {**values, "event": RowEvent.GROUPED.value}).lastrowid
        group = entry if group is None else group
        connection.execute(_SQL["group"], {**values, "together": group})
    return True


def resolve_all(
    connection: sqlite3.Connection,
    *,
    address: str,
    run: str,
    row: int,
    words: Sequence[tuple[int, int, str | None]],
    at: int,
    note: str,
) -> bool:
    """Take an operator's words, each of a row, in place of what was decided, if anything was: all or none.

    What they replace is taken back first, so that rows may exchange executions. Raises IllegalTransitionError and
    ExecutionClaimedError, of the row that they are about.
    """
    writing = _Word(connection, address, at, note)
    connection.execute("SAVEPOINT words")
    try:
        for say in (writing.make_way, writing.say):
            for id_, attempt, execution_id in words:
                if not say(id_, attempt, execution_id):
                    raise _illegal(connection, address, run, id_, attempt, execution_id)
    except BaseException:
        connection.execute("ROLLBACK TO words")
        raise
    finally:
        connection.execute("RELEASE words")
    return True


def _illegal(
    connection: sqlite3.Connection, address: str, run: str, row: int, attempt: int, execution_id: str | None
) -> IllegalTransitionError:
    state, attempts, doubts = connection.execute(_SQL["standing"], (row,)).fetchone() or (RowState.PENDING, 0, 0)
    word = "not started" if execution_id is None else f"started as {execution_id}"
    what = f"to call it {word} after attempt {attempt}"
    reason = illegal_reason(what, Standing(RowState(state), doubts), attempts)
    return IllegalTransitionError(address, run, row & 0xFFFF_FFFF, reason)


class _Word(NamedTuple):
    """Writes an operator's word, in the two steps that it takes; each gives False where the row does not allow it."""

    connection: sqlite3.Connection
    address: str
    at: int
    note: str

    def make_way(self, row: int, attempt: int, execution_id: str | None) -> bool:
        """Take back what was decided of a row, if that is something else."""
        found = self._execute("decided", id=row, attempt=attempt).fetchone()
        if found is None:
            return False
        state, _, its_execution, can_be_taken_back = found
        group = self._execute("group_of", id=row).fetchone()
        if group is not None:
            return can_be_taken_back and self._out_of_group(group[0], row, execution_id)
        if state == RowState.UNKNOWN or (state == RowState.STARTED and execution_id == its_execution):
            return True
        if can_be_taken_back and (execution_id is not None or state == RowState.STARTED):
            self._take_back(row, attempt)
        return bool(can_be_taken_back)

    def say(self, row: int, attempt: int, execution_id: str | None) -> bool:
        """Write what became of a row that is in doubt, or that stands so."""
        state, doubts, its_execution, _ = self._execute("decided", id=row, attempt=attempt).fetchone()
        given: dict[str, Any] = {"row": row, "attempt": attempt, "at": self.at, "note": self.note}
        if state == RowState.STARTED and execution_id == its_execution:
            return not doubts or confirm(self.connection, **given)
        if state != RowState.UNKNOWN:
            return execution_id is None and state in {RowState.PENDING, RowState.REJECTED}
        if execution_id is None:
            return not_started(self.connection, **given)
        [in_doubt] = self._execute("last_in_doubt", id=row).fetchone()
        claim(
            self.connection,
            address=self.address,
            execution_id=execution_id,
            inferred=False,
            **{**given, "attempt": in_doubt},
        )
        confirm(self.connection, **given)
        return True

    def _out_of_group(self, group: int, row: int, execution_id: str | None) -> bool:
        """Let a row have an execution of its group for itself; where it has another, or none, the group is no more."""
        held = {id_: (attempt, its) for id_, attempt, its in self._execute("of_group", together=group)}
        if not held:
            return False
        ids = sorted(its for _, its in held.values())
        if execution_id is None or execution_id not in ids:
            for id_, (attempt, _) in held.items():
                self._take_back(id_, attempt, candidates=ids)
            return True
        holder = next(id_ for id_, (_, its) in held.items() if its == execution_id)
        if holder != row:
            its, others = execution_id, held[row][1]
            self._execute("exchange", id=row, other=holder, its=its, others=others)
            self._execute("exchange_seen", id=row, other=holder)
            self._execute("exchanged_seen", id=row, other=holder)
        self._tell_apart(row, held[row][0], execution_id, inferred=False)
        left = self._execute("of_group", together=group).fetchall()
        if len(left) == 1:
            self._tell_apart(*left[0], inferred=True)
        return True

    def _tell_apart(self, row: int, attempt: int, execution_id: str, *, inferred: bool) -> None:
        self._execute("leave_group", id=row, inferred=inferred, note=self.note)
        for event, of in ((RowEvent.TAKEN_BACK, None), (RowEvent.CLAIMED, execution_id)):
            self._execute(
                "decision", id=row, attempt=attempt, event=event.value, at=self.at, execution_id=of, note=self.note
            )

    def _take_back(self, row: int, attempt: int, *, candidates: Sequence[str] | None = None) -> None:
        values = {"id": row, "attempt": attempt, "note": self.note}
        self._execute("take_back", **values, candidates=candidates and as_json(candidates))
        self._execute("decision", **values, event=RowEvent.TAKEN_BACK.value, at=self.at, execution_id=None)
        self._execute("unsettle", id=row)

    def _execute(self, statement: str, **values: Any) -> sqlite3.Cursor:
        return self.connection.execute(_SQL[statement], values)


def retry(connection: sqlite3.Connection, *, row: int, attempt: int, at: int, note: str) -> bool:
    """Make a REJECTED row PENDING."""
    return _decide(connection, "retry", RowEvent.RETRY, row, attempt, at, note)


def give_up(connection: sqlite3.Connection, *, row: int, attempt: int, at: int, note: str) -> bool:
    """Make a PENDING row REJECTED."""
    return _decide(connection, "give_up", RowEvent.GIVEN_UP, row, attempt, at, note)


def candidates(connection: sqlite3.Connection, *, row: int, execution_ids: list[str]) -> bool:
    """Write the candidates of a row in doubt."""
    values = {"id": row, "candidates": as_json(execution_ids)}
    return _changes(connection, "candidates", values)


def _decide(
    connection: sqlite3.Connection, statement: str, event: RowEvent, row: int, attempt: int, at: int, note: str
) -> bool:
    if not _changes(connection, statement, {"id": row, "attempt": attempt, "note": note}):
        return False
    decision = {"id": row, "attempt": attempt, "event": event.value, "at": at, "execution_id": None, "note": note}
    connection.execute(_SQL["decision"], decision)
    return True


def _check_free(connection: sqlite3.Connection, address: str, execution_id: str) -> None:
    connection.execute(_SQL["index_executions"])
    holder = connection.execute(_SQL["holder_of_execution"], {"execution_id": execution_id}).fetchone()
    if holder is not None:
        raise ExecutionClaimedError(address, execution_id, *holder)


def _changes(connection: sqlite3.Connection, statement: str, values: dict[str, Any]) -> bool:
    return connection.execute(_SQL[statement], values).rowcount == 1
