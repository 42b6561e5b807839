from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from m2async.ledger import LedgerError, open_ledger
from m2async.ledger.sqlite import anchor as anchors
from m2async.ledger.sqlite.anchor import Anchor, Flock, LockSpan, span_of_run
from m2async.ledger.sqlite.run_lock import Holder, LockHeldError, RunLock
from tests.ledger.samples import files_in

HOLDER = """
import sys
from pathlib import Path
from m2async.ledger.sqlite.anchor import Anchor
from m2async.ledger.sqlite.run_lock import RunLock
file, note = map(Path, sys.argv[1:])
lock = RunLock.take(Anchor(file), 1, set(), note, 12.5)
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "ledger.db"
    file.write_bytes(b"content")
    return file


@contextmanager
def anchored(file: Path) -> Iterator[Anchor]:
    anchor = Anchor(file)
    try:
        yield anchor
    finally:
        anchor.close()


def take(anchor: Anchor, run: int = 1, now: float = 12.5) -> RunLock:
    path = Path(f"/proc/self/fd/{anchor.descriptor}").readlink()
    return RunLock.take(anchor, run, set(), Path(f"{path}-run-{run}.lock"), now)


def test_a_second_taker_hears_who_has_the_lock(file: Path) -> None:
    with anchored(file) as one, anchored(file) as other:
        lock = take(one)
        with pytest.raises(LockHeldError) as caught:
            take(other)
        assert caught.value.holder == Holder(os.getpid(), os.uname().nodename, 12.5)
        take(other, run=2).release()
        lock.release()
        take(other).release()
    assert files_in(file.parent) == {"ledger.db"}
    assert file.read_bytes() == b"content"


def test_one_anchor_locks_a_run_once(file: Path) -> None:
    held: set[int] = set()
    note = file.with_name("note")
    with anchored(file) as anchor:
        lock = RunLock.take(anchor, 1, held, note, 12.5)
        with pytest.raises(LockHeldError):
            RunLock.take(anchor, 1, held, note, 13.0)
        lock.release()
        RunLock.take(anchor, 1, held, note, 14.0).release()


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_lock_is_the_files_whatever_the_name(file: Path, link: object) -> None:
    other = file.with_name("other.db")
    assert callable(link)
    link(file, other)
    with anchored(file) as one, anchored(other) as two:
        take(one)
        assert two.is_taken(span_of_run(1))
        with pytest.raises(LockHeldError):
            take(two)


def test_looking_at_a_lock_needs_the_right_to_read_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with anchored(file) as one:
        monkeypatch.setattr(os, "access", lambda *_: False)
        with anchored(file) as reader:
            assert not reader.is_writable
            assert not reader.is_taken(span_of_run(1))
            lock = take(one)
            assert reader.is_taken(span_of_run(1))
            assert not reader.is_taken(span_of_run(2))
            lock.release()
            assert not reader.is_taken(span_of_run(1))


def test_the_lock_of_a_killed_process_is_free(file: Path) -> None:
    note = Path(f"{file}-run-1.lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, file, note], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process, anchored(file) as anchor:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        with pytest.raises(LockHeldError) as caught:
            take(anchor)
        assert caught.value.holder.pid == process.pid
        process.kill()
        process.wait()
        assert note.exists()
        take(anchor).release()


def test_a_holder_that_has_not_said_who_it_is_is_another_process(file: Path) -> None:
    with anchored(file) as one, anchored(file) as other:
        take(one)
        Path(f"{file}-run-1.lock").write_bytes(b"")
        with pytest.raises(LockHeldError) as caught:
            take(other)
        assert caught.value.holder == Holder(None, None, None)


def test_a_forked_process_does_not_keep_its_parents_lock(file: Path) -> None:
    anchor = Anchor(file)
    take(anchor)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        anchor.close()
        with anchored(file) as later:
            take(later).release()
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_closing_one_of_several_leaves_the_locks_of_the_process_alone(file: Path) -> None:
    """SQLite's locks would go with any descriptor of the file that is closed."""
    import fcntl

    with anchored(file) as one:
        descriptor = one.descriptor
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 0)
        for _ in range(3):
            with anchored(file):
                pass
        looking = f"import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, {fcntl.LOCK_EX | fcntl.LOCK_NB}, 1)"
        found = subprocess.run([sys.executable, "-c", looking, file], capture_output=True, text=True, check=False)
        assert "BlockingIOError" in found.stderr
        assert len(list(Path("/proc/self/fd").iterdir())) < 100


def test_a_forked_process_waits_for_no_thread_of_its_parent(file: Path) -> None:
    with anchors._guard, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that forks and threads do not go together
        process = os.fork()
        if not process:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            try:
                Anchor(file).close()
            finally:
                os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


async def test_where_a_system_has_no_such_locks_a_ledgers_file_is_refused_and_memory_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchors, "_SET", None)
    with pytest.raises(LedgerError, match="cannot be locked on this system"):
        async with open_ledger(tmp_path / "ledger.db"):
            pass
    async with open_ledger("memory:") as ledger:
        assert await ledger.is_new()


@pytest.mark.parametrize(
    ("darwin", "expected"),
    [
        (False, "0100 0000 00000000 0700000000000040 0200000000000000 00000000 00000000"),
        (True, "0700000000000040 0200000000000000 00000000 0100 0000"),  # XNU, bsd/sys/fcntl.h
    ],
)
@pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are those of a little-endian machine")
def test_what_asks_for_a_lock_has_the_systems_layout(darwin: bool, expected: str) -> None:
    asked = Flock(1, LockSpan((1 << 62) + 7, 2))
    packed = asked.pack(darwin=darwin)
    assert packed.ljust(32 if not darwin else 24, b"\0") == bytes.fromhex(expected)
    assert Flock.unpack(packed, darwin=darwin) == asked
