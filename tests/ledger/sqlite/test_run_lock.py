from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from m2async.ledger.sqlite.run_lock import Holder, LockHeldError, RunLock, is_held

HOLDER = """
import sys
from pathlib import Path
from m2async.ledger.sqlite.run_lock import RunLock
lock = RunLock.take(Path(sys.argv[1]), 12.5)
print("taken", flush=True)
sys.stdin.read()
"""


def test_a_second_taker_hears_who_has_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = RunLock.take(path, 12.5)
    with pytest.raises(LockHeldError) as caught:
        RunLock.take(path, 13.0)
    assert caught.value.holder == Holder(os.getpid(), os.uname().nodename, 12.5)
    lock.release()
    RunLock.take(path, 14.0).release()


def test_looking_at_a_lock_tells_whether_it_is_held_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    lock = RunLock.take(path, 12.5)
    assert is_held(path)
    lock.release()
    assert not is_held(path)
    path.touch()  # as a process leaves it that is killed
    assert not is_held(path)


def test_a_released_lock_leaves_no_file(tmp_path: Path) -> None:
    RunLock.take(tmp_path / "lock", 1.0).release()
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    lock = RunLock.take(tmp_path / "lock", 1.0)
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600
    lock.release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        with pytest.raises(LockHeldError) as caught:
            RunLock.take(path, 1.0)
        assert caught.value.holder.pid == process.pid
        process.kill()
    assert path.exists()
    RunLock.take(path, 1.0).release()


def test_a_holder_that_has_not_said_who_it_is_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = RunLock.take(path, 1.0)
    path.write_bytes(b"")
    with pytest.raises(LockHeldError) as caught:
        RunLock.take(path, 1.0)
    assert caught.value.holder == Holder(None, None, None)
    lock.release()


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    opened: list[int] = []

    def open_and_lose(name: Path, flags: int, mode: int) -> int:
        descriptor = real_open(name, flags, mode)
        if not opened:
            path.unlink()
        opened.append(descriptor)
        return descriptor

    real_open = os.open
    monkeypatch.setattr(os, "open", open_and_lose)
    lock = RunLock.take(path, 2.0)
    assert len(opened) == 2
    assert json.loads(path.read_bytes())[0] == os.getpid()
    lock.release()
