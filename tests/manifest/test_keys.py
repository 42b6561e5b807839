from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m2async.errors import ManifestError
from m2async.manifest import check_manifest, keys, read_manifest
from m2async.manifest.keys import HashedKeys, Keys, KnownKeys
from m2async.manifest.rows import RowError
from tests.manifest.samples import APP, generated, problems, rows, stream

ALL = (Keys, KnownKeys, HashedKeys)
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


@pytest.mark.parametrize("make", ALL)
def test_keys_may_be_any_printable_text(make: Callable[[], Keys]) -> None:
    taken = make()
    assert taken.take("2026-11-23/POSTTRAN é 漢", 1) == "2026-11-23/POSTTRAN é 漢"
    for bad in ("", "a\nb", "\x1b[2J", "\ud800", "k" * 513, 7, None):
        with pytest.raises(RowError):
            taken.take(bad, 2)


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


@given(_texts, st.sampled_from([1, 2, 3]))
def test_keys_of_equal_hash_are_still_told_apart(texts: list[str], hashes: int) -> None:
    with patch.object(keys, "hash", lambda key: len(key) and ord(key[0]) % hashes, create=True):
        expected = told_by_a_dict(texts)
        if expected:
            assert problems(stream(manifest(texts)), format="csv") == expected
            with pytest.raises(ManifestError, match="already"):
                rows(manifest(texts))
        else:
            assert [row.key for row in rows(manifest(texts))] == [text or str(n) for n, text in enumerate(texts, 1)]


def test_the_table_of_hashes_finds_each_of_many_keys_again() -> None:
    taken = HashedKeys()
    for number in range(20_000):
        taken.take(f"k{number}", number)
    assert not taken.hits
    for number in range(20_000):
        taken.take(f"k{number}", number)
    assert taken.hits == {hash(f"k{number}") for number in range(20_000)}


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


def test_nobody_looks_for_keys_where_the_reader_does() -> None:
    content = manifest(["a", "a"])
    assert check_manifest(stream(content), application_id=APP, unique_keys=False).rows == 2
    assert [row.key for row in rows(content, unique_keys=False)] == ["a", "a"]
    assert len(problems(manifest(["k" * 513]), unique_keys=False)) == 1


@pytest.mark.parametrize(("unique_keys", "most"), [(True, 40), (False, 1)])
def test_memory_a_key_is_small(unique_keys: bool, most: int, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"

    def peak(count: int) -> int:
        path.write_bytes(manifest([f"{number:0100}" for number in range(count)]))
        tracemalloc.start()
        assert check_manifest(path, application_id=APP, unique_keys=unique_keys).rows == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(100_000) - peak(2_000) < 98_000 * most + 64 * 1024


def test_a_process_reads_ten_thousand_and_many_more_rows_in_the_same_memory(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from m2async.manifest import check_manifest\n"
        "check_manifest(sys.argv[1], application_id='a', unique_keys=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.csv"
        path.write_bytes(manifest([f"{number:0100}" for number in range(count)]))
        return int(subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True).stdout)

    assert peak(200_000) < 1.1 * peak(10_000)
