"""The wire: what happens for each call, from a request's members to signed bytes and from bytes to an answer."""
