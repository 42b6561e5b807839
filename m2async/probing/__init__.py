"""The load test of a quota: what to send next, what the answers tell, and the sending itself.

- `findings.py`: what was found.
- `record.py`: the calls that were made, and the stretches of calls that are to be made.
- `bucket_fit.py`: the token bucket that explains a record best.
- `plans.py`: the profiles: given the record so far, the next stretch, or the findings.
"""

from m2async.probing.findings import Findings
from m2async.probing.plans import Limits, Plan, Ramp, Steps
from m2async.probing.probe import CANCELLING, Probe, StartedUnasked
from m2async.probing.summary import Asked

__all__ = ["CANCELLING", "Asked", "Findings", "Limits", "Plan", "Probe", "Ramp", "StartedUnasked", "Steps"]
