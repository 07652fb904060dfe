"""
The page in a headless browser: what is seen is what the engine computes, and everybody can use it.

Needs Playwright (for Python; no browser of its own) and Chromium; skipped without them.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import camrt
from camrt.colormap import COLORMAPS
from camrt.demo import HELD_OUT, MODEL, draw
from camrt.render import blend, png

pytest.importorskip("fastapi", reason="needs the extra serve")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)

from camrt.server.settings import Settings
from tests.engine.server.running import inside

QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
KEY = "open-sesame-open-sesame"
SCREENS = {"desktop": (1280, 900), "phone": (375, 812)}
WATCH = """
window.broken = [];
document.addEventListener("securitypolicyviolation", (event) => window.broken.push(event.violatedDirective));
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
SCENES = {"a.png": draw(HELD_OUT + 23, (2, 7)).image, "b.png": draw(HELD_OUT + 11, (0, 4)).image}
expect = playwright.expect


@pytest.fixture(scope="module")
def explainer() -> camrt.Explainer:
    return camrt.load(str(MODEL))


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with inside(Settings(port=0)) as live:
        yield live.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One visit of the page, and all it asked and complained of."""

    page: Any
    url: str
    asked: list[Any] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def explained(self) -> list[Any]:
        return [request for request in self.asked if "/explain" in request.url]

    def choose(self, name: str) -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": file_of(name)})

    def explain(self, number: int = 1) -> None:
        self.page.click("#explain")
        self.done(number)

    def done(self, number: int = 1) -> None:
        expect(self.page.locator("#status")).to_contain_text(f"Done: {number} heatmap")

    def drawn(self, place: int = 0) -> np.ndarray:
        """Return the pixels of a canvas, RGB."""
        url = self.page.locator("#maps canvas").nth(place).evaluate("canvas => canvas.toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))

    def places(self) -> list[list[float]]:
        """Return where things are on the page, and how large."""
        found: list[list[float]] = self.page.evaluate(
            """() => [...document.querySelectorAll("h2, .map, #classes, #top button, .honest")].map((thing) => {
              const { x, y, width, height } = thing.getBoundingClientRect();
              return [x, y + scrollY, width, height];
            })"""
        )
        return found

    def sideways(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return wider


def file_of(name: str) -> bytes:
    return png(Image.fromarray(SCENES[name]))


@contextmanager
def visiting(browser: Any, url: str, *, refusals: bool = False, **look: Any) -> Iterator[Visit]:
    """Open the page; at the end, nothing may have gone elsewhere, been blocked or complained of."""
    width, height = SCREENS["desktop"]
    look = {"viewport": {"width": width, "height": height}, "reduced_motion": "reduce", **look}
    context = browser.new_context(**look)
    context.set_default_timeout(30_000)
    visit = Visit(context.new_page(), url)
    visit.page.on("request", lambda request: visit.asked.append(request))
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on(
        "console", lambda line: visit.complaints.append(line.text) if line.type in ("error", "warning") else None
    )
    visit.page.add_init_script(WATCH)
    try:
        visit.page.goto(url, wait_until="load")
        expect(visit.page.locator("#methods input:checked")).to_have_count(1)
        yield visit
        assert visit.page.evaluate("window.broken") == []
        own = (url, "data:", f"blob:{url}")
        assert [request.url for request in visit.asked if not request.url.startswith(own)] == []
        wanted = "Failed to load resource: the server responded with a status of 4"  # Chromium's own line for each 4xx
        assert [text for text in visit.complaints if not (refusals and text.startswith(wanted))] == []
    finally:
        context.close()


@pytest.fixture
def visit(browser: Any, site: str) -> Iterator[Visit]:
    with visiting(browser, site) as visit:
        yield visit


def close(drawn: np.ndarray, wanted: np.ndarray) -> bool:
    """Tell whether colours are the same within two levels."""
    return drawn.shape == wanted.shape and int(np.abs(drawn.astype(int) - wanted).max()) <= 2


# ---- numbers --------------------------------------------------------------------------------------------------------


def test_colour_tables_are_those_of_the_engine(visit: Visit) -> None:
    tables = visit.page.evaluate(
        "async () => { const { COLORMAPS } = await import('/page/colours.js');"
        " return Object.fromEntries(Object.entries(COLORMAPS).map(([name, table]) => [name, [...table]])); }"
    )
    assert {name: np.reshape(table, (256, 3)).tolist() for name, table in tables.items()} == {
        name: table.tolist() for name, table in COLORMAPS.items()
    }


def test_colours_of_any_heatmap_are_those_of_the_engine(visit: Visit, rng: np.random.Generator) -> None:
    heat = rng.random((9, 11), np.float32)
    heat.flat[:5] = 0, 1, 0.5, np.float32(2.5) / 255, np.float32(3.5) / 255
    picture = rng.integers(0, 256, (9, 11, 3), np.uint8)
    pixels = np.dstack([picture, np.full((9, 11), 255, np.uint8)])
    mixed = visit.page.evaluate(
        "async ([pixels, heat]) => { const { COLORMAPS, blend, levels } = await import('/page/colours.js');"
        " return [...blend(pixels, levels(Float32Array.from(heat)), COLORMAPS.viridis, 0.3)]; }",
        [pixels.ravel().tolist(), heat.ravel().tolist()],
    )
    assert close(np.reshape(mixed, (9, 11, 4))[..., :3], blend(picture, heat, colormap="viridis", alpha=0.3))


def test_what_is_seen_is_what_the_engine_computes_and_redrawn_without_asking(
    visit: Visit, explainer: camrt.Explainer
) -> None:
    visit.choose("a.png")
    visit.explain()
    wanted = explainer.explain(file_of("a.png"))
    seen, heat = wanted.pictures[0], wanted.heatmaps[0, 0]
    assert close(visit.drawn(), blend(seen, heat))
    expect(visit.page.locator(".group h3")).to_have_text(
        f"{wanted.labels[0][0]}, {100 * wanted.probabilities[0, 0]:.1f} %"
    )
    assert len(visit.explained()) == 1

    visit.page.locator("#opacity").fill("30")
    visit.page.check("input[value=viridis]")
    expect(visit.page.locator("#opacity-value")).to_have_text("30 %")
    visit.page.evaluate("() => new Promise(requestAnimationFrame)")
    assert close(visit.drawn(), blend(seen, heat, colormap="viridis", alpha=0.3))
    visit.page.locator("#opacity").fill("0")
    visit.page.evaluate("() => new Promise(requestAnimationFrame)")
    assert close(visit.drawn(), seen)
    assert len(visit.explained()) == 1


def test_methods_side_by_side_each_show_their_own_map(visit: Visit, explainer: camrt.Explainer) -> None:
    for name in ("eigencam", "fakecam"):
        visit.page.check(f"#methods input[value={name}]")
    visit.choose("a.png")
    visit.explain(3)
    expect(visit.page.locator(".map .name")).to_have_text(["Grad-CAM", "Eigen-CAM", "Fake-CAM"])
    for place, name in enumerate(("gradcam", "eigencam", "fakecam")):
        wanted = explainer.explain(file_of("a.png"), method=name)
        assert close(visit.drawn(place), blend(wanted.pictures[0], wanted.heatmaps[0, 0]))
    told = visit.explained()[1].response().json()
    assert told["targets"][0]["flags"] == {
        name: flag.item() for name, flag in explainer.explain(file_of("a.png"), method="eigencam").flags.items()
    }
    items = visit.page.locator(".map").nth(1).locator(".timing span").all_inner_texts()
    assert [item.split()[0] for item in items] == ["queue", "run", "total", "batch"]
    assert items[3] == f"batch {told['timing']['batch']}"
    shown = float(items[1].split()[1]) * {"ms": 1, "s": 1000}[items[1].split()[2]]
    assert shown == pytest.approx(told["timing"]["run_ms"], rel=0.05, abs=0.06)


def test_a_top_class_becomes_the_target_and_keeps_the_focus(visit: Visit, explainer: camrt.Explainer) -> None:
    visit.choose("a.png")
    visit.explain()
    first = explainer.explain(file_of("a.png"))
    second = int(np.argsort(-first.logits[0])[1])
    wanted = explainer.explain(file_of("a.png"), target=second)
    button = visit.page.locator("#top button").nth(1)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(visit.page.locator("#top button[aria-pressed=true]")).to_have_count(1)
    visit.done()
    assert close(visit.drawn(), blend(wanted.pictures[0], wanted.heatmaps[0, 0]))
    expect(button).to_be_focused()


def test_several_targets_layer_variant_and_options_reach_the_engine(visit: Visit, explainer: camrt.Explainer) -> None:
    page = visit.page
    page.uncheck("#methods input[value=gradcam]")
    page.check("#methods input[value=smoothgradcampp]")
    page.click("#options summary")
    page.select_option("#variant-smoothgradcampp", "torchcam")
    page.fill("#option-smoothgradcampp-n", "3")
    page.fill("#target", "dotted square")
    page.press("#target", "Enter")
    page.fill("#target", "7")
    page.select_option("#layer", "stage3")
    visit.choose("a.png")
    visit.explain(2)
    wanted = explainer.explain(
        file_of("a.png"), method="smoothgradcampp", variant="torchcam", options={"n": 3}, target=[2, 7], layer="stage3"
    )
    for place in range(2):
        assert close(visit.drawn(place), blend(wanted.pictures[0], wanted.heatmaps[0, place]))
    expect(page.locator(".map .how").first).to_have_text("torchcam · stage3")
    page.click("#targets button >> nth=0")
    expect(page.locator(".chip span")).to_have_text(["checkered star"])


def test_another_model_brings_its_own_form_and_takes_away_old_results(visit: Visit) -> None:
    page = visit.page

    def other(route: Any) -> None:
        told = route.fetch(url=f"{visit.url}/models/camrt-demo").json()
        told |= {"name": "other", "labels": ["crane", "crane", "", *told["labels"][3:]], "layers": told["layers"][:2]}
        route.fulfill(json=told | {"methods": [method for method in told["methods"] if method["id"] == "eigencam"]})

    row = {"version": "1", "versions": ["1"], "ready": True}
    rows = [{"name": "camrt-demo", "default": True, **row}, {"name": "other", "default": False, **row}]
    page.route("**/models", lambda route: route.fulfill(json={"models": rows}))
    page.route("**/models/other", other)
    page.reload()
    page.fill("#target", "dotted square")
    page.click("#add-target")
    visit.choose("a.png")
    visit.explain()
    page.select_option("#model", "other")
    expect(page.locator("#methods input")).to_have_count(1)
    expect(page.locator("#methods input:checked")).to_have_value("eigencam")
    expect(page.locator("#layer option")).to_have_count(3)
    expect(page.locator("#maps canvas")).to_have_count(0)
    expect(page.locator("#targets li")).to_have_count(0)
    expect(page.locator("#labels option").first).to_have_attribute("value", "crane (0)")
    page.fill("#target", "crane (1)")
    page.click("#add-target")
    page.route("**/explain?*", lambda route: route.continue_(url=route.request.url.replace("=other", "=camrt-demo")))
    with page.expect_request("**/explain?model=other&*&target=1&*"):
        visit.explain()


# ---- files ----------------------------------------------------------------------------------------------------------


def test_downloads_hold_the_overlay_and_the_numbers(visit: Visit, explainer: camrt.Explainer) -> None:
    visit.choose("a.png")
    visit.explain()
    wanted = explainer.explain(file_of("a.png"))
    heat, got = wanted.heatmaps[0, 0], {}
    for kind in ("png", "json", "npy"):
        with visit.page.expect_download() as download:
            visit.page.click(f"[data-kind={kind}]")
        assert download.value.suggested_filename == f"a_gradcam_{wanted.labels[0][0].replace(' ', '-')}.{kind}"
        got[kind] = Path(download.value.path()).read_bytes()
    assert close(np.asarray(Image.open(io.BytesIO(got["png"])).convert("RGB")), blend(wanted.pictures[0], heat))
    np.testing.assert_allclose(np.load(io.BytesIO(got["npy"])), heat, rtol=0, atol=1e-6)
    told = json.loads(got["json"])
    np.testing.assert_array_equal(np.float32(told["heatmap"]), np.load(io.BytesIO(got["npy"])))
    assert (told["method"], told["target"]["class"]) == ("gradcam", int(wanted.targets[0, 0]))


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_pictures_are_pasted_and_dropped(visit: Visit, explainer: camrt.Explainer, way: str) -> None:
    visit.page.evaluate(
        """([way, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], "b.png", { type: "image/png" }));
          const event = way === "paste" ? new ClipboardEvent(way, { clipboardData: data, bubbles: true })
            : new DragEvent(way, { dataTransfer: data, bubbles: true });
          document.body.dispatchEvent(event);
        }""",
        [way, list(file_of("b.png"))],
    )
    expect(visit.page.locator("#picture-chosen")).to_have_text("Chosen: b.png")
    visit.explain()
    wanted = explainer.explain(file_of("b.png"))
    assert close(visit.drawn(), blend(wanted.pictures[0], wanted.heatmaps[0, 0]))


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_bad_file_is_answered_with_the_servers_words_and_a_good_one_works_afterwards(browser: Any, site: str) -> None:
    with visiting(browser, site, refusals=True) as visit:
        visit.page.set_input_files(
            "#file", {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"this is no picture"}
        )
        with visit.page.expect_response("**/explain?*") as answer:
            visit.page.click("#explain")
        told = answer.value.json()["error"]
        problem = visit.page.get_by_role("alert")
        expect(problem).to_contain_text(told[1:])
        assert problem.inner_text()[0] == told[0].upper()
        expect(visit.page.locator("#status")).to_have_text("No heatmap was made.")
        visit.choose("a.png")
        visit.explain()
        expect(problem).to_be_empty()


def test_a_full_queue_says_when_to_come_back_and_offers_it(browser: Any, site: str) -> None:
    with visiting(browser, site, refusals=True) as visit:
        visit.page.route(
            "**/explain?*",
            lambda route: route.fulfill(status=429, headers={"Retry-After": "7"}, json={"error": "the queue is full"}),
            times=1,
        )
        visit.choose("a.png")
        visit.page.click("#explain")
        expect(visit.page.get_by_role("alert")).to_have_text("The queue is full. Try again in 7 seconds.")
        visit.page.get_by_role("button", name="Try again").click()
        visit.done()
        expect(visit.page.get_by_role("button", name="Try again")).to_be_hidden()


def test_a_key_is_asked_for_sent_and_kept_nowhere(browser: Any) -> None:
    with inside(Settings(port=0, infer_keys=(KEY,))) as live:
        context = browser.new_context()
        page = context.new_page()
        page.goto(live.url)
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type("a wrong one")
        page.keyboard.press("Enter")
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#methods input:checked")).to_have_count(1)
        expect(page.get_by_label("API key")).to_be_hidden()
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": file_of("a.png")})
        page.click("#explain")
        expect(page.locator("#status")).to_contain_text("Done")
        kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
        assert kept == [0, 0, "", f"{live.url}/"]
        assert page.input_value("#key") == ""
        context.close()


def test_text_from_the_server_is_never_html(visit: Visit) -> None:
    nasty = "<img src=x onerror=alert(1)>"

    def alter(route: Any) -> None:
        answer = route.fetch()
        told = answer.json()
        told["targets"][0] |= {"label": nasty, "degenerate": True, "flags": {"unstable": True, "other": nasty}}
        told["top"][0]["label"] = nasty
        route.fulfill(response=answer, json=told)

    visit.page.route("**/explain?*", alter)
    visit.choose("a.png")
    visit.explain()
    expect(visit.page.locator("#top .label").first).to_have_text(nasty)
    expect(visit.page.locator(".group h3")).to_contain_text(nasty)
    expect(visit.page.locator("main img[onerror]")).to_have_count(0)
    expect(visit.page.locator(".note")).to_have_text("Constant map: it says nothing here.")
    expect(visit.page.locator(".map .words")).to_contain_text("Two components are nearly as strong")


# ---- runs that overtake each other ----------------------------------------------------------------------------------


def test_an_old_answer_never_overwrites_a_newer_one(visit: Visit, explainer: camrt.Explainer) -> None:
    # fetch is replaced by one that ignores the signal, so that the old answer does arrive, last
    visit.page.evaluate(
        """() => {
          const real = window.fetch;
          let first = true;
          window.fetch = async (path, options) => {
            if (!String(path).startsWith("explain")) return real(path, options);
            const late = first;
            first = false;
            const answer = await real(path, { ...options, signal: undefined });
            if (late) await new Promise((go) => (window.letGo = go));
            return answer;
          };
        }"""
    )
    visit.choose("a.png")
    visit.page.click("#explain")
    expect(visit.page.locator(".note")).to_have_text("running …")
    visit.choose("b.png")
    visit.explain()
    wanted = explainer.explain(file_of("b.png"))
    before = visit.page.locator("#status").inner_text()
    visit.page.evaluate("async () => { window.letGo(); await new Promise((go) => setTimeout(go)); }")
    assert close(visit.drawn(), blend(wanted.pictures[0], wanted.heatmaps[0, 0]))
    assert visit.page.locator("#status").inner_text() == before


@pytest.mark.parametrize("way", ["Cancel", "Escape", "Explain"])
def test_cancel_and_a_newer_run_end_the_request(visit: Visit, way: str) -> None:
    held: list[Any] = []
    visit.page.route("**/explain?*", lambda route: held.append(route), times=1)
    visit.choose("a.png")
    visit.page.click("#explain")
    expect(visit.page.locator("#status")).to_contain_text("Explaining with Grad-CAM")
    with visit.page.expect_event("requestfailed") as failed:
        if way == "Escape":
            visit.page.keyboard.press("Escape")
        else:
            visit.page.get_by_role("button", name=way).click()
    assert failed.value.url == held[0].request.url
    held[0].abort()
    if way != "Explain":
        expect(visit.page.locator("#status")).to_have_text("Cancelled.")
        expect(visit.page.locator(".note")).to_have_text("cancelled")
        expect(visit.page.locator("#explain")).to_be_focused()
        visit.page.click("#explain")
    visit.done()
    expect(visit.page.get_by_role("alert")).to_be_empty()


# ---- everybody ------------------------------------------------------------------------------------------------------


def test_all_of_it_by_keyboard_with_the_focus_always_in_sight(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#built-in button")).not_to_have_count(0)

    def focused() -> dict[str, Any]:
        found: dict[str, Any] = page.evaluate(
            """() => {
              const shown = [];
              for (let at = document.activeElement; at; at = at.parentElement) {
                const { opacity, outlineStyle, outlineWidth } = getComputedStyle(at);
                if (outlineStyle !== "none" && opacity > 0) shown.push(parseFloat(outlineWidth));
              }
              const { id, value, className, dataset } = document.activeElement;
              const { x, y, width, height } = document.activeElement.getBoundingClientRect();
              const there = document.elementFromPoint(x + width / 2, y + height / 2); // null outside the window
              return { id, value, className, name: dataset.name ?? "", wide: Math.max(0, ...shown),
                       uncovered: there !== null && (there.contains(document.activeElement)
                         || document.activeElement.contains(there)) };
            }"""
        )
        return found

    def tab_to(wanted: Callable[[dict[str, Any]], bool]) -> None:
        for _ in range(120):
            page.keyboard.press("Tab")
            at = focused()
            assert at["wide"] >= 1 and at["uncovered"], f"the focus cannot be seen at {at}"
            if wanted(at):
                return
        raise AssertionError("Tab does not get there")

    tab_to(lambda at: bool(at["name"]))
    page.keyboard.press("Enter")
    expect(page.locator("#built-in [aria-pressed=true]")).to_have_count(1)
    tab_to(lambda at: at["id"] == "filter")
    page.keyboard.type("eigen-cam")
    expect(page.locator("#methods .method:visible")).to_have_count(1)
    tab_to(lambda at: at["value"] == "eigencam")
    page.keyboard.press("Space")
    tab_to(lambda at: at["id"] == "explain")
    page.keyboard.press("Enter")
    visit.done(2)
    tab_to(lambda at: at["id"] == "opacity")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#opacity-value")).to_have_text("51 %")
    tab_to(lambda at: at["value"] == "jet")
    page.keyboard.press("ArrowRight")
    expect(page.locator("input[value=viridis]")).to_be_checked()
    for _ in range(2):
        tab_to(lambda at: at["id"] == "" and page.evaluate("Boolean(document.activeElement.closest('#top'))"))
    page.keyboard.press("Enter")
    visit.done(2)
    expect(page.locator("#top button").nth(1)).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing_serious_and_nothing_moves_or_overflows(
    browser: Any, site: str, scheme: str, screen: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    width, height = SCREENS[screen]
    look = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}

    def judge(state: str) -> None:
        found = axe.Axe().run(visit.page).response["violations"]
        serious = [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]
        assert serious == [], f"{state}: {serious}"
        assert visit.sideways() <= 0, state

    with visiting(browser, site, refusals=True, **look) as visit:
        judge("empty")
        for name in ("layercam", "eigencam", "reciprocam"):
            visit.page.check(f"#methods input[value={name}]")
        visit.page.click("#options summary")
        visit.page.fill("#target", "dotted square")
        visit.page.click("#add-target")
        visit.choose("a.png")
        held: list[Any] = []
        visit.page.route("**/explain?*", lambda route: held.append(route), times=1)
        visit.page.click("#explain")
        expect(visit.page.locator("#status")).to_contain_text("Explaining")
        before = visit.places()
        held[0].continue_()
        visit.done(4)
        assert visit.places() == before
        judge("compared")
        assert visit.page.evaluate("window.shifted") < 0.02
        visit.page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
        visit.page.click("#explain")
        expect(visit.page.get_by_role("alert")).not_to_be_empty()
        judge("error")
        visit.page.set_viewport_size({"width": 360, "height": 640})
        judge("narrow")


def test_results_and_errors_are_announced_and_maps_described(visit: Visit, explainer: camrt.Explainer) -> None:
    visit.choose("a.png")
    visit.explain()
    wanted = explainer.explain(file_of("a.png"))
    heat = wanted.heatmaps[0, 0]
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    row, column = ("upper", "middle", "lower")[3 * y // len(heat)], ("left", "middle", "right")[3 * x // heat.shape[1]]
    where = "middle" if row == column == "middle" else f"{row} {column}"
    map_ = visit.page.get_by_role("img", name=f"Grad-CAM for {wanted.labels[0][0]}: highest in the {where}")
    expect(map_).to_be_visible()
    expect(visit.page.get_by_role("status")).to_contain_text(wanted.labels[0][0])
