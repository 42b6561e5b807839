"""What the logs of executions may tell of rows that share candidates: the values by which the rows differ."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from m2async.ledger import LedgerRow

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Telling(NamedTuple):
    """A parameter of a row that not all rows with the same candidates have with this value."""

    key: str
    parameter: str
    value: str


class LogEvidence:
    """Looks for values in what candidates logged.

    `application_of` and `tellings_of` are those of each candidate, by its id; a value counts as a whole word.
    """

    def __init__(self, rows: Sequence[LedgerRow]) -> None:
        self.application_of: dict[str, str] = {
            candidate: row.request.application_id for row in rows for candidate in row.candidates
        }
        self.tellings_of: dict[str, list[Telling]] = defaultdict(list)
        for group in _sharing(rows):
            tellings = _tellings(group)
            for row in group:
                for candidate in row.candidates:
                    self.tellings_of[candidate] += tellings[row.key]
        values = {telling.value for tellings in self.tellings_of.values() for telling in tellings}
        self._words = {value: re.compile(rf"(?<!\w){re.escape(value)}(?!\w)") for value in values}

    def found(self, candidate: str, line: str) -> Iterator[Telling]:
        """Give what a line that a candidate logged tells."""
        line = _COLOURS.sub(" ", line)
        for telling in self.tellings_of[candidate]:
            if telling.value in line and self._words[telling.value].search(line):
                yield telling


def _sharing(rows: Sequence[LedgerRow]) -> list[list[LedgerRow]]:
    """Put together the rows that share candidates, directly or by way of others."""
    rows_of: dict[str, list[LedgerRow]] = defaultdict(list)
    for row in rows:
        for candidate in row.candidates:
            rows_of[candidate].append(row)
    groups, done = list[list[LedgerRow]](), set[int]()
    for first in rows:
        if first.number in done:
            continue
        group, reached = list[LedgerRow](), [first]
        while reached:
            row = reached.pop()
            if row.number not in done:
                done.add(row.number)
                group.append(row)
                reached += [other for candidate in row.candidates for other in rows_of[candidate]]
        groups.append(sorted(group, key=lambda row: row.number))
    return groups


def _tellings(group: Sequence[LedgerRow]) -> Mapping[str, list[Telling]]:
    """Give the parameters in which rows differ, with the value of each; a row alone has all of its own."""
    names = dict.fromkeys(name for row in group for name in row.request.params)
    values = {name: {row.request.params.get(name) for row in group} for name in names}
    return {
        row.key: [
            Telling(row.key, name, value)
            for name in names
            if (len(values[name]) > 1 or len(group) == 1) and (value := row.request.params.get(name))
        ]
        for row in group
    }
