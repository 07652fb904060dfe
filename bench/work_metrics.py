"""
The worker that lets camrt judge heatmaps: ``python -m bench.work_metrics``.

In: requests of `bench.wire`. Out: seconds, values, and how many forwards and explanations were run. Given maps are judged
through `camrt.metrics.judge`, as a user's call does; where there are none, camrt makes them, as its evaluation does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import camrt
from camrt.choices import Choice, choose
from camrt.judging import Judge
from camrt.methods import table as methods
from camrt.metrics import judge, table
from camrt.metrics.changes import Shifted
from camrt.metrics.plan import plan_of
from camrt.metrics.shifting import shift_of
from camrt.metrics.table import Metric
from camrt.noise import content_ids

from .stopwatch import time_calls
from .wire import serve

METHOD = "gradcam"


class Judging:
    """One explainer and its prepared input."""

    def __init__(self) -> None:
        self._explainer: Any = None
        self._images: Any = None
        self._rows: Counter[str] = Counter()

    def load(self, onnx: str, images: str, threads: int | None) -> None:
        """Open the model, and count every row that goes through one of its programs."""
        self._explainer = camrt.load(onnx, threads=threads)
        self._images = np.load(images)
        sessions = self._explainer.sessions
        run = sessions.run_unchecked

        def counted(kind: str, layers: Sequence[str], feeds: dict[str, Any], *limits: Any) -> Any:
            self._rows[kind] += len(next(iter(feeds.values())))
            return run(kind, layers, feeds, *limits)

        sessions.run_unchecked = counted

    def heatmaps(self, file: str) -> None:
        """Write a Grad-CAM of every image."""
        np.save(file, self._explainer.draw(self._images, method=METHOD).heat)

    def noise(self, kind: str, scale: float, samples: int, images: int, file: str) -> None:
        """Write the noise that a metric draws, (N, samples, C, H, W)."""
        x = self._images[:images]
        changes = [Shifted(kind, scale, 0, sample) for sample in range(samples)]  # type: ignore[arg-type]
        found = [
            [shift_of(change, one.shape, int(number), one) for change in changes]
            for one, number in zip(x, content_ids(x), strict=True)
        ]
        np.save(file, np.array(found, np.float32))

    def values(self, words: list[str], images: int, maps: str | None, file: str) -> None:
        """Write every value, under the metric's own name."""
        chosen, call = self._call(words, images, maps)
        found = call()
        plain = {
            choice.row.id + name[len(choice.name) :]: value
            for choice in chosen
            for name, value in found.items()
            if name == choice.name or name.startswith(choice.name + ".")
        }
        np.savez(file, **plain)

    def time(self, words: list[str], images: int, maps: str | None, calls: int) -> list[float]:
        """Time judgements of all metrics together."""
        return time_calls(self._call(words, images, maps)[1], calls)

    def time_explanations(self, rows: int, calls: int) -> list[float]:
        """Time so many explanations, taken in one call."""
        x = np.resize(self._images, (rows, *self._images.shape[1:]))
        return time_calls(lambda: self._explainer.explain(x, method=METHOD), calls)

    def count(self, words: list[str], images: int, maps: str | None) -> dict[str, list[int]]:
        """Return how many forwards and explanations are run, and how many are needed."""
        chosen, call = self._call(words, images, maps)
        height, width = self._images.shape[2:]
        plan = plan_of(chosen, (height, width))
        asks = any(set(choice.row.needs) != {"map"} for choice in chosen)
        clean = images if asks and maps is not None else 0  # comes with the explanation where camrt makes it
        needed = plan.forwards(images, 1, 1) + clean
        explained = images * (len(plan.again) + (maps is None))
        self._rows.clear()
        call()
        run = self._rows["forward"]
        return {"forwards": [run, needed], "explanations": [self._rows.total() - run, explained]}

    def _call(
        self, words: list[str], images: int, maps: str | None
    ) -> tuple[list[Choice[Metric]], Callable[[], dict[str, Any]]]:
        """Prepare a judgement."""
        chosen = choose(words, table.resolve, table.validate)
        x, explainer = self._images[:images], self._explainer
        if maps is None:
            plan = plan_of(chosen, x.shape[2:])
            judges = Judge(explainer, choose([METHOD], methods.resolve, methods.validate), plan)
            return chosen, lambda: judges.batch(x)[METHOD]
        heat = np.load(maps)[:images]
        if all(set(choice.row.needs) == {"map"} for choice in chosen):
            return chosen, lambda: judge(words, None, None, heat)

        def explain(x: Any, classes: Any) -> Any:
            return explainer.draw(x, classes, method=METHOD).heat

        return chosen, lambda: judge(words, explainer, x, heat, explain=explain)


def main() -> None:
    """Answer requests."""
    worker = Judging()
    serve(
        {
            "load": worker.load,
            "heatmaps": worker.heatmaps,
            "noise": worker.noise,
            "values": worker.values,
            "time": worker.time,
            "time_explanations": worker.time_explanations,
            "count": worker.count,
        }
    )


if __name__ == "__main__":
    main()
