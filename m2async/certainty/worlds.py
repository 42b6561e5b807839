"""All maximum matchings of attempts with ranges of executions: adopt.py says what they are, and what for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import accumulate


class Worlds:
    """All maximum matchings of attempts with ranges of executions, as far as decisions need them.

    Attributes, by the attempt's number unless said otherwise:
        execution: the position of the execution that it has in one of the worlds, or None.
        is_certain: whether it has an execution in every world.
        cluster: a mark that it shares with the attempts with which it may exchange executions, directly or through
            others; each of those that share a mark has another execution, or none, in some world.
        foreign: the positions of the executions that are foreign in some world, in ascending order.

    All worlds are had from the first one by chains of moves: an attempt leaves its execution and takes another of its
    range, whose attempt moves on in turn. A chain is a world again if it comes back to its beginning, ends at a foreign
    execution, or begins with an attempt that had none and ends with one that has none now. So everything follows from
    what can be reached by moves from each execution; and as an attempt's range holds the one that it leaves, what can
    be reached is a range as well.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]], executions: int) -> None:
        attempt_of = _maximum_matching(ranges, executions)
        self.execution: list[int | None] = [None] * len(ranges)
        for position, number in attempt_of.items():
            self.execution[number] = position

        # From here on positions count the taken executions only: the others have no attempt that could move.
        taken = list(attempt_of)
        taken_before = _counts(position in attempt_of for position in range(executions))
        among_taken = [(taken_before[first], taken_before[end]) for first, end in ranges]
        reach = _reach([among_taken[attempt_of[position]] for position in taken])

        # A chain can end at a foreign execution if one is in the range of an attempt that it reaches.
        free_in_range = [
            end - first > stop - start for (first, end), (start, stop) in zip(ranges, among_taken, strict=True)
        ]
        free_before = _counts(free_in_range[attempt_of[position]] for position in taken)
        may_be_left = [free_before[stop] > free_before[start] for start, stop in reach]

        # A chain that begins with an attempt without execution reaches what its range reaches.
        begin = [among_taken[number] for number, position in enumerate(self.execution) if position is None]
        touched = _covered(begin, len(taken))
        contested = _covered([reach[index] for index, is_touched in enumerate(touched) if is_touched], len(taken))

        index_of = {position: index for index, position in enumerate(taken)}
        self.foreign: list[int] = [
            position for position in range(executions) if position not in attempt_of or may_be_left[index_of[position]]
        ]
        self.is_certain: list[bool] = [False] * len(ranges)
        self.cluster: list[Hashable] = [None] * len(ranges)
        for index, position in enumerate(taken):
            number = attempt_of[position]
            self.is_certain[number] = not contested[index]
            # Along closed chains exchange those that reach each other, which are those that reach the same.
            self.cluster[number] = reach[index]

        # Attempts that are not certain exchange with all that want an execution which they may have.
        replaceable = sorted(
            (span, number) for number, span in enumerate(ranges) if span[0] < span[1] and not self.is_certain[number]
        )
        group, group_end = 0, 0
        for (first, end), number in replaceable:
            if first >= group_end:
                group += 1
            group_end = max(group_end, end)
            self.cluster[number] = group


def _maximum_matching(ranges: Sequence[tuple[int, int]], executions: int) -> dict[int, int]:
    """Match greedily: each execution goes to the attempt, of those that may have it, whose range ends first.

    Gives the attempts' numbers by the executions' positions, in ascending order of position.
    """
    by_first = sorted(range(len(ranges)), key=lambda number: ranges[number][0], reverse=True)
    waiting: list[tuple[int, int]] = []
    attempt_of: dict[int, int] = {}
    for position in range(executions):
        while by_first and ranges[by_first[-1]][0] <= position:
            number = by_first.pop()
            heappush(waiting, (ranges[number][1], number))
        while waiting and waiting[0][0] <= position:
            heappop(waiting)
        if waiting:
            attempt_of[position] = heappop(waiting)[1]
    return attempt_of


def _reach(moves: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Tell what can be reached from each position by any number of moves, each anywhere into a range around itself.

    A round looks up what is reached from all that was reached so far, so the number of moves doubles with each.
    """
    firsts, ends = [first for first, _ in moves], [end for _, end in moves]
    while True:
        lowest, highest = _extremes(min, firsts), _extremes(max, ends)
        further_firsts = [lowest(first, end) for first, end in zip(firsts, ends, strict=True)]
        further_ends = [highest(first, end) for first, end in zip(firsts, ends, strict=True)]
        if (further_firsts, further_ends) == (firsts, ends):
            return list(zip(firsts, ends, strict=True))
        firsts, ends = further_firsts, further_ends


def _extremes(extreme: Callable[[int, int], int], values: list[int]) -> Callable[[int, int], int]:
    """Prepare the look-up of the minimum or maximum of a range of values: a sparse table."""
    rows = [values]
    width = 1
    while 2 * width <= len(values):
        rows.append(list(map(extreme, rows[-1], rows[-1][width:])))
        width *= 2

    def look_up(first: int, end: int) -> int:
        power = (end - first).bit_length() - 1
        return extreme(rows[power][first], rows[power][end - (1 << power)])

    return look_up


def _counts(flags: Iterable[bool]) -> list[int]:
    """Count the flags that are set before each position, and before the end."""
    return list(accumulate(flags, initial=0))


def _covered(ranges: Iterable[tuple[int, int]], size: int) -> list[bool]:
    """Tell for each position whether a range covers it."""
    changes = [0] * (size + 1)
    for first, end in ranges:
        changes[first] += 1
        changes[end] -= 1
    return [depth > 0 for depth in accumulate(changes[:size])]
