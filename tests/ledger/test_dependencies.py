"""Dependencies: the same in every ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2async.ledger import Ledger, LedgerError, ManifestChangedError, RowNotFoundError, RunNotFoundError, open_ledger
from tests.ledger.samples import rows

AFTER = {"key-3": ["key-1", "key-2"], "key-2": ["key-1"]}
IN_ORDER = {"key-2": ["key-1"], "key-3": ["key-1", "key-2"]}


async def plan(
    ledger: Ledger, after: Mapping[str, Sequence[str]] | None, *, count: int = 3, digest: str | None = None
) -> None:
    async with await ledger.open_run("run", digest=digest) as run:
        await run.plan(rows(count), after=after)


async def test_a_run_knows_its_dependencies_without_the_manifest(ledger: Ledger) -> None:
    await plan(ledger, AFTER)
    async with await ledger.open_run("run") as run:
        assert await run.dependencies() == IN_ORDER
    view = await ledger.run("run")
    assert list((await view.dependencies()).items()) == list(IN_ORDER.items())


async def test_a_run_without_dependencies_has_none(ledger: Ledger) -> None:
    await plan(ledger, None)
    async with await ledger.open_run("other") as run:
        await run.plan(rows(3), after=AFTER)
    assert await (await ledger.run("run")).dependencies() == {}


async def test_after_is_read_behind_the_rows(ledger: Ledger) -> None:
    after: dict[str, Sequence[str]] = {}
    async with await ledger.open_run("run") as run:
        await run.plan((after.update(AFTER) or row for row in rows(3)), after=after)
        assert await run.dependencies() == IN_ORDER


async def test_the_order_of_a_planned_run_does_not_change(ledger: Ledger) -> None:
    await plan(ledger, AFTER, digest="a")
    await plan(ledger, {"key-2": ["key-1"], "key-3": ["key-2", "key-1"]}, digest="b")
    for other in (None, {"key-2": ["key-1"]}, {**AFTER, "key-1": ["key-3"]}, {**AFTER, "key-2": ["key-3"]}):
        with pytest.raises(ManifestChangedError) as caught:
            await plan(ledger, other, digest="c")
        assert caught.value.changed_count in {1, 2}
    assert await (await ledger.run("run")).dependencies() == IN_ORDER


async def test_a_key_that_no_row_has_leaves_no_plan(ledger: Ledger) -> None:
    for after in ({"key-2": ["nosuch"]}, {"key-3": ["key-1", "nosuch"]}):
        with pytest.raises(RowNotFoundError, match="nosuch"):
            await plan(ledger, after)
        with pytest.raises(RunNotFoundError):
            await ledger.run("run")
    await plan(ledger, AFTER)
    assert await (await ledger.run("run")).dependencies() == IN_ORDER


async def test_a_check_that_fails_leaves_no_plan_and_one_that_passes_is_not_made_again(ledger: Ledger) -> None:
    checked: list[str] = []

    async def refuse() -> None:
        checked.append("refused")
        raise LedgerError("here", "no")

    async def accept() -> None:
        checked.append("accepted")

    async def plan_checked(check: object) -> None:
        async with await ledger.open_run("run", digest="a") as run:
            await run.plan(rows(3), after=AFTER, check=check)  # type: ignore[arg-type]

    for _ in range(2):
        with pytest.raises(LedgerError, match="no"):
            await plan_checked(refuse)
        with pytest.raises(RunNotFoundError):
            await ledger.run("run")
    await plan_checked(accept)
    await plan_checked(refuse)
    assert checked == ["refused", "refused", "accepted"]
    assert (await ledger.run("run")).info.rows == 3


async def test_a_check_that_fails_in_an_open_run_lets_it_be_planned_anew(ledger: Ledger) -> None:
    async def refuse() -> None:
        raise LedgerError("here", "no")

    async with await ledger.open_run("run") as run:
        with pytest.raises(LedgerError, match="no"):
            await run.plan(rows(3), check=refuse)
        assert (run.info.planned, await run.page()) == (False, [])
        await run.plan(rows(2), after={"key-2": ["key-1"]})
        assert [row.key for row in await run.page()] == ["key-1", "key-2"]


async def test_rows_are_found_by_their_keys_in_the_order_of_the_manifest(ledger: Ledger) -> None:
    await plan(ledger, None)
    view = await ledger.run("run")
    assert [row.number for row in await view.rows_of(["key-3", "key-1"])] == [1, 3]
    assert await view.rows_of([]) == []
    with pytest.raises(RowNotFoundError, match="nosuch"):
        await view.rows_of(["key-1", "nosuch"])


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(1, 6), st.sets(st.integers(1, 6), min_size=1, max_size=4)))
async def test_any_order_is_remembered_in_the_order_of_the_manifest(graph: dict[int, set[int]]) -> None:
    after = {f"key-{key}": [f"key-{other}" for other in others] for key, others in graph.items()}
    async with open_ledger("memory:") as ledger:
        await plan(ledger, after, count=6)
        found = await (await ledger.run("run")).dependencies()
    assert list(found.items()) == [
        (f"key-{key}", [f"key-{other}" for other in sorted(graph[key])]) for key in sorted(graph)
    ]
