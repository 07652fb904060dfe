"""Reading ahead: order, places of boxes and masks, what is broken, and that no thread is left."""

from __future__ import annotations

import gc
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camrt.datasets.folder import folder
from camrt.datasets.manifest import manifest
from camrt.datasets.reading import Broken, Read, read_ahead, read_sample
from camrt.datasets.sample import Sample
from camrt.errors import ImageError, InputError
from camrt.image import prepare
from camrt.preprocess import Preprocess
from camrt.presets import preset
from tests.engine.datasets.made import content, picture

CROP = preset("imagenet", size=32)
MODES = {
    "crop": CROP,
    "squash": replace(CROP, resize="squash"),
    "pad": replace(CROP, resize="pad"),
}


def threads() -> list[str]:
    """Return the names of the readers that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("camrt-read")]


def made(picture: bytes | np.ndarray, **known: Any) -> Sample:
    """Return a sample of a picture in memory."""
    return Sample(0, "made", lambda: picture, **known)  # type: ignore[arg-type, return-value]


class Memory:
    """A data set whose pictures count who reads them."""

    name, classes, fingerprint = "memory", dict[int, str](), "made"

    def __init__(self, count: int) -> None:
        self.count, self.reads = count, list[int]()
        self.gate = threading.Event()
        self.gate.set()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        def read() -> bytes:
            self.reads.append(index)
            assert index == 0 or self.gate.wait(10)
            return content(colour=index % 256)

        return Sample(index, str(index), read, label=index)


def test_samples_come_in_order_as_prepare_makes_them(tmp_path: Path) -> None:
    for number in range(9):
        picture(tmp_path / f"{number}.png", 20 + number, 30, colour=number * 20)
    data, order = folder(tmp_path), [3, 0, 8, 8, 1]
    results = list(read_ahead(data, order, CROP, workers=3, ahead=2))
    assert [result.sample.index for result in results] == order
    for result in results:
        assert isinstance(result, Read)
        want = prepare(tmp_path / result.sample.id, CROP)
        np.testing.assert_array_equal(result.x, want.x)
        np.testing.assert_array_equal(result.picture, want.pictures[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (64, 64), (40, 130)])
def test_boxes_and_masks_land_where_the_painted_rectangle_does(mode: str, shape: tuple[int, int]) -> None:
    """Oracle: the rectangle is painted into the picture; where it is white in the window, there it is."""
    height, width = shape
    x0, y0, x1, y1 = width // 2 - 14, height // 2 - 12, width // 2 + 6, height // 2 + 10
    canvas, mask = np.zeros((height, width, 3), np.uint8), np.zeros(shape, bool)
    canvas[y0:y1, x0:x1], mask[y0:y1, x0:x1] = 255, True
    black = replace(MODES[mode], mean=(0.0,) * 3, size=(48, 40))
    result = read_sample(
        made(canvas, boxes=np.array([[x0, y0, x1, y1]], float), mask=lambda: mask, ignored=lambda: ~mask), black
    )
    assert isinstance(result, Read) and result.boxes is not None and result.mask is not None
    white = result.picture[..., 0] > 127
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    np.testing.assert_allclose(result.boxes, [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], atol=0.6)
    assert (result.mask != white).sum() <= 2 * (len(rows) + len(columns))  # at most the outline
    assert abs(int(result.mask.sum()) - int(white.sum())) <= len(rows) + len(columns)
    if mode != "pad":
        np.testing.assert_array_equal(result.ignored, ~result.mask)


def test_a_box_partly_outside_the_picture_is_clipped_to_it() -> None:
    """A picture of 60 x 60 shown whole at 30 x 30: half as large."""
    shown = Preprocess("custom", (30, 30), resize="squash")
    boxes = np.array([[-20, 10, 20, 90], [70, 0, 80, 10], [59, 59, 60, 60]], float)
    result = read_sample(made(content(60, 60), boxes=boxes), shown)
    assert isinstance(result, Read) and result.boxes is not None
    assert result.boxes.tolist() == [[0, 5, 10, 30], [29.5, 29.5, 30, 30]]


def test_a_box_ends_with_the_picture_and_not_with_the_padding() -> None:
    """A picture of 60 x 30 in a window of 30 x 30: rows 7.5 to 22.5, of which Pillow takes 8 to 23 (half to even)."""
    padded = Preprocess("custom", (30, 30), resize="pad")
    top = -padded.frame(30, 60).top
    result = read_sample(made(content(30, 60), boxes=np.array([[0, -9, 60, 99.0]])), padded)
    assert isinstance(result, Read) and result.boxes is not None and 7 <= top <= 8
    assert result.boxes.tolist() == [[0, top, 30, top + 15]]


def test_a_box_that_the_crop_cuts_away_stays_without_area() -> None:
    """The window of 32 x 32 shows columns 16 to 48 of 60 at crop ratio 1 and the height of 32."""
    result = read_sample(made(content(32, 64), boxes=np.array([[0, 0, 5, 5.0]])), replace(CROP, crop_ratio=1.0))
    assert isinstance(result, Read) and result.boxes is not None and result.boxes.shape == (1, 4)
    assert result.boxes[0, 0] == result.boxes[0, 2] == 0


def bomb() -> bytes:
    """Return a PNG of a few bytes that claims 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def fail(error: Exception) -> Any:
    """Raise."""
    raise error


