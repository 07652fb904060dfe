"""Drawings, pixel by pixel where arithmetic says what a pixel is, and by what is seen elsewhere."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from camrt.colormap import COLORMAPS, colorize
from camrt.errors import MethodError, ShapeError
from camrt.render import FAINT, INK, PAPER, blend, grid, heatmap, overlay, png

PICTURE = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
HEAT = np.linspace(0, 1, 100 * 120, dtype=np.float32).reshape(100, 120)


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    """Return the colours of an image."""
    return {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("colormap", COLORMAPS)
def test_blend_is_the_weighted_mean_of_picture_and_colour(alpha: float, colormap: str) -> None:
    want = (1 - alpha) * PICTURE.astype(np.float64) + alpha * colorize(HEAT, colormap)
    np.testing.assert_allclose(blend(PICTURE, HEAT, colormap=colormap, alpha=alpha).astype(float), want, atol=0.501)


def test_blend_worked_out_by_hand() -> None:
    picture = np.array([[[100, 200, 50], [0, 0, 0]]], np.uint8)
    got = blend(picture, np.array([[0.0, 1.0]]), alpha=0.25)
    assert got.tolist() == [[[75, 150, 70], [32, 0, 0]]]  # jet(0) = 0 0 128, jet(1) = 128 0 0; 69.5 rounds to even


def test_a_bare_overlay_is_the_blend() -> None:
    image = overlay(PICTURE, HEAT, colorbar=False, alpha=0.4)
    np.testing.assert_array_equal(np.asarray(image), blend(PICTURE, HEAT, alpha=0.4))


def test_a_bare_heatmap_is_its_colours() -> None:
    np.testing.assert_array_equal(np.asarray(heatmap(HEAT, colormap="viridis")), colorize(HEAT, "viridis"))


def test_an_enlarged_overlay_blends_enlarged_picture_and_heat() -> None:
    image = overlay(PICTURE, HEAT, colorbar=False, side=200)
    shown = np.asarray(Image.fromarray(PICTURE).resize((240, 200), Image.Resampling.BICUBIC))
    warm = np.asarray(Image.fromarray(HEAT).resize((240, 200), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.asarray(image), blend(shown, warm))
    assert overlay(PICTURE, HEAT, colorbar=False, side=50).size == (60, 50)


def test_beside_text_a_small_picture_is_enlarged_and_a_large_one_is_not_shrunk() -> None:
    assert overlay(PICTURE, HEAT).height > 448
    large = np.zeros((600, 500, 3), np.uint8)
    image = overlay(large, np.ones((600, 500)), alpha=1, colorbar=True)
    np.testing.assert_array_equal(np.asarray(image)[16:616, 16:50], colorize(np.ones((600, 34))))


def test_the_colour_bar_shows_the_whole_map_with_one_at_the_top() -> None:
    for colormap in COLORMAPS:
        image = np.asarray(overlay(PICTURE, HEAT, colormap=colormap))
        x = 16 + round(120 * 448 / 100) + 14 + 8
        bar = image[16 : 16 + 448, x]
        np.testing.assert_array_equal(bar, colorize(np.linspace(1, 0, 448), colormap))


def test_a_title_is_written_in_ink_above_the_picture_and_its_second_line_in_grey() -> None:
    plain = overlay(PICTURE, HEAT, colorbar=False, side=448)
    one = overlay(PICTURE, HEAT, colorbar=False, title="tiger cat")
    two = overlay(PICTURE, HEAT, colorbar=False, title="tiger cat\np = 0.5")
    assert plain.height < one.height < two.height
    above = one.height - 16 - 448
    np.testing.assert_array_equal(np.asarray(one)[above:-16, 16:-16], np.asarray(plain))
    head = colours(one.crop((0, 0, one.width, above)))
    assert {ImageColor.getrgb(PAPER), ImageColor.getrgb(INK)} <= head and ImageColor.getrgb(FAINT) not in head
    assert ImageColor.getrgb(FAINT) in colours(two.crop((0, 0, two.width, two.height - 16 - 448)))


def test_a_long_title_stays_on_the_paper() -> None:
    image = np.asarray(overlay(PICTURE, HEAT, title="long label, " * 50))
    assert (image[:, -16:][:40] == 255).all()


def test_a_title_in_letters_the_font_lacks_is_drawn() -> None:
    assert overlay(PICTURE, HEAT, title="猫 ネコ\n\x00\x07 é").height > 448


@pytest.mark.parametrize("shape", [(8, 8), (32, 32), (100, 120), (224, 224)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_map_says_so(shape: tuple[int, int], value: float) -> None:
    picture, heat = np.full((*shape, 3), 90, np.uint8), np.full(shape, value)
    noted = np.asarray(overlay(picture, heat, colorbar=False))
    assert (noted != blend(picture, heat)).any()
    assert (noted.max(axis=(0, 1)) - noted.min(axis=(0, 1))).max() > 60  # light letters on a dark ground


def test_a_map_of_two_values_has_no_note() -> None:
    heat = np.zeros((100, 120))
    heat[0, 0] = 1e-6
    np.testing.assert_array_equal(np.asarray(overlay(PICTURE, heat, colorbar=False)), blend(PICTURE, heat))


@pytest.mark.parametrize(
    ("picture", "heat", "options", "error", "message"),
    [
        (PICTURE.astype(float), HEAT, {}, ShapeError, "want a picture of uint8"),
        (PICTURE[..., 0], HEAT, {}, ShapeError, "want a picture of uint8"),
        (PICTURE, HEAT[1:], {}, ShapeError, r"picture's size \(100, 120\).*got \(99, 120\)"),
        (PICTURE[:0], HEAT[:0], {}, ShapeError, "with pixels"),
        (PICTURE, np.full_like(HEAT, np.nan), {}, ShapeError, "NaN"),
        (PICTURE, HEAT, {"alpha": 1.1}, MethodError, "alpha must be from 0"),
        (PICTURE, HEAT, {"alpha": float("nan")}, MethodError, "alpha must be from 0"),
        (PICTURE, HEAT, {"colormap": "hot"}, MethodError, "there are jet, viridis"),
        (PICTURE, HEAT, {"side": 0}, MethodError, "side must be"),
        (PICTURE, HEAT, {"side": 10**6}, MethodError, "side must be"),
    ],
)
def test_what_does_not_fit_is_refused(
    picture: Any, heat: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        overlay(picture, heat, **options)


def test_a_heatmap_has_two_axes() -> None:
    with pytest.raises(ShapeError, match=r"shape \(H, W\)"):
        heatmap(np.zeros(3))


RED, BLUE = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 20), "blue")


def test_a_grid_places_cells_in_rows_and_columns() -> None:
    sheet = np.asarray(grid([[RED, BLUE], [None, RED]], cell=40))
    assert sheet.shape == (90, 90, 3)
    assert (sheet[:40, :40] == (255, 0, 0)).all() and (sheet[50:, 50:] == (255, 0, 0)).all()
    assert (sheet[10:30, 50:] == (0, 0, 255)).all()  # fitted and centred
    assert (sheet[:10, 50:] == 255).all() and (sheet[50:, :40] == 255).all()


def test_titles_and_captions_make_room_and_are_written() -> None:
    bare = grid([[RED, RED]], cell=40)
    for options in (
        {"row_titles": ["dog"]},
        {"column_titles": ["cam", "gradcam"]},
        {"captions": [["p = 0.1", "p = 0.2"]]},
        {"title": "layers"},
        {"colormap": "viridis"},
    ):
        image = grid([[RED, RED]], cell=40, **options)  # type: ignore[arg-type]
        assert image.width > bare.width or image.height > bare.height
        assert len(colours(image)) > 5
    assert colours(bare) == {(255, 0, 0), (255, 255, 255)}


def test_the_grids_colour_bar_is_as_high_as_its_cells() -> None:
    image = np.asarray(grid([[RED], [RED]], cell=64, column_titles=["a"], captions=[["b"], ["c"]], colormap="jet"))
    x = 16 + 64 + 14 + 8
    top = 16 + 30
    height = 64 + 26 + 10 + 64
    np.testing.assert_array_equal(image[top : top + height, x], colorize(np.linspace(1, 0, height)))


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([], {}, "rows of one length"),
        ([[]], {}, "rows of one length"),
        ([[RED], [RED, RED]], {}, r"got lengths \[1, 2\]"),
        ([[RED]], {"row_titles": []}, "want 1 row titles"),
        ([[RED]], {"column_titles": ["a", "b"]}, "want 1 column titles"),
        ([[RED]], {"captions": [["a", "b"]]}, "1 rows of 1 captions"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(cells: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        grid(cells, **options)


@pytest.mark.parametrize("options", [{"cell": 3}, {"cell": 10**6}, {"colormap": "hot"}])
def test_a_grids_options_have_ranges(options: dict[str, Any]) -> None:
    with pytest.raises(MethodError):
        grid([[RED]], **options)


def test_png_is_lossless_and_the_same_every_time() -> None:
    image = Image.fromarray(PICTURE)
    assert png(image) == png(image.copy())
    with Image.open(io.BytesIO(png(image))) as read:
        np.testing.assert_array_equal(np.asarray(read), PICTURE)
