"""What metrics need is known before it is run, and nothing is run twice."""

from __future__ import annotations

from camrt.choices import Choice
from camrt.metrics.changes import Clean, Masked, Order, Shifted, Substrate, Swapped, Whole, swapped
from camrt.metrics.plan import plan_of
from camrt.metrics.table import Field, Metric

FIELD = Field("m", "higher", 0, 1, "")
GREY = Substrate("grey")


def metric(*changes, again=()):
    row = Metric(
        "m", "", "", "", (FIELD,), ("v",), lambda case, *, variant: {},
        changes=lambda size, *, variant: tuple(changes), again=lambda size, *, variant: tuple(again),
    )  # fmt: skip
    return Choice("m", row, "v")


def test_what_two_metrics_ask_is_run_once() -> None:
    step = Swapped(Order(), 0, 5, GREY)
    plan = plan_of([metric(Clean(), step, Whole(GREY)), metric(Clean(), step, Masked(GREY))], (4, 5))
    assert set(plan.scored) == {step, Whole(GREY), Masked(GREY), Clean()}
    assert (plan.by_map, plan.by_image, plan.by_batch) == (2, 1, 1)
    assert plan.asked == 6


def test_the_count_is_the_sum_over_images_methods_and_batches() -> None:
    blurred, noise = Whole(Substrate("rise", 11, 5.0)), Shifted("gaussian", 0.2)
    plan = plan_of([metric(Masked(GREY), blurred, noise, Whole(GREY))], (4, 5))
    assert plan.forwards(images=10, methods=3, batches=2) == 10 * 3 * 1 + 10 * 3 + 2 * 1


def test_what_is_explained_again_is_not_scored_as_well() -> None:
    plan = plan_of([metric(Masked(GREY)), metric(again=(Masked(GREY),))], (4, 5))
    assert plan.scored == () and plan.again == (Masked(GREY),)
    assert plan.forwards(10, 3, 2) == 0 and plan.explanations(10, 3) == 60


def test_nothing_and_everything_replaced_have_one_name() -> None:
    assert swapped(Order(), 3, 3, 20, GREY) == Clean()
    assert swapped(Order(), 0, 20, 20, GREY) == swapped(Order(False), 0, 20, 20, GREY) == Whole(GREY)
    assert swapped(Order(), 0, 19, 20, GREY) == Swapped(Order(), 0, 19, GREY)


def test_the_plan_is_said_in_numbers() -> None:
    said = plan_of([metric(Masked(GREY), Whole(GREY))], (4, 5)).described(7, 2, 1)
    assert "14 explanations and 22 forwards" in said and "28 scores" in said


def test_hidden_pixels_have_the_name_of_their_colour() -> None:
    asked = metric(
        Swapped(Order(), 0, 5, Substrate("hidden")), Swapped(Order(), 0, 5, GREY), Whole(Substrate("hidden"))
    )
    grey, raw = plan_of([asked], (4, 5)), plan_of([asked], (4, 5), "raw")
    assert grey.scored == (Swapped(Order(), 0, 5, GREY), Whole(GREY))
    assert raw.scored[0] == Swapped(Order(), 0, 5, Substrate("black")) and len(raw.scored) == 3
    answers = grey.by_name({change: place for place, change in enumerate(grey.scored)})
    assert answers[Swapped(Order(), 0, 5, Substrate("hidden"))] == 0 and answers[Whole(Substrate("hidden"))] == 1


def test_the_clean_picture_is_scored_beside_masked_ones_alone() -> None:
    step = Swapped(Order(), 0, 5, GREY)
    assert Clean() not in plan_of([metric(Clean(), step)], (4, 5)).scored  # it comes with the explanation
    assert Clean() not in plan_of([metric(Clean(), Masked(GREY), again=(Masked(GREY),))], (4, 5)).scored
    assert Clean() in plan_of([metric(Clean(), Masked(GREY))], (4, 5)).scored
