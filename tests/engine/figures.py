"""A summary whose numbers are written by hand, for tests of what is made of it."""

from __future__ import annotations

from typing import Any

from camrt.summary import Curve, Figure, Summary, Win

HEADS: dict[str, Any] = {  # metric -> field, better, percent
    "average_drop": ("average_drop", "lower", True),
    "average_gain": ("average_gain", "higher", True),
    "coherency": ("coherency", "higher", True),
    "complexity": ("complexity", "lower", True),
    "adcc": ("adcc", "higher", True),
    "deletion-polycam-steps28": ("deletion", "lower", False),
}
FURTHER: dict[str, Any] = {
    "adcc": ("adcc.per_image_mean", "higher", True),
    "deletion-polycam-steps28": ("deletion.ties", "neither", False),
}


def figure(method: str, metric: str, value: float, half: float = 0.01, *, further: bool = False) -> Figure:
    """Return one figure with a symmetric interval."""
    name, better, percent = (FURTHER if further else HEADS)[metric]
    return Figure(method, metric, name, value, value - half, value + half, 57, 0.25, better, percent)


def summary(figures: list[Figure], wins: tuple[Win, ...] = (), curves: tuple[Curve, ...] = ()) -> Summary:
    """Return a summary of figures."""
    return Summary(tuple(figures), wins, curves, images=57, resamples=2000, seed=0, level=0.95)


def example(methods: tuple[str, ...] = ("gradcam", "scorecam-torchcam-0.2", "fakecam")) -> Summary:
    """Return a summary of every metric above: 0.11 + 0.037 i + 0.0513 j, wrapped, for method i and metric j."""
    figures = [
        figure(method, metric, (0.11 + 0.037 * i + 0.0513 * j) % 1, further=further)
        for i, method in enumerate(methods)
        for j, (metric, further) in enumerate([*((m, False) for m in HEADS), *((m, True) for m in FURTHER)])
    ]
    wins = tuple(
        Win("average_drop", "average_drop", a, b, (0.3 + 0.07 * i + 0.011 * j) % 1, 57)
        for i, a in enumerate(methods)
        for j, b in enumerate(methods)
        if a != b
    )
    curves = tuple(
        Curve(
            m, "deletion-polycam-steps28", "deletion.curve", *(line(0.9 - 0.02 * i + d) for d in (0, -0.05, 0.05)), 57
        )
        for i, m in enumerate(methods)
    )
    return summary(figures, wins, curves)


def line(start: float) -> tuple[float, ...]:
    """Return 29 points that fall to a tenth."""
    return tuple(start * (1 - 0.9 * k / 28) for k in range(29))


def spec() -> dict[str, Any]:
    """Return settings as an evaluation writes them."""
    return {
        "format": 1,
        "model": {"name": "resnet50.onnx", "sha256": "ab" * 32},
        "dataset": {"name": "photographs", "images": 57, "fingerprint": "cd" * 16},
        "methods": [{"name": "gradcam", "id": "gradcam", "variant": "paper", "options": {}, "layers": ["relu"]}],
        "metrics": [
            {
                "name": "deletion-polycam-steps28",
                "id": "deletion",
                "variant": "polycam",
                "options": {"steps": 28, "seed": None},
            },
            {"name": "adcc", "id": "adcc", "variant": "official", "options": {}},
        ],
        "setting": {
            "methods": ["gradcam"],
            "metrics": ["adcc", "deletion:polycam,steps=28"],
            "classes": "predicted",
            "layer": None,
            "pipeline": "camrt",
            "mask_space": "normalised",
            "batch": 8,
            "shard": 32,
            "protocol": None,
        },
        "preprocess": {"name": "imagenet", "size": [224, 224], "resize": "crop", "crop_ratio": 0.875},
        "versions": {"camrt": "0.1.0"},
    }
