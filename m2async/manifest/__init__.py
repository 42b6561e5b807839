"""CSV, JSON lines and YAML files of batch jobs, read as requests with keys."""

from m2async.manifest.reader import ManifestFormat, ManifestSummary, check_manifest, find_lines, read_manifest
from m2async.manifest.rows import ManifestRow

__all__ = ["ManifestFormat", "ManifestRow", "ManifestSummary", "check_manifest", "find_lines", "read_manifest"]