BROKEN: dict[str, tuple[Sample, str]] = {
    "truncated": (made(content(200, 200, form="JPEG")[:300]), "cannot be decoded"),
    "no picture": (made(b"text"), "not a picture"),
    "empty": (made(b""), "empty"),
    "bomb": (made(bomb()), "more than the limit|decompression bomb"),
    "gone": (Sample(0, "a", lambda: "nowhere/a.png"), "no file 'nowhere/a.png'"),
    "unreadable": (Sample(0, "a", lambda: fail(PermissionError(13, "Permission denied"))), "Permission denied"),
    "strip": (made(content(2, 500)), "too long to be cropped"),
    "label": (made(content(), label=10), "label 10 is not one of the model's 10 classes"),
    "negative": (made(content(), label=-2), "label -2 is not one"),
    "outside": (made(content(), boxes=np.array([[8, 0, 9, 3.0]])), "no box has area within the picture of 8 x 6"),
    "reversed": (made(content(), boxes=np.array([[4, 4, 2, 2.0]])), "no box has area.*the first is 4 4 2 2"),
    "nan": (made(content(), boxes=np.array([[0, 0, np.nan, 3]])), "finite"),
    "mask": (made(content(), mask=lambda: np.ones((8, 6), bool)), r"mask has shape \(8, 6\), the picture \(6, 8\)"),
    "ignored": (made(content(), ignored=lambda: np.ones((6, 9), bool)), "mask of ignored pixels has shape"),
    "mask file": (made(content(), mask=lambda: fail(ImageError("damaged mask"))), "damaged mask"),
    "size": (made(content(), size=(12, 16)), "are for a picture of 16 x 12 pixels; it has 8 x 6"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_broken_with_its_reason(case: str) -> None:
    sample, reason = BROKEN[case]
    result = read_sample(sample, CROP, n_classes=10)
    assert isinstance(result, Broken) and result.sample is sample and "\n" not in result.reason
    assert re.search(reason, result.reason), result.reason


def test_the_broken_stand_in_their_place_among_the_others(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(content()[:40])
    kinds = [type(result) for result in read_ahead(folder(tmp_path), range(4), CROP)]
    assert kinds == [Read, Read, Broken, Read]


def test_no_more_than_ahead_is_read_before_it_is_asked_for() -> None:
    data = Memory(100)
    reader = read_ahead(data, iter(range(100)), CROP, workers=2, ahead=3)
    assert data.reads == [] and threads() == []
    for done in range(1, 6):
        next(reader)
        assert max(data.reads) <= done + 3 - 1
    reader.close()
    assert threads() == [] and len(data.reads) <= 5 + 3


def test_threads_end_at_the_end_on_close_on_drop_and_on_an_error() -> None:
    data = Memory(30)
    assert [result.sample.index for result in read_ahead(data, range(30), CROP, workers=4)] == list(range(30))
    assert threads() == []
    reader = read_ahead(data, range(30), CROP)
    next(reader)
    assert threads()
    del reader
    gc.collect()
    assert threads() == []
    with pytest.raises(KeyError):
        consume(read_ahead(data, range(30), CROP))
    gc.collect()
    assert threads() == []


def consume(results: Iterator[Read | Broken]) -> None:
    """Fail in the middle."""
    next(results)
    raise KeyError("the caller's own")


def test_closing_drops_what_has_not_begun() -> None:
    """The one thread holds at picture 1 while 19 wait behind it; it is let go once the generator is closing."""
    data = Memory(50)
    data.gate.clear()
    reader = read_ahead(data, range(50), CROP, workers=1, ahead=20)
    next(reader)
    closer = threading.Thread(target=reader.close)
    closer.start()
    while not reader.gi_running:
        time.sleep(0.001)
    time.sleep(0.05)  # from here to where the waiting ones are dropped
    data.gate.set()
    closer.join(10)
    assert not closer.is_alive() and threads() == [] and len(data.reads) < 21


def test_an_index_that_is_not_there_and_a_bug_are_not_hidden(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(IndexError, match="samples 0 to 0"):
        list(read_ahead(folder(tmp_path), [5], CROP))
    with pytest.raises(ZeroDivisionError):
        read_sample(made(content(), mask=lambda: fail(ZeroDivisionError())), CROP)
    assert threads() == []


def test_settings_that_cannot_work_are_refused_at_once() -> None:
    for workers, ahead in ((0, 1), (1, 0)):
        with pytest.raises(InputError, match="at least 1"):
            read_ahead(Memory(1), [0], CROP, workers=workers, ahead=ahead)
    bands = Preprocess("bands", (2, 2), color="bands", mean=(0.0,) * 4, std=(1.0,) * 4)
    with pytest.raises(ImageError, match="4 channels"):
        read_ahead(Memory(1), [0], bands)


@pytest.mark.realdata
def test_every_real_photograph_is_read_and_its_boxes_lie_in_the_window(realdata: Path) -> None:
    data = manifest(realdata / "images.csv", only="images/photos/")
    results = list(read_ahead(data, range(len(data)), preset("imagenet"), n_classes=1000))
    assert len(results) == 57 and all(isinstance(result, Read) for result in results)
    boxes = np.concatenate(
        [result.boxes for result in results if isinstance(result, Read) and result.boxes is not None]
    )
    assert len(boxes) >= 43 and boxes.min() >= 0 and boxes.max() <= 224
