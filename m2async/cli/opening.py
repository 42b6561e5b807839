"""Which run a manifest goes on with: the one that has its rows, one that takes them over, or a new one."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from m2async.cli.manifests import Manifest
from m2async.cli.output import BAD_INPUT, fail, say
from m2async.ledger import (
    ChangeKind,
    Differences,
    DuplicateKeyError,
    Ledger,
    RowChange,
    Run,
    RunInfo,
    RunNotFoundError,
    is_finished,
    may_amend,
)
from m2async.texts import moment, plural

_WORDS = {ChangeKind.ADDED: "added", ChangeKind.REMOVED: "removed", ChangeKind.CHANGED: "changed"}


class Wish(NamedTuple):
    """What the user says of the run: its name, whether it takes over other rows, whether all is to start anew.

    If options name rows, `names_rows`, the manifest is read in any case: a row's number in the run may be another.
    """

    name: str | None = None
    amend: bool = False
    again: bool = False
    names_rows: bool = False


class Readers(NamedTuple):
    """What reads the manifest's rows into a run, and what checks, before they count, what they name and where."""

    give: Callable[[Run], Awaitable[None]]
    check: Callable[[Run], Awaitable[None]]


async def open_run(
    stack: contextlib.AsyncExitStack,
    ledger: Ledger,
    manifest: Manifest,
    wish: Wish,
    readers: Readers,
    *,
    rehearsal: bool,
) -> Run:
    """Open the run of a manifest, with its rows; ends the command where other rows were, or may have been, started."""
    run = await _with_these_rows(stack, ledger, manifest, wish, rehearsal=rehearsal)
    if run is not None:
        return run
    name = wish.name or await _free_name(ledger, manifest.run_name())
    run = given = await _open(stack, ledger, name, manifest)
    if given.info.has_rows and _is_settled(given.info, manifest, wish):  # another process was first
        return given
    await readers.give(given)
    if not given.info.has_rows:
        kin = await _kin(stack, ledger, given, manifest, wish, rehearsal=rehearsal)
        if kin is None:
            await readers.check(given)
        while kin is None:
            if await given.amend(given):
                return given
            kin = await _kin(stack, ledger, given, manifest, wish, rehearsal=rehearsal)  # with what came meanwhile
        run = await _of_its_digest(stack, ledger, given, kin, manifest, wish, rehearsal=rehearsal)
    await _take_over(ledger, run, given, manifest, wish, readers, rehearsal=rehearsal)
    if given is not run:
        await given.aclose()
    return run


async def _with_these_rows(
    stack: contextlib.AsyncExitStack, ledger: Ledger, manifest: Manifest, wish: Wish, *, rehearsal: bool
) -> Run | None:
    """Open the run that has this very manifest's rows, unless all of it is to start anew."""
    if wish.name is None:
        found = await ledger.last_of(manifest.digest)
        if found is not None and not _is_alike(found, rehearsal=rehearsal):
            return None
        if found is not None and not wish.again and await _may_have_followed(ledger, found, rehearsal=rehearsal):
            return None
    else:
        found = await _with_rows(ledger, wish.name)
        if found is not None and not found.planned:
            fail(
                f"run {found.name} has no manifest, and takes over none: its jobs came one by one from a program; "
                "nothing was sent: give --run ANOTHER",
                BAD_INPUT,
            )
    if found is None or not _is_settled(found, manifest, wish) or await _starts_anew(ledger, found, wish):
        return None
    return await _open(stack, ledger, found.name, manifest)


async def _may_have_followed(ledger: Ledger, found: RunInfo, *, rehearsal: bool) -> bool:
    """Tell whether a run has finished and a later one has not, which may have the same rows in another order."""
    view = await ledger.run(found.name)
    if not is_finished(await view.counts()):
        return False
    return any(
        info.id > found.id and info.planned and _is_alike(info, rehearsal=rehearsal) and not is_finished(counts)
        for info, counts in ((summary.info, summary.counts) for summary in await ledger.runs())
    )


def _is_settled(info: RunInfo, manifest: Manifest, wish: Wish) -> bool:
    """Tell whether a run has the very rows of a manifest, but for those that --amend may start by now."""
    return info.digest == manifest.digest and not (wish.amend and info.gone) and not wish.names_rows


async def _kin(
    stack: contextlib.AsyncExitStack, ledger: Ledger, given: Run, manifest: Manifest, wish: Wish, *, rehearsal: bool
) -> Run | None:
    """Open the run that the given rows, or most of them, were in last, unless they are to start anew."""
    kin = await given.kin(rehearsal=rehearsal)
    if wish.name is not None:
        for info, rows in kin[:1]:
            say(f"m2async: run {wish.name} is new, and starts {plural(rows, 'row')} of run {info.name} once more")
        if wish.amend:
            fail(f"--amend: the ledger has no run {wish.name}; nothing was sent", BAD_INPUT)
        return None
    base = next((info for info, _ in kin if info.planned), None)
    if base is None and wish.amend:
        base = await _of_the_same_file(ledger, manifest, rehearsal=rehearsal)
    if base is not None:
        return None if await _starts_anew(ledger, base, wish) else await _open(stack, ledger, base.name, manifest)
    for info, rows in kin[:1]:
        if not wish.again:
            fail(
                f"run {info.name}, which has no manifest, has {plural(rows, 'row')} of {manifest.name}; nothing was "
                "sent: give --again to start all rows anew",
                BAD_INPUT,
            )
    if wish.amend:
        fail(f"--amend: no run in the ledger has rows of {manifest.name}; nothing was sent", BAD_INPUT)
    return None


