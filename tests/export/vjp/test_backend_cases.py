"""
Every applicable node test of the installed onnx package is a gradient check; what is left out is listed with a reason.

The number of cases is printed at the end of the run (`conftest.py`) and may not fall.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch

import pytest

from camrt.errors import CamrtError
from camrt.export.vjp import RULES
from tests.export.vjp.backend import SUMMARY, Case, Inapplicable, cases, check

FLOOR = 1100  # cases checked with onnx 1.23; other versions carry more

_MASKED = "every entry of a row is masked: the softmax is 0/0 before a Where hides it"
EXCLUDED = {
    "test_attention*fullymasked*": _MASKED,
    "test_attention*boolmask_nan_robustness*": _MASKED,
    "test_attention*structural_empty*": _MASKED,
    "test_attention_24_qk_matmul_output_mode3_softmax_precision*": _MASKED,
    "test_attention_local_window_gqa_rank4_mask*": _MASKED,
    "test_attention_4d_causal_padded_kv_bf16*": _MASKED,
    "test_batchnorm_*_training_mode": "training: refused",
    "test_training_dropout*": "training: refused",
    "test_einsum_batch_diagonal": "diagonals are refused",
    "test_mod_float_edge_cases_fmod_0_float*": "quotients of infinities and zeros",
    "test_range_*_type_positive_delta": "bounds computed from the input decide the shape: refused",
    "test_reshape_allowzero_reordered": "an empty tensor",
    "test_resize_downsample_scales_*_align_corners": (
        "ONNX Runtime and the rule map corners by the rounded output size, the case by the size before rounding"
    ),
    "test_scatter_elements_with_reduction_m[aiu]*": "products and extremes with what was there are refused",
    "test_scatternd_m*": "products and extremes with what was there are refused",
}
UNPROVED_HERE = {"GlobalLpPool": "onnx has no case of it", "Trilu": "all cases are of integers"}
NO_GRADIENT = {  # nothing flows by definition, and no case has a floating input and output
    "And", "ArgMax", "ArgMin", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Constant",
    "ConstantOfShape", "Equal", "EyeLike", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual",
    "NonZero", "Not", "Or", "Range", "Shape", "Size", "Xor",
}  # fmt: skip


def _reason(case: Case) -> str | None:
    """Return why a case is left out, None where it is to be checked."""
    return next((reason for pattern, reason in EXCLUDED.items() if fnmatch(case.name, pattern)), None)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, str]]:
    """Return what became of each case, by name, as the tests of this module find it out."""
    found: dict[str, str] = {}
    yield found
    SUMMARY.append(found)


@pytest.mark.parametrize("op", sorted({*RULES, "several operators"}))
def test_every_case_passes_or_is_left_out_for_a_reason(op: str, outcomes: dict[str, str]) -> None:
    """One test an operator with a rule; what is written out in others is under "several operators"."""
    chosen = [case for case in cases() if case.op == op or (op == "several operators" and case.op not in RULES)]
    failed = []
    for case in chosen:
        try:
            check(case)
            outcomes[case.name] = "checked"
        except Inapplicable as why:
            outcomes[case.name] = f"not applicable: {why}"
        except (AssertionError, CamrtError, ValueError) as error:
            outcomes[case.name] = f"left out: {_reason(case)}"
            if _reason(case) is None:
                failed.append(f"{case.name}: {' '.join(str(error).split())[:300]}")
        else:
            if _reason(case) is not None:
                failed.append(f"{case.name}: passes, and needs no exclusion")
    assert not failed, "\n".join(failed)
    if op not in UNPROVED_HERE and op not in NO_GRADIENT:
        assert any(outcomes[case.name] == "checked" for case in chosen), f"no case of {op} was checked"


def test_the_number_of_cases_does_not_fall(outcomes: dict[str, str]) -> None:
    for case in cases():  # those that were not asked for above, where this test runs alone
        if case.name not in outcomes:
            test_every_case_passes_or_is_left_out_for_a_reason(
                case.op if case.op in RULES else "several operators", outcomes
            )
    assert sum(outcome == "checked" for outcome in outcomes.values()) >= FLOOR


@pytest.mark.parametrize("pattern", EXCLUDED)
def test_every_exclusion_is_of_a_case(pattern: str) -> None:
    assert any(fnmatch(case.name, pattern) for case in cases())
