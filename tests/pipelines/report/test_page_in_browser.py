"""The page in a real browser: masks where the truth is, filters, keys, languages, a phone, words that stay words."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovsops.images.decode import decode_image
from tests.browser import Page, browser_page, find_chromium
from tests.pipelines.report.made_page import BIG_BOX, BIG_HW, HOSTILE, TALL_BOX, TALL_HW, MadePage

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: install one, or name it in OVSOPS_CHROMIUM"
)

VISIBLE = "[...document.querySelectorAll('.card-image')].filter((card) => !card.hidden)"
CARD = "[...document.querySelectorAll('.card-image')].find((c) => c.querySelector('.key-text').textContent === KEY)"


@pytest.fixture(scope="module")
def browser(made_page: MadePage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert CHROMIUM is not None
    with browser_page(CHROMIUM, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, made_page: MadePage) -> Page:
    """The page, fresh, on a desktop, in English."""
    browser.problems.clear()
    browser.requests.clear()
    browser.show(width=1280)
    browser.open(made_page.page)
    browser.evaluate("document.querySelector('[data-set-lang=en]').click()")
    return browser


def choose(page: Page, select: str, value: str) -> None:
    page.evaluate(
        f"{{ const s = document.getElementById('{select}'); s.value = {value!r};"
        " s.dispatchEvent(new Event('change')); s.value }"
    )


def pixels(page: Page, key: str, *, masks: bool) -> np.ndarray:
    """The card's canvas, RGB, at the middle of each pixel of the picture."""
    button = "document.querySelector('[data-toggle=masks]')"
    if (page.evaluate(f"{button}.getAttribute('aria-pressed')") == "true") != masks:
        page.evaluate(f"{button}.click()")
    card = CARD.replace("KEY", repr(key))
    canvas = f"{card}.querySelector('canvas')"
    page.evaluate(f"{canvas}.removeAttribute('data-drawn'); {card}.scrollIntoView({{block: 'center'}})")
    page.evaluate("document.getElementById('low').dispatchEvent(new Event('input'))")
    page.wait(f"{canvas}.dataset.drawn === '1'")
    width, height, data = page.evaluate(
        f"(() => {{ const c = {canvas}; const found = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        " return [c.width, c.height, [...found.data]]; })()"
    )
    return np.asarray(data, np.int16).reshape(height, width, 4)[..., :3]


def difference(page: Page, key: str) -> np.ndarray:
    """Where masks change the picture, at the canvas' size."""
    return (pixels(page, key, masks=True) != pixels(page, key, masks=False)).any(axis=2)


def test_masks_land_where_the_truth_is(page: Page, made_page: MadePage) -> None:
    """Every class of two scenes, pixel by pixel."""
    place_of = {each.id: place for place, each in enumerate(made_page.report.classes)}
    checked = 0
    for key, truth in list(made_page.truth.items())[:2]:
        for category in np.unique(truth).tolist():
            choose(page, "by-class", str(place_of[category]))
            found = difference(page, key)
            factor = found.shape[0] // truth.shape[0]
            middles = found[factor // 2 :: factor, factor // 2 :: factor]
            assert (middles == (truth == category)).mean() > 0.999, (key, category)
            checked += 1
    assert checked >= 4


def test_masks_of_a_photo_that_is_shown_smaller(page: Page) -> None:
    found = difference(page, "big")
    rows, columns = np.nonzero(found)
    scale = found.shape[1] / BIG_HW[1]
    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.array(corners) - np.array(BIG_BOX) * scale).max() <= 1.0


def frame_on_screen(page: Page, key: str, file: Path, *, masks: bool) -> np.ndarray:
    """What a card's frame shows, RGB, one pixel of it for one of the screen."""
    pixels(page, key, masks=masks)
    x, y, width, height = page.evaluate(
        f"(() => {{ const b = {CARD.replace('KEY', repr(key))}.querySelector('.frame').getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height].map(Math.round); })()"
    )
    page.screenshot(file)
    return decode_image(file.read_bytes()).pixels[y : y + height, x : x + width].astype(np.int16)


