"""The dashboard: the runs of a ledger on a page, served on loopback to whoever has its token."""
