"""The greatest return code of a success, for a run or for single rows: `--max-rc`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence

from m2async.cli.output import BAD_INPUT, fail, say
from m2async.errors import ConfigurationError
from m2async.ledger import LedgerRow, RowNotFoundError, Run, RunView
from m2async.service import RowNumber, StartBatchJob


def parse_rules(texts: Sequence[str]) -> dict[str | None, int]:
    """Read `--max-rc N` and `--max-rc KEY=N` options; that of the run has the key None."""
    rules: dict[str | None, int] = {}
    for text in texts:
        key, equals, number = text.rpartition("=")
        if not re.fullmatch("[0-9]{1,9}", number):
            fail(f"--max-rc {text}: must be a return code, such as 4, or KEY=4 for a single row", BAD_INPUT)
        if rules.setdefault(key if equals else None, int(number)) != int(number):
            fail(f"--max-rc {text}: another value was given before", BAD_INPUT)
    return rules


async def write_rules(view: RunView, rules: Mapping[str | None, int]) -> None:
    """Write the rules into the ledger: from now on they are the run's. With one of a row that is not there, none is."""
    for key in rules:
        if key is not None:
            await view.row(key)
    for key, max_rc in rules.items():
        await view.set_rule(max_rc, key)


class RuledRows:
    """The rules of a manifest's rows, and which rows of a run they are: those without keys are named by their numbers.

    A number in the manifest may be another in the run, where that took over the manifest's rows.
    """

    def __init__(self, rules: Mapping[str | None, int]) -> None:
        self._rules = rules
        self._missing = {key for key in rules if key is not None}
        self._numbers: dict[str, int] = {}  # of rows without keys

    def watch(self, rows: Iterator[tuple[str, StartBatchJob]]) -> Iterator[tuple[str, StartBatchJob]]:
        """Pass rows on as they are read, and take note of those that have a rule."""
        for row in rows:
            key, _ = row
            if key in self._missing:
                self._missing.remove(key)
                if isinstance(key, RowNumber):
                    self._numbers[str(key)] = int(key)
            yield row

    def check(self) -> None:
        """Raise ConfigurationError if the manifest, once it was read, has not all of the rows."""
        if self._missing:
            raise ConfigurationError(f"--max-rc {min(self._missing)}=…: the manifest has no row with this key")

    async def of_rows_in(self, run: Run) -> dict[str | None, int]:
        """Give the rules by the keys of the run's rows; says which rows are another run's, and have none."""
        given_as = await run.given_as(self._numbers.values())
        found: dict[str | None, int] = {}
        for key, max_rc in self._rules.items():
            if key is None:
                found[None] = max_rc
            elif (row := await self._row(run, key, given_as)) is not None:
                found[row.key] = max_rc
            else:
                say(f"m2async: --max-rc {key}={max_rc}: the row is left to another run, and so is its result")
        return found

    async def _row(self, run: Run, key: str, given_as: Mapping[int, int]) -> LedgerRow | None:
        if key in self._numbers:
            number = given_as.get(self._numbers[key])
            return None if number is None else (await run.page(after=number - 1, limit=1))[0]
        with contextlib.suppress(RowNotFoundError):
            return await run.row(key)
        return None
