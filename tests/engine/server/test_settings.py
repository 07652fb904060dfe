"""Settings: read from words and variables, checked, and shown without keys."""

from __future__ import annotations

import json
import os

import pytest
from pydantic import ValidationError

from camrt.errors import InputError
from camrt.server.settings import CEILINGS, Settings, read_settings, shown

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the variables of whoever runs the tests away."""
    for name in [name for name in os.environ if name.upper().startswith("CAMRT_")]:
        monkeypatch.delenv(name)


def test_words_go_before_variables_and_variables_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMRT_PORT", "81")
    monkeypatch.setenv("CAMRT_BATCH", "4")
    settings = read_settings({"port": "82"})
    assert (settings.port, settings.batch, settings.host) == (82, 4, "127.0.0.1")


@pytest.mark.parametrize("text", [f"{KEY},{OTHER}", f" {KEY} , {OTHER},", json.dumps([KEY, OTHER])])
def test_lists_are_words_between_commas_or_json(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMRT_INFER_KEYS", text)
    assert [key.get_secret_value() for key in read_settings({}).infer_keys] == [KEY, OTHER]
    assert read_settings({"warm": "gradcam, layercam", "load": ""}).warm == ("gradcam", "layercam")


def test_one_ceiling_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMRT_CEILINGS", '{"n": 8, "other": 5}')
    assert read_settings({}).ceilings == {**CEILINGS, "n": 8, "other": 5}
    assert Settings(ceilings={"n": 9}).ceilings == {**CEILINGS, "n": 9}


def test_keys_are_masked_wherever_settings_are_seen() -> None:
    settings = read_settings({"infer_keys": KEY, "admin_keys": OTHER})
    for seen in (json.dumps(shown(settings)), repr(settings), str(settings)):
        assert KEY not in seen and OTHER not in seen
    assert shown(settings)["infer_keys"] == ["**********"]
    assert set(shown(settings)) == set(Settings.model_fields)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"port": "x"}, r"^port: wanted a valid integer.*; got 'x' \(set it by CAMRT_PORT or --set port=\.\.\.\)$"),
        ({"prot": "80"}, "^prot is no setting; did you mean port"),
        ({"delay": "2", "page": "maybe"}, r"^page: wanted a valid boolean.*; delay: wanted less than or equal to 1"),
        ({"timeout": "inf"}, "timeout: wanted a finite number"),
        ({"queue_work": "nan"}, "queue_work: wanted"),
        ({"ceilings": '{"n": 0}'}, "ceilings: wanted greater than or equal to 1"),
        ({"ceilings": "{"}, "ceilings: "),
        ({"load": '["a'}, "load: "),
        ({"control": "poll"}, "control: wanted 'none' or 'explicit'; got 'poll'"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_setting(told: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_settings(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["short", "x" * 257, "with a blank 0123456", "sch\xf6nes-langes-wort", "new\nline-0123456789"]
)
@pytest.mark.parametrize("form", [lambda key: [key], lambda key: json.dumps([KEY, key])])
def test_a_weak_key_is_refused_and_not_repeated(key: str, form) -> None:
    with pytest.raises(InputError, match="16 to 256 printable") as caught:
        read_settings({"infer_keys": form(key)})
    assert key not in str(caught.value) and KEY not in str(caught.value)


def test_a_variable_that_is_no_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMRT_INFER_KEY", KEY)
    with pytest.raises(InputError, match="CAMRT_INFER_KEY is no setting; did you mean infer_keys") as caught:
        read_settings({})
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("CAMRT_PORT", "tcp://10.0.0.1:80"), ("CAMRT_SERVICE_HOST", "10.0.0.1"), ("CAMRT_PORT_80_TCP_ADDR", "10.0.0.1")],
)
def test_what_kubernetes_sets_for_a_service_of_the_same_name_is_explained(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{name} was set by Kubernetes .*enableServiceLinks: false"):
        read_settings({})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 3  # type: ignore[misc]


def test_a_run_has_the_threads_it_is_told_or_one_a_core() -> None:
    assert Settings(threads=3).run_threads == 3
    assert Settings().run_threads == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cores", "told", "share"), [(16, {}, 8), (16, {"light_lanes": 3}, 5), (2, {"light_lanes": 4}, 1)]
)
def test_a_run_beside_another_has_its_lanes_share(
    cores: int, told: dict[str, int], share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    shared = Settings(**told)  # type: ignore[arg-type]
    assert (shared.run_threads_beside, shared.spare_lanes) == (share, 1)


@pytest.mark.parametrize(("cores", "told"), [(1, {}), (16, {"light_lanes": 1}), (16, {"threads": 4})])
def test_every_run_is_like_any_other_where_there_is_nothing_to_share(
    cores: int, told: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    alike = Settings(**told)  # type: ignore[arg-type]
    assert (alike.run_threads_beside, alike.spare_lanes) == (None, 0)
