"""A run belongs to where it was sent; and a ledger that does not know what was started says so, and starts nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from m2async import LocalEndpoint, M2Client, ScriptJob, StartBatchJob, Submitter, open_ledger
from m2async.clock import steady_time
from m2async.ledger import destination_of
from tests.campaigns.faults import really_started
from tests.cli.terminal import APPLICATION, Ended, m2async, on_terminal, plain, running, written
from tests.cli.test_ledger import Book, manifest
from tests.scripted import ScriptedServer, scripted, started

COMMANDS = {
    "submit": ["submit", "jobs.csv", "--run", "night"],
    "without preflight": ["submit", "jobs.csv", "--run", "night", "--no-preflight"],
    "resume": ["resume", "night"],
    "reconcile": ["reconcile", "night"],
    "track": ["track", "night", "--max-rc", "4"],
    "cancel": ["cancel", "night"],
    "restart": ["restart", "night", "--failed"],
}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture
async def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Book]:
    """A ledger with a run of two jobs: one is started, and it is not known whether the other is."""
    monkeypatch.chdir(tmp_path)
    async with LocalEndpoint(faults={"accept-then-500": 0.5}, seed=3) as endpoint:
        book = Book(tmp_path, endpoint.url)
        first = await book.submit(manifest(tmp_path, 8), "--on-unknown", "hold")
        assert {line["state"] for line in first.lines} == {"started", "unknown"}
        yield book


@pytest.fixture
async def elsewhere() -> AsyncIterator[ScriptedServer]:
    async with scripted(started("elsewhere")) as server:
        yield server


def rows(book: Book) -> list[Any]:
    """What the ledger has of the run's jobs."""
    with closing(sqlite3.connect(book.path)) as connection:
        return connection.execute("SELECT id, state, attempts, candidates FROM progress ORDER BY id").fetchall()


# Elsewhere


@every_command
async def test_another_endpoint_is_refused_before_anything_is_asked(
    book: Book, elsewhere: ScriptedServer, command: list[str]
) -> None:
    before = rows(book)
    ended = await m2async(*command, "--ledger", book.path, url=elsewhere.url)
    assert (ended.code, ended.out) == (2, "")
    assert f"run 'night' was sent to {book.url} in us-east-1" in ended.err
    assert f"this goes to {elsewhere.url} in us-east-1" in ended.err
    assert "another endpoint, so nothing was asked or sent; give the run's own endpoint, or" in ended.err
    assert "--moved" in ended.err
    assert elsewhere.connections == 0
    assert rows(book) == before


async def test_a_manifest_that_is_read_anew_is_not_looked_up_elsewhere(
    book: Book, elsewhere: ScriptedServer, tmp_path: Path
) -> None:
    head, *lines = manifest(tmp_path, 8).read_text().splitlines()
    (tmp_path / "turned.csv").write_text("\n".join([head, *reversed(lines), ""]))
    ended = await m2async("submit", "turned.csv", "--run", "night", "--ledger", book.path, url=elsewhere.url)
    assert (ended.code, elsewhere.connections) == (2, 0)
    assert "another endpoint" in ended.err


@every_command
async def test_another_region_is_refused_whatever_names_it(book: Book, command: list[str], tmp_path: Path) -> None:
    config = tmp_path / "config"
    keys = "aws_access_key_id = local\naws_secret_access_key = local\n"
    config.write_text(f"[profile night]\nregion = eu-west-1\n{keys}")
    before = len(await really_started(book.url))
    own = [*command, "--ledger", str(book.path)]
    for ended in (
        await m2async(*own, "--region", "eu-west-1", url=book.url),
        await book(*command, AWS_REGION="eu-west-1"),
        await m2async(*own, "--profile", "night", AWS_CONFIG_FILE=str(config), AWS_ENDPOINT_URL_M2=book.url),
    ):
        assert (ended.code, ended.out) == (2, ""), ended.err
        assert "in eu-west-1: another region, so nothing was asked or sent" in ended.err
    assert len(await really_started(book.url)) == before


