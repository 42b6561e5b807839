from __future__ import annotations

from m2async.service import Sending


def test_a_refusal_says_nothing_of_what_was_sent_before() -> None:
    sending = Sending(lambda: True)
    sending.is_prepared()
    sending.begins()  # whose answer is lost
    sending.begins()
    sending.was_refused()
    assert sending.has_begun is True


def test_nothing_is_known_of_a_client_that_does_not_tell() -> None:
    assert Sending(lambda: True).has_begun is None


def test_what_was_refused_has_had_no_effect() -> None:
    sending = Sending(lambda: True)
    sending.is_prepared()
    sending.begins()
    sending.was_refused()
    assert sending.has_begun is False
