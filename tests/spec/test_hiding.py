"""What is kept holds the names of environment variables, and not their values."""

import pytest

from kflow.spec.hiding import hide_values


@pytest.mark.parametrize(
    ("value", "text", "hidden"),
    [
        ("hunter2", "it failed with hunter2", "it failed with ${env.X}"),
        ('"hunter2"', "it failed with hunter2", "it failed with ${env.X}"),
        (' "hunter2" ', 'not  "hunter2" , but hunter2', "not ${env.X}, but ${env.X}"),
        ("'it''s'", "no it's", "no ${env.X}"),
        ("0x1F40", "8000 or 0x1F40", "${env.X} or ${env.X}"),
        ("1", "try 1 of 11 at 127.0.0.1. Not 1.", "try ${env.X} of 11 at 127.0.0.1. Not ${env.X}."),
        ("[first, {a: second}]", "neither first nor second", "neither ${env.X} nor ${env.X}"),
        ("./secret//here/", "/home/secret/here/f.txt is gone", "/home/${env.X}/f.txt is gone"),
        ("../secret", "/home/secret/f.txt is gone", "/home/${env.X}/f.txt is gone"),
        ("'my  secret'", "it is my secret", "it is ${env.X}"),
        ("first-part\n\nsecond", "it is first-part", "it is ${env.X}"),
        ("a.b", "a.b, and not acb", "${env.X}, and not acb"),
    ],
)
def test_a_value_is_hidden_as_it_is_set_and_as_it_is_read(value: str, text: str, hidden: str) -> None:
    """Without its quotes and blanks, as the number that it is, part by part, as a path in its shortest form."""
    assert hide_values(text, {"X": value}) == hidden


@pytest.mark.parametrize("value", ["", "true", "~", "..", "/", '"."'])
def test_what_tells_nothing_stays(value: str) -> None:
    """It would make the text unreadable, and hide nothing."""
    text = "true, that ../f.txt was null"

    assert hide_values(text, {"X": value}) == text


def test_the_longest_value_is_hidden_first_and_no_name_is_a_value() -> None:
    """One value may hold another one, or the name of another variable."""
    values = {"A": "secret", "B": "secret place", "C": "env."}

    assert hide_values("the secret place is a secret", values) == "the ${env.B} is a ${env.A}"


def test_a_short_value_of_another_step_is_no_secret_of_this_one() -> None:
    """It stands in all kinds of texts and means something else; a long one is found wherever it gets to."""
    assert hide_values("1 in the secret", {}, {"A": "1", "B": "secret"}) == "1 in the ${env.B}"


def test_a_word_is_hidden_but_not_within_another_one() -> None:
    """What has no letter beside it stands by itself: a dot, a digit or a line says nothing else."""
    assert hide_values("database/data.h5, my_data2", {"D": "data"}) == "database/${env.D}.h5, my_${env.D}2"
