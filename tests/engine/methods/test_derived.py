"""Running a method as the base of another."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from camrt.methods import METHODS
from camrt.methods.derived import BASES, base_options, run_base
from tests.engine.methods.heads import make_acts


def test_bases_are_the_methods_that_need_activations_and_gradients_alone():
    assert set(BASES) == {m.id for m in METHODS.values() if m.needs == ("acts", "grads") and m.id != "refinecam"}


@pytest.mark.parametrize("base", BASES)
def test_a_base_runs_as_it_would_alone(rng, base):
    acts, grads = make_acts(rng), rng.normal(size=(3, 6, 4, 5))
    alone = METHODS[base].function(acts, grads, variant=METHODS[base].variants[0])
    result = run_base(acts, grads, base, None, "official" if base == "layercam" else "none such")
    np.testing.assert_array_equal(result.array, getattr(alone, "array", alone))
    assert result.gives == METHODS[base].gives


def test_the_base_takes_the_variant_of_the_same_name_unless_told(rng):
    acts, grads = make_acts(rng), rng.normal(size=(3, 6, 4, 5))
    plain = METHODS["gradcampp"].function
    np.testing.assert_array_equal(
        run_base(acts, grads, "gradcampp", None, "torchcam").array, plain(acts, grads, variant="torchcam")
    )
    np.testing.assert_array_equal(
        run_base(acts, grads, "gradcampp", "paper", "torchcam").array, plain(acts, grads, variant="paper")
    )


def test_flags_of_the_base_come_along(rng):
    acts, grads = make_acts(rng, signed=True), rng.normal(size=(3, 6, 4, 5))
    assert set(run_base(acts, grads, "xgradcam", None, "x").flags) == {"skipped_channels", "signed_activations"}
    assert set(run_base(acts, grads, "eigengradcam", None, "x").flags) == {"unstable"}
    assert set(run_base(acts, grads, "gradcam", None, "x").flags) == set()


def test_what_is_no_base_is_refused(rng):
    acts = make_acts(rng)
    with pytest.raises(MethodError, match="cannot be a base"):
        run_base(acts, acts, "eigencam", None, "x")
    with pytest.raises(MethodError, match="hirescam has no variant 'paper'"):
        run_base(acts, acts, "hirescam", "paper", "x")


def test_options_offer_every_base_and_its_variants():
    options = base_options("gradcam")
    assert options["base"].choices == BASES
    assert set(options["base_variant"].choices) == {v for base in BASES for v in METHODS[base].variants}
