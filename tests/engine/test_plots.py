"""Drawings measured: lengths and heights in the SVG against the numbers, letters and colours against each other."""

from __future__ import annotations

import io
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from camrt.errors import MethodError, MissingExtraError
from camrt.plots import DARK, INK, MARKS, PALETTE, PAPER, Plot, bars, breakdown, curves, looks, scatter, wins
from camrt.tables import Column, methods_of, wins_of
from tests.engine.figures import example, figure, summary

matplotlib = pytest.importorskip("matplotlib", reason="drawings need the extra eval")

NAMES = (
    *(
        "gradcam",
        "gradcampp",
        "smoothgradcampp-torchcam-n10-spread0.3",
        "scorecam-torchcam-0.2",
        "scorecam-torchcam-0.3",
    ),
    *("reciprocam", "fakecam", "layercam", "xgradcam", "opticam-official-demo", "hirescam", "eigencam", "ablationcam"),
    *("liftcam", "shapleycam", "finercam", "polycam", "randomcam", "lafam", "integratedgradcam"),
)
DROP = Column("average_drop", "average_drop", "lower", True)
GAIN = Column("average_gain", "average_gain", "higher", True)
X = np.linspace(0, 1, 29)
SVG = "{http://www.w3.org/2000/svg}"


def parts(methods: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return parts and whole of each method."""
    return {m: {"a": 0.9, "b": 0.3 + 0.01 * i, "whole": 0.45 + 0.01 * i} for i, m in enumerate(methods)}


def kinds(methods: tuple[str, ...], kind: Any = "svg") -> dict[str, Callable[[], Plot]]:
    """Return one drawing of each kind, not yet drawn."""
    made = example(methods)
    marks = {"gradcam": 0.33, "gradcampp": 0.13}
    return {
        "bars": lambda: bars(made, DROP, published=marks, kind=kind),
        "curves": lambda: curves(made.curves, X, methods, "Deletion", kind=kind),
        "wins": lambda: wins(made, "average_drop", "average_drop", kind=kind),
        "scatter": lambda: scatter(made, DROP, GAIN, kind=kind),
        "breakdown": lambda: breakdown(parts(methods), "whole", "Parts and whole", kind=kind),
    }


def shapes(plot: Plot, what: str, color: str) -> list[npt.NDArray[np.float64]]:
    """Return the corners (K, 2) of every path with that fill or stroke, in drawing order."""
    return [
        np.array(re.findall(r"[ML] (\S+) (\S+)", path.get("d", "")), np.float64)
        for path in ElementTree.fromstring(plot.data).iter(f"{SVG}path")
        if f"{what}: {color}" in path.get("style", "")
    ]


def test_bars_are_as_long_as_their_numbers_and_carry_their_intervals() -> None:
    values, halves = (0.62, 0.31, 0.05), (0.02, 0.05, 0.01)
    made = summary([figure(m, "average_drop", v, h) for m, v, h in zip(NAMES, values, halves, strict=False)])
    plot = bars(made, DROP)
    rectangles = [shapes(plot, "fill", color)[0] for color in PALETTE[:3]]
    lengths = [np.ptp(corners[:, 0]) for corners in rectangles]
    np.testing.assert_allclose(np.array(lengths) / lengths[0], np.array(values) / values[0], rtol=1e-4)
    unit = lengths[0] / values[0]
    whiskers = [s for s in shapes(plot, "stroke", INK) if len(s) == 2 and np.ptp(s[:, 1]) == 0][:3]
    for whisker, rectangle, value, half in zip(whiskers, rectangles, values, halves, strict=True):
        ends = (whisker[:, 0] - rectangle[:, 0].min()) / unit
        np.testing.assert_allclose(ends, [value - half, value + half], atol=1e-4)
    tops = [corners[:, 1].min() for corners in rectangles]
    assert tops == sorted(tops)  # the first method is at the top


def test_bars_of_signed_values_begin_at_zero() -> None:
    made = summary([figure(m, "average_drop", v, 0) for m, v in zip(NAMES, (0.4, -0.2), strict=False)])
    right, left = (shapes(bars(made, DROP), "fill", color)[0][:, 0] for color in PALETTE[:2])
    assert right.min() == pytest.approx(left.max()) and np.ptp(right) == pytest.approx(2 * np.ptp(left), rel=1e-4)


def test_nothing_but_zeros_is_drawn_on_a_scale_that_one_can_read() -> None:
    plot = bars(summary([figure(m, "average_drop", 0, 0) for m in NAMES[:2]]), DROP)
    texts = re.findall("<!-- (.*?) -->", plot.data.decode())  # Matplotlib writes each text beside its outlines
    assert "0.20" in texts and not [text for text in texts if "e" in text and text[0].isdigit()]
    np.testing.assert_allclose([np.ptp(shapes(plot, "fill", color)[0][:, 0]) for color in PALETTE[:2]], 0)


def test_a_method_without_a_number_has_a_row_and_no_bar() -> None:
    made = summary([figure("gradcam", "average_drop", np.nan), figure("fakecam", "average_drop", 0.5)])
    assert "Grad-CAM –, Fake-CAM 50.00" in bars(made, DROP).alt


def test_curves_go_through_their_means_inside_their_bands() -> None:
    made = example(NAMES[:2])
    plot = curves(made.curves, X, NAMES[:2], "Deletion")
    drawn = [next(s for s in shapes(plot, "stroke", color) if len(s) == 29) for color in PALETTE[:2]]
    means = np.concatenate([curve.mean for curve in made.curves])
    heights = np.concatenate([line[:, 1] for line in drawn])
    slope, start = np.polyfit(means, heights, 1)
    assert slope < 0  # SVG counts downwards
    np.testing.assert_allclose(heights, slope * means + start, atol=0.01)
    across = np.polyfit(X, drawn[0][:, 0], 1)
    np.testing.assert_allclose(drawn[0][:, 0], np.polyval(across, X), atol=0.01)
    group = next(
        g for g in ElementTree.fromstring(plot.data).iter(f"{SVG}g") if str(g.get("id")).startswith("FillBetween")
    )
    (shape,), (use,) = group.iter(f"{SVG}path"), group.iter(f"{SVG}use")
    band = np.array(re.findall(r"[ML] \S+ (\S+)", str(shape.get("d"))), np.float64) + float(use.get("y", 0))
    first = made.curves[0]
    np.testing.assert_allclose(
        [band.min(), band.max()], slope * np.array([first.high[0], first.low[-1]]) + start, atol=0.01
    )


def test_cells_of_win_rates_have_the_colour_of_their_rate_and_the_diagonal_none() -> None:
    made = example(NAMES[:3])
    rates = wins_of(made)["average_drop", "average_drop"]
    colors = matplotlib.colormaps["PuOr_r"](rates[~np.isnan(rates)])
    want = [matplotlib.colors.to_hex(color) for color in colors]
    root = ElementTree.fromstring(wins(made, "average_drop", "average_drop").data)
    mesh = next(group for group in root.iter(f"{SVG}g") if str(group.get("id")).startswith("QuadMesh"))
    found = [re.search(r"fill: (#\w+)", p.get("style", "")) for p in mesh.iter(f"{SVG}path")]
    assert [m.group(1) for m in found if m] == want


def test_marks_of_the_scatter_stand_where_both_numbers_say() -> None:
    made = example(NAMES[:4])
    root = ElementTree.fromstring(scatter(made, DROP, GAIN).data)
    there = {(f.method, f.metric): f.value for f in made.figures if f.field == f.metric}
    places = {}
    for use in root.iter(f"{SVG}use"):
        color = re.search(r"fill: (#\w+)", use.get("style", ""))
        if color and color.group(1) in PALETTE:
            places.setdefault(color.group(1), (float(use.get("x", 0)), float(use.get("y", 0))))
    drawn = np.array([places[color] for color in PALETTE[:4]])
    want = np.array([[there[m, "average_drop"], there[m, "average_gain"]] for m in NAMES[:4]])
    for axis, sign in ((0, 1), (1, -1)):
        slope, start = np.polyfit(want[:, axis], drawn[:, axis], 1)
        assert np.sign(slope) == sign
        np.testing.assert_allclose(drawn[:, axis], slope * want[:, axis] + start, atol=0.01)


@pytest.mark.parametrize(
    ("name", "count"), [*itertools.product(["bars", "curves", "wins", "scatter", "breakdown"], [2, 20]), ("wins", 12)]
)
def test_no_letters_overlap_or_leave_the_drawing(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: dict[Any, Any] = {}  # of every text that is drawn; an axis holds some beyond its ends that are not
    from matplotlib.text import Text

    draw = Text.draw

    def measured(self: Any, renderer: Any) -> None:
        draw(self, renderer)
        if self.get_visible() and self.get_text().strip():
            boxes[self] = self.get_window_extent(renderer)

    monkeypatch.setattr(Text, "draw", measured)
    plot = kinds(NAMES[:count], "png")[name]()
    assert len(boxes) > count
    width, height = 2 * plot.size[0], 2 * plot.size[1]
    for text, box in boxes.items():
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text.get_text()
    for (a, one), (b, two) in itertools.combinations(boxes.items(), 2):
        across = min(one.x1, two.x1) - max(one.x0, two.x0)
        down = min(one.y1, two.y1) - max(one.y0, two.y0)
        assert across <= 2 or down <= 2, (a.get_text(), b.get_text())  # one pixel of the page


@pytest.mark.parametrize("name", ["bars", "curves", "wins", "scatter", "breakdown"])
def test_everything_but_cells_turns_dark_with_the_page(name: str) -> None:
    svg = kinds(NAMES[:8])[name]().data.decode()
    root = ElementTree.fromstring(svg)
    for group in [g for g in root.iter(f"{SVG}g") if str(g.get("id")).startswith("QuadMesh")]:
        group.clear()
    rest = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r"style=\"[^\"]*(?:fill|stroke): (#\w{6})", rest))
    written_in_cells = {"#fefefe", "#101010"}
    assert used and used <= set(DARK) | written_in_cells
    (style,) = re.findall(r"<style[^>]*>@media \(prefers-color-scheme: dark\)\{(.*?)\}</style>", svg)
    for light, dark in DARK.items():
        assert f'[style*="fill: {light}"]{{fill:{dark} !important}}' in style
        assert f'[style*="stroke: {light}"]{{stroke:{dark} !important}}' in style


@pytest.mark.parametrize("name", ["bars", "curves", "wins", "scatter", "breakdown"])
def test_every_number_is_told_to_those_who_do_not_see_it(name: str) -> None:
    alt = kinds(NAMES[:2])[name]().alt
    assert {
        "bars": "Average Drop % ↓: Grad-CAM 11.00, Grad-CAM++ 14.70",
        "curves": "Deletion: Grad-CAM from 0.900 to 0.090, Grad-CAM++ from 0.880 to 0.088",
        "wins": "Average Drop, 2 by 2",
        "scatter": "Average Gain % ↑ against Average Drop % ↓: Grad-CAM (11.00, 16.13), Grad-CAM++ (14.70, 19.83)",
        "breakdown": "Grad-CAM: a 0.9000, b 0.3000, whole 0.4500; Grad-CAM++: a 0.9000, b 0.3100, whole 0.4600",
    }[name] in alt


def test_the_same_figures_give_the_same_bytes_whatever_the_users_style_is() -> None:
    drawn = [kinds(NAMES[:3])[name] for name in ("curves", "wins")]
    first = [draw().data for draw in drawn]
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        second = [draw().data for draw in drawn]
    assert first == second and dict(matplotlib.rcParams) == before


def test_png_has_twice_the_pixels_and_the_same_words() -> None:
    made = example()
    svg, png = (bars(made, DROP, kind=kind) for kind in ("svg", "png"))  # type: ignore[arg-type]
    with Image.open(io.BytesIO(png.data)) as image:
        assert image.size == (2 * png.size[0], 2 * png.size[1])
    assert (svg.alt, svg.size) == (png.alt, png.size)


def test_another_format_is_refused() -> None:
    with pytest.raises(MethodError, match="svg or png"):
        bars(example(), DROP, kind="pdf")  # type: ignore[arg-type]


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(MissingExtraError, match=r"camrt\[eval\]"):
        bars(example(), DROP)


def test_drawing_needs_no_window() -> None:
    code = (
        "import sys; import camrt.plots as p; print('matplotlib' in sys.modules);"
        "from tests.engine.figures import example; from camrt.tables import columns; s = example();"
        "p.bars(s, columns(s)[0]); print('matplotlib.pyplot' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["False", "False"], found.stderr


def test_24_methods_look_different_and_keep_their_look_whatever_is_drawn() -> None:
    found = looks([str(i) for i in range(24)])
    assert len(set(found.values())) == 24
    assert all(look.color in PALETTE and look.mark in MARKS for look in found.values())
    made = example(NAMES[:5])
    only = summary([f for f in made.figures if f.method == NAMES[3] or f.metric != "average_drop"])
    assert methods_of(only)[3] == NAMES[3]
    assert len(shapes(bars(only, DROP), "fill", PALETTE[3])) == 1


# colours ----------------------------------------------------------------------------------------------------------


def linear(color: str) -> npt.NDArray[np.float64]:
    """Return linear light of a colour (IEC 61966-2-1)."""
    c = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return CIELAB of linear sRGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(light, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


SEEN = {  # Machado, Oliveira and Fernandes 2009, severity 1
    "all": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "no blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}


def pairs() -> Iterator[tuple[str, str]]:
    """Yield every two colours of each palette."""
    for palette in (PALETTE, [DARK[color] for color in PALETTE]):
        yield from itertools.combinations(palette, 2)


@pytest.mark.parametrize("eyes", SEEN)
def test_colours_are_told_apart_by_all_eyes(eyes: str) -> None:
    for a, b in pairs():  # 2.3 is just noticeable; six times that is seen at a glance
        assert np.linalg.norm(lab(SEEN[eyes] @ linear(a)) - lab(SEEN[eyes] @ linear(b))) > 13.8, (a, b)


def test_colours_stand_out_from_the_paper_light_and_dark() -> None:
    for color in PALETTE:
        assert contrast(color, PAPER) >= 3 and contrast(DARK[color], DARK[PAPER]) >= 3  # WCAG 1.4.11, graphics
    assert contrast(INK, PAPER) >= 7 and contrast(DARK[INK], DARK[PAPER]) >= 7
