"""What a load test of a quota sends and what its answers tell: decisions without I/O, on passed-in times.

- `findings.py`: what was found.
- `record.py`: the calls that were made, and the stretches of calls that are to be made.
- `bucket_fit.py`: the token bucket that explains a record best.
- `plans.py`: the profiles: given the record so far, the next stretch, or the findings.
"""
