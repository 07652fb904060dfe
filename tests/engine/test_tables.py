"""Tables read back by other means: what goes in comes out, and the best is the best."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import pytest

from camrt.protocols import PROTOCOLS
from camrt.summary import Figure, Win
from camrt.tables import (
    Column,
    columns,
    csv_of,
    json_of,
    latex_of,
    method_title,
    methods_of,
    rows_of,
    terminal,
    terminal_table,
    wins_of,
    written,
)
from tests.engine.figures import HEADS, example, figure, summary

DROP = Column("average_drop", "average_drop", "lower", True)
INSERTION = Column("insertion", "insertion", "higher", False)


def of(metric: str, *values: float) -> list[Figure]:
    """Return figures of one metric for methods a, b, c..."""
    name, better, percent = {"average_drop": HEADS["average_drop"], "insertion": ("insertion", "higher", False)}[metric]
    return [
        Figure(method, metric, name, value, value, value, 5, None, better, percent)  # type: ignore[arg-type]
        for method, value in zip("abcdef", values, strict=False)
    ]


def test_csv_is_read_back_exactly() -> None:
    made = example()
    rows = list(csv.DictReader(io.StringIO(csv_of(made))))
    read = tuple(
        Figure(
            **{**row, "percent": row["percent"] == "true", "n": int(row["n"])}
            | {name: float(row[name]) for name in ("value", "low", "high", "std")}
        )  # type: ignore[arg-type]
        for row in rows
    )
    assert read == made.figures


def test_csv_leaves_a_cell_empty_where_there_is_no_number_and_quotes_what_it_must() -> None:
    odd = Figure('a,"b"\n', "insertion", "insertion", math.nan, math.nan, 0.5, 1, None, "higher", False)
    (row,) = csv.DictReader(io.StringIO(csv_of(summary([odd]))))
    assert (
        row["method"] == 'a,"b"\n' and (row["value"], row["low"], row["std"]) == ("", "", "") and row["high"] == "0.5"
    )


def test_json_is_read_back_exactly() -> None:
    made = example()
    read = json.loads(json_of(made))
    assert [Figure(**f) for f in read["figures"]] == list(made.figures)
    assert [Win(**w) for w in read["wins"]] == list(made.wins)
    assert read["curves"][1]["mean"] == list(made.curves[1].mean)


def test_json_has_null_where_there_is_no_number() -> None:
    odd = dataclasses.replace(figure("a", "adcc", 0.5), value=math.nan, high=math.inf)
    (read,) = json.loads(json_of(summary([odd])))["figures"]
    assert read["value"] is None and read["high"] is None and read["low"] == 0.49


def test_headlines_are_one_a_metric_and_all_fields_come_on_demand() -> None:
    made = example()
    assert [column.key for column in columns(made)] == list(HEADS)
    further = ["adcc.per_image_mean", "deletion-polycam-steps28.ties"]
    assert [column.key for column in columns(made, main=False)] == [*HEADS, *further]


@pytest.mark.parametrize(
    ("column", "head", "key"),
    [
        (DROP, "Average Drop % ↓", "average_drop"),
        (Column("adcc", "adcc.per_image_mean", "higher", True), "ADCC (per image mean) % ↑", "adcc.per_image_mean"),
        (
            Column("deletion-polycam-steps28", "deletion.ties", "neither", False),
            "Deletion (polycam-steps28, ties)",
            "deletion-polycam-steps28.ties",
        ),
        (Column("degenerate_rate", "degenerate_rate", "lower", True), "Degenerate rate % ↓", "degenerate_rate"),
    ],
)
def test_heads_say_metric_setting_field_unit_and_direction(column: Column, head: str, key: str) -> None:
    assert (column.head, column.key) == (head, key)


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [
        (0.816649, True, "81.66"),
        (1.0, True, "100.00"),
        (0.35712, False, "0.3571"),
        (0.0, False, "0.0000"),
        (-0.25, False, "-0.2500"),
        (0.00012345, False, "0.0001234"),
        (12.345678, False, "12.35"),
        (49820.4, False, "49820"),
        (3.2e9, False, "3.2e+09"),
        (math.nan, True, "–"),
        (None, False, "–"),
    ],
)
def test_numbers_are_written_as_papers_do(value: float | None, percent: bool, text: str) -> None:
    assert written(value, percent=percent) == text


def test_the_best_of_a_column_is_marked_by_its_direction() -> None:
    made = summary(of("average_drop", 0.3, 0.1, 0.2) + of("insertion", 0.3, 0.1, 0.2))
    marks = [[cell.best for cell in cells] for _, cells in rows_of(made, [DROP, INSERTION])]
    assert marks == [[False, True], [True, False], [False, False]]


def test_numbers_that_print_alike_are_best_together_and_gaps_never() -> None:
    made = summary(of("average_drop", 0.123449, 0.123451, 0.2, math.nan))
    cells = [cells[0] for _, cells in rows_of(made, [DROP])]
    assert [cell.value for cell in cells] == ["12.34", "12.35", "20.00", "–"]
    assert [cell.best for cell in cells] == [True, False, False, False]
    made = summary(of("average_drop", 0.12341, 0.12344, 0.2))
    assert [cells[0].best for _, cells in rows_of(made, [DROP])] == [True, True, False]
    made = summary(of("average_drop", 0.12341, 0.12344))
    assert [cells[0].best for _, cells in rows_of(made, [DROP])] == [False, False]


def test_a_lone_method_and_a_field_without_direction_have_no_best() -> None:
    assert not rows_of(summary(of("average_drop", 0.3)), [DROP])[0][1][0].best
    ties = Column("deletion-polycam-steps28", "deletion.ties", "neither", False)
    assert not any(cells[0].best for _, cells in rows_of(example(), [ties]))


def test_a_method_without_a_metric_has_a_dash_there() -> None:
    made = summary([*of("average_drop", 0.3, 0.1), *of("insertion", 0.5)])
    assert [[c.text for c in cells] for _, cells in rows_of(made, [DROP, INSERTION])] == [
        ["30.00 ± 0.00", "0.5000 ± 0.0000"],
        ["10.00 ± 0.00", "–"],
    ]


def test_intervals_are_shown_by_half_their_width() -> None:
    lopsided = Figure("a", "average_drop", "average_drop", 0.30, 0.25, 0.37, 5, 0.1, "lower", True)
    assert rows_of(summary([lopsided]), [DROP])[0][1][0].text == "30.00 ± 6.00"


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.2672, 0.00041, "0.2672 ± 0.0004"),
        (10.571, 0.0736, "10.57 ± 0.07"),
        (49820.0, 268.7, "49820 ± 269"),
        (3.2e-7, 1.25e-8, "3.2e-07 ± 1.2e-08"),
    ],
)
def test_a_number_and_its_interval_have_the_same_decimals(value: float, half: float, text: str) -> None:
    made = summary([Figure("a", "insertion", "insertion", value, value - half, value + half, 5, 0.1, "higher", False)])
    assert rows_of(made, [INSERTION])[0][1][0].text == text


def test_latex_of_two_methods_is_as_written_here_by_hand() -> None:
    made = summary(
        [
            figure("gradcam", "average_drop", 0.30),
            figure("gradcam", "deletion-polycam-steps28", 0.5),
            figure("scorecam", "average_drop", 0.20),
        ]
    )
    want = r"""