async def _of_its_digest(
    stack: contextlib.AsyncExitStack,
    ledger: Ledger,
    given: Run,
    kin: Run,
    manifest: Manifest,
    wish: Wish,
    *,
    rehearsal: bool,
) -> Run:
    """Give the run of the very same manifest if there is one and the latest of its kin has other rows; else the kin."""
    settled = None if wish.amend or wish.again else await ledger.last_of(manifest.digest)
    if settled is None or settled.id == kin.info.id or not _is_alike(settled, rehearsal=rehearsal):
        return kin
    if not await kin.differences(given, rehearsal=rehearsal):
        return kin
    await kin.aclose()
    return await _open(stack, ledger, settled.name, manifest)


async def _take_over(
    ledger: Ledger, run: Run, given: Run, manifest: Manifest, wish: Wish, readers: Readers, *, rehearsal: bool
) -> None:
    """Let a run have the rows that were given, if it may; else list what differs, and end the command."""
    is_written, was_the_same = False, run.info.digest == manifest.digest
    while not is_written:
        differences = await run.differences(given, rehearsal=rehearsal)
        finished = is_finished(await run.counts())
        is_alike = _is_of_the_same_file(run.info, manifest) or differences.keeps_most_of(run.info.jobs)
        by_itself = is_alike and not finished and wish.name is None
        if differences and not may_amend(differences, asked=wish.amend, by_itself=by_itself):
            say(f"m2async: {differences.error(ledger.address, run.info.name)}")
            _list(differences)
            ways = _ways(differences, wish, finished=finished or wish.name is not None, is_alike=is_alike)
            fail(f"nothing was sent (the run began {moment(run.info.created_at)}); {ways}", BAD_INPUT)
        await readers.check(run)
        try:
            is_written = await run.amend(given)
        except DuplicateKeyError as exc:
            fail(
                f"{manifest.name} cannot be taken over by run {run.info.name}, where rows without keys are called by "
                f"their numbers: {exc.key} would be two rows; nothing was sent: give the added rows keys of their own, "
                f"or give {anew_hint(named=wish.name is not None)} to start all rows anew",
                BAD_INPUT,
            )
    if differences:
        say(f"m2async: run {run.info.name} takes over the rows of {manifest.name}:")
        _list(differences)
    elif wish.name is None and not was_the_same:
        say(f"m2async: the rows of {manifest.name} are those of run {run.info.name}: it is gone on with")


async def _starts_anew(ledger: Ledger, earlier: RunInfo, wish: Wish) -> bool:
    """Tell whether all rows of a run are to start once more; if it has not finished, say that it is gone on with."""
    if not wish.again:
        return False
    view = await ledger.run(earlier.name)
    if is_finished(await view.counts()):
        return True
    say(f"m2async: run {earlier.name} has not finished: it is gone on with, and nothing is started anew")
    return False


def _list(differences: Differences) -> None:
    """Say which rows differ, and what is known of each."""
    for row, number in differences.counts.items():
        keys = differences.keys[row]
        more = f" and {number - len(keys):,} more" if number > len(keys) else ""
        say(f"  {_WORDS[row.change]}, {_standing(row)}: {', '.join(keys)}{more}")


def _standing(row: RowChange) -> str:
    """Say what is known of the start of a row that differs."""
    if row.may_have_started:
        return "but it was started before, or may have been"
    return "but another run has it, and it is left to that one" if row.elsewhere else "not started"


def _ways(differences: Differences, wish: Wish, *, finished: bool, is_alike: bool) -> str:
    """Say how to go on: with this run, or in another."""
    if differences.cannot_be_told_apart:
        amend = (
            "without keys it cannot be told whether an added row is one that was started: --amend needs all rows that "
            "were started, as they were"
        )
    else:
        amend = "--amend starts what is added, or changed and not started, in the same run"
    when = "" if finished else "once the run has finished, "
    ways = f"{amend}; {when}{anew_hint(named=wish.name is not None)} starts all rows anew"
    return ways if finished or is_alike else f"{ways}; --run ANOTHER starts them in a run of their own"


def anew_hint(*, named: bool) -> str:
    """Say how the same command starts all rows once more."""
    return "--run ANOTHER" if named else "--again"


async def _of_the_same_file(ledger: Ledger, manifest: Manifest, *, rehearsal: bool) -> RunInfo | None:
    """Give the latest run of a manifest of this name: where every row was mended, none is the same."""
    infos = [summary.info for summary in await ledger.runs()]
    named = [info for info in infos if _is_of_the_same_file(info, manifest) and _is_alike(info, rehearsal=rehearsal)]
    return named[-1] if named else None


def _is_of_the_same_file(info: RunInfo, manifest: Manifest) -> bool:
    return info.planned and manifest.is_file and info.manifest == manifest.name


def _is_alike(info: RunInfo, *, rehearsal: bool) -> bool:
    """Tell whether a run may count for a rehearsal, or for what is none."""
    return info.sent_to is None or info.sent_to.is_rehearsal is rehearsal


async def _with_rows(ledger: Ledger, name: str) -> RunInfo | None:
    """Give a run by its name, unless there is none, or it was left before its manifest was read."""
    try:
        info = (await ledger.run(name)).info
    except RunNotFoundError:
        return None
    return info if info.has_rows else None


async def _free_name(ledger: Ledger, wanted: str) -> str:
    """Give the name, or else the first of it with a number that no run has."""
    name, number = wanted, 1
    while await _with_rows(ledger, name) is not None:
        number += 1
        name = f"{wanted}-{number}"
    return name


async def _open(stack: contextlib.AsyncExitStack, ledger: Ledger, name: str, manifest: Manifest) -> Run:
    run = await ledger.open_run(name, manifest=manifest.name, digest=manifest.digest)
    return await stack.enter_async_context(run)
