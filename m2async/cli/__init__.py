"""The m2async command: parse, call, show."""
