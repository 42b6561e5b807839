"""The axes of a sweep: lists and ranges of numbers or dates, and their product, none of them ever held whole."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import TypeVar

from m2async.manifest.rows import RowProblem, shown
from m2async.manifest.yaml_nodes import List, Map, Node, Scalar

EVERY = ("day", "weekday", "week", "month", "month-end")
T = TypeVar("T")

_NUMBER_FIELDS = ("from", "to", "step", "width")
_DATE_FIELDS = ("from", "to", "every", "format")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_MAX_WIDTH = 1_024  # BatchParamValue


class AxisError(Exception):
    """An axis that cannot be swept: where, and why; the fault's column is a path within the axis."""

    def __init__(self, line: int, path: str, reason: str) -> None:
        super().__init__(line, path, reason)
        self.line = line
        self.fault: RowProblem = RowProblem(path, reason)


class Axis(Iterable[str]):
    """Values to sweep over, at least one; each iteration begins anew."""

    def __init__(self, line: int) -> None:
        self.line = line

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    def line_of(self, value: str) -> int:
        """Give the line that a value stands on."""
        return self.line


class ListAxis(Axis):
    """Values that are written one by one."""

    def __init__(self, line: int, items: Sequence[Scalar]) -> None:
        super().__init__(line)
        self._items = items

    def __iter__(self) -> Iterator[str]:
        return (item.text for item in self._items if item.text is not None)

    def line_of(self, value: str) -> int:
        return next((item.line for item in self._items if item.text == value), self.line)


class NumberAxis(Axis):
    """Integers, with zeros in front up to a width of characters."""

    def __init__(self, line: int, numbers: range, width: int) -> None:
        super().__init__(line)
        self._numbers = numbers
        self._width = width

    def __iter__(self) -> Iterator[str]:
        return (str(number).zfill(self._width) for number in self._numbers)


class DateAxis(Axis):
    """Dates from one to another, both included, in a format of %Y, %y, %m, %d, %j and %%.

    `month` gives the first date's day of each month, or a shorter month's last day; `week` every seventh
    day; `weekday` Monday to Friday.
    """

    def __init__(self, line: int, first: date, last: date, every: str, form: str) -> None:
        super().__init__(line)
        self._first, self._last, self._every, self._form = first, last, every, form

    def __iter__(self) -> Iterator[str]:
        return (format_date(day, self._form) for day in self._dates())

    def _dates(self) -> Iterator[date]:
        if self._every in ("month", "month-end"):
            yield from self._months()
            return
        days = range(self._first.toordinal(), self._last.toordinal() + 1, 7 if self._every == "week" else 1)
        for day in map(date.fromordinal, days):
            if self._every != "weekday" or day.weekday() < 5:
                yield day

    def _months(self) -> Iterator[date]:
        first, last = self._first, self._last
        for index in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
            year, month = index // 12, index % 12 + 1
            length = calendar.monthrange(year, month)[1]
            day = date(year, month, length if self._every == "month-end" else min(first.day, length))
            if day <= last:
                yield day


def parse_axis(node: Node) -> Axis:
    """Make the axis that a list of texts, or a mapping with `from` and `to`, describes; raise AxisError."""
    if isinstance(node, List):
        return _list_axis(node)
    if isinstance(node, Scalar):
        raise AxisError(node.line, "", f"{shown(node.text)}: must be a list or a range with from and to")
    fields = _range_fields(node)
    texts = fields["from"].text, fields["to"].text
    if all(text is not None and _NUMBER.fullmatch(text) for text in texts):
        return _number_axis(node, fields)
    if any(text is not None and _DATE.fullmatch(text) for text in texts):
        return _date_axis(node, fields)
    raise AxisError(
        node.line, "", f"from {shown(texts[0])} to {shown(texts[1])}: must be two integers or two dates (YYYY-MM-DD)"
    )


def product(axes: Sequence[Iterable[T]]) -> Iterator[tuple[T, ...]]:
    """Give what itertools.product gives, in its order, but iterate over the axes again instead of keeping them."""
    wheels = [iter(axis) for axis in axes]
    try:
        values = [next(wheel) for wheel in wheels]
    except StopIteration:
        return
    while True:
        yield tuple(values)
        for position in reversed(range(len(axes))):
            for value in wheels[position]:
                values[position] = value
                break
            else:
                wheels[position] = iter(axes[position])
                values[position] = next(wheels[position])
                continue
            break
        else:
            return


