"""Print as constraints the oldest versions that pyproject.toml allows, and the pinned ones of all it sets no bound."""

import re
import tomllib
from itertools import chain
from pathlib import Path

# The oldest aiobotocore and boto3 want older ones of these than those pinned.
LEFT_OPEN = {"multidict", "s3transfer", "wrapt"}


def name_of(requirement: str) -> str:
    """The name of what a line requires, as pip compares names."""
    found = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


root = Path(__file__).parents[1]
project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
lowest: dict[str, str] = {}
for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
    bound = re.search(r">=([\w.]+)", requirement)
    if bound:
        lowest[name_of(requirement)] = bound[1]
for name, version in sorted(lowest.items()):
    print(f"{name}=={version}")
for pinned in (root / "constraints.txt").read_text().splitlines():
    if "==" in pinned and name_of(pinned) not in lowest.keys() | LEFT_OPEN:
        print(pinned)
