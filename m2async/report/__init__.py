"""Reports: a run or a probe as one page, in a file that needs nothing else."""

from m2async.report.probe import probe_page
from m2async.report.run import run_page

__all__ = ["probe_page", "run_page"]
