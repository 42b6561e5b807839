"""The rows that a page carries: all of them and as they are, in a file that stays small."""

from __future__ import annotations

import gzip
import json
import random
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.ledger import HistoryEntry, LedgerRow, RowEvent, RowState, TrackedExecution
from m2async.report.table import Packed, Table
from m2async.service.requests import ScriptJob, StartBatchJob
from tests.report.nights import APPLICATION, BEGAN

SAFE = st.text(st.characters(exclude_categories=[]), min_size=1, max_size=30)


def request(script: str = "POSTTRAN") -> StartBatchJob:
    return StartBatchJob(APPLICATION, ScriptJob(script), {"SECRET": "personal data"})


def unpacked(packed: Packed) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(b64decode(packed.text)))
    return content


@given(st.lists(st.tuples(SAFE, SAFE, st.sampled_from(RowState)), max_size=20))
def test_texts_come_out_as_they_went_in(given_: list[tuple[str, str, RowState]]) -> None:
    table = Table(BEGAN, {})
    for number, (key, message, state) in enumerate(given_, 1):
        table.add(LedgerRow(number, key, request(), state, error_message=message, sent_at=BEGAN + number), None)
    content = unpacked(table.pack())
    columns, texts = content["columns"], content["texts"]

    def whole(text: str) -> str:  # what is no character cannot be in a file
        return text.encode(errors="replace").decode()

    assert columns["key"] == [whole(key) for key, _, _ in given_]
    assert [texts[at] for at in columns["message"]] == [whole(message) for _, message, _ in given_]
    assert columns["state"] == [state for _, _, state in given_]
    assert columns["sent"] == [number * 1_000 for number in range(1, len(given_) + 1)]


def test_parameters_are_not_carried() -> None:
    table = Table(BEGAN, {})
    table.add(LedgerRow(1, "key", request()), None)
    assert "personal data" not in json.dumps(unpacked(table.pack()))


def test_what_a_row_comes_after_and_its_candidates_are_carried() -> None:
    table = Table(BEGAN, {"b": ["a"]})
    for number, key in enumerate("ab", 1):
        table.add(LedgerRow(number, key, request(), RowState.UNKNOWN, candidates=("id",) * 30), None)
    content = unpacked(table.pack())
    assert content["after"] == {"1": ["a"]}
    assert {at: len(ids) for at, ids in content["candidates"].items()} == {"0": 20, "1": 20}


def test_what_happened_is_carried_of_the_rows_that_need_attention_up_to_a_number() -> None:
    table = Table(BEGAN, {})
    entry = HistoryEntry(1, RowEvent.UNKNOWN, BEGAN, BEGAN + 1, "ReadTimeout", "no answer")
    asked = 0
    for number in range(1, 2_001):
        row = LedgerRow(number, f"k{number}", request(), RowState.UNKNOWN if number > 500 else RowState.STARTED, 1)
        asks = table.asks_history(row, None)
        asked += asks
        table.add(row, None, [entry] if asks else [])
    content = unpacked(table.pack())
    assert asked == len(content["history"]) == 1_000
    [[at, what]] = content["history"]["500"]
    assert (at, content["texts"][what]) == (
        1_000,
        "call 1: not known whether it started the job; ReadTimeout: no answer",
    )


KEYS: dict[str, Callable[[int], str]] = {
    "usual": "2026-11-23/POSTTRAN/{:05}".format,
    "long": lambda number: f"{number}/{'region=eu-central-1/branch=0001/' * 15}{number}",
    "random": lambda number: "".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN", k=512)),
}


@pytest.mark.parametrize("kind", KEYS)
def test_ten_thousand_rows_take_less_than_1_7_million_characters(kind: str) -> None:
    draw = random.Random(1)
    table = Table(BEGAN, {})
    for number in range(1, 10_001):
        execution = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz234567", k=26))
        sent = BEGAN + number / 50 + draw.random()
        row = LedgerRow(
            number, KEYS[kind](number), request(), RowState.STARTED, 1, 0, sent, sent + draw.random(), execution,
            f"{draw.getrandbits(128):032x}",
        )  # fmt: skip
        tracked = TrackedExecution(
            number, row.key, APPLICATION, request().job, execution, 1, False, sent, "Succeeded", "0",
            sent + 1, sent + draw.random() * 100, ended=True,
        )  # fmt: skip
        table.add(row, tracked)
    packed = table.pack()
    assert len(packed.text) < 1_700_000
    assert (packed.cut == 10_000) == (kind != "random")
    assert len(unpacked(packed)["columns"]["key"]) == 10_000


def test_hostile_lengths_do_not_make_the_file_large() -> None:
    table = Table(BEGAN, {})
    for number in range(1, 1_001):
        message = "".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyz", k=10_000))
        row = LedgerRow(number, f"k{number}", request(message), RowState.REJECTED, 1, error_message=message)
        table.add(row, None)
    packed = table.pack()
    assert len(packed.text) < 1_000_000
    assert packed.cut == 100


def test_of_too_many_rows_the_first_are_carried_and_of_the_others_those_that_need_attention() -> None:
    table = Table(BEGAN, {}, most=100)
    for number in range(1, 1_001):
        state = RowState.UNKNOWN if number % 200 == 0 else RowState.STARTED
        table.add(LedgerRow(number, f"k{number}", request(), state, 1), None)
    numbers = unpacked(table.pack())["columns"]["number"]
    assert numbers == [*range(1, 91), 200, 400, 600, 800, 1_000]
    assert (len(table), table.seen) == (95, 1_000)
