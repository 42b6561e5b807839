"""One call: its settings, the signed bytes, and what the answer says."""

from m2async.client.client import M2Client
from m2async.client.settings import sentence

__all__ = ["M2Client", "sentence"]
