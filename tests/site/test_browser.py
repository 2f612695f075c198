"""The site in a browser: drawing, searching, sorting, dark, small and by keyboard, without a request to elsewhere."""

import os
import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from lab.site.build import DRAWN
from tests.site.drawing import DRAWINGS, SIDE, draw

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.xdist_group("site"),
]
LEAST_READ = 18  # of twenty drawings
RUNG = "a_eight_thousand/a07_one_cycle.html"
LOOKED_AT = ["index.html", RUNG, "99_all_ladders.html", "draw.html"]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, site):
    """Open a page of the site from its folder; errors of scripts and requests to elsewhere fail the test."""
    problems, contexts = [], []

    def open_page(name, width=1200, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "blob:")) or problems.append(request.url))
        page.goto((site / name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def draw_with_mouse(page, strokes):
    page.locator("#clear").click()
    page.locator("#board").scroll_into_view_if_needed()
    box = page.locator("#board").bounding_box()
    unit = box["width"] / SIDE
    for (x, y), *points in strokes:
        page.mouse.move(box["x"] + x * unit, box["y"] + y * unit)
        page.mouse.down()
        for x, y in points:
            page.mouse.move(box["x"] + x * unit, box["y"] + y * unit, steps=4)
        page.mouse.up()
    page.wait_for_timeout(250)  # the last reading comes a tenth of a second after the pen is up
    return page.locator("#said").text_content()


def read_as(said):
    """The digit in "An 8: over 99.9 %."; None if it is not such an answer."""
    found = re.match(r"An? (\d): ", said)
    return found and int(found[1])


# --------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("digit", [0, 1, 7])
@pytest.mark.parametrize("width", [1200, 390])
def test_a_drawn_digit_is_read(visit, digit, width):
    page = visit("draw.html", width)
    drawing = next(one for one in DRAWINGS if one["digit"] == digit)
    assert read_as(draw_with_mouse(page, drawing["strokes"])) == digit
    expect(page.locator(".bars .said")).to_have_count(1)
    assert page.locator(".bars li").nth(digit).get_attribute("class") == "said"
    assert page.locator("#maps canvas").count() > 50
    assert page.locator("#why").get_attribute("aria-label").startswith(f"Where the evidence for {digit} lies")


@pytest.mark.parametrize("name", DRAWN)
def test_every_network_reads_nearly_all_drawings(visit, name):
    page = visit("draw.html")
    page.locator(f"input[value={name}]").check()
    page.wait_for_function(f"globalThis.NETWORKS.{name}")
    said = [draw_with_mouse(page, drawing["strokes"]) for drawing in DRAWINGS]
    right = [read_as(text) == drawing["digit"] for text, drawing in zip(said, DRAWINGS, strict=True)]
    assert sum(right) >= LEAST_READ, said


def test_an_empty_board_and_several_digits_are_refused_in_words(visit):
    page = visit("draw.html")
    expect(page.locator("#said")).to_have_text("Draw a digit.")
    assert "Several digits" in draw_with_mouse(page, [[(60, 60), (60, 200)], [(200, 60), (200, 200)]])
    page.locator("#clear").click()
    expect(page.locator("#said")).to_have_text("Draw a digit.")
    expect(page.locator("#maps canvas")).to_have_count(0)


def test_a_picture_can_be_chosen_in_place_of_drawing(visit, tmp_path):
    page = visit("draw.html")
    draw(DRAWINGS[14]["strokes"]).resize((900, 700)).save(tmp_path / "seven.png")
    page.locator("#file").set_input_files(tmp_path / "seven.png")
    expect(page.locator("#said")).to_contain_text("A 7: ")
    (tmp_path / "none.png").write_text("no picture")
    page.locator("#file").set_input_files(tmp_path / "none.png")
    expect(page.locator("#said")).to_contain_text("none.png is not a picture")
    assert draw_with_mouse(page, DRAWINGS[0]["strokes"]).startswith("A 0: ")


def test_the_answer_is_announced_and_focus_is_visible(visit):
    page = visit("draw.html")
    draw_with_mouse(page, DRAWINGS[2]["strokes"])
    said = page.locator("#said")
    assert (said.get_attribute("role"), said.get_attribute("aria-live")) == ("status", "polite")
    reached = []
    page.evaluate("document.activeElement.blur()")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):  # past the last one, before the first
            continue
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        outline = page.evaluate(
            "(({ outlineStyle, outlineWidth }) => outlineStyle + outlineWidth)"
            "(getComputedStyle(document.activeElement.id === 'file' ? document.activeElement.parentElement"
            " : document.activeElement))"
        )
        assert outline == "solid3px", reached
    assert {"clear", "file"} <= set(reached)


# ------------------------------------------------------------------------------------------ every page


def test_dark_and_light_by_setting_and_by_switch(visit):
    page = visit("index.html", color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    assert dark == "rgb(20, 23, 26)"
    page.locator(".theme").click()
    assert (page.locator(".theme").text_content(), page.evaluate(background)) == ("Theme: light", "rgb(255, 255, 255)")
    shown = page.locator("main figure img:visible")
    expect(shown).to_have_count(1)
    assert shown.get_attribute("src").endswith("front_light.svg")
    page.reload()
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    for name, colour in (("Theme: dark", dark), ("Theme: auto", dark)):
        page.locator(".theme").click()
        assert (page.locator(".theme").text_content(), page.evaluate(background)) == (name, colour)


def test_no_page_is_wider_than_a_phone(visit, site):
    page = visit("index.html", 390)
    wide = []
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(path.name)
    assert wide == []


def test_a_search_leads_to_the_place(visit):
    page = visit(RUNG)
    page.locator(".search input").fill("step schedule")
    found = page.locator(".found a")
    expect(found.first).to_be_visible()
    assert "C05" in found.first.text_content()
    page.locator(".search input").fill("no such words anywhere")
    expect(page.locator(".found")).to_contain_text("0 places")
    page.locator(".search input").fill("digits that nobody gets")
    page.locator(".search input").press("Enter")
    page.wait_for_url("**/99_all_ladders.html*")


def test_a_table_is_sorted_by_its_headings(visit):
    page = visit("99_all_ladders.html")
    table = page.locator("table.sortable").first
    heads = [text.strip() for text in table.locator("thead th, thead td").all_text_contents()]
    column = heads.index("parameters")

    def numbers():
        cells = table.locator(f"tbody tr > :nth-child({column + 1})").all_text_contents()
        return [int(text.replace(",", "")) for text in cells]

    button = table.locator("thead").get_by_role("button", name="parameters")
    before = numbers()
    button.click()
    assert numbers() == sorted(before)
    button.press("Enter")
    assert numbers() == sorted(before, reverse=True)
    assert table.locator("[aria-sort=descending]").count() == 1


def test_pages_can_be_read_without_scripts(visit):
    page = visit(RUNG, java_script_enabled=False)
    assert page.locator("h1").text_content().startswith("A07")
    page.locator(".map summary").click()
    expect(page.locator(".map a[aria-current=page]")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_the_accessibility_checker_finds_nothing(visit, name, scheme):
    page = visit(name, color_scheme=scheme)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200], each["help"]) for each in found] == []