@pytest.mark.parametrize(("key", "hw", "box"), [("big", BIG_HW, BIG_BOX), ("tall", TALL_HW, TALL_BOX)])
def test_a_card_shows_the_whole_picture(
    page: Page, tmp_path: Path, key: str, hw: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    """Landscape and portrait: the picture lies in the middle of its square frame, and its mask is seen there."""
    with_masks, without = (
        frame_on_screen(page, key, tmp_path / f"{masks}.png", masks=masks) for masks in (True, False)
    )
    rows, columns = np.nonzero(np.abs(with_masks - without).max(axis=2) > 8)
    frame_hw = np.array(with_masks.shape[:2])
    scale = (frame_hw / hw).min()
    top, left = (frame_hw - np.array(hw) * scale) / 2
    expected = np.array(box) * scale + (left, top, left, top)
    assert len(rows), "the mask is not on the screen"
    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(corners - expected).max() <= 2.0


def test_nothing_is_asked_for_and_nothing_complains(page: Page, made_page: MadePage) -> None:
    page.evaluate("document.querySelectorAll('.card-image').forEach((card) => card.scrollIntoView())")
    page.evaluate(f"{VISIBLE}[0].click()")
    page.evaluate("new Promise((done) => setTimeout(done, 300))")
    assert page.requests == [made_page.page.resolve().as_uri()]
    assert page.problems == []


def test_a_script_of_somebody_else_would_not_run(page: Page) -> None:
    page.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.hacked = 9';"
        " document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; })()"
    )
    page.evaluate("new Promise((done) => setTimeout(done, 200))")
    assert page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in problem for problem in page.problems)


def test_hostile_words_stay_words(page: Page) -> None:
    texts = page.evaluate("[...document.querySelectorAll('.card-image .caption')].map((c) => c.textContent)")
    assert HOSTILE[0] in texts
    assert any(text.startswith("long long") and text.endswith("… (100,000 characters)") for text in texts)
    assert page.evaluate("window.hacked") is None
    page.evaluate("document.querySelector('[data-toggle=captions]').click()")
    for at in range(page.evaluate(f"{VISIBLE}.length")):
        page.evaluate(f"{VISIBLE}[{at}].click()")
        page.evaluate("document.getElementById('viewer').close()")
    assert page.evaluate("[window.hacked, document.images.length, document.scripts.length]") == [None, 0, 2]
    marks = page.evaluate(r"/[\u202a-\u202e\u2066-\u2069\u200e\u200f]/.test(document.body.innerText)")
    assert marks is False
    assert page.problems == []


def test_filters(page: Page, made_page: MadePage) -> None:
    images = made_page.report.gallery.images
    regions = [region for image in images for region in image.regions]

    def found() -> str:
        return page.evaluate("document.getElementById('found').textContent")

    def expected(keep: Callable[[Mapping[str, Any]], bool]) -> str:
        fitting = [image for image in images if any(keep(region) for region in image.regions)]
        number = sum(map(keep, regions))
        return f"{len(fitting)} of {len(images)} pictures, {number} regions"

    assert found() == f"{len(images)} of {len(images)} pictures, {len(regions)} regions"
    choose(page, "by-decision", "review")
    assert found() == expected(lambda region: region["decision"] == "review")
    choose(page, "by-reason", "R_CONTESTED")
    assert found() == f"2 of {len(images)} pictures, 2 regions"
    page.evaluate("document.getElementById('clear').click()")
    place = made_page.report.place_of[regions[0]["category_id"]]
    choose(page, "by-class", str(place))
    assert found() == expected(lambda region: region["category_id"] == regions[0]["category_id"])
    page.evaluate("document.getElementById('clear').click()")
    page.evaluate(
        "{ const high = document.getElementById('high'); high.value = 0.5; high.dispatchEvent(new Event('input')); 1 }"
    )
    assert found() == expected(lambda region: region["score"] <= 0.5)
    choose(page, "by-decision", "accept")
    assert page.evaluate("document.getElementById('nothing').hidden") is False
    page.evaluate("document.getElementById('clear').click()")
    page.evaluate("document.getElementById('only-negatives').click()")
    assert found() == f"1 of {len(images)} pictures, 1 region"


