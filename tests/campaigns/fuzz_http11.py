"""Feed the parser of responses with what is nearly one, for longer than the test suite does.

    python -m tests.campaigns.fuzz_http11 [--examples 50000] [--seed N]

Ends with an error and the smallest input that shows it, if the parser raises anything but
UnreadableResponseError or gives what cannot be a response.
"""

from __future__ import annotations

import argparse
import random
import time

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.client.wire.test_http11 import GARBAGE, NEARLY_RESPONSES, SIZES, check_anything


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--examples", type=int, default=50_000, help="how many inputs; 50,000 take some minutes")
    arguments.add_argument("--seed", type=int, default=random.randrange(2**32), help="by default a new one")
    options = arguments.parse_args()
    print(f"seed {options.seed}, {options.examples:,} inputs")
    began = time.monotonic()

    @seed(options.seed)
    @settings(
        max_examples=options.examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.target, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(NEARLY_RESPONSES, GARBAGE), SIZES)
    def campaign(data: bytes, sizes: list[int]) -> None:
        check_anything(data, sizes)

    campaign()
    print(f"nothing found in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
