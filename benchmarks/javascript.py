"""The JavaScript SDK v3 as a contender: installed by npm into a cache folder, run by node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.rounds import Contender

_NAME = "JavaScript SDK v3"
_PACKAGE = "@aws-sdk/client-m2"
_VERSION = "3.1138.0"


def javascript(weight: float) -> Contender:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return Contender(_NAME, [], missing="node and npm are not here")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache, "m2async-benchmarks", f"client-m2-{_VERSION}")
    if not (folder / "node_modules" / _PACKAGE).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(json.dumps({"name": "benchmark", "private": True}))
        installation = subprocess.run(
            [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", f"{_PACKAGE}@{_VERSION}"],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        if installation.returncode:
            return Contender(_NAME, [], missing=f"npm could not install {_PACKAGE}@{_VERSION}")
    shutil.copy(Path(__file__).with_name("calls.mjs"), folder)  # it imports what lies beside it
    return Contender(_NAME, [node, folder / "calls.mjs"], weight)
