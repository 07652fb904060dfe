"""Names of changed pictures: equal where the picture is."""

from __future__ import annotations

import pytest

from camrt.metrics.changes import (
    Clean,
    Cropped,
    Imputed,
    Masked,
    Order,
    Randomised,
    Shifted,
    Substrate,
    Swapped,
    Whole,
    depends_on_map,
    is_seeded,
    settled,
    swapped,
)


def test_only_what_a_map_decides_depends_on_it() -> None:
    free = (Clean(), Whole(), Shifted("gaussian"), Randomised("cascading", 1, 2))
    bound = (Masked(), Swapped(Order(), 0, 1), Imputed(Order(), 3), Cropped())
    assert [depends_on_map(change) for change in (*free, *bound)] == [False] * 4 + [True] * 4


@pytest.mark.parametrize(("space", "colour"), [("normalised", "grey"), ("raw", "black")])
def test_hidden_is_the_mask_spaces_colour(space: str, colour: str) -> None:
    for change in (Whole(), Masked(inverted=True), Swapped(Order(), 2, 5)):
        named = settled(change, space)
        assert named.substrate == Substrate(colour)
        assert settled(named, space) is named  # what is named already stays
    assert settled(Imputed(Order(), 2), space) == Imputed(Order(), 2)


def test_equal_pictures_have_equal_names() -> None:
    blur = Substrate("rise", 11, 5.0)
    assert swapped(Order(), 5, 5, 9, blur) == swapped(Order(False), 0, 0, 9, blur) == Clean()
    assert swapped(Order(), 0, 9, 9, blur) == swapped(Order(False), -1, 12, 9, blur) == Whole(blur)
    assert swapped(Order(), 1, 9, 9, blur) == Swapped(Order(), 1, 9, blur)


def test_only_noise_and_seeded_orders_need_the_pictures_hash() -> None:
    free = (Clean(), Masked(), Swapped(Order(), 0, 3), Imputed(Order(), 3), Cropped())
    seeded = (
        Swapped(Order(seed=0), 0, 3), Imputed(Order(), 3, 0.1), Imputed(Order(seed=1, jitter=1e-4), 3), Shifted("square"),
    )  # fmt: skip
    assert [is_seeded(change) for change in (*free, *seeded)] == [False] * 5 + [True] * 4
