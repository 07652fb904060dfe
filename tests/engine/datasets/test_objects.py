"""Pictures with many objects: one sample a class, or one of the largest."""

from __future__ import annotations

import pytest

from camrt.datasets.objects import Thing, grouped
from camrt.errors import InputError

CAT, DOG, CAT2 = (
    Thing("cat", 5, (0, 0, 2, 2), 4, 0),
    Thing("dog", 2, (0, 0, 3, 3), 9, 1),
    Thing("cat", 5, (1, 1, 3, 4), 6, 2),
)


def test_every_class_is_a_sample_in_order_of_the_model() -> None:
    assert grouped([CAT, DOG, CAT2], "class") == [[DOG], [CAT, CAT2]]
    assert grouped([], "class") == [] == grouped([], "image")


def test_the_largest_object_decides_and_its_whole_class_comes() -> None:
    assert grouped([CAT, DOG, CAT2], "image") == [[DOG]]
    assert grouped([CAT2, CAT], "image") == [[CAT2, CAT]]
    equal = Thing("bee", 1, (0, 0, 3, 3), 9, 3)
    assert grouped([DOG, equal], "image") == [[DOG]] and grouped([equal, DOG], "image") == [[equal]]


def test_another_word_is_refused() -> None:
    with pytest.raises(InputError, match="'class' or 'image'; got 'object'"):
        grouped([CAT], "object")  # type: ignore[arg-type]
