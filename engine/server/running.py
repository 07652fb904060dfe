"""
One call of the engine for several requests: how many images go into it, and whose rows come out.

In: tickets that want the same of the same model. Out: an answer for each, in order. What is done with answers and errors,
and when, is the scheduler's.
"""

from __future__ import annotations

import time
from contextlib import nullcontext

from ..explanation import Explanation
from ..image import join
from .observing import Observer, safely
from .served import Served
from .settings import Settings
from .tickets import Answer, Run, Ticket

__all__ = ["answers_of", "images_of", "overflows"]

SCORES = "scores"  # what runs without a method are called
SPAN = 1 / 80  # seconds of a run on a CPU: 4 images of MobileNetV2 (+15 % a second), 1 of ResNet-50 (4 were 5 % slower)


def images_of(ticket: Ticket, waiting: int, settings: Settings) -> int:
    """
    Say how many of the images that wait go into a run.

    A device is quicker the more it is given at once. On a CPU an image takes hardly less time in company, but what keeps
    several threads together and a call's own work are shared: so quick models run several, `SPAN` long, and only where
    requests queue up, half a lane's share of them, since whoever waits for a run of three beside a run of one waits longest.
    Lanes of one core without a spare one run one image: two of MobileNetV2 took 0.97 of the answers a second, since lanes
    that wait for the interpreter's lock then wait for longer; with a spare lane, which computes meanwhile, 1.07.

    Parameters
    ----------
    ticket : Ticket
        The one that waits longest.
    waiting : int
        Images that could share its run, its own included.
    settings : Settings
        ``batch``, ``full_runs``, ``delay``, the light lanes and the threads of a run.

    Returns
    -------
    int
        At least 1.
    """
    served = ticket.served
    if served is None:
        return 1
    most = min(settings.batch, served.explainer.batch)
    if _is_filled(served, settings):
        return most
    if settings.run_threads_busy == 1 and not settings.spare_lanes:
        return 1
    lanes = settings.light_lanes + settings.spare_lanes
    return max(1, min(most, round(SPAN * served.rate), -(-waiting // (2 * lanes))))


def overflows(ticket: Ticket, waiting: int, settings: Settings) -> bool:
    """
    Say whether so much waits that a spare lane should run, too.

    Three lanes of ResNet-50 on two cores answer no more than two, and later; so one more runs only where runs are joined.

    Parameters
    ----------
    ticket : Ticket
        The one that waits longest.
    waiting : int
        Images that could share its run, its own included.
    settings : Settings
        As in `images_of`.

    Returns
    -------
    bool
        Never for a device, or where runs are filled up anyway.
    """
    served = ticket.served
    return served is not None and not _is_filled(served, settings) and images_of(ticket, waiting, settings) > 1


def _is_filled(served: Served, settings: Settings) -> bool:
    """Whether a run takes all that fits and waits."""
    on_device = served.explainer.running["providers"][0] != "CPUExecutionProvider"
    return on_device or settings.full_runs or settings.delay > 0


def answers_of(run: Run, begun: float, observer: Observer) -> list[Answer]:
    """
    Call the engine once for all tickets of a run, and cut the result up.

    Parameters
    ----------
    run : Run
        Its tickets have the same key, and prepared inputs; its switch ends the call.
    begun : float
        When they were taken out of the line (`time.monotonic`).
    observer : Observer
        Told of the run, and how long each ticket waited.

    Returns
    -------
    list of Answer
        One for each ticket, in order.

    Raises
    ------
    CamrtError
        Whatever the engine raises, which may be the fault of one ticket alone.
    """
    tickets = run.tickets
    served, wish = tickets[0].served, tickets[0].wish
    if served is None:
        raise AssertionError("a ticket that runs has its model")
    whole = join([ticket.prepared for ticket in tickets if ticket.prepared is not None])
    explanation: Explanation | None = None
    started = time.monotonic()
    with served.explainer.sessions.under_way() if run.is_beside else nullcontext():
        if wish is None:
            logits = served.explainer.logits(whole, cancel=run.switch)
        else:
            targets = [row for ticket in tickets for row in ticket.table]
            explanation = served.explainer.explain(whole, target=targets, cancel=run.switch, **wish.arguments())
            logits = explanation.logits
    seconds = time.monotonic() - started
    images = len(whole.x)
    safely(observer.ran, images, served.name, SCORES if wish is None else wish.method, seconds)
    answers, place = [], 0
    for ticket in tickets:
        rows = slice(place, place + ticket.count)
        place += ticket.count
        waited = max(0.0, begun - ticket.submitted - ticket.decode_seconds)
        safely(observer.waited, waited)
        safely(observer.stage, "run", seconds)
        part = explanation if explanation is None or len(tickets) == 1 else explanation.part(rows)
        answers.append(Answer(part, logits[rows], served, waited, ticket.decode_seconds, seconds, images))
    return answers
