"""Records on disk: a run that was cut short goes on, and what is named is tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import coverage
from bench.coverage import Settings, forget, load_records, run
from bench.coverage_cases import LIGHT, OLD_EXPORTER, ORIGINS, TIMM, of_names


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names that were tried; nothing is."""
    names: list[str] = []

    def attempt(trial: Any) -> dict[str, Any]:
        names.append(trial.case.name)
        return {"origin": trial.case.origin, "name": trial.case.name, "status": "right", "turn": len(names)}

    monkeypatch.setattr(coverage, "attempt", attempt)
    return names


def test_a_second_run_tries_only_what_has_no_record(tmp_path: Path, tried: list[str]) -> None:
    settings = Settings(["light"], "", tmp_path / "records.jsonl")
    settings.results.write_text(json.dumps({"origin": "light", "name": LIGHT[0], "status": "refused"}) + "\n", "utf-8")
    assert [record["name"] for record in run(settings)] == list(LIGHT)
    assert tried == list(LIGHT[1:])
    run(settings)
    assert tried == list(LIGHT[1:])


def test_what_is_named_is_tried_again_and_its_last_record_counts(tmp_path: Path, tried: list[str]) -> None:
    file = tmp_path / "records.jsonl"
    run(Settings(["light"], "", file))
    run(Settings(["light"], "", file, only=[LIGHT[2]]))
    assert tried == [*LIGHT, LIGHT[2]]
    known = load_records(file)
    assert (len(known), known[f"light/{LIGHT[2]}"]["turn"]) == (len(LIGHT), len(LIGHT) + 1)


def test_only_the_named_origins_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    rows = [{"origin": origin, "name": "a", "status": "right"} for origin in ("light", "timm")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    forget(file, ["light"])
    assert list(load_records(file)) == ["timm/a"]


def test_the_lists_hold_as_many_models_as_the_goals_want() -> None:
    names = [name for name, _ in TIMM]
    assert len(set(names)) == len(names) >= 60
    assert len(set(OLD_EXPORTER)) == 10
    assert len(set(LIGHT)) == 9
    for origin in ORIGINS:
        cases = of_names(origin, ["resnet18"])
        assert cases and len({case.key for case in cases}) == len(cases)
    assert {case.opset for case in of_names("torchvision-old", [])} == {11}
