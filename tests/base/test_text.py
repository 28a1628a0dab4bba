"""Numbers, times and lists read the same everywhere."""

import pytest

from ksdd_lib import text


def test_a_long_list_says_how_many_more_there_are() -> None:
    assert text.listed(["a", "b", "c"], 3) == "a, b, c"
    assert text.listed(["a", "b", "c", "d"], 2, "; ") == "a; b and 2 more"
    assert text.listed([]) == ""


@pytest.mark.parametrize(
    ("seconds", "expected"), [(40, "40 s"), (99.6, "100 s"), (250, "4.2 min"), (9000, "2.5 h")]
)
def test_a_duration_has_the_unit_that_is_easy_to_read(seconds: float, expected: str) -> None:
    assert text.duration(seconds) == expected


def test_what_the_data_do_not_define_is_said_in_a_word() -> None:
    assert (text.number(None), text.percent(None), text.interval(None)) == (
        "undefined",
        "undefined",
        "none",
    )
    assert text.interval((0.5, 1.0)) == "0.500 to 1.000"


def test_an_upper_end_is_never_rounded_down() -> None:
    assert text.percent_up_to(0.0301) == "3.1\N{NO-BREAK SPACE}%"
    assert text.percent_up_to(0.03) == "3.0\N{NO-BREAK SPACE}%"


def test_settings_and_facts_read_as_words() -> None:
    assert (text.plain(True), text.plain(["x", "y"]), text.plain(3)) == ("yes", "x, y", "3")
