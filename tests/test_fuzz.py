"""Damaged inputs of every kind end in an answer or in one line; tests/fuzz/run.py tries far more."""

import pathlib
import random
import sys

import pytest

FUZZ = pathlib.Path(__file__).parent / "fuzz"
COUNT = 1500


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(FUZZ)
    import run

    yield run
    for name in ("run", "seeds", "other_seeds", "mutations"):
        sys.modules.pop(name, None)


@pytest.mark.heavy
def test_damaged_inputs_end_in_an_answer_or_in_one_line(fuzz):
    found = list(fuzz.outcomes(COUNT, 15))
    assert len(found) == COUNT and len({kind for kind, *_ in found}) == 20
    assert [(kind, outcome, text[-1500:]) for kind, outcome, text in found if outcome not in fuzz.GOOD] == []


def test_the_same_seed_gives_the_same_inputs(fuzz):
    import mutations

    content = bytes(range(256)) * 4
    twice = [[mutations.damaged(content, draw) for _ in range(50)] for draw in (random.Random(3), random.Random(3))]
    assert twice[0] == twice[1] and len(set(twice[0])) > 45
