"""Typists type their scripts at their pace, and each key gets one reply."""

import random
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.keystrokes import KEYS_PER_S, PAUSE_S, SCRIPTS, PendingKeys, keys, type_scripts


def typed(script: str) -> list[str]:
    return [key.text for key in keys(script, random.Random(0))]


def test_a_correction_deletes_a_character_and_a_paste_is_one_key() -> None:
    assert typed("ab⌫⏸«, c»⏎") == ["a", "ab", "a", "a, c", "a, c\n"]


def test_a_pause_is_not_a_key_but_delays_the_next_one() -> None:
    plain, paused = (list(keys(script, random.Random(7))) for script in ("ab", "a⏸b"))
    assert paused[0] == plain[0]
    assert paused[1].at_s - plain[1].at_s == pytest.approx(PAUSE_S)


def test_keys_come_at_the_average_pace() -> None:
    last = list(keys("x" * 5_000, random.Random(0)))[-1]
    assert 5_000 / last.at_s == pytest.approx(KEYS_PER_S, rel=0.05)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_pauses_and_corrections_but_its_text_has_no_marks(script: str) -> None:
    assert "⏸" in script
    assert "⌫" in script
    assert not set(typed(script)[-1]) & set("⏸⌫⏎«»")


def test_some_scripts_have_pastes() -> None:
    assert any("«" in script for script in SCRIPTS)


def test_typists_differ_and_each_types_the_same_every_time() -> None:
    first, repeated, second = (list(islice(type_scripts(number), 400)) for number in (0, 0, 1))
    assert first == repeated
    assert not {key.text for key in first[5:]} & {key.text for key in second[5:]}
    assert all(earlier.at_s < later.at_s for earlier, later in pairwise(first))


def test_a_reply_resolves_its_key_and_the_earlier_ones() -> None:
    pending = PendingKeys()
    for seq, at_s in ((1, 0.0), (2, 0.2), (3, 0.4)):
        pending.press(seq, at_s)
    assert pending.resolve(2, 0.5) == pytest.approx([0.5, 0.3])
    assert pending.resolve(1, 0.6) == []  # a newer reply came before
    assert len(pending) == 1


@given(st.lists(st.integers(1, 30)))
def test_every_key_is_resolved_once_or_still_waits(replies: list[int]) -> None:
    pending = PendingKeys()
    for seq in range(1, 31):
        pending.press(seq, 0.0)
    n_resolved = sum(len(pending.resolve(seq, 1.0)) for seq in replies)
    assert n_resolved == max(replies, default=0)
    assert n_resolved + len(pending) == 30
