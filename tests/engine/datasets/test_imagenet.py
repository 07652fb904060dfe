"""ImageNet's validation pictures: two numberings of classes, four kinds of truth, boxes that count from 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camrt.datasets.imagenet import imagenet
from camrt.errors import InputError
from tests.engine.datasets.made import picture

CLASSES = {"n00000001": 0, "n00000002": 1, "n00000003": 2}
TRUE = {1: "n00000003", 2: "n00000001", 3: "n00000002"}  # of pictures 1, 2, 3: classes 2, 0, 1


def name(number: int) -> str:
    """Return a picture's name."""
    return f"ILSVRC2012_val_{number:08d}"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Return a flat folder of three pictures."""
    for number in TRUE:
        picture(tmp_path / "val" / f"{name(number)}.JPEG")
    return tmp_path / "val"


def write(path: Path, text: str) -> Path:
    """Write a text."""
    path.write_text(text)
    return path


def found(data: object) -> dict[str, int | None]:
    """Return the classes by picture."""
    return {Path(sample.id).stem: sample.label for sample in data}  # type: ignore[attr-defined]


WANTED = {name(1): 2, name(2): 0, name(3): 1}


def test_sub_folders_of_ids(tmp_path: Path) -> None:
    for number, wnid in TRUE.items():
        picture(tmp_path / wnid / f"{name(number)}.JPEG")
    data = imagenet(tmp_path, labels=CLASSES)
    assert found(data) == WANTED and data.classes == {index: wnid for wnid, index in CLASSES.items()}


def test_lines_of_file_and_class(flat: Path, tmp_path: Path) -> None:
    write(tmp_path / "val.txt", "".join(f"{name(n)}.JPEG {CLASSES[TRUE[n]]}\n" for n in TRUE))
    assert found(imagenet(flat)) == WANTED  # found beside the folder; indices need no map
    ids = write(tmp_path / "ids.txt", "".join(f"val/{name(n)}.JPEG {TRUE[n]}\n" for n in TRUE))
    assert found(imagenet(flat, truth=ids, labels=CLASSES)) == WANTED


def test_one_id_a_line_goes_by_the_pictures_number(flat: Path, tmp_path: Path) -> None:
    (flat / f"{name(2)}.JPEG").unlink()
    truth = write(tmp_path / "ids.txt", "".join(f"{wnid}\n" for wnid in TRUE.values()))
    assert found(imagenet(flat, truth=truth, labels=CLASSES)) == {name(1): 2, name(3): 1}


def test_ilsvrc_ids_mean_nothing_without_their_list(flat: Path, tmp_path: Path) -> None:
    """The list says that ILSVRC id 1 is n00000003, 2 is n00000001 and 3 is n00000002."""
    truth = write(flat / "ILSVRC2012_validation_ground_truth.txt", "1\n2\n3\n")
    with pytest.raises(InputError, match="ILSVRC ids, whose order is not that of the models' classes; give synsets="):
        imagenet(flat, labels=CLASSES)
    synsets = write(tmp_path / "synsets.txt", "n00000003 kit fox\nn00000001\nn00000002\n")
    assert found(imagenet(flat, synsets=synsets, labels=CLASSES)) == WANTED
    write(truth, "1\n2\n4\n")
    with pytest.raises(InputError, match="run from 1 to 3; got '4'"):
        imagenet(flat, synsets=synsets, labels=CLASSES)


def test_the_development_kits_meta_mat(flat: Path, tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(2, "n00000001", "b", 0), (1, "n00000003", "a", 0), (3, "n00000002", "c", 0), (4, "n00000009", "d", 2)]
    io.savemat(tmp_path / "meta.mat", {"synsets": np.array(rows, dtype=kind)})
    truth = write(tmp_path / "truth.txt", "1\n2\n3\n")
    assert found(imagenet(flat, truth=truth, synsets=tmp_path / "meta.mat", labels=CLASSES)) == WANTED
    with pytest.raises(InputError, match="run from 1 to 3; got '4'"):  # 4 is an inner node of the tree
        imagenet(flat, truth=write(tmp_path / "four.txt", "1\n2\n4\n"), synsets=tmp_path / "meta.mat", labels=CLASSES)
    with pytest.raises(InputError, match="not the development kit's"):
        imagenet(flat, truth=truth, synsets=write(tmp_path / "bad.mat", "text"), labels=CLASSES)


def test_kaggles_table_has_classes_and_boxes(flat: Path, tmp_path: Path) -> None:
    rows = "".join(f"{name(n)},{TRUE[n]} 0 0 7 5 {TRUE[n]} 1 1 {n} 2 \n" for n in TRUE)
    write(tmp_path / "LOC_val_solution.csv", f"ImageId,PredictionString\n{rows}")
    data = imagenet(flat, labels=CLASSES)
    assert found(data) == WANTED
    assert data[2].boxes is not None and data[2].boxes.tolist() == [[0, 0, 8, 6], [1, 1, 4, 3]]


def xml(root: Path, number: int, corners: str) -> None:
    """Write a picture's box."""
    root.mkdir(exist_ok=True)
    box = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners.split(), strict=True)
    )
    write(
        root / f"{name(number)}.xml",
        "<annotation><size><width>8</width><height>6</height></size>"
        f"<object><name>{TRUE[number]}</name><bndbox>{box}</bndbox></object></annotation>",
    )


def test_box_xml_counts_from_0_and_names_the_class(flat: Path, tmp_path: Path) -> None:
    for number in TRUE:
        xml(tmp_path / "boxes", number, f"0 {number} 7 5")
    data = imagenet(flat, boxes=tmp_path / "boxes", labels=CLASSES)
    assert found(data) == WANTED
    assert [sample.boxes.tolist() for sample in data] == [[[0, n, 8, 6]] for n in TRUE]
    assert [sample.size for sample in data] == [(6, 8)] * 3


def test_pictures_without_xml_have_no_boxes_and_need_a_truth(flat: Path, tmp_path: Path) -> None:
    xml(tmp_path / "boxes", 2, "1 1 2 2")
    with pytest.raises(InputError, match=f"{name(1)} has no class"):
        imagenet(flat, boxes=tmp_path / "boxes", labels=CLASSES)
    truth = write(tmp_path / "t.txt", "".join(f"{name(n)} {TRUE[n]}\n" for n in TRUE))
    data = imagenet(flat, boxes=tmp_path / "boxes", truth=truth, labels=CLASSES)
    assert [sample.boxes is None for sample in data] == [True, False, True] and data[0].size is None


def test_a_list_that_numbers_the_pictures_is_no_truth(flat: Path) -> None:
    write(flat / "val.txt", "".join(f"{name(n)} {n}\n" for n in TRUE))
    with pytest.raises(InputError, match="numbers the pictures, it does not say their classes"):
        imagenet(flat)


def test_what_is_missing_is_said(flat: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"classes are not to be found.*give truth="):
        imagenet(flat)
    with pytest.raises(InputError, match="no box XML of these pictures"):
        imagenet(flat, boxes=flat)
    with pytest.raises(InputError, match="want lines"):
        imagenet(flat, truth=write(tmp_path / "t.txt", "a b c\n"))
    with pytest.raises(InputError, match="no picture called ILSVRC2012_val_"):
        imagenet(picture(tmp_path / "other" / "a.png").parent)
