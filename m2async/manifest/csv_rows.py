"""CSV manifests: a header of column names, then a job a record (RFC 4180, with LF or CRLF)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import compress

from m2async.errors import ManifestError, ManifestProblem
from m2async.manifest.rows import (
    COLUMNS,
    JOB_COLUMNS,
    MAX_FAULTS,
    PARAM,
    Fault,
    Keys,
    ManifestRow,
    RequestMaker,
    RowError,
    param_faults,
    problem,
    unknown_column,
)
from m2async.manifest.source import MAX_LINE, Source, decoded, too_long

_MAX_COLUMNS = 1_000  # twice what a job can take

_REASONS = {  # by what csv.Error says
    "unexpected end of data": "a quoted field that begins in this row is still open at the end of the file",
    "new-line character": "a carriage return stands outside quotes: end lines with LF or CRLF, or quote the field",
    "field larger": "a field has more than {limit:,} characters: is a quote not closed?",
    "expected after": "text follows a closing quote: write a quote within a quoted field twice",
}


def csv_rows(source: Source, maker: RequestMaker) -> Iterator[ManifestRow | ManifestError]:
    """Give each record as a row, or as the error that it is; an empty cell counts as not given.

    A record's line is the one that it begins on. Raises ManifestError where nothing further can be read.
    """
    records = _Records(source)
    header = next(records, None)
    if header is None:
        return
    if isinstance(header, ManifestError):
        raise header
    columns = _Columns(header, records.line, source, maker)
    if columns.lack_application:
        yield columns.lack_application
        maker = RequestMaker("missing", maker.params)  # so that the rows' other problems show
    keys = Keys()
    for number, cells in enumerate(records, 1):
        if isinstance(cells, ManifestError):
            yield cells
            continue
        try:
            fields, params = columns.fields(cells)
            key = fields.pop("key", None)
            if columns.has_key:
                key = keys.take(key or str(number), records.line)
            yield ManifestRow(key or str(number), maker.request(fields, params))
        except RowError as error:
            yield error.at(source.name, records.line)


class _Records(Iterator["list[str] | ManifestError"]):
    """The records that are not blank, each a list of cells, or the error that it is; `line` is where it begins."""

    def __init__(self, source: Source) -> None:
        self.line = 0
        self._source = source
        self._size = 0
        self._problems: list[ManifestProblem] = []  # in the lines of the record that is being read
        self._reader = csv.reader(self._lines(), strict=True)

    def __next__(self) -> list[str] | ManifestError:
        cells: list[str] = []
        while not cells:
            self.line = self._reader.line_num + 1
            self._size = 0
            self._problems.clear()
            try:
                cells = next(self._reader)
            except csv.Error as error:
                if not self._problems:
                    return self._source.error(self.line, _reason(str(error)))
            if self._problems:
                return ManifestError(self._problems)
        return cells

    def _lines(self) -> Iterator[str]:
        for number, line in enumerate(self._source.lines(), 1):
            if line is None:
                self._note(number, too_long("line"))
                yield "\n"
                continue
            blank = not self._size and not line.strip(b" \t\r\n")
            self._size += len(line)
            if self._size > MAX_LINE:
                raise self._source.error(self.line, too_long("row"))
            text, fault = decoded(line)
            if fault:
                self._note(number, fault)
            yield "\n" if blank else text

    def _note(self, line: int, reason: str) -> None:
        if len(self._problems) < MAX_FAULTS:
            self._problems.append(problem(self._source.name, line, None, reason))


class _Columns:
    """The header, bound once: which cell is which field."""

    def __init__(self, header: list[str], line: int, source: Source, maker: RequestMaker) -> None:
        faults = list(_header_faults(header))
        if faults:
            raise RowError(*faults).at(source.name, line)
        self._count = len(header)
        self._is_param = [name.startswith(PARAM) for name in header]
        self._is_field = [not is_param for is_param in self._is_param]
        self._fields = list(compress(header, self._is_field))
        self._params = [name.removeprefix(PARAM) for name in compress(header, self._is_param)]
        self.has_key = "key" in header
        self.lack_application: ManifestError | None = None
        if maker.application_id is None and "application_id" not in header:
            reason = "is missing: add this column or give one application for all rows (-a APPLICATION)"
            self.lack_application = source.error(line, reason, "application_id")

    def fields(self, cells: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
        if len(cells) != self._count:
            reason = f"{len(cells)} fields, but the header has {self._count} columns: is a comma missing or not quoted?"
            raise RowError(Fault(None, reason))
        fields = {name: cell for name, cell in zip(self._fields, compress(cells, self._is_field), strict=True) if cell}
        params = {name: cell for name, cell in zip(self._params, compress(cells, self._is_param), strict=True) if cell}
        return fields, params


def _header_faults(header: Sequence[str]) -> Iterator[Fault]:
    if len(header) > _MAX_COLUMNS:
        yield Fault(None, f"{len(header):,} columns: at most {_MAX_COLUMNS:,} are allowed")
        return
    seen: set[str] = set()
    for name in header:
        if name in seen:
            yield Fault(name, "is given twice: keep one of the columns")
        elif name.startswith(PARAM):
            yield from param_faults({name.removeprefix(PARAM): ""}, PARAM)
        elif not name:
            yield Fault(None, f"column {len(seen) + 1} of the header has no name")
        elif len(header) == 1 and (";" in name or "\t" in name):
            yield Fault(name, "is no column: separate columns with commas")
        elif name not in COLUMNS:
            yield unknown_column(name)
        seen.add(name)
    if not seen.intersection(JOB_COLUMNS) and all(name in COLUMNS or name.startswith(PARAM) for name in seen):
        yield Fault(None, "no column names the job: add one of script, file, s3_bucket and restart_execution_id")


def _reason(message: str) -> str:
    found = next((reason for begin, reason in _REASONS.items() if begin in message), message)
    return found.format(limit=csv.field_size_limit())
