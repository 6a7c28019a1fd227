"""Typists type what their scripts say, at their pace; and each key has one answer."""

import random
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.keystrokes import KEYS_PER_S, PAUSE_S, SCRIPTS, Waiting, keys, typing


def typed(script: str) -> list[str]:
    return [key.text for key in keys(script, random.Random(0))]


def test_a_correction_takes_a_character_away_and_a_paste_is_one_key() -> None:
    assert typed("ab⌫⏸«, c»⏎") == ["a", "ab", "a", "a, c", "a, c\n"]


def test_a_pause_is_no_key_but_takes_its_time() -> None:
    plain, paused = (list(keys(script, random.Random(7))) for script in ("ab", "a⏸b"))
    assert paused[0] == plain[0]
    assert paused[1].at_s - plain[1].at_s == pytest.approx(PAUSE_S)


def test_keys_come_at_the_pace_of_a_typist() -> None:
    last = list(keys("x" * 5_000, random.Random(0)))[-1]
    assert 5_000 / last.at_s == pytest.approx(KEYS_PER_S, rel=0.05)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_pauses_and_corrections_and_leaves_no_mark_in_its_text(script: str) -> None:
    assert "⏸" in script
    assert "⌫" in script
    assert not set(typed(script)[-1]) & set("⏸⌫⏎«»")


def test_some_scripts_have_pastes() -> None:
    assert any("«" in script for script in SCRIPTS)


def test_typists_differ_and_each_types_the_same_every_time() -> None:
    first, again, other = (list(islice(typing(number), 400)) for number in (0, 0, 1))
    assert first == again
    assert not {key.text for key in first[5:]} & {key.text for key in other[5:]}
    assert all(earlier.at_s < later.at_s for earlier, later in pairwise(first))


def test_an_answer_answers_its_key_and_those_that_it_replaced() -> None:
    waiting = Waiting()
    for seq, at_s in ((1, 0.0), (2, 0.2), (3, 0.4)):
        waiting.press(seq, at_s)
    assert waiting.answer(2, 0.5) == pytest.approx([0.5, 0.3])
    assert waiting.answer(1, 0.6) == []  # too late to be of use
    assert len(waiting) == 1


@given(st.lists(st.integers(1, 30)))
def test_every_key_is_answered_once_or_still_waits(answers: list[int]) -> None:
    waiting = Waiting()
    for seq in range(1, 31):
        waiting.press(seq, 0.0)
    n_answered = sum(len(waiting.answer(seq, 1.0)) for seq in answers)
    assert n_answered == max(answers, default=0)
    assert n_answered + len(waiting) == 30
