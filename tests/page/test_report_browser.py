"""The report in a browser: what moves, what hides, what can be read, and that nothing complains.

The browser is Debian's Chromium (`make browser` installs it), and playwright moves it.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

CARD = "CARDS.find((card) => card.guess && card.guess.maps)"
PATIENCE = 20_000  # milliseconds for one thing to happen

# The texts whose contrast with what is behind them is below 4.5, as WCAG 2 computes it (AA).
PALE = """(() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (element) => {
    for (let it = element; it; it = it.parentElement) {
      const color = numbers(getComputedStyle(it).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  return [...document.body.querySelectorAll("*")].filter((element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
      && element.checkVisibility() && !["SCRIPT", "NOSCRIPT", "title"].includes(element.tagName)
      && ratio(
        light(numbers(getComputedStyle(element)[element.ownerSVGElement ? "fill" : "color"])),
        light(behind(element))) < 4.5
  ).map((element) => `${element.tagName} ${element.className} ${element.textContent.trim()}`);
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on the PATH; `make browser` installs Debian's as root")
    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=program)
        except Error as error:
            pytest.skip(f"{program} does not start: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def said() -> list[str]:
    """What the page wrote to its console and threw."""
    return []


@pytest.fixture
def page(browser: Browser, report_folder: Path, said: list[str], request) -> Iterator[Page]:
    """The report, opened anew in a window of some width, its security policy in force.

    What it asked for and complained of is checked at the end.
    """
    width, asked = getattr(request, "param", 1280), []
    context = browser.new_context(viewport={"width": width, "height": 844}, is_mobile=width < 600)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(error.message))
    page.on("request", lambda it: asked.append(it.url[:80]))
    page.goto((report_folder / "report.html").as_uri())
    page.locator("canvas").first.wait_for()
    yield page
    context.close()
    assert said == []
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked)


def choose(page: Page, control: str, value: str) -> None:
    page.locator(f"#{control}").select_option(value)


def test_the_slider_moves_frame_and_map(page):
    """With the arrow keys alone."""
    page.evaluate(f"{CARD}.slider.focus()")
    said, drawn = [], []
    for _ in range(8):
        drawn.append(page.evaluate(f"{CARD}.canvas.toDataURL()"))
        said.append(page.evaluate(f"{CARD}.slider.getAttribute('aria-valuetext')"))
        page.keyboard.press("ArrowRight")
    frames = page.evaluate(f"{CARD}.video.frames")
    assert [text.split(",")[0] for text in said] == [f"frame {frame}" for frame in frames]
    assert all("most attention at row" in text for text in said)
    assert len(set(drawn)) == 8


def test_a_location_that_has_all_the_attention_is_lit(page):
    """In a map of our own, over a frame that is drawn without it before."""
    page.evaluate(
        f"{CARD}.guess.maps[0] = Array.from({{ length: 49 }}, (_, i) => (i === 24) * DATA.unit)"
    )
    # Read from a copy: Chromium warns of reading what it draws with the help of a GPU.
    mean = f"""((x, y) => {{
      const [w, h] = {CARD}.video.size, canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [w, h];
      const context = canvas.getContext("2d", {{ willReadFrequently: true }});
      context.drawImage({CARD}.canvas, 0, 0);
      const values = context.getImageData(w * x / 7, h * y / 7, w / 7, h / 7).data;
      return values.reduce((sum, v, i) => sum + (i % 4 < 3 ? v : 0), 0) / (0.75 * values.length);
    }})"""
    page.get_by_label("attention over the frames").click()
    middle, corner = page.evaluate(f"{mean}(3, 3)"), page.evaluate(f"{mean}(6, 6)")
    page.get_by_label("attention over the frames").click()
    assert page.evaluate(f"{mean}(6, 6)") == pytest.approx(0.35 * corner, abs=2)
    assert page.evaluate(f"{mean}(3, 3)") > 0.35 * middle + 20


def test_filters(page):
    shown = "CARDS.filter((card) => !card.element.hidden)"
    total = page.evaluate(f"{shown}.length")
    assert total > 0
    for result in ("right", "wrong"):
        choose(page, "result", result)
        count = page.evaluate(f"{shown}.length")
        assert count == page.evaluate(
            f"CARDS.filter(c => c.guess?.right === {str(result == 'right').lower()}).length"
        )
        assert page.evaluate("byId('count').textContent").startswith(f"{count} of ")
    choose(page, "result", "")
    name = page.evaluate("byId('class').options[1].value")
    choose(page, "class", name)
    assert page.evaluate(f"{shown}.every((card) => card.classes.includes({name!r}))")
    assert 0 < page.evaluate(f"{shown}.length") < total
    choose(page, "class", "")
    confidence = page.evaluate("100 * CARDS.find((card) => card.guess).guess.best[0][1]")
    page.get_by_label("Confidence from").fill(str(confidence))
    assert page.evaluate(f"{shown}.every((card) => 100 * card.guess.best[0][1] >= {confidence})")
    page.get_by_label("Confidence from").fill("100")
    assert page.evaluate(f"{shown}.length") == 0
    page.get_by_label("Confidence from").fill("")
    assert page.evaluate(f"{shown}.length") == total


def test_a_baseline_has_frames_alone(page):
    number = page.evaluate("DATA.settings.findIndex((setting) => !setting.attends)")
    choose(page, "model", str(number))
    texts = page.evaluate(
        "CARDS.filter((c) => c.guess).map((c) => c.element.querySelector('.looks').textContent)"
    )
    assert set(texts) == {"a model without attention: frames only"}


def test_sorting_keeps_every_count_with_its_classes(page):
    table = "document.querySelector('.breakdown:not([hidden]) table')"
    counts = f"""(() => {{
      const names = all('.class-column', {table}).map((cell) => cell.textContent);
      return all('tbody tr', {table}).flatMap((row) => all('.count', row)
        .map((cell, i) => [row.dataset.name, names[i], cell.textContent]));
    }})()"""
    listed = page.evaluate(counts)
    for order in ("name", "best", "worst", "videos"):
        choose(page, "class-order", order)
        now = page.evaluate(counts)
        assert sorted(now) == sorted(listed)
        rows = [name for name, _, _ in now[::3]]
        assert rows == [name for _, name, _ in now[:3]]
        if order in ("best", "worst"):
            values = page.evaluate(f"all('tbody tr', {table}).map((row) => +row.dataset.value)")
            assert values == sorted(values, reverse=order == "best")
    choose(page, "class-order", "listed")
    assert page.evaluate(counts) == listed


def test_a_box_hides_the_curves_of_a_model(page):
    lines = "all('#curves g[data-setting=\"0\"]').map((line) => getComputedStyle(line).display)"
    assert "none" not in page.evaluate(lines)
    page.locator("[data-toggles='0']").uncheck()
    assert set(page.evaluate(lines)) == {"none"}


@pytest.mark.parametrize("page", [1280, 390, 320], indirect=True)
def test_everything_fits_and_can_be_read(page):
    width = page.viewport_size["width"]
    page.evaluate("all('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(PALE) == []
    unnamed = "all('input, select').filter((it) => !it.labels.length).length"
    assert page.evaluate(unnamed) == 0


def test_a_name_is_no_element(page):
    assert page.evaluate("document.scripts.length") == 2
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0


def test_a_foreign_script_does_not_run(page, said):
    """The page's policy lets its own script through, as all the other tests show, and no other."""
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        " { textContent: 'window.foreign = true' }))"
    )
    assert page.evaluate("window.foreign") is None
    (complaint,) = said
    assert "Content Security Policy" in complaint
    said.clear()
