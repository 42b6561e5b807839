from __future__ import annotations

import io
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m2async.errors import ManifestError
from m2async.manifest import check_manifest, read_manifest
from m2async.manifest.keys import Keys, UniqueKeys
from m2async.manifest.rows import RowError
from tests.manifest.samples import APP, generated, problems, rows, stream

_texts = st.lists(st.sampled_from(["", *"abcdefgh"]), min_size=1, max_size=12)


def told_by_a_dict(texts: Sequence[str]) -> list[str]:
    """What is wrong with the keys of a CSV manifest, found in the plainest way."""
    lines: dict[str, int] = {}
    found = []
    for number, text in enumerate(texts, 1):
        key = text or str(number)
        if key in lines:
            found.append(f"m:{number + 1}: key: {key!r}: is the key of line {lines[key]} already; keys must differ")
        else:
            lines[key] = number + 1
    return found


def manifest(texts: Sequence[str]) -> bytes:
    return ("key,file\n" + "".join(f"{text},A\n" for text in texts)).encode()


@pytest.mark.parametrize("make", [Keys, UniqueKeys])
def test_keys_may_be_any_printable_text(make: Callable[[], Keys]) -> None:
    with closing(make()) as keys:
        for key in ("2026-11-23/POSTTRAN é 漢", "1", "1.0", "A", "a", "é", "e\u0301", "a ", "😀"):
            assert keys.take(key, 1) == key
        for bad in ("", "a\nb", "\x1b[2J", "\ud800", "k" * 513, 7, None):
            with pytest.raises(RowError):
                keys.take(bad, 2)


@given(_texts)
@example(["a", "a", "b", "a", "b"])
def test_every_key_that_comes_twice_is_told_with_both_lines(texts: list[str]) -> None:
    expected = told_by_a_dict(texts)
    for source in (stream(manifest(texts)), generated(iter([manifest(texts)]))):
        if expected:
            assert problems(source, format="csv") == expected
        else:
            assert check_manifest(source, application_id=APP).rows == len(texts)


@given(_texts)
def test_reading_raises_at_the_first_row_whose_key_came_before(texts: list[str]) -> None:
    expected = told_by_a_dict(texts)[:1]
    for source in (stream(manifest(texts)), generated(iter([manifest(texts)]))):
        read, told = [], []
        try:
            for row in read_manifest(source, name="m", application_id=APP):
                read.append(row.key)
        except ManifestError as error:
            told = [str(found) for found in error.problems]
        assert told == expected
        sound = int(told[0].split(":")[1]) - 2 if told else len(texts)
        assert read == [text or str(number) for number, text in enumerate(texts, 1)][:sound]


def test_a_stream_is_read_again_from_where_it_stood_and_left_at_its_end() -> None:
    content = b"to be skipped\n" + manifest(["a", "b", "a"])
    for read in (check_manifest, lambda *args, **options: list(read_manifest(*args, **options))):
        source = io.BytesIO(content)
        source.readline()
        with pytest.raises(ManifestError, match="line 2 already"):
            read(source, application_id=APP)
        assert source.read() == b""


def test_keys_in_other_formats_are_told_the_same_way() -> None:
    lines = "".join(f'{{"key": "{key}", "file": "A"}}\n' for key in "abcab")
    assert [found.split(": key: ")[0] for found in problems(lines)] == ["m:4", "m:5"]
    sweep = "jobs:\n- file: A\n  key: 'x{AA}'\n  matrix: {AA: [1, 2]}\n- {file: B, key: x2}\n"
    assert [found.split(" already")[0] for found in problems(sweep)] == ["m:5: key: 'x2': is the key of line 2"]
    with pytest.raises(ManifestError, match="line 2 already"):
        rows(sweep)


def test_keys_that_rows_name_are_known_from_a_stream_that_cannot_be_read_again() -> None:
    content = b"key,file,after\na,A,\nb,A,a;nosuch\n"
    with pytest.raises(ManifestError, match=":3: after: 'nosuch': no row has this key"):
        list(read_manifest(generated(iter([content])), application_id=APP, unique_keys=False, after={}))


def test_reading_may_go_on_in_another_thread() -> None:
    reading = read_manifest(stream(manifest(["a", "b", "a"])), application_id=APP)
    assert next(reading).key == "a"
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(next, reading).result().key == "b"
        with pytest.raises(ManifestError, match="line 2 already"):
            thread.submit(next, reading).result()


def test_nobody_looks_for_keys_where_the_reader_does() -> None:
    content = manifest(["a", "a"])
    assert check_manifest(stream(content), application_id=APP, unique_keys=False).rows == 2
    assert [row.key for row in rows(content, unique_keys=False)] == ["a", "a"]
    assert len(problems(manifest(["k" * 513]), unique_keys=False)) == 1


@pytest.mark.parametrize("unique_keys", [True, False])
def test_a_process_reads_twenty_thousand_and_many_more_rows_in_the_same_memory(
    unique_keys: bool, tmp_path: Path
) -> None:
    code = (
        "import resource, sys; from m2async.manifest import check_manifest\n"
        f"check_manifest(sys.argv[1], application_id='a', unique_keys={unique_keys})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.csv"
        path.write_bytes(manifest([f"{number:0100}" for number in range(count)]))
        return int(subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True).stdout)

    assert peak(200_000) < 1.1 * peak(20_000)


MANY = manifest([f"{number:0100}" for number in range(50_000)])
"""More keys than are kept in memory."""


def files_open() -> list[str]:
    """Give the files that this process has open, also those that have no name any more."""
    return sorted(str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_file())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc to see open files in")
def test_the_file_that_keys_are_kept_in_has_no_name_and_is_gone_with_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    before = files_open()
    for content in (MANY, MANY + b"k,A,too many\n"):
        for left_at in (40_000, 60_000):
            reading = read_manifest(stream(content), application_id=APP)
            with suppress(ManifestError):
                for _ in islice(reading, left_at):
                    pass
                assert (left_at == 40_000) == (files_open() != before)
            assert list(tmp_path.iterdir()) == []
            del reading
            assert files_open() == before
        with suppress(ManifestError):
            check_manifest(stream(content), application_id=APP)
        assert files_open() == before


def test_keys_for_which_there_is_no_room_end_the_reading() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        [found] = problems(MANY, format="csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.startswith("m: its keys cannot be compared, for which they go into a temporary file (in TMPDIR, if")


@pytest.mark.parametrize("seekable", [True, False])
def test_a_key_that_comes_twice_and_one_that_no_row_has_are_told_together(seekable: bool) -> None:
    content = b"key,file,after\na,A,nosuch\na,A,a\n"
    assert problems(stream(content) if seekable else generated(iter([content])), format="csv") == [
        "m:2: after: 'nosuch': no row has this key",
        "m:3: key: 'a': is the key of line 2 already; keys must differ",
    ]