def format_date(day: date, form: str) -> str:
    """Write a date as strftime does, but the same on every platform: %Y, %y, %m, %d, %j and %%."""
    values = {
        "Y": f"{day.year:04d}",
        "y": f"{day.year % 100:02d}",
        "m": f"{day.month:02d}",
        "d": f"{day.day:02d}",
        "j": f"{day.timetuple().tm_yday:03d}",
        "%": "%",
    }
    return _DIRECTIVE.sub(lambda match: values[match[1]], form)


def _list_axis(node: List) -> Axis:
    if not node.items:
        raise AxisError(node.line, "", "the list is empty: give at least one value")
    items = []
    for number, item in enumerate(node.items, 1):
        if not isinstance(item, Scalar) or item.text is None:
            raise AxisError(item.line, "", f"value {number} of the list must be a text")
        items.append(item)
    return ListAxis(node.line, items)


def _range_fields(node: Map) -> dict[str, Scalar]:
    fields = {}
    known = dict.fromkeys(_NUMBER_FIELDS + _DATE_FIELDS)
    for name, value in node.entries.items():
        if name not in known:
            raise AxisError(value.line, name, f"is no field of a range; known are {', '.join(known)}")
        if not isinstance(value, Scalar):
            raise AxisError(value.line, name, "must be a text")
        if value.text is not None:
            fields[name] = value
    for name in ("from", "to"):
        if name not in fields:
            raise AxisError(node.line, name, "is missing: a range needs from and to")
    return fields


def _number_axis(node: Map, fields: Mapping[str, Scalar]) -> Axis:
    _only(fields, _NUMBER_FIELDS, "numbers")
    first, last = (_integer(fields, name) for name in ("from", "to"))
    step = _integer(fields, "step") if "step" in fields else 1
    width = _integer(fields, "width") if "width" in fields else 0
    if step <= 0:
        raise AxisError(fields["step"].line, "step", f"{step}: must be at least 1")
    if "width" in fields and not 1 <= width <= _MAX_WIDTH:
        raise AxisError(fields["width"].line, "width", f"{width}: must be 1 to {_MAX_WIDTH:,} characters")
    if first > last:
        raise AxisError(fields["from"].line, "from", f"{first}: must not be greater than to, {last}")
    for name in ("from", "to"):
        text = fields[name].text or ""
        if not width and text != str(int(text)):
            reason = f"{shown(text)}: has leading zeros, so give the width of the values as well (width: {len(text)})"
            raise AxisError(fields[name].line, name, reason)
    return NumberAxis(node.line, range(first, last + 1, step), width)


def _date_axis(node: Map, fields: Mapping[str, Scalar]) -> Axis:
    _only(fields, _DATE_FIELDS, "dates")
    first, last = (_date(fields, name) for name in ("from", "to"))
    if first > last:
        raise AxisError(fields["from"].line, "from", f"{first}: must not be later than to, {last}")
    every = fields["every"].text if "every" in fields else "day"
    if every not in EVERY:
        raise AxisError(fields["every"].line, "every", f"{shown(every)}: must be one of {', '.join(EVERY)}")
    form = "%Y-%m-%d"
    if "format" in fields:
        form = fields["format"].text or ""
        if not all(letter in set("Yymdj%") for letter in _DIRECTIVE.findall(form)):
            reason = f"{shown(form)}: only %Y, %y, %m, %d, %j and %% are known"
            raise AxisError(fields["format"].line, "format", reason)
    axis = DateAxis(node.line, first, last, every, form)
    if next(iter(axis), None) is None:
        raise AxisError(node.line, "every", f"there is no {every} from {first} to {last}")
    return axis


def _only(fields: Mapping[str, Scalar], known: Sequence[str], what: str) -> None:
    for name, value in fields.items():
        if name not in known:
            raise AxisError(value.line, name, f"is no field of a range of {what}; known are {', '.join(known)}")


def _integer(fields: Mapping[str, Scalar], name: str) -> int:
    text = fields[name].text or ""
    if not _NUMBER.fullmatch(text):
        raise AxisError(fields[name].line, name, f"{shown(text)}: must be an integer")
    return int(text)


def _date(fields: Mapping[str, Scalar], name: str) -> date:
    text = fields[name].text or ""
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise AxisError(fields[name].line, name, f"{shown(text)}: must be a date (YYYY-MM-DD) of the calendar")
