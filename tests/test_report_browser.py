"""The report in a browser: what moves, what hides, what can be read, and that nothing complains."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, find_chromium

RIGHT = 39, "ArrowRight"
CARD = "CARDS.find((card) => card.guess && card.guess.maps)"

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
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on the PATH")
    try:
        browser = Chromium(program, tmp_path_factory.mktemp("profile"))
    except (AssertionError, OSError) as error:
        pytest.skip(f"{program} does not start: {error}")
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Chromium, report_folder: Path) -> Iterator[Chromium]:
    """The report, opened anew; what it asked for and complained of is checked at the end."""
    browser.said.clear()
    browser.requests.clear()
    browser.open(report_folder / "report.html")
    browser.wait_for("!!document.querySelector('canvas:not([hidden])')")
    yield browser
    assert browser.said == []
    assert all(url.startswith(("file:", "data:")) for url in browser.requests)


def choose(page: Chromium, control: str, value: str) -> None:
    page.run(
        f"byId({control!r}).value = {value!r};"
        f"for (const kind of ['input', 'change'])"
        f"  byId({control!r}).dispatchEvent(new Event(kind, {{ bubbles: true }}))"
    )


def test_the_slider_moves_frame_and_map(page):
    """With the arrow keys alone."""
    page.run(f"{CARD}.slider.focus()")
    said, drawn = [], []
    for _ in range(8):
        drawn.append(page.run(f"{CARD}.canvas.toDataURL()"))
        said.append(page.run(f"{CARD}.slider.getAttribute('aria-valuetext')"))
        page.press(*reversed(RIGHT))
    frames = page.run(f"{CARD}.video.frames")
    assert [text.split(",")[0] for text in said] == [f"frame {frame}" for frame in frames]
    assert all("most attention at row" in text for text in said)
    assert len(set(drawn)) == 8


def test_a_location_that_has_all_the_attention_is_lit(page):
    """In a map of our own, over a frame that is drawn without it before."""
    page.run(
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
    page.run("byId('maps').click()")
    middle, corner = page.run(f"{mean}(3, 3)"), page.run(f"{mean}(6, 6)")
    page.run("byId('maps').click()")
    assert page.run(f"{mean}(6, 6)") == pytest.approx(0.35 * corner, abs=2)
    assert page.run(f"{mean}(3, 3)") > 0.35 * middle + 20


def test_filters(page):
    shown = "CARDS.filter((card) => !card.element.hidden)"
    total = page.run(f"{shown}.length")
    assert total > 0
    for result in ("right", "wrong"):
        choose(page, "result", result)
        count = page.run(f"{shown}.length")
        assert count == page.run(
            f"CARDS.filter(c => c.guess?.right === {str(result == 'right').lower()}).length"
        )
        assert page.run("byId('count').textContent").startswith(f"{count} of ")
    choose(page, "result", "")
    name = page.run("byId('class').options[1].value")
    choose(page, "class", name)
    assert page.run(f"{shown}.every((card) => card.classes.includes({name!r}))")
    assert 0 < page.run(f"{shown}.length") < total
    choose(page, "class", "")
    confidence = page.run("100 * CARDS.find((card) => card.guess).guess.best[0][1]")
    choose(page, "low", str(confidence))
    assert page.run(f"{shown}.every((card) => 100 * card.guess.best[0][1] >= {confidence})")
    choose(page, "low", "100")
    assert page.run(f"{shown}.length") == 0
    choose(page, "low", "")
    assert page.run(f"{shown}.length") == total


def test_a_baseline_has_frames_alone(page):
    number = page.run("DATA.settings.findIndex((setting) => !setting.attends)")
    choose(page, "model", str(number))
    texts = page.run(
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
    listed = page.run(counts)
    for order in ("name", "best", "worst", "videos"):
        choose(page, "class-order", order)
        now = page.run(counts)
        assert sorted(now) == sorted(listed)
        rows = [name for name, _, _ in now[::3]]
        assert rows == [name for _, name, _ in now[:3]]
        if order in ("best", "worst"):
            values = page.run(f"all('tbody tr', {table}).map((row) => +row.dataset.value)")
            assert values == sorted(values, reverse=order == "best")
    choose(page, "class-order", "listed")
    assert page.run(counts) == listed


def test_a_box_hides_the_curves_of_a_model(page):
    lines = "all('#curves g[data-setting=\"0\"]').map((line) => getComputedStyle(line).display)"
    assert "none" not in page.run(lines)
    page.run("document.querySelector('[data-toggles=\"0\"]').click()")
    assert set(page.run(lines)) == {"none"}


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_everything_fits_and_can_be_read(page, width):
    page.resize(width, 844)
    page.run("all('details').forEach((part) => { part.open = true; })")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(PALE) == []
    unnamed = "all('input, select').filter((it) => !it.labels.length).length"
    assert page.run(unnamed) == 0


def test_a_name_is_no_element(page):
    assert page.run("document.scripts.length") == 2
    assert page.run("document.querySelectorAll('img[src=x]').length") == 0
