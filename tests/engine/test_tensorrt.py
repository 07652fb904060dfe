"""TensorRT's options, as text: profiles for every input, a cache of one's own, refusals with the project's label."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path

import onnx
import pytest

from camrt.errors import OutputError, ProviderError
from camrt.export import open_model
from camrt.export.manifest import Program
from camrt.providers import parse_providers
from camrt.tensorrt import NOTE, _installed, private_folder, shapes_of, tensorrt_for, tensorrt_options
from tests import tiny
from tests.export.onnx_text import tokens

VERSIONS = {"onnxruntime": "1.31.1", "tensorrt": "10.14.1", "gpu": "NVIDIA H200 sm_90"}
KNOWN = {  # of the options compiled into ONNX Runtime 1.31.1's TensorRT provider, those that may be set here
    "device_id",
    "user_compute_stream",
    "trt_max_partition_iterations",
    "trt_min_subgraph_size",
    "trt_max_workspace_size",
    "trt_engine_cache_enable",
    "trt_engine_cache_path",
    "trt_engine_cache_prefix",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
    "trt_profile_min_shapes",
    "trt_profile_opt_shapes",
    "trt_profile_max_shapes",
    "trt_cuda_graph_enable",
    "trt_builder_optimization_level",
}


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("forward", {"x": ("N", 3, 12, 10)}),
        ("gradient", {"x": ("N", 3, 12, 10), "target": ("N",)}),
        ("input_gradient", {"x": ("N", 3, 12, 10), "seed": ("N", tiny.CLASSES)}),
        ("tail_gradient", {"activations.0": ("N", tiny.CHANNELS, 6, 5), "seed": ("N", tiny.CLASSES)}),
    ],
)
def test_profiles_name_every_dynamic_input_at_every_size(kind: str, wanted: dict[str, tuple[int | str, ...]]) -> None:
    live = open_model(tiny.gap())
    program = live.program(kind, () if "x" in wanted and kind != "gradient" else (live.manifest.default_layer.name,))
    assert shapes_of(live.manifest, program) == wanted
    options = tensorrt_options(live.manifest, program, cache="cache", versions=VERSIONS, buckets=(2, 8))
    assert set(options) <= KNOWN
    for which, n in (("min", 2), ("opt", 8), ("max", 8)):
        text = ",".join(f"{k}:{'x'.join(str(n if d == 'N' else d) for d in s)}" for k, s in wanted.items())
        assert options[f"trt_profile_{which}_shapes"] == text
        assert re.fullmatch(r"([\w.]+:\d+(x\d+)*)(,[\w.]+:\d+(x\d+)*)*", text)


def test_the_shapes_are_those_of_the_graphs_inputs() -> None:
    for data in (tiny.gap(), tokens()):
        live = open_model(data)
        layer = (live.manifest.default_layer.name,)
        for kind, layers in (("gradient", layer), ("seeded_gradient", layer), ("forward", ()), ("input_gradient", ())):
            program = live.program(kind, layers)
            graph = onnx.load_from_string(program.model).graph
            held = {
                i.name: tuple(d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim) for i in graph.input
            }
            assert shapes_of(live.manifest, program) == held


def test_a_cache_belongs_to_one_model_and_one_machine() -> None:
    live, other = open_model(tiny.gap()), open_model(tiny.gap(seed=1))

    def path(manifest: object = live.manifest, precision: str = "float32", **changed: str) -> str:
        return tensorrt_options(
            manifest, live.program("forward"), cache="c", versions={**VERSIONS, **changed}, precision=precision  # type: ignore[arg-type]
        )["trt_engine_cache_path"]  # fmt: skip

    every = [path(), path(other.manifest), path(precision="float16")]
    every += [path(**{name: "another"}) for name in VERSIONS]
    assert len(set(every)) == len(every)
    assert path() == path()
    assert live.manifest.model["sha256"] in path()


def test_programs_of_one_model_do_not_share_engines() -> None:
    live = open_model(tiny.gap())
    names = [layer.name for layer in live.manifest.layers]
    programs = [live.program("forward"), *(live.program("gradient", (name,)) for name in names)]
    made = [tensorrt_options(live.manifest, p, cache="c", versions=VERSIONS) for p in programs]
    assert len({options["trt_engine_cache_prefix"] for options in made}) == len(made)


def test_a_fixed_batch_needs_no_profile() -> None:
    from dataclasses import replace

    manifest = replace(open_model(tiny.gap()).manifest, batch=4)
    program = Program("gradient", (manifest.default_layer.name,), ("x", "target"), ("logits",), b"")
    options = tensorrt_options(manifest, program, cache="c", versions=VERSIONS)
    assert shapes_of(manifest, program) == {"x": (4, 3, 12, 10), "target": (4,)}
    assert not [name for name in options if "profile" in name]


def test_what_tensorrt_cannot_be_told_is_refused_and_labelled() -> None:
    live = open_model(tiny.gap())
    lacking = Program("tail", (live.manifest.default_layer.name,), ("activations.0", "context.0"), ("logits",), b"")
    forward = live.program("forward")
    with pytest.raises(ProviderError, match=f"{NOTE}.*shape of every input, that of 'context.0'"):
        tensorrt_options(live.manifest, lacking, cache="c", versions=VERSIONS)
    with pytest.raises(ProviderError, match=f"{NOTE}.*version of gpu"):
        tensorrt_options(live.manifest, forward, cache="c", versions={**VERSIONS, "gpu": ""})
    with pytest.raises(ProviderError, match=f"{NOTE}.*'tf32'"):
        tensorrt_options(live.manifest, forward, cache="c", versions=VERSIONS, precision="tf32")
    for buckets in ((), (4, 2), (0, 4)):
        with pytest.raises(ProviderError, match="rising"):
            tensorrt_options(live.manifest, forward, cache="c", versions=VERSIONS, buckets=buckets)


def test_a_cache_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    folder.mkdir(parents=True, mode=0o755)
    assert stat.S_IMODE(private_folder(folder).stat().st_mode) == 0o700
    assert stat.S_IMODE(private_folder(tmp_path / "new" / "one").stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(OutputError, match="link"):
        private_folder(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be made"):
        private_folder(tmp_path / "file" / "below")


def test_what_is_asked_for_is_completed_and_said_to_be_untested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = open_model(tiny.gap())
    asked = [("tensorrt", {"trt_engine_cache_path": str(tmp_path / "c"), "trt_builder_optimization_level": 2})]
    (provider,) = parse_providers(asked)
    rest = {"onnxruntime": "1.31.1", "gpu": "H200", "precision": "float32"}
    monkeypatch.setattr("camrt.tensorrt.LIBRARY", str(tmp_path / "libnvinfer.so.10"))
    with pytest.raises(ProviderError, match=rf"{NOTE}.*version of tensorrt.*libnvinfer\.so\.10"):
        tensorrt_for(provider, live.manifest, live.program("forward"), **rest)
    monkeypatch.setattr("camrt.tensorrt._installed", lambda: "101401")
    with pytest.warns(RuntimeWarning, match=NOTE):
        made = tensorrt_for(provider, live.manifest, live.program("forward"), **rest)
    folder = Path(made.options["trt_engine_cache_path"])
    assert folder.is_relative_to(tmp_path / "c")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made.options["trt_builder_optimization_level"] == "2"
    assert set(made.options) <= KNOWN


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed, so no library can be made")
def test_the_library_that_loads_tells_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT 10.14.1 says 101401, as its header NvInferVersion.h has it."""
    source, made = tmp_path / "version.cpp", tmp_path / "libnvinfer.so.10"
    source.write_text('extern "C" int getInferLibVersion() { return 10 * 10000 + 14 * 100 + 1; }')
    subprocess.run(["g++", "-shared", "-fPIC", str(source), "-o", str(made)], check=True)
    monkeypatch.setattr("camrt.tensorrt.LIBRARY", str(made))
    assert _installed() == "101401"
    monkeypatch.setattr("camrt.tensorrt.LIBRARY", str(tmp_path / "none.so"))
    assert _installed() == ""
