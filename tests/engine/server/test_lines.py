"""Who is taken when, against a list that is searched from the start."""

from __future__ import annotations

import random
from dataclasses import dataclass

from camrt.server.lines import Line


@dataclass(eq=False)
class Item:
    """Something that waits."""

    key: str
    count: int


def test_the_oldest_goes_first_and_takes_its_likes_along() -> None:
    line: Line[Item] = Line()
    a1, b1, a2, a3, b2 = Item("a", 1), Item("b", 1), Item("a", 2), Item("a", 2), Item("b", 5)
    for item in (a1, b1, a2, a3, b2):
        line.put(item)
    assert line.first is a1
    assert line.company(a1) == 5
    assert line.take(4) == [a1, a2]
    assert line.take(4) == [b1]  # its like does not fit
    assert line.take(4) == [a3]
    assert line.take(4) == [b2]  # too large for any run, and yet taken
    assert len(line) == 0


def test_it_does_what_a_searched_list_does() -> None:
    chance = random.Random(0)
    line: Line[Item] = Line()
    waiting: list[Item] = []
    gone = Item("a", 1)
    for _ in range(3000):
        choice = chance.random()
        if choice < 0.5:
            item = Item(chance.choice("abc"), chance.randint(1, 4))
            line.put(item)
            waiting.append(item)
        elif choice < 0.65 and waiting:
            gone = chance.choice(waiting)
            line.discard(gone)
            line.discard(gone)
            waiting.remove(gone)
        elif waiting:
            most = chance.randint(1, 8)
            want, images = [waiting[0]], waiting[0].count
            for item in (other for other in waiting[1:] if other.key == waiting[0].key):
                if images + item.count > most:
                    break
                want.append(item)
                images += item.count
            assert line.company(waiting[0]) == sum(item.count for item in waiting if item.key == waiting[0].key)
            assert line.take(most) == want
            waiting = [item for item in waiting if item not in want]
        assert len(line) == len(waiting)
        assert not waiting or line.first is waiting[0]
