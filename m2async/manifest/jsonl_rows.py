"""JSONL manifests: a JSON object a line, with the columns' names or in the service's own shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from m2async.errors import ManifestError
from m2async.manifest.dependencies import Dependencies
from m2async.manifest.keys import Keys
from m2async.manifest.rows import ManifestRow, Number, RequestMaker, RowError, RowProblem, shown, split_fields
from m2async.manifest.source import Source, decoded, too_long
from m2async.service import RowNumber, StartBatchJob


def jsonl_rows(
    source: Source, maker: RequestMaker, keys: Keys, dependencies: Dependencies
) -> Iterator[ManifestRow | ManifestError]:
    """Give each line that is not blank as a row, or as the error that it is; null counts as not given."""
    number = 0
    for line, raw in enumerate(source.lines(), 1):
        if raw is not None and raw.isspace():
            continue
        number += 1
        try:
            members = _object(raw)
            key, after = members.pop("key", None), members.pop("after", None)
            key = keys.take(RowNumber(number) if key is None else key, line)
            if after is not None:
                dependencies.note(key, line, after)
            yield ManifestRow(key, _request(members, maker))
        except RowError as error:
            yield error.at(source.name, line)
        except RecursionError:  # in the decoder, or where a value is shown
            yield source.error(line, "is nested too deeply")


def _request(members: dict[str, Any], maker: RequestMaker) -> StartBatchJob:
    if "batchJobIdentifier" in members or "applicationId" in members:
        return maker.request_from_api(members)
    fields, params, faults = split_fields(members)
    if faults:
        raise RowError(*faults)
    return maker.request(fields, params)


def _object(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        raise RowError(RowProblem(None, too_long("line")))
    text, fault = decoded(raw)
    if fault:
        raise RowError(RowProblem(None, fault))
    try:
        members = _DECODER.decode(text.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        reason = f"not valid JSON at character {error.pos + 1}: {error.msg}; each line must be one whole JSON object"
        raise RowError(RowProblem(None, reason)) from None
    if not isinstance(members, dict):
        raise RowError(RowProblem(None, f"{shown(members)}: each line must be one JSON object, {{…}}"))
    return members


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise RowError(RowProblem(twice, "is given twice in one JSON object: keep one"))
    return members


def _integer(text: str) -> int | Number:
    return int(text) if len(text) <= 18 else Number(text)


def _refuse(text: str) -> NoReturn:
    raise RowError(RowProblem(None, f"not valid JSON: {text} is no JSON value"))


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_int=_integer, parse_float=Number, parse_constant=_refuse)