def test_keys(page: Page) -> None:
    number = page.evaluate(f"{VISIBLE}.length")
    page.key("j")
    page.key("j")
    assert page.evaluate(f"{VISIBLE}.indexOf(document.activeElement)") == 1
    page.evaluate("document.activeElement.click()")
    place = "document.getElementById('place').textContent"
    assert page.evaluate(place) == f"2 / {number}"
    page.key("ArrowRight")
    assert page.evaluate(place) == f"3 / {number}"
    for _ in range(3):
        page.key("ArrowLeft")
    assert page.evaluate(place) == f"{number} / {number}"
    for key, name in (("m", "masks"), ("b", "boxes"), ("c", "captions")):
        button = f"document.querySelector('[data-toggle={name}]').getAttribute('aria-pressed')"
        before = page.evaluate(button)
        page.key(key)
        assert page.evaluate(button) != before
    closed = "new Promise(done => viewer.addEventListener('close', () => done(true), {once: true}))"
    assert page.evaluate(
        f"{{ const gone = {closed}; viewer.close(); gone }}"
    )  # the event comes after the call
    assert page.evaluate("document.activeElement.className") == "card-image"
    page.key("/")
    assert page.evaluate("document.activeElement.id") == "by-class"


def test_negatives_stand_beside_their_positive(page: Page) -> None:
    page.evaluate("document.getElementById('only-negatives').click()")
    page.evaluate(f"{VISIBLE}[0].click()")
    texts = page.evaluate("[...document.querySelectorAll('.negatives bdi')].map((each) => each.textContent)")
    assert texts[:2] == ["a red ball", "a blue ball"]
    assert len(texts) == 11
    assert page.evaluate("document.querySelector('.negatives mark').textContent") == "blue"


def test_both_languages(page: Page) -> None:
    title = "[...document.querySelectorAll('h2 span')].filter((s) => getComputedStyle(s).display !== 'none')"
    assert page.evaluate(f"{title}[0].textContent") == "Failures"
    page.evaluate("document.querySelector('[data-set-lang=zh]').click()")
    assert page.evaluate(f"{title}[0].textContent") == "失败"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.evaluate("document.getElementById('by-decision').options[0].textContent") == "全部决定"
    classes = page.evaluate(
        "[...document.getElementById('by-class').options].map((o) => o.textContent).join(' ')"
    )
    assert any(word in classes for word in ("天空", "草地", "沙地", "木板", "石头", "雪地", "砖墙", "水面"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_hangs_over_on_a_phone(page: Page, made_page: MadePage, language: str) -> None:
    page.show(width=390, height=844)
    page.open(made_page.page)
    page.evaluate(f"document.querySelector('[data-set-lang={language}]').click()")
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, svg') && e.offsetParent"
        " && e.getBoundingClientRect().right > 391).map((e) => e.tagName + '.' + e.className)"
    )
    assert wide == []
    tallest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.class')].map((e) => e.offsetHeight))"
    )
    assert tallest < 40, "names of classes are not broken into letters"
    page.evaluate(f"{VISIBLE}[0].click()")
    dialog = "document.getElementById('viewer')"
    assert page.evaluate(f"{dialog}.scrollWidth <= {dialog}.clientWidth")


def test_it_reads_without_its_script(browser: Page, made_page: MadePage, tmp_path: Path) -> None:
    """What was labelled, what failed and what it cost needs no script."""
    start = made_page.text.rindex("<script>")
    plain = tmp_path / "plain.html"
    plain.write_text(
        made_page.text[:start] + "<script>document.documentElement.dataset.ready = '1'</script>", "utf-8"
    )
    browser.call("Page.navigate", url=plain.resolve().as_uri())
    browser.wait("document.readyState === 'complete' && document.querySelector('.cards') !== null")
    shown = browser.evaluate("document.querySelector('.cards').innerText")
    assert "Labelled" in shown
    assert "已标注" not in shown
