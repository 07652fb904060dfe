"""Changed pictures against the same made pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import camrt
from camrt import kernels
from camrt.kernels import impute
from camrt.metrics.changes import (
    Clean,
    Cropped,
    Imputed,
    Masked,
    Order,
    Shifted,
    Substrate,
    Swapped,
    Whole,
)
from camrt.metrics.filling import Pictures, Row, ranks_of
from camrt.metrics.model import Model, model_of
from camrt.metrics.shifting import shift_of
from camrt.noise import content_ids, standard_normal
from tests import tiny
from tests.engine.metrics import toy

GREY, BLACK = Substrate("grey"), Substrate("black")


def made(x, heats, mask_space="normalised", **settings):
    return Pictures(x, heats, content_ids(x), toy.model(**settings), mask_space)


@pytest.mark.parametrize(
    "change",
    [
        Clean(),
        Whole(BLACK),
        Masked(GREY),
        Masked(BLACK, inverted=True),
        Swapped(Order(), 0, 7, GREY),
        Swapped(Order(False), 3, 30, BLACK),
        Swapped(Order(), 29, 30, BLACK),
    ],
    ids=str,
)
def test_a_change_is_what_a_loop_over_pixels_makes(change) -> None:
    x, heat = toy.pictures(), toy.maps()
    heat[1].ravel()[3:9] = 0.5  # ties
    expected = [toy.changed(change, *pair) for pair in zip(x, heat, strict=True)]
    np.testing.assert_allclose(made(x, [heat]).of(change), expected, atol=1e-12)


def test_rows_of_all_kinds_pictures_and_methods_share_a_buffer() -> None:
    x, heats = toy.pictures(), [toy.maps(seed=1), toy.maps(seed=2)]
    changes = [Masked(GREY), Masked(BLACK), Swapped(Order(), 0, 4, GREY), Whole(BLACK), Swapped(Order(), 2, 9, BLACK)]
    rows = [Row(change, image, method) for change in changes for method in (1, 0) for image in (2, 0, 1)]
    rows += [Row(Clean(), 1), Row(Masked(GREY, True), 0, 1)]
    buffer = np.empty((len(rows), *x.shape[1:]))
    made(x, heats).fill(buffer, rows)
    expected = [toy.changed(row.change, x[row.image], heats[row.method][row.image]) for row in rows]
    np.testing.assert_allclose(buffer, expected, atol=1e-12)


def test_hidden_follows_the_mask_space() -> None:
    x, heat = toy.pictures(), toy.maps()
    for space, same in (("normalised", GREY), ("raw", BLACK)):
        pictures = made(x, [heat], space)
        np.testing.assert_array_equal(pictures.of(Masked(Substrate("hidden"))), pictures.of(Masked(same)))


def test_masking_raw_pictures_is_masking_with_black() -> None:
    """METHODS 4.5: hiding in the raw picture and then normalising equals x * M - (1 - M) * mean / std."""
    x, heat = toy.pictures(), toy.maps()
    mean, std = -np.array(toy.BLACK) / np.array(toy.UNIT), 1 / np.array(toy.UNIT)
    raw = x * std[:, None, None] + mean[:, None, None]
    again = (raw * heat[:, None] - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(made(x, [heat]).of(Masked(BLACK)), again, atol=1e-12)


def test_channels_last_is_the_same_picture() -> None:
    x, heat = toy.pictures(), toy.maps()
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for change in (
        Masked(BLACK),
        Swapped(Order(), 0, 7, BLACK),
        Swapped(Order(), 0, 7, Substrate("mean")),
        Swapped(Order(), 3, 30, Substrate("rise", 5, 2.0)),
        Imputed(Order(), 9),
        Whole(BLACK),
    ):
        expected = np.moveaxis(made(x, [heat]).of(change), 1, -1)
        np.testing.assert_allclose(made(last, [heat], channels_last=True).of(change), expected, atol=1e-6)


def test_substrates() -> None:
    x, heat = toy.pictures(), toy.maps()
    pictures = made(x, [heat])
    mean = np.broadcast_to(x.mean((2, 3), keepdims=True), x.shape)
    np.testing.assert_allclose(pictures.of(Whole(Substrate("mean"))), mean, atol=1e-12)
    lowest = np.broadcast_to(x.min((1, 2, 3), keepdims=True), x.shape)
    np.testing.assert_array_equal(pictures.of(Whole(Substrate("minimum"))), lowest)
    box = ndimage.uniform_filter(x, (1, 1, 3, 3), mode="mirror")
    np.testing.assert_allclose(pictures.of(Whole(Substrate("box", 3))), box, atol=1e-6)
    delta = np.zeros((5, 5))
    delta[2, 2] = 1
    window = ndimage.gaussian_filter(delta, 2.0)
    rise = np.stack([[ndimage.convolve(c, window, mode="constant") for c in image] for image in x])
    np.testing.assert_allclose(pictures.of(Whole(Substrate("rise", 5, 2.0))), rise, atol=1e-6)


def test_ranks_break_ties_by_raster_index_or_by_seed() -> None:
    heat = np.zeros((2, 2, 3))
    heat[0, 1, 1] = 1
    ids = np.array([5, 6], np.uint64)
    np.testing.assert_array_equal(ranks_of(heat, Order(), ids)[0], [[1, 2, 3], [4, 0, 5]])
    np.testing.assert_array_equal(ranks_of(heat, Order(False), ids)[0], [[0, 1, 2], [3, 5, 4]])
    shuffled = ranks_of(heat, Order(seed=3), ids)
    assert shuffled[0, 1, 1] == 0  # the one that is no tie
    assert sorted(shuffled[1].ravel()) == list(range(6))
    assert (shuffled[1].ravel() != np.arange(6)).any()
    np.testing.assert_array_equal(shuffled, ranks_of(heat, Order(seed=3), ids))
    np.testing.assert_array_equal(shuffled[1], ranks_of(heat[1:], Order(seed=3), ids[1:])[0])


def test_jitter_orders_what_is_equal_and_little_else() -> None:
    heat = np.zeros((1, 8, 8))
    heat[0, :4] = 1
    ranks = ranks_of(heat, Order(seed=0, jitter=1e-4), np.array([9], np.uint64))[0]
    assert (ranks[:4] < 32).all() and (ranks[4:] >= 32).all()
    assert (ranks.ravel() != np.arange(64)).any()


def test_imputed_pixels_are_imputed_and_noisy_and_the_rest_untouched() -> None:
    x, heat = toy.pictures(), toy.maps()
    quiet = made(x, [heat]).of(Imputed(Order(), 9))
    noisy = made(x, [heat]).of(Imputed(Order(), 9, sigma=0.01, unit="raw", seed=4))
    ids = content_ids(x)
    for image in range(len(x)):
        order = np.argsort(-heat[image].ravel(), kind="stable")
        missing = np.zeros(30, bool)
        missing[order[:9]] = True
        missing = missing.reshape(toy.SIZE)
        np.testing.assert_allclose(quiet[image], impute(x[image : image + 1], missing[None])[0], atol=1e-9)
        np.testing.assert_array_equal(quiet[image][:, ~missing], x[image][:, ~missing])
        noise = 0.01 * standard_normal((3, 9), 4, int(ids[image]), 9, 1) * np.array(toy.UNIT)[:, None]
        np.testing.assert_allclose((noisy[image] - quiet[image])[:, missing], noise, atol=1e-6)
        np.testing.assert_array_equal(noisy[image][:, ~missing], x[image][:, ~missing])


def test_a_row_does_not_depend_on_its_neighbours_noise() -> None:
    x, heat = toy.pictures(), toy.maps()
    plain, noisy = Row(Imputed(Order(), 9), 0), Row(Imputed(Order(), 9, 0.01), 1)
    alone, mixed = np.empty((1, *x.shape[1:])), np.empty((3, *x.shape[1:]))
    made(x, [heat]).fill(alone, [plain])
    made(x, [heat]).fill(mixed, [noisy, plain, noisy])
    np.testing.assert_array_equal(mixed[1], alone[0])
    np.testing.assert_array_equal(mixed[0], mixed[2])


def test_what_no_noise_covers_is_solved_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(kernels, "impute", lambda *a, tolerance, **k: (asked.append(tolerance), impute(*a, **k))[1])
    x, heat = toy.pictures(), toy.maps()
    rows = [Row(Imputed(Order(), 9, sigma), 0) for sigma in (0.0, 0.01, 0.0)]
    made(x, [heat]).fill(np.empty((3, *x.shape[1:])), rows)
    assert asked == [2e-5, 1e-4, 2e-5]


def test_imputation_keeps_to_the_threads_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(kernels, "impute", lambda *a, threads, **k: (asked.append(threads), impute(*a, **k))[1])
    x, heat = toy.pictures(), toy.maps()
    for held in (1, None):
        opened = camrt.load(tiny.gap(), preprocess={"size": tiny.SIZE}, threads=held)
        for model in (model_of(opened), toy.model(threads=held)):
            Pictures(x, [heat], content_ids(x), model).of(Imputed(Order(), 9))
    assert asked == [1, 1, None, None]


def test_imputation_noise_is_as_large_as_asked() -> None:
    x = np.zeros((1, 3, 64, 64))
    heat = np.random.default_rng(0).random((1, 64, 64))
    model = Model(toy.logits, unit=(4.0, 3.0, 2.0))
    pictures = Pictures(x, [heat], content_ids(x), model)
    count = 3000
    for unit, expected in (("raw", (4.0, 3.0, 2.0)), ("input", (1.0, 1.0, 1.0))):
        noise = pictures.of(Imputed(Order(), count, 0.01, unit))[0].reshape(3, -1)
        spread = np.sqrt((noise**2).sum(1) / count) / 0.01
        np.testing.assert_allclose(spread, expected, rtol=0.05)


def test_noise_depends_on_the_picture_and_not_on_its_neighbours() -> None:
    x, heat = toy.pictures(4), toy.maps(4)
    for change in (Shifted("gaussian", 0.2, 1, 2, -1), Imputed(Order(), 5, 0.01), Shifted("square", 0, 1, 0, -1)):
        whole = made(x, [heat]).of(change)
        for image in range(4):
            alone = made(x[image : image + 1], [heat[image : image + 1]]).of(change)
            np.testing.assert_array_equal(alone[0], whole[image])


@pytest.mark.parametrize("last", [False, True])
def test_what_was_taken_away_is_known_afterwards(last: bool) -> None:
    x = toy.pictures(2)
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x
    taken, added = Shifted("gaussian", 0.2, 1, 0, -1), Shifted("gaussian", 0.2, 1, 0, 1)
    pictures = made(x, [toy.maps(2)], channels_last=last)
    changed = pictures.of(taken)
    pictures.of(added)
    assert set(pictures.shift_means) == {(taken, 0), (taken, 1)}
    for i in range(2):
        np.testing.assert_allclose(pictures.shift_means[taken, i], (x - changed)[i].mean(-1 if last else 0), atol=1e-6)


def test_a_crop_of_everything_is_the_picture() -> None:
    x = toy.pictures(1)
    heat = np.zeros((1, *toy.SIZE))
    heat[0, 0, :] = heat[0, -1, :] = heat[0, :, 0] = heat[0, :, -1] = 1  # a frame: its box is the picture
    np.testing.assert_allclose(made(x, [heat]).of(Cropped()), x, atol=1e-5)


def test_whole_numbers_are_rounded_and_kept_in_range() -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, 3, *toy.SIZE), np.uint8)
    heat = toy.maps(2)
    for change in (Shifted("gaussian", 90.0), Imputed(Order(), 9, 0.5), Whole(Substrate("mean")), Masked(GREY)):
        filled = made(x, [heat]).of(change)
        assert filled.dtype == np.uint8
    change = Shifted("gaussian", 90.0)
    moved = [row + shift_of(change, row.shape, int(i), row) for row, i in zip(x, content_ids(x), strict=True)]
    np.testing.assert_array_equal(made(x, [heat]).of(change), np.clip(np.rint(moved), 0, 255))
