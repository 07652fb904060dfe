"""
Programs that carry relevance back from the logits to a layer, by the rules of `camrt.export.propagation.relevance`.

In: a draft of one layer. Out: ``relevance.0`` (N, K, h, w), what each activation that is fed had of the seed.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..vjp.table import Rule
from .cut import begin_at_layer
from .draft import Draft
from .gradients import give_gradients
from .seeds import seed_input

__all__ = ["relevance"]


def relevance(draft: Draft, rules: Mapping[str, Rule]) -> None:
    """
    Give the relevance of a layer's activations.

    Parameters
    ----------
    draft : Draft
        Of one layer.
    rules : mapping of str to Rule
        With or without biases in the denominators.
    """
    begin_at_layer(draft)
    give_gradients(draft, seed_input(draft), draft.values, rules, "relevance")