\begin{tabular}{lrr}
\toprule
Method & Average Drop \% $\downarrow$ & Deletion (polycam-steps28) $\downarrow$ \\
\midrule
Grad-CAM & 30.00 {\scriptsize$\pm$\,1.00} & 0.5000 {\scriptsize$\pm$\,0.0100} \\
Score-CAM & \textbf{20.00} {\scriptsize$\pm$\,1.00} & -- \\
\bottomrule
\end{tabular}
"""
    assert latex_of(made) == want.lstrip("\n")


def test_latex_escapes_what_it_would_take_for_commands() -> None:
    made = summary(of("average_drop", 0.1))
    odd = summary([dataclasses.replace(f, method=r"a_b&c%#${}~^\<>") for f in made.figures])
    assert (
        r"a\_b\&c\%\#\$\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{} & "
        in latex_of(odd)
    )


def test_latex_has_published_rows_of_the_network_below_a_rule() -> None:
    text = latex_of(example(), protocol=PROTOCOLS["adcc"], model="resnet50.onnx")
    *_, last = text.split(r"\midrule")
    assert "arXiv:2104.10252" in last
    assert r"ResNet-50 Grad-CAM & 32.99 & -- & 82.80 & 22.24 & 75.27 & --" in last
    assert last.count("ResNet-50 ") == 5 and "VGG" not in last
    assert all(line.count("&") == 6 for line in text.splitlines() if line.startswith(("Grad-CAM", "ResNet")))


def test_the_terminal_divides_columns_among_tables_that_fit_and_shows_every_number() -> None:
    made = example()
    text = terminal_table(made, main=False, width=72)
    assert max(len(line) for line in text.splitlines()) <= 72
    tables = terminal(made, main=False, width=72)
    assert len(tables) > 1 and sum(len(table.columns) - 1 for table in tables) == 8
    assert text.count("Score-CAM (torchcam-0.2)") == len(tables)
    for _, cells in rows_of(made, columns(made, main=False)):
        for cell in cells:
            assert cell.text in text


def test_the_terminal_shows_published_rows_only_where_they_have_a_number() -> None:
    text = terminal_table(example(), protocol=PROTOCOLS["adcc"], model="resnet50", width=200)
    assert "published: poppi" in text and "ResNet-50 Score-CAM" in text and "78.14" in text
    assert "published" not in terminal_table(summary(of("insertion", 0.1)), protocol=PROTOCOLS["scorecam"], width=80)


def test_markup_in_names_is_text() -> None:
    odd = summary([dataclasses.replace(f, method="[bold red]x[/]") for f in of("average_drop", 0.1)])
    assert "[bold red]x[/]" in terminal_table(odd, width=80)


def test_win_rates_become_squares_in_the_order_of_the_methods() -> None:
    wins = (Win("adcc", "adcc", "b", "a", 0.25, 4), Win("adcc", "adcc", "a", "b", 0.5, 4))
    made = summary(of("average_drop", 0.3, 0.1), wins)
    assert methods_of(made) == ["a", "b"]
    square = wins_of(made)["adcc", "adcc"].tolist()
    assert (square[0][1], square[1][0]) == (0.5, 0.25) and math.isnan(square[0][0]) and math.isnan(square[1][1])


@pytest.mark.parametrize(
    ("name", "title"),
    [("gradcampp", "Grad-CAM++"), ("scorecam-torchcam-0.2", "Score-CAM (torchcam-0.2)"), ("mask", "mask")],
)
def test_methods_are_called_as_papers_do(name: str, title: str) -> None:
    assert method_title(name) == title
