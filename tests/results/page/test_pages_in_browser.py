"""The pages in a real browser, opened from a folder: they work, and ask for nothing from elsewhere."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.cases.structures import shipped_structures
from bundle.results import Prediction, write_index, write_prediction

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed (make chromium)")

SOFTWARE_GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
NASTY = (
    "<script>document.title = 'taken'</script></script><img src=https://example.org/x.png onerror=alert(1)>"
)


class Visit:
    """A tab, with all that it asked for and complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None,
        )

    def shown_cases(self) -> list[str]:
        cases: list[str] = self.page.eval_on_selector_all(
            "#cases tbody tr", "rows => rows.filter(row => !row.hidden).map(row => row.cells[1].dataset.key)"
        )
        return cases

    def colours(self, selector: str) -> Any:
        """(H, W, 3) of what is seen of an element."""
        return np.asarray(Image.open(io.BytesIO(self.page.locator(selector).screenshot())).convert("RGB"))

    def check(self, folder: Path) -> None:
        """Nothing but files of the run and data in the page itself; no error, no warning."""
        own = (folder.as_uri() + "/", "data:", f"blob:{folder.as_uri()}", "blob:null/")
        assert [url for url in self.requests if not url.startswith(own)] == []
        ours = [
            text for text in self.complaints if "GPU stall" not in text
        ]  # of a software renderer that is read
        assert ours == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=EXECUTABLE, args=[*SOFTWARE_GL, *root])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield Visit(context.new_page())
    context.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, make_prediction: Callable[..., Prediction]) -> Path:
    folder = tmp_path_factory.mktemp("results")
    kidneys = {1: "left kidney", 2: "right kidney"}
    made = [
        make_prediction(case_id="b_volume", labels={1: "liver", 2: "spleen"}, prompt=NASTY),
        make_prediction(case_id="a_volume", labels=kidneys, warnings=["spacing was assumed"]),
        make_prediction(case_id="film", shape=(300, 200), labels={10: "infection"}, prompt="both lungs"),
        make_prediction(case_id="nothing", labels={1: "liver"}, empty=True),
    ]
    cases = [
        {"id": name, "input": name, "status": "done", "seconds": seconds, **write_prediction(one, folder)}
        for one, seconds in zip(made, (3.0, 20.0, 1.0, None), strict=True)
        for name in [one.case.reference.id]
    ]
    cases.append(
        {"id": "broken", "input": NASTY, "status": "failed", "error": NASTY, "files": [], "seconds": 0}
    )
    write_index(
        folder, {"cases": cases, "command": NASTY, "left_out": [{"input": NASTY, "reason": "is no image"}]}
    )
    return folder


def test_the_table_is_filtered_and_sorted(visit: Visit, run: Path) -> None:
    page = visit.page
    page.goto((run / "index.html").as_uri())
    every = ["broken", "b_volume", "a_volume", "film", "nothing"]
    assert visit.shown_cases() == every and page.inner_text("#shown") == "5 cases"

    page.fill("#words", "kidney SPACING")
    assert visit.shown_cases() == ["a_volume"] and page.inner_text("#shown") == "1 of 5 cases"
    page.fill("#words", "no such word")
    assert visit.shown_cases() == [] and page.is_visible("#nothing")
    page.click("text=Clear")
    page.wait_for_selector("#shown:text-is('5 cases')")

    page.select_option("#status", "failed")
    assert visit.shown_cases() == ["broken"]
    page.select_option("#status", "")
    page.select_option("#modality", "X-ray")
    assert visit.shown_cases() == ["film"]
    page.select_option("#modality", "")
    page.check("#warned")
    assert visit.shown_cases() == ["a_volume"]
    page.uncheck("#warned")
    page.select_option("#structure", "liver")
    assert visit.shown_cases() == ["b_volume", "nothing"]
    page.select_option("#found", "no")
    assert visit.shown_cases() == ["nothing"]
    page.select_option("#structure", "")
    assert visit.shown_cases() == ["nothing"]
    page.select_option("#found", "yes")
    assert visit.shown_cases() == ["b_volume", "a_volume", "film"]
    page.select_option("#found", "")

    page.click("th button:has-text('Case')")
    assert visit.shown_cases() == sorted(every)
    page.focus("th button:has-text('Time')")
    page.keyboard.press("Enter")
    assert visit.shown_cases() == ["film", "b_volume", "a_volume", "broken", "nothing"]
    page.keyboard.press("Enter")
    assert visit.shown_cases() == ["a_volume", "b_volume", "film", "broken", "nothing"]
    assert page.get_attribute("th:has-text('Time')", "aria-sort") == "descending"
    assert page.title() == "Segmentation results"
    visit.check(run)


def test_of_many_cases_the_rest_is_shown_on_the_way_down(visit: Visit, tmp_path: Path) -> None:
    cases = [
        {
            "id": f"case_{number:03}",
            "input": "in",
            "status": "failed",
            "error": "unreadable",
            "seconds": 999.0 - number,
        }
        for number in range(250)
    ]
    write_index(tmp_path, {"cases": cases})
    page = visit.page
    page.goto((tmp_path / "index.html").as_uri())
    assert visit.shown_cases() == [f"case_{number:03}" for number in range(100)]
    page.click("th button:has-text('Time')")
    assert visit.shown_cases() == [f"case_{number:03}" for number in range(249, 149, -1)]
    page.fill("#words", "case_00")
    assert visit.shown_cases() == [f"case_{number:03}" for number in range(9, -1, -1)]
    page.fill("#words", "")
    for shown in (200, 250):
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        page.wait_for_selector(f"#cases tbody tr:not([hidden]) >> nth={shown - 1}")
    assert len(visit.shown_cases()) == 250
    visit.check(tmp_path)


