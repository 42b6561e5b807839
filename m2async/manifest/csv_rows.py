"""CSV manifests: a header of column names, then a job a record (RFC 4180, with LF or CRLF)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from operator import itemgetter

from m2async.errors import ManifestError, ManifestProblem
from m2async.manifest.dependencies import Dependencies
from m2async.manifest.keys import Keys
from m2async.manifest.rows import (
    COLUMNS,
    JOB_COLUMNS,
    MAX_FAULTS,
    PARAM,
    ManifestRow,
    RequestMaker,
    RowError,
    RowProblem,
    param_faults,
    problem,
    unknown_column,
)
from m2async.manifest.source import MAX_LINE, Source, decoded, too_long
from m2async.service import MAX_PARAM_VALUE, MAX_PARAMS, RowNumber, StartBatchJob

_MAX_COLUMNS = 1_000  # twice what a job can take
_MAX_TEMPLATES = 1_024
_BLANK = " \t\r\n"

_REASONS = {  # by what csv.Error says
    "unexpected end of data": "a quoted field that begins in this row is still open at the end of the file",
    "new-line character": "a carriage return stands outside quotes: end lines with LF or CRLF, or quote the field",
    "field larger": "a field has more than {limit:,} characters: is a quote not closed?",
    "expected after": "text follows a closing quote: write a quote within a quoted field twice",
}


def csv_rows(
    source: Source, maker: RequestMaker, keys: Keys, dependencies: Dependencies
) -> Iterator[ManifestRow | ManifestError]:
    """Give each record as a row, or as the error that it is; an empty cell counts as not given.

    A record's line is the one that it begins on. Raises ManifestError where nothing further can be read.
    """
    reader = _RecordReader(source)
    records = reader.records()
    line, header = next(records, (0, None))
    if header is None:
        return
    if isinstance(header, ManifestError):
        raise header
    columns = _Columns(header, line, source, maker)
    if columns.lack_application:
        yield columns.lack_application
    take, request, count, key_at, after_at = keys.take, columns.request, len(header), columns.key_at, columns.after_at
    only_numbered = key_at is None and after_at is None and not keys.numbers
    for number, (line, cells) in enumerate(records, 1):
        if isinstance(cells, ManifestError):
            yield cells
            continue
        try:
            if len(cells) != count:
                raise RowError(_miscounted(cells, count))
            if only_numbered:
                yield ManifestRow(RowNumber(number), request(cells, short=reader.short))
                continue
            key = take((key_at is not None and cells[key_at]) or RowNumber(number), line)
            if after_at is not None and cells[after_at]:
                dependencies.note(key, line, cells[after_at])
            yield ManifestRow(key, request(cells, short=reader.short))
        except RowError as error:
            yield error.at(source.name, line)


class _RecordReader:
    """Reads records that are not blank.

    Lines that come together and are a record each are parsed together, others one by one. While `short`, no
    line is longer than a parameter's value may be.
    """

    def __init__(self, source: Source) -> None:
        self.short = False
        self._source = source
        self._blocks = source.blocks()
        self._block: list[bytes | None] = []
        self._at = 0  # of the block, how many lines are read
        self._line = 0  # and of the manifest
        self._size = 0
        self._problems: list[ManifestProblem] = []  # in the lines of the record that is being read
        self._one_by_one = csv.reader(self._lines(), strict=True)

    def records(self) -> Iterator[tuple[int, list[str] | ManifestError]]:
        """Give each record's cells, or the error that it is, behind the line that it begins on."""
        while self._next_block():
            records = self._together()
            if records is not None:
                yield from records
                continue
            self.short = False
            while self._at < len(self._block):
                line = self._line + 1
                cells = self._one()
                if cells:
                    yield line, cells

    def _next_block(self) -> bool:
        self._block, self._at = next(self._blocks, []), 0
        return bool(self._block)

    # Together

    def _together(self) -> Iterator[tuple[int, list[str]]] | None:
        """Give the block's records if each of its lines is one."""
        try:
            text = b"".join(self._block).decode()  # type: ignore[arg-type] # a line that is None is a TypeError
            lines = StringIO(text, newline="\n").readlines()
            records = list(csv.reader(lines, strict=True))
        except (TypeError, UnicodeDecodeError, csv.Error):
            return None
        if len(records) != len(lines) or "\0" in text:
            return None
        self.short = max(map(len, lines)) <= MAX_PARAM_VALUE
        numbered = enumerate(records, self._line + 1)
        self._line += len(lines)
        return ((line, cells) for line, cells in numbered if len(cells) > 1 or (cells and cells[0].strip(_BLANK)))

    # One by one

    def _one(self) -> list[str] | ManifestError:
        line = self._line + 1
        self._size = 0
        self._problems.clear()
        cells: list[str] = []
        try:
            cells = next(self._one_by_one)
        except csv.Error as error:
            if not self._problems:
                return self._source.error(line, _reason(str(error)))
        return ManifestError(self._problems) if self._problems else cells

    def _lines(self) -> Iterator[str]:
        """Give the lines of the block, and of those behind it that its last record goes on in."""
        begin = 0
        while self._at < len(self._block) or self._next_block():
            line = self._block[self._at]
            self._at += 1
            self._line += 1
            if line is None:
                self._note(too_long("line"))
                yield "\n"
                continue
            if not self._size:
                begin = self._line
            blank = not self._size and not line.strip(b" \t\r\n")
            self._size += len(line)
            if self._size > MAX_LINE:
                raise self._source.error(begin, too_long("row"))
            text, fault = decoded(line)
            if fault:
                self._note(fault)
            yield "\n" if blank else text

    def _note(self, reason: str) -> None:
        if len(self._problems) < MAX_FAULTS:
            self._problems.append(problem(self._source.name, self._line, None, reason))