async def test_another_account_is_refused_where_it_is_known(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    book = Book(tmp_path, endpoint.url)
    path = manifest(tmp_path)
    assert (await book.submit(path, "--no-preflight", AWS_ACCOUNT_ID="111111111111")).code == 0
    for command in (["track", "night"], ["resume", "night"]):
        ended = await book(*command, AWS_ACCOUNT_ID="222222222222")
        assert ended.code == 2
        assert "account 111111111111; this goes to" in ended.err
        assert "another account, so nothing was asked" in ended.err
    assert (await book("resume", "night")).code == 0  # it is not known there


async def test_the_same_place_in_other_words_is_the_same(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    book = Book(tmp_path, endpoint.url)
    assert (await book.submit(manifest(tmp_path))).code == 0
    for url in (f"{endpoint.url}/", endpoint.url.replace("http:", "HTTP:")):
        assert (await m2async("track", "night", "--ledger", book.path, "--endpoint-url", url, url=url)).code == 0


async def test_it_moves_on_purpose_and_then_belongs_there(
    tmp_path: Path, endpoint: LocalEndpoint, elsewhere: ScriptedServer
) -> None:
    path = manifest(tmp_path, 4)
    async with scripted(started("one"), started("two"), elsewhere_is_broken) as server:
        first = await Book(tmp_path, server.url).submit(path, "--no-preflight", "--concurrency", "1")
        assert (first.code, [line["state"] for line in first.lines].count("started")) == (3, 2)
    book = Book(tmp_path, endpoint.url)
    assert (await book("resume", "night")).code == 2
    ended = await book("resume", "night", "--moved")
    assert ended.code == 0
    assert f"run night: moved on purpose from {server.url} in us-east-1 to {endpoint.url} in us-east-1" in ended.err
    assert len(await really_started(endpoint.url)) == 2
    assert (await book("resume", "night")).code == 0
    assert (await m2async("resume", "night", "--ledger", book.path, url=elsewhere.url)).code == 2


async def elsewhere_is_broken(writer: Any) -> None:
    """Answer that the account has no access, which stops a run."""
    writer.write(
        b'HTTP/1.1 403 X\r\nx-amzn-errortype: AccessDeniedException\r\ncontent-length: 16\r\n\r\n{"message":"no"}'
    )


async def test_a_doubt_of_another_region_is_not_decided_on_purpose_either(book: Book) -> None:
    async with LocalEndpoint() as other:
        ended = await m2async(
            "resume", "night", "--ledger", book.path, "--moved", "--region", "eu-west-1", url=other.url
        )
        assert ended.code == 2
        assert "may have been started there, and cannot be looked for here" in ended.err
        assert await really_started(other.url) == []


async def test_a_run_of_which_nothing_was_started_goes_wherever_it_is_sent(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    path = manifest(tmp_path)
    async with scripted(elsewhere_is_broken) as server:
        assert (await Book(tmp_path, server.url).submit(path, "--no-preflight")).code == 3
    ended = await Book(tmp_path, endpoint.url).submit(path)
    assert (ended.code, len(await really_started(endpoint.url))) == (0, 3)
    assert "moved where nothing was started" in ended.err


async def test_a_run_of_before_is_taken_as_it_is_once(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    book = Book(tmp_path, endpoint.url)
    await book.submit(manifest(tmp_path))
    with closing(sqlite3.connect(book.path)) as connection, connection:
        connection.execute("DELETE FROM destinations")
    said = "the ledger does not say where it was sent before; now assumed:"
    assert said in (await book("track", "night")).err
    assert said not in (await book("track", "night")).err


# Rehearsals


@every_command
async def test_a_rehearsal_is_not_gone_on_with_for_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: ScriptedServer, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = tmp_path / "ledger.db"
    options = ["--ledger", str(ledger), "--run", "night"]
    assert (await m2async("submit", manifest(tmp_path), "--local", *options)).code == 0
    for moved in ([], ["--moved"]):
        ended = await m2async(*command, *moved, "--ledger", ledger, url=elsewhere.url)
        assert (ended.code, ended.out) == (2, "")
        assert "run 'night' was sent to a rehearsal's local endpoint" in ended.err
        assert "use another run name (--run)" in ended.err
    assert elsewhere.connections == 0


async def test_a_real_run_is_not_gone_on_with_as_a_rehearsal(book: Book) -> None:
    for moved in ([], ["--moved"]):
        ended = await m2async("submit", "jobs.csv", "--local", "--run", "night", "--ledger", book.path, *moved)
        assert (ended.code, ended.out) == (2, "")
        assert "this goes to a rehearsal's local endpoint" in ended.err


async def test_a_rehearsal_goes_on_as_one_and_is_shown_as_one(tmp_path: Path) -> None:
    options = ["--ledger", str(tmp_path / "ledger.db"), "--run", "night"]
    for _ in range(2):
        assert (await m2async("submit", manifest(tmp_path), "--local", *options)).code == 0
    [status] = (await m2async("status", "night", *options[:2], "--output", "jsonl")).lines
    assert status["sent_to"] == "rehearsal"
    assert "rehearsal, all sent" in (await m2async("watch", "night", *options[:2])).out
    page = await m2async("report", "night", *options[:2], "-o", "-")
    assert "Run report · rehearsal" in page.out


# Which ledger


async def test_it_is_said_which_ledger_is_used_and_that_it_is_new(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path, ledger = manifest(tmp_path), tmp_path / "state" / "m2async" / "ledger.db"
    first = await m2async("submit", path, "-q", url=endpoint.url)
    assert first.err == f"ledger {ledger} is new: it knows of no earlier run\n"
    again = await m2async("submit", path, "-q", url=endpoint.url)
    known, nothing = again.err.splitlines()
    assert (known, nothing.startswith("m2async: nothing was started: 3 jobs were ")) == (f"ledger {ledger}", True)
    run = path.stem
    [name] = [line["run"] for line in (await m2async("runs", "--output", "jsonl")).lines if line["run"].startswith(run)]
    for command in ("resume", "track", "cancel", "reconcile"):
        assert f"ledger {ledger}\n" in (await m2async(command, name, url=endpoint.url)).err


async def test_a_new_home_that_is_looked_into_says_that_it_is_new(tmp_path: Path) -> None:
    ended = await m2async("runs", XDG_STATE_HOME=str(tmp_path / "other"))
    assert ended.err == f"ledger {tmp_path / 'other' / 'm2async' / 'ledger.db'} is new: it knows of no earlier run\n"


# Executions that the ledger does not explain


async def killed_half_way(path: Path, endpoint: LocalEndpoint, *options: str, **environment: Any) -> int:
    """Begin to start the jobs; gives how many were started when the command was killed."""
    slow = ["--rate", "4", "--burst", "10"]
    command = ["submit", str(path), "--no-preflight", *slow, "--output", "jsonl", *options]
    async with running(*command, url=endpoint.url, **environment) as process:
        assert process.stdout is not None
        out = b""
        while out.count(b"\n") < 10:
            out += await process.stdout.receive()
        process.kill()
        await process.wait()
    return len(await really_started(endpoint.url))


async def test_another_home_does_not_start_them_all_again(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = manifest(tmp_path, 100)
    begun = await killed_half_way(path, endpoint, HOME=str(tmp_path / "one"), XDG_STATE_HOME="")
    other: dict[str, Any] = {"HOME": str(tmp_path / "two"), "XDG_STATE_HOME": ""}
    for _ in range(2):
        ended = await m2async("submit", path, "--no-preflight", url=endpoint.url, **other)
        assert (ended.code, ended.out) == (3, "")
        assert f"there are {begun} executions of {begun} jobs of this run" in ended.err
        assert "another ledger, such as that of another home folder or pod" in ended.err
        assert "--start-anyway" in ended.err
    assert len(await really_started(endpoint.url)) == begun
    ended = await m2async("submit", path, "--no-preflight", "--start-anyway", url=endpoint.url, **other)
    assert ended.code == 0
    assert "the run is started anyway" in ended.err
    assert len(await really_started(endpoint.url)) == begun + 100


def put_back(backup: Path, ledger: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{ledger}{suffix}").unlink(missing_ok=True)
    backup.replace(ledger)


async def test_a_ledger_that_was_put_back_starts_nothing(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path, book = manifest(tmp_path, 100), Book(tmp_path, endpoint.url)
    await killed_half_way(path, endpoint, "--ledger", str(book.path), "--run", "night")
    with closing(sqlite3.connect(book.path)) as source, closing(sqlite3.connect(tmp_path / "backup")) as backup:
        source.backup(backup)
    assert (await book("resume", "night")).code == 0
    assert len(await really_started(endpoint.url)) == 100
    put_back(tmp_path / "backup", book.path)
    commands = (["submit", str(path), "--run", "night"], ["reconcile", "night"], ["resume", "night"])
    codes = [(await book(*command)).code for command in commands]
    assert (codes[0], codes[2]) == (3, 3)
    assert len(await really_started(endpoint.url)) == 100


async def test_a_run_that_was_killed_goes_on_by_the_same_command(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path, book = manifest(tmp_path, 100), Book(tmp_path, endpoint.url)
    await killed_half_way(path, endpoint, "--ledger", str(book.path), "--run", "night")
    ended = await book.submit(path, "--settle", "0.5")
    assert ended.code == 0
    assert len(await really_started(endpoint.url)) == 100


async def test_what_a_row_in_doubt_may_have_started_late_is_to_be_looked_for_first(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client
) -> None:
    book, long_ago = Book(tmp_path, endpoint.url), steady_time() - 3_600
    jobs = [(f"row-{n}", StartBatchJob(APPLICATION, ScriptJob(f"JOB{n}"))) for n in range(8)]
    async with open_ledger(book.path, clock=lambda: long_ago) as ledger, await ledger.open_run("night") as run:
        await run.plan(jobs)
        destination = destination_of(client)
        assert destination is not None
        await run.belong_to(destination)
        await run.note_clock(0.0)
        await run.intend(1, 1, long_ago)
        await run.unknown(1, 1, "ReadTimeout", "no answer")
    async with Submitter(client, ledger=book.path, run="night", on_unknown="hold") as submitter:
        async for _ in submitter.submit_many(jobs[1:7]):
            pass
    late = await client.start_batch_job(jobs[0][1])
    code, shown = await on_terminal("resume", "night", "--ledger", book.path, url=endpoint.url)
    assert code == 3
    told = " ".join(plain(shown).split())
    assert "But 1 row of this job in doubt may have started it late; reconcile the run first: m2async reconcile" in told
    reconciled = await book("reconcile", "night", "--settle", "0", "--output", "jsonl")
    assert [line["candidates"] for line in reconciled.lines] == [[late.execution_id]]
    assert (await book("resolve", "night", "--key", "row-0", "--started", late.execution_id)).code == 0
    assert (await book("resume", "night")).code == 0
    assert len(await really_started(endpoint.url)) == 8


async def test_two_ledgers_on_purpose_need_a_word(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = manifest(tmp_path)

    async def submit(ledger: str, *options: str) -> Ended:
        return await m2async("submit", path, "--ledger", tmp_path / ledger, *options, url=endpoint.url)

    assert (await submit("one.db")).code == 0
    assert (await submit("two.db")).code == 3
    assert (await submit("two.db", "--start-anyway")).code == 0
    assert len(await really_started(endpoint.url)) == 6


async def submitted_beside(path: Path, endpoint: LocalEndpoint, *options: str, others: int) -> Ended:
    """Start the jobs, of which somebody else starts so many before it goes on."""
    slow = ["--rate", "0.001", "--run", "night"]
    command = ["submit", str(path), "--no-preflight", *slow, "--output", "jsonl", *options]
    book = Book(path.parent, endpoint.url)
    async with (
        running(*command, "--ledger", str(book.path), url=endpoint.url) as process,
        M2Client(**endpoint.client_settings()) as client,
    ):
        assert process.stdout is not None
        out = await process.stdout.receive()
        for number in range(others):
            await client.start_batch_job(StartBatchJob(APPLICATION, ScriptJob(f"JOB{number}")))
        assert (await book("rate", "night", "1000")).code == 0
        out += await written(process.stdout)
        err = await written(process.stderr)
        return Ended(await process.wait(), out.decode(), err.decode())


@pytest.mark.parametrize("options", [[], ["--wait"]], ids=["", "--wait"])
async def test_two_who_begin_at_the_same_moment_are_told_of_each_other_at_the_end(
    tmp_path: Path, endpoint: LocalEndpoint, options: list[str]
) -> None:
    ended = await submitted_beside(manifest(tmp_path, 40), endpoint, *options, others=7)
    assert ended.code == 0
    assert ended.err.count("Somebody else started an execution of JOB") == 5
    assert "The same holds for 2 executions of 2 other jobs of this run: 7 executions in all" in ended.err
    book = Book(tmp_path, endpoint.url)
    for command in ("status", "track"):
        again = await book(command, "night")
        assert (again.code, again.err.count("Somebody else started an execution of JOB")) == (0, 5)


async def test_where_nobody_else_starts_anything_nothing_is_told(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    ended = await submitted_beside(manifest(tmp_path, 40), endpoint, others=0)
    assert (ended.code, "omebody else" in ended.err) == (0, False)


async def test_what_others_start_while_a_run_is_tracked_is_told(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    book = Book(tmp_path, endpoint.url)
    assert (await book.submit(manifest(tmp_path, 3))).code == 0
    async with M2Client(**endpoint.client_settings()) as client:
        await client.start_batch_job(StartBatchJob(APPLICATION, ScriptJob("JOB1")))
        await client.start_batch_job(StartBatchJob(APPLICATION, ScriptJob("ANOTHER")))
    ended = await book("track", "night")
    assert (ended.code, ended.err.count("omebody else")) == (0, 1)
    assert f"Somebody else started an execution of JOB1 in application {APPLICATION}" in ended.err


# Lists that are refused


def refusing_lists(
    endpoint: LocalEndpoint, code: str = "AccessDeniedException", status: int = 403, *, until: int = 1_000_000
) -> LocalEndpoint:
    """Let an endpoint, before it serves, answer lists of executions with an error, so many times."""
    handle, refused = endpoint._routes.handle, 0

    async def handled(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal refused
        if request.method == "GET" and "/batch-job-executions" in request.raw_path and refused < until:
            refused += 1
            return web.json_response({"message": "no"}, status=status, headers={"x-amzn-errortype": code})
        return await handle(request)

    setattr(endpoint._routes, "handle", handled)  # noqa: B010 - a method for mypy
    return endpoint


STAYS = "a job whose answer is lost stays unknown as long as the executions of its application cannot be listed"
OF_ANOTHER = (
    'what answered ListBatchJobExecutions is not the service: 404 Not Found, application/json, "{"message": "no"}"'
)
REFUSALS = {
    "AccessDeniedException": (403, "the permission m2:ListBatchJobExecutions is missing"),
    "ThrottlingException": (429, "ListBatchJobExecutions: ThrottlingException: no"),
    "ResourceNotFoundException": (404, "ListBatchJobExecutions: ResourceNotFoundException: no"),
    "UnknownOperationException": (404, f"ListBatchJobExecutions: UnknownOperationException: {OF_ANOTHER}"),
    "ConflictException": (409, "ListBatchJobExecutions: ConflictException: no"),
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_where_executions_cannot_be_listed_it_is_said_before_and_named_at_the_end(
    tmp_path: Path, code: str
) -> None:
    status, why = REFUSALS[code]
    losing = LocalEndpoint(faults={"accept-then-500": 0.3}, seed=3)
    async with refusing_lists(losing, code, status) as endpoint:
        book = Book(tmp_path, endpoint.url)
        ended = await book.submit(manifest(tmp_path, 12), "--no-preflight", "--settle", "0.2")
    unknown = sum(line["state"] == "unknown" for line in ended.lines)
    assert (ended.code, unknown > 0) == (1, True)
    assert f"not checked: whether others have started these jobs: {why}" in ended.err
    assert f"m2async: {STAYS}\n" in ended.err
    assert f"The executions of application {APPLICATION} cannot be listed: {why}." in ended.err
    jobs = "1 job" if unknown == 1 else f"{unknown} jobs"
    assert f"As long as that is so, it is not to be known what became of {jobs}." in ended.err
    reconcile = f"m2async reconcile night --ledger {book.path}"
    assert ended.err.count("m2async reconcile") == ended.err.count(reconcile) == 1


async def test_a_list_that_works_later_takes_the_warning_back(tmp_path: Path) -> None:
    losing = LocalEndpoint(faults={"accept-then-500": 0.3}, seed=3)
    async with refusing_lists(losing, until=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        ended = await book.submit(manifest(tmp_path, 12), "--no-preflight", "--settle", "2")
    assert ended.code == 0
    assert STAYS in ended.err
    assert f"m2async: the executions of application {APPLICATION} can be listed now" in ended.err
    assert "cannot be listed:" not in ended.err


async def test_who_sends_again_whatever_became_of_it_is_not_told_of_lost_answers(tmp_path: Path) -> None:
    async with refusing_lists(LocalEndpoint()) as endpoint:
        ended = await Book(tmp_path, endpoint.url).submit(manifest(tmp_path), "--on-unknown", "resend")
    assert (ended.code, STAYS in ended.err) == (0, False)
