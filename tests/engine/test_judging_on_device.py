"""Batches judged on a CUDA device: the host's numbers, and next to nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import camrt
from camrt import metrics
from camrt.choices import Choice, choose
from camrt.explainer import Explainer
from camrt.judging import Judge
from camrt.methods import resolve as resolve_method
from camrt.methods import validate as validate_method
from camrt.metrics import METRICS, Ground
from camrt.metrics.plan import plan_of
from camrt.metrics.randomisation import randomiser
from tests import tiny
from tests.engine import cuda_stand_in

Array = np.ndarray[Any, Any]

PREPROCESS = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": tiny.SIZE}
N = 3
SHORT: Mapping[str, Mapping[str, object]] = {
    "insertion": {"steps": 5}, "deletion": {"steps": 5}, "pixel_flipping": {"steps": 4}, "infidelity": {"samples": 3},
    "max_sensitivity": {"samples": 2}, "randomisation": {"steps": 2}, "road": {"levels": (50,)},
}  # fmt: skip
IMPUTED = ("road", "arcc")  # the kernel that imputes takes a tenth of a second a picture on a CPU


def ground(n: int = N) -> Ground:
    """Return boxes, masks and labels of the first pictures; the last of three has none."""
    mask = np.zeros(tiny.SIZE, bool)
    mask[2:9, 1:7] = True
    boxes = [np.array([[1.0, 2, 8, 9]]), np.array([[0.0, 0, 4, 4], [5, 6, 10, 12]]), None]
    return Ground(boxes=boxes[:n], masks=[mask, None, None][:n], labels=np.arange(n))


@pytest.fixture(scope="module")
def on_host() -> Explainer:
    """Open the model on the host."""
    return opened("cpu")


def opened(providers: str) -> Explainer:
    """Open the model."""
    return camrt.load(tiny.mlp(), preprocess=PREPROCESS, providers=providers)


def judge_of(explainer: Explainer, methods: Sequence[str], asked: Sequence[str]) -> Judge:
    """Plan metrics, ``id`` or ``id:variant`` each."""
    chosen = []
    for name in asked:
        metric, _, variant = name.partition(":")
        row = METRICS[metric]
        chosen.append(Choice(name, row, *metrics.validate(row, variant or None, SHORT.get(metric))))
    plan = plan_of(chosen, tiny.SIZE)
    return Judge(explainer, choose(methods, resolve_method, validate_method), plan, randomised=randomiser(explainer))


@pytest.mark.parametrize("metric", METRICS)
def test_every_variant_of_every_metric_gives_the_numbers_of_the_host(
    metric: str, on_host: Explainer, world: cuda_stand_in.World
) -> None:
    asked = [f"{metric}:{variant}" for variant in METRICS[metric].variants]
    methods = ["xgradcam"] if metric == "completeness" else ["gradcam", "layercam"][: 1 if metric in IMPUTED else 2]
    n = 1 if metric in IMPUTED else N
    found = judge_of(opened("cuda"), methods, asked).batch(tiny.images(n), ground=ground(n))
    assert not world.host_runs or metric == "completeness"  # whose sums are made on the host
    known = judge_of(on_host, methods, asked).batch(tiny.images(n), ground=ground(n))
    near = 2e-4 if metric in IMPUTED else 1e-5  # imputed pixels are solved to 1e-4 of a picture's range
    for method in methods:
        assert found[method].keys() == known[method].keys()
        for name, values in known[method].items():
            assert type(found[method][name]) is np.ndarray, name
            np.testing.assert_allclose(found[method][name], values, rtol=0, atol=near, err_msg=f"{method} {name}")


def test_three_numbers_come_back_of_each_changed_picture(world: cuda_stand_in.World) -> None:
    asked = [
        "average_drop",
        "average_increase",
        "average_gain",
        "insertion",
        "deletion:polycam",
        "pixel_flipping:region",
        "road",
    ]
    judged = judge_of(opened("cuda"), ["gradcam", "layercam"], asked)
    judged.batch(tiny.images(N), ground=ground())
    of_each_map = 3 + 3 + 2  # its class, whether it is finite and constant; the clean scores; its ties, by two metrics
    assert {len(shape) for shape in world.fetched} == {1}
    assert sum(size for (size,) in world.fetched) == 3 * judged.tally.forwards + of_each_map * N * 2
    assert world.masked == 0  # nothing waits in between
    assert [shape for shape in world.uploaded if len(shape) > 2] == [(N, 3, *tiny.SIZE)]  # the pictures, once


def test_a_map_is_fetched_once_for_all_metrics_that_need_it(world: cuda_stand_in.World) -> None:
    words = ["complexity", "sparseness", "energy_pointing_game"]
    judge_of(opened("cuda"), ["gradcam", "layercam"], words).batch(tiny.images(N), ground=ground())
    assert {len(shape) for shape in world.fetched} == {1}
    words += ["iou", "pointing_game", "max_box_acc_v2", "localisation_error", "infidelity"]
    judge_of(opened("cuda"), ["gradcam", "layercam"], words).batch(tiny.images(N), ground=ground())
    assert [shape for shape in world.fetched if len(shape) > 1] == [(N, *tiny.SIZE)] * 2


def test_pictures_are_fetched_once_for_changes_made_on_the_host(world: cuda_stand_in.World) -> None:
    words = ["saliency_metric", "infidelity", "max_sensitivity"]
    judge_of(opened("cuda"), ["gradcam", "layercam"], words).batch(tiny.images(N), ground=ground())
    assert [shape for shape in world.fetched if len(shape) == 4] == [(N, 3, *tiny.SIZE)]


def test_maps_from_anywhere_are_judged_where_the_model_runs(on_host: Explainer, world: cuda_stand_in.World) -> None:
    x, classes, words = tiny.images(N), np.arange(N), ["energy_pointing_game", "insertion,steps=5", "adcc"]
    heat = on_host.draw(x, classes).heat

    def explain(changed: Array, asked: Array) -> Array:
        return on_host.draw(changed, asked).heat

    known = metrics.judge(words, on_host, x, heat, classes, ground=ground(), explain=explain)
    explainer = opened("cuda")
    with explainer.place() as placed:
        for given in (heat, placed(heat)):
            world.host_runs.clear()
            found = metrics.judge(words[:2], explainer, x, given, classes, ground=ground())
            assert not world.host_runs
            found |= metrics.judge(words[2:], explainer, x, given, classes, explain=explain)
            assert found.keys() == known.keys()
            for name, values in known.items():
                np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5, err_msg=name)
        plain = metrics.judge(words[:1], None, None, placed(heat), ground=ground())
    np.testing.assert_allclose(plain[words[0]], known[words[0]], atol=1e-6)


def test_maps_on_a_device_are_judged_for_a_function_on_the_host(on_host: Explainer, world: cuda_stand_in.World) -> None:
    x, classes = tiny.images(N), np.arange(N)
    heat = on_host.draw(x, classes).heat
    with opened("cuda").place() as placed:
        found = metrics.average_drop(on_host.logits, x, placed(heat), classes)
    np.testing.assert_allclose(found, metrics.average_drop(on_host, x, heat, classes), atol=1e-6)
