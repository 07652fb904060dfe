"""Text that fits; the oracle is the width Pillow measures."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.lettering import font, plain, shorten, wrap


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("tiger cat", "tiger cat"),
        ("Crème brûlée", "Creme brulee"),
        ("A–B — “c” ≤ 3×4 °C …", 'A-B - "c" <= 3x4 °C …'),
        ("Straße, smørrebrød", "Strasse, smorrebrod"),
        ("a\nb\tc", "a b c"),
        ("猫", "?"),
        ("", ""),
    ],
)
def test_text_becomes_letters_the_font_has(text: str, want: str) -> None:
    assert plain(text) == want


@settings(deadline=None, max_examples=50)  # the font is read anew each time
@given(st.text(max_size=30))
def test_the_font_has_every_letter_it_is_given(text: str) -> None:
    missing = bytes(font(16).getmask("\ufffe"))
    assert all(letter == " " or bytes(font(16).getmask(letter)) != missing for letter in plain(text))


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60), st.integers(30, 300))
def test_a_shortened_line_fits(text: str, width: int) -> None:
    assert font(16).getlength(shorten(text, width, font(16))) <= width


def test_a_line_that_fits_is_left_alone_and_a_cut_one_ends_in_an_ellipsis() -> None:
    assert shorten("tabby, tabby cat", 500, font(16)) == "tabby, tabby cat"
    cut = shorten("tabby, tabby cat", 80, font(16))
    assert cut.endswith("…") and "tabby, tabby cat".startswith(cut[:-1])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["a", "long", "verylongword", "x" * 60]), min_size=1, max_size=12), st.integers(1, 4))
def test_wrapped_lines_fit_and_keep_the_words_in_order(words: list[str], lines: int) -> None:
    broken = wrap(" ".join(words), 120, font(16), lines)
    assert 1 <= len(broken) <= lines
    assert all(font(16).getlength(line) <= 120 for line in broken)
    if "…" not in "".join(broken):
        assert " ".join(broken).split() == words


def test_a_text_that_fits_one_line_is_one_line() -> None:
    assert wrap("dog and cat", 200, font(16), 3) == ["dog and cat"]
    assert wrap("dog and cat", int(font(16).getlength("dog and")) + 1, font(16), 3) == ["dog and", "cat"]
