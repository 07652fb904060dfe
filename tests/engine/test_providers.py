"""Providers: names are read, and what the caller leaves open changes no numbers unasked."""

from __future__ import annotations

import json

import pytest

from camrt.errors import ProviderError
from camrt.providers import BUCKETS, Provider, bucket_of, parse_providers, tuned


def test_short_names_become_onnx_runtimes_own() -> None:
    parsed = parse_providers(["cuda", ("CPUExecutionProvider", {"arena": 1})])
    assert [p.name for p in parsed] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert parsed[1].options == {"arena": "1"}


@pytest.mark.parametrize("bad", ["", [], [("a", "b", "c")], [3], [("cpu", 4)]])
def test_a_malformed_provider_list_is_refused(bad: object) -> None:
    with pytest.raises(ProviderError, match="provider"):
        parse_providers(bad)  # type: ignore[arg-type]


def test_cuda_uses_tf32_only_where_it_is_asked_for() -> None:
    cuda = parse_providers("cuda")[0]
    assert [tuned(cuda, how).options["use_tf32"] for how in ("float32", "float16", "tf32")] == ["0", "0", "1"]
    assert tuned(cuda).options["arena_extend_strategy"] == "kSameAsRequested"
    assert tuned(cuda).options["cudnn_conv_algo_search"] == "HEURISTIC"


def test_what_the_caller_says_of_an_option_stands() -> None:
    (asked,) = parse_providers([("cuda", {"use_tf32": 1, "gpu_mem_limit": 2**30})])
    assert tuned(asked).options["use_tf32"] == "1"
    assert tuned(asked).options["gpu_mem_limit"] == str(2**30)


def test_openvino_is_always_told_its_precision() -> None:
    for how, hint in (("float32", "f32"), ("bfloat16", "bf16")):
        options = tuned(parse_providers("openvino")[0], how).options
        assert json.loads(options["load_config"]) == {"CPU": {"INFERENCE_PRECISION_HINT": hint}}
        assert options["device_type"] == "CPU"
    gpu = tuned(Provider("OpenVINOExecutionProvider", {"device_type": "GPU"})).options
    assert list(json.loads(gpu["load_config"])) == ["GPU"]


def test_other_providers_are_left_as_they_came() -> None:
    assert tuned(parse_providers("cpu")[0]) == parse_providers("cpu")[0]


def test_rows_are_filled_up_to_the_next_bucket() -> None:
    assert [bucket_of(n) for n in (1, 2, 4, 5, 16, 17, 32, 33)] == [1, 4, 4, 16, 16, 32, 32, 33]
    assert list(BUCKETS) == sorted(set(BUCKETS))
