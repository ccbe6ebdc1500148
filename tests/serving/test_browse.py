"""The command that serves a gallery: what it prints, and what it refuses."""

from __future__ import annotations

import pytest

from reidray.serving.server import chosen_token, is_local


def test_a_token_is_made_where_none_is_given_and_never_twice_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REIDRAY_SERVE_TOKEN", raising=False)
    assert len({chosen_token(None) for _ in range(8)}) == 8
    assert all(len(chosen_token(None)) >= 32 for _ in range(8))
    monkeypatch.setenv("REIDRAY_SERVE_TOKEN", "sixteen-letters-")
    assert chosen_token(None) == "sixteen-letters-"
    assert chosen_token("another-of-enough") == "another-of-enough"


@pytest.mark.parametrize(
    "token", ["", "short", "a token with blanks in it", "quotes'quotes\"quotes", "längerlängerlänger"]
)
def test_a_token_that_is_weak_or_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="expected a token of at least 16"):
        chosen_token(token)


def test_only_addresses_of_this_machine_are_local() -> None:
    assert all(is_local(host) for host in ("127.0.0.1", "localhost", "::1", "127.5.5.5"))
    assert not any(is_local(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", ""))