@pytest.mark.parametrize("width", [400, 900, 1400])
def test_nothing_is_cut_off(visit: Visit, run: Path, width: int) -> None:
    visit.page.set_viewport_size({"width": width, "height": 800})
    for name in ("index.html", "b_volume/index.html", "film/index.html"):
        visit.page.goto((run / name).as_uri())
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, name
    visit.check(run)


def test_slices_show_what_is_chosen(visit: Visit, run: Path) -> None:
    page = visit.page
    page.goto((run / "index.html").as_uri())
    page.click("#cases >> text=b_volume")
    assert page.title() == "b_volume"
    first = ".stacks figure >> nth=0"
    page.wait_for_selector(f"{first} >> canvas[aria-label*='with liver, spleen']")
    plain = visit.colours(f"{first} >> canvas")
    liver = np.asarray(shipped_structures().rgb("liver")) * 255

    def coloured() -> float:
        """Share of the first canvas that leans towards the liver's colour."""
        seen = visit.colours(f"{first} >> canvas").astype(float)
        return float((np.abs(seen - liver).max(axis=-1) < 40).mean())

    page.fill("#opacity", "100")
    assert coloured() > 0.05
    page.uncheck("[aria-label='Show liver']")
    assert coloured() < 0.01
    page.check("[aria-label='Show liver']")
    page.check("[value=uncertainty]")
    page.wait_for_selector("#scale", state="visible")
    uncertainty = visit.colours(f"{first} >> canvas")
    page.check("[value=none]")
    grey = visit.colours(f"{first} >> canvas")
    assert coloured() < 0.01 and (grey[40:-40, 40:-120] == grey[40:-40, 40:-120, :1]).all()
    assert not np.array_equal(grey, uncertainty) and not np.array_equal(grey, plain)

    page.focus(".stage >> nth=0")
    before = page.inner_text(f"{first} >> output")
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(f"{first} >> output:not(:text-is('{before}'))")
    page.click("text=Next")
    page.wait_for_url("**/a_volume/index.html")
    assert page.inner_text("#position") == "2 of 4"
    page.click("text=All cases")
    page.wait_for_url(run.joinpath("index.html").as_uri())
    visit.check(run)


def test_a_picture_is_shown_and_pointing_names_a_structure(visit: Visit, run: Path) -> None:
    page = visit.page
    page.goto((run / "film" / "index.html").as_uri())
    page.wait_for_selector("canvas[aria-label*='with infection']")
    box = page.locator(".stacks canvas").bounding_box()
    # Rows 3 to 6 and columns 4 to 14 of 300 x 200 are the structure.
    page.mouse.move(box["x"] + box["width"] * 9 / 200, box["y"] + box["height"] * 5 / 300)
    assert page.inner_text(".pointed") == "infection"
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.inner_text(".pointed") == ""
    page.select_option("#zoom", "4")
    assert page.locator(".stacks canvas").bounding_box()["width"] == pytest.approx(4 * box["width"], rel=0.1)
    visit.check(run)


def test_the_viewer_draws(visit: Visit, run: Path) -> None:
    page = visit.page
    page.goto((run / "a_volume" / "index.html").as_uri())
    assert not any("niivue" in url or url.endswith("viewer.js") for url in visit.requests)
    page.click("#open-viewer")
    page.wait_for_selector("#viewer-state:has-text('Drag')", timeout=60_000)
    page.fill("#opacity", "100")
    page.wait_for_timeout(300)
    seen = visit.colours("#viewer").astype(float)
    assert seen.std() > 10
    for name in ("left kidney", "right kidney"):
        colour = np.asarray(shipped_structures().rgb(name)) * 255
        assert (np.abs(seen - colour).max(axis=-1) < 30).mean() > 0.002, name
    page.select_option("#viewer-view", "structures")
    page.wait_for_timeout(300)
    turned = visit.colours("#viewer").astype(float)
    assert turned.std() > 2 and not np.array_equal(seen, turned)
    visit.check(run)


def test_without_webgl_the_page_says_so_and_the_slices_work(visit: Visit, run: Path) -> None:
    page = visit.page
    page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        " return kind.startsWith('webgl') ? null : get.call(this, kind, ...rest); };"
    )
    page.goto((run / "a_volume" / "index.html").as_uri())
    page.click("#open-viewer")
    assert "no WebGL2" in page.inner_text("#viewer-state")
    page.wait_for_selector(".stacks canvas[aria-label*='with left kidney']")
    assert visit.colours(".stacks figure >> nth=0 >> canvas").std() > 10
    visit.check(run)


def test_a_case_folder_alone_still_has_its_page(visit: Visit, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "a_volume", tmp_path / "sent" / "a_volume")
    page = visit.page
    page.goto((tmp_path / "sent" / "a_volume" / "index.html").as_uri())
    page.click("#open-viewer")
    page.wait_for_selector("#viewer-state:has-text('could not be loaded')")
    assert "../viewer/niivue.js" in page.inner_text("#viewer-state") and not page.is_visible(".neighbours")
    assert visit.colours(".stacks figure >> nth=0 >> canvas").std() > 10
