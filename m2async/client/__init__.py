"""One call: its settings, the signed bytes, and what the answer says."""

from m2async.client.client import CallNext, M2Client, Middleware
from m2async.client.settings import is_loopback, sentence

__all__ = ["CallNext", "M2Client", "Middleware", "is_loopback", "sentence"]