class _Columns:
    """The header, bound once: which cell is which field."""

    def __init__(self, header: list[str], line: int, source: Source, maker: RequestMaker) -> None:
        faults = list(_header_faults(header))
        if faults:
            raise RowError(*faults).at(source.name, line)
        self.lack_application: ManifestError | None = None
        if maker.application_id is None and "application_id" not in header:
            reason = "is missing: add this column or give one application for all rows (-a APPLICATION)"
            self.lack_application = source.error(line, reason, "application_id")
            maker = RequestMaker("missing", maker.params)  # so that the rows' other problems show
        self._maker = maker
        self.key_at = header.index("key") if "key" in header else None
        self.after_at = header.index("after") if "after" in header else None
        params = [position for position, name in enumerate(header) if name.startswith(PARAM)]
        fields = [position for position in range(len(header)) if position not in {self.key_at, self.after_at, *params}]
        self._fields = [header[position] for position in fields]
        self._params = [header[position].removeprefix(PARAM) for position in params]
        self._cells_of_fields = _picker(fields)
        self._cells_of_params = _picker(params)
        self._few_params = len({*self._params, *maker.params}) <= MAX_PARAMS
        self._templates: dict[tuple[str, ...], StartBatchJob] = {}

    def request(self, cells: Sequence[str], *, short: bool) -> StartBatchJob:
        """Make the record's request; where `short`, no cell has more characters than a parameter's value may have."""
        given = self._cells_of_params(cells)
        params = dict(zip(self._params, given))  # noqa: B905 - they are as many, and to check that takes its time
        if "" in given:
            params = {name: cell for name, cell in params.items() if cell}
        named = self._cells_of_fields(cells)
        if not (short and self._few_params):
            return self._maker.request(self._given(named), params)
        # Nothing can be wrong with the parameters: names were checked in the header, and the text is valid UTF-8.
        template = self._templates.get(named)
        if template is None:
            template = self._maker.request(self._given(named), params)
            if len(self._templates) == _MAX_TEMPLATES:
                self._templates.clear()
            self._templates[named] = template
        if self._maker.params:
            params.update(self._maker.params)
        return StartBatchJob.of_checked(
            template.application_id, template.job, params, template.auth_secrets_manager_arn
        )

    def _given(self, cells: Iterable[str]) -> dict[str, str]:
        return {name: cell for name, cell in zip(self._fields, cells, strict=True) if cell}


def _miscounted(cells: Sequence[str], count: int) -> RowProblem:
    reason = f"{len(cells)} fields, but the header has {count} columns: is a comma missing or not quoted?"
    return RowProblem(None, reason)


def _picker(positions: Sequence[int]) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """Make what picks the cells at these positions."""
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda cells: tuple(cells[position] for position in positions)


def _header_faults(header: Sequence[str]) -> Iterator[RowProblem]:
    if len(header) > _MAX_COLUMNS:
        yield RowProblem(None, f"{len(header):,} columns: at most {_MAX_COLUMNS:,} are allowed")
        return
    seen: set[str] = set()
    for name in header:
        if name in seen:
            yield RowProblem(name, "is given twice: keep one of the columns")
        elif name.startswith(PARAM):
            yield from param_faults({name.removeprefix(PARAM): ""}, PARAM)
        elif not name:
            yield RowProblem(None, f"column {len(seen) + 1} of the header has no name")
        elif len(header) == 1 and (";" in name or "\t" in name):
            yield RowProblem(name, "is no column: separate columns with commas")
        elif name not in COLUMNS:
            yield unknown_column(name)
        seen.add(name)
    if not seen.intersection(JOB_COLUMNS) and all(name in COLUMNS or name.startswith(PARAM) for name in seen):
        yield RowProblem(None, "no column names the job: add one of script, file, s3_bucket and restart_execution_id")


def _reason(message: str) -> str:
    found = next((reason for begin, reason in _REASONS.items() if begin in message), message)
    return found.format(limit=csv.field_size_limit())
