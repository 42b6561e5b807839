from __future__ import annotations

from pathlib import Path

import pytest

from m2async.ledger import LedgerAddressError, LedgerNotFoundError, NotALedgerError, open_ledger
from tests.ledger.samples import files_in, planned


async def test_each_ledger_in_memory_has_its_own_runs() -> None:
    async with open_ledger("memory:") as one, planned(one):
        async with open_ledger("memory:") as other:
            assert await other.runs() == []
            async with planned(other, 5) as run:  # of the same name
                await run.intend(5, 1, 1.0)
        assert [summary.info.rows for summary in await one.runs()] == [3]
    async with open_ledger("memory:") as later:
        assert await later.runs() == []


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
async def test_a_path_names_a_file(path: Path, form: str) -> None:
    async with open_ledger(form.format(path)) as ledger, planned(ledger):
        assert files_in(path.parent) >= {"ledger.db"}
    async with open_ledger(path) as ledger:
        assert len(await ledger.runs()) == 1


async def test_a_relative_path_is_relative_in_either_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("a b%20?c#.db", "sqlite:///2.db"):
        async with open_ledger(address) as ledger, planned(ledger):
            pass
    assert files_in(tmp_path) == {"a b%20?c#.db", "2.db"}


@pytest.mark.parametrize("address", ["postgresql://host/db", "redis:x", "sqlite:nightly.db", "sqlite:////", "memory"])
async def test_what_names_no_ledger_is_refused(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if address == "memory":  # a file of this name
        async with open_ledger(address):
            assert "memory" in files_in(tmp_path)
        return
    with pytest.raises((LedgerAddressError, NotALedgerError)):
        async with open_ledger(address):
            pass


async def test_an_empty_address_is_refused() -> None:
    for address in ("", "sqlite:///"):
        with pytest.raises(LedgerAddressError, match="is empty"):
            async with open_ledger(address):
                pass


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (":memory:", "give memory:"),
        (":MEMORY:", "give memory:"),
        ("Memory:", "give memory:"),
        (Path(":memory:"), "give memory:"),
        (Path("memory:"), "give memory:"),
        ("sqlite:///:memory:", "give memory:"),
        ("sqlite:///memory:", "give memory:"),
        ("file::memory:?cache=shared", "give memory:"),
        ("memory:?cache=shared", "no ledgers of the kind memory:"),
        ("sqlite://", "no ledgers of the kind sqlite:"),
        ("sqlite://nightly.db", "no ledgers of the kind sqlite:"),
        ("file:nightly.db?mode=ro", "no ledgers of the kind file:"),
        ("sqlite:///nightly.db?mode=ro", "options behind a question mark"),
        ("  ", "is empty"),
        ("night\0ly.db", "as a line break"),
        ("night\nly.db", r"'night\\nly.db'.*as a line break"),
        ("night\udcffly.db", "as a line break"),
    ],
)
async def test_an_address_of_another_form_is_refused_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | Path, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LedgerAddressError, match=told):
        async with open_ledger(address) as ledger, planned(ledger):
            pass
    assert files_in(tmp_path) == set()


async def test_a_file_may_be_called_as_a_ledger_in_memory_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_ledger("./memory:") as ledger, planned(ledger):
        pass
    assert files_in(tmp_path) == {"memory:"}


async def test_a_ledger_that_must_exist_is_not_made(path: Path) -> None:
    with pytest.raises(LedgerNotFoundError, match="does not exist"):
        async with open_ledger(path, must_exist=True):
            pass
    assert files_in(path.parent) == set()
    async with open_ledger(path) as ledger, planned(ledger):
        pass
    async with open_ledger(path, must_exist=True):
        pass


async def test_a_directory_that_there_is_not_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerNotFoundError, match="there is no directory"):
        async with open_ledger(tmp_path / "none" / "ledger.db"):
            pass
    assert files_in(tmp_path) == set()
