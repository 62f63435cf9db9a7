# SPDX-License-Identifier: Apache-2.0
"""The page in a browser: what it shows and computes is what plain loops over its data say."""

import math
import re
from typing import Any

import pytest

from tests.explore.cases import HOSTILE

WIDTHS = [360, 800, 1400]
Token = dict[str, Any]


def forced(values: dict[str, Any]) -> list[list[Token]]:
    """The tokens that the slider recolours, by sentence."""
    return [
        [
            {name: columns[name][t] if columns[name] else [] for name in columns}
            for t in range(len(columns["pieces"]))
        ]
        for sentence in values["sentences"]
        for columns in [sentence.get("reference", sentence["translation"])]
    ]


def exit_of(token: Token, kind: str, threshold: int) -> int:
    """The first depth whose signal is above the threshold, or that has none."""
    last = len(token["likeliest"])
    for depth in range(1, last):
        by_confidence = token["likeliest"][depth - 1][1]
        signal = by_confidence if kind == "confidence" else token["halting"][depth - 1]
        if signal > threshold or threshold == 0:
            return depth
    return last


def painted(page: Any, row: int) -> list[list[int]]:
    """The digits of the tokens: of translations (row 0) or of forced tokens (row 1)."""
    return page.evaluate(
        """row => [...document.querySelectorAll("article")].map(article => {
          const digits = article.querySelectorAll(".tokens")[row].querySelectorAll("sub");
          return [...digits].map(digit => +digit.textContent);
        })""",
        row,
    )


def slide(page: Any, step: int) -> int:
    """Moves the slider; returns the threshold that the page says."""
    slider = page.locator("#threshold")
    slider.evaluate("(x, step) => { x.value = step; x.dispatchEvent(new Event('input')) }", step)
    return round(float(slider.get_attribute("aria-valuetext")) * 100_000)


def point(page: Any) -> tuple[float, float]:
    """The place of the moving point."""
    circle = page.locator("#plot .now")
    return float(circle.get_attribute("cx")), float(circle.get_attribute("cy"))


def test_translations_have_their_exits_as_colour_and_as_text(shown: Any):
    page, values = shown
    assert painted(page, 0) == [list(sentence["exits"]) for sentence in values["sentences"]]
    first = values["sentences"][0]
    piece = page.locator(".tokens").first.locator(".piece").first
    name = values["pieces"][first["translation"]["pieces"][0]].replace("▁", " ").strip()
    assert piece.get_attribute("aria-label") == f"{name}, exit {first['exits'][0]}"
    colours = page.evaluate(
        "[...document.querySelectorAll('#legend .depth')]"
        ".map(x => getComputedStyle(x).backgroundColor)"
    )
    assert len(set(colours)) == values["depths"]
    shade = piece.evaluate("x => getComputedStyle(x).backgroundColor")
    assert shade == colours[first["exits"][0] - 1]


def test_text_stays_text(shown: Any):
    page, values = shown
    assert page.title() == "Exits of <tiny>"
    assert page.locator("#sentences b").count() == 0
    sources = page.locator(".source").all_text_contents()
    assert sources == [sentence["source"] for sentence in values["sentences"]]
    arabic = page.locator(".source", has_text=HOSTILE[1][0])
    assert arabic.evaluate("x => getComputedStyle(x).direction") == "rtl"
    filled = painted(page, 1)
    assert [len(row) for row in filled] == [len(tokens) for tokens in forced(values)]


@pytest.mark.parametrize("kind", ["confidence", "token_geometric"])
def test_the_slider_recolours_and_measures_as_a_plain_loop(shown: Any, kind: str):
    page, values = shown
    page.locator("#signal").select_option(kind)
    by_sentence = forced(values)
    tokens = [token for sentence in by_sentence for token in sentence]
    steps = int(page.locator("#threshold").get_attribute("max"))
    assert steps > 20
    seen = []
    for step in (0, steps // 4, steps // 2, steps - 1, steps):
        threshold = slide(page, step)
        exits = [[exit_of(token, kind, threshold) for token in row] for row in by_sentence]
        assert painted(page, 1) == exits
        flat = [depth for row in exits for depth in row]
        pairs = list(zip(tokens, flat, strict=True))
        mean = sum(flat) / len(flat)
        token_ll = sum(token["token_ll"][depth - 1] for token, depth in pairs) / len(flat) / 10_000
        best = [(token["likeliest"][depth - 1][0], token) for token, depth in pairs]
        agreed = sum(piece == token["likeliest"][-1][0] for piece, token in best) / len(flat)
        right = sum(piece == token["pieces"] for piece, token in best) / len(flat)
        read = [float(x) for x in re.findall(r"\d+\.\d+", page.locator("#readout").text_content())]
        expected = [threshold / 100_000, mean]
        if "reference" in values["sentences"][0]:
            expected += [-token_ll, math.exp(-token_ll), 100 * right]
        expected += [100 * agreed]
        assert read == pytest.approx(expected, rel=2e-3, abs=0.06)
        seen.append((mean, point(page)))
    assert [mean for mean, _ in seen] == sorted(mean for mean, _ in seen)
    assert (seen[0][0], seen[-1][0]) == (1.0, values["depths"])
    places = [place for _, (place, _) in seen]
    assert (places[0], places[-1]) == (60, 460)
    assert len(set(places)) == len(places)


def test_arrow_keys_move_the_slider(shown: Any):
    page, _ = shown
    before = slide(page, 5)
    page.locator("#threshold").focus()
    page.keyboard.press("ArrowRight")
    after = page.locator("#threshold").get_attribute("aria-valuetext")
    assert float(after) * 100_000 > before


def test_a_token_tells_what_every_exit_says_of_it(shown: Any):
    page, values = shown
    sentence = values["sentences"][1]
    columns = sentence["translation"]
    rows = page.locator("article").nth(1).locator(".tokens")
    panel, summary = page.locator("#token"), page.locator("#summary")
    rows.first.locator(".piece").nth(1).hover()
    assert panel.is_visible()
    assert f"token 2: exit {sentence['exits'][1]}," in summary.text_content()
    assert f"oracle {columns['oracle'][1]}." in summary.text_content()
    cells = [
        row.locator("td").all_text_contents() for row in page.locator("#at-depths tbody tr").all()
    ]
    for depth, (confidence, halting, own, likeliest) in enumerate(cells):
        pairs = columns["likeliest"][1][depth]
        assert float(confidence) == pytest.approx(pairs[1] / 100_000, abs=6e-5)
        last = depth + 1 == values["depths"]
        known = None if last else columns["halting"][1][depth] / 100_000
        assert halting == "–" if last else float(halting) == pytest.approx(known, abs=6e-5)
        probability = math.exp(columns["token_ll"][1][depth] / 10_000)
        assert float(own.lstrip("<")) == pytest.approx(probability, abs=1.1e-4)
        listed = zip(pairs[::2], pairs[1::2], strict=True)
        shares = [f"{values['pieces'][place]} {share / 1000:.1f}" for place, share in listed]
        assert [word.strip() for word in likeliest.split("%") if word.strip()] == shares
    page.keyboard.press("Escape")
    assert panel.is_hidden()


def test_the_keyboard_reaches_every_token(shown: Any):
    page, _ = shown
    rows = page.locator(".tokens")
    stops = [rows.nth(n).locator("[tabindex='0']").count() for n in range(rows.count())]
    assert set(stops) == {1}
    rows.nth(0).locator(".piece").first.focus()
    page.keyboard.press("ArrowRight")
    summary = page.locator("#summary")
    assert "line 2, token 2:" in summary.text_content()
    page.keyboard.press("Tab")
    assert rows.nth(1).evaluate("row => row.contains(document.activeElement)")
    page.keyboard.press("ArrowDown")
    assert "line 4, token 1:" in summary.text_content()
    page.keyboard.press("End")
    assert rows.nth(2).locator("[tabindex='0']").get_attribute("aria-label").startswith("</s>")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")  # nothing is before it
    assert "line 4, token 1:" in summary.text_content()
    rows.nth(2).evaluate("row => row.dir = 'rtl'")
    page.keyboard.press("ArrowLeft")
    assert "line 4, token 2:" in summary.text_content()
    page.locator("#close").focus()
    page.keyboard.press("Enter")
    assert page.locator("#token").is_hidden()
    assert page.evaluate("document.activeElement.className").startswith("piece")


def test_the_filter_hides_sentences_and_leaves_them_out(shown: Any):
    page, values = shown
    page.locator("#filter").fill("ثلاثة")
    assert page.locator("article:visible").count() == 1
    assert page.locator("#matches").text_content() == f"1 of {len(values['sentences'])}"
    count = page.locator("#by-position tbody tr").count()
    index = [s["source"] for s in values["sentences"]].index(HOSTILE[1][0])
    assert count == len(values["sentences"][index]["exits"])
    page.locator("#filter").fill("no such text")
    assert page.locator("article:visible").count() == 0
    assert page.locator("#readout").text_content() == "no sentences are shown"
    page.locator("#filter").fill("")
    assert page.locator("article:visible").count() == len(values["sentences"])


@pytest.mark.parametrize("which", ["decoded", "forced"])
def test_tables_count_as_a_plain_loop(shown: Any, which: str):
    page, values = shown
    slide(page, 7)
    page.locator("#which").select_option(which)
    exits = painted(page, 0 if which == "decoded" else 1)
    tokens = forced(values)
    if which == "decoded":
        tokens = forced(
            {"sentences": [{"translation": s["translation"]} for s in values["sentences"]]}
        )
    by_position: dict[str, list[int]] = {}
    by_piece: dict[str, list[int]] = {}
    by_confidence: dict[float, list[int]] = {}
    for row, depths in zip(tokens, exits, strict=True):
        for position, (token, depth) in enumerate(zip(row, depths, strict=True), 1):
            by_position.setdefault(str(position), []).append(depth)
            by_piece.setdefault(values["pieces"][token["pieces"]], []).append(depth)
            first = token["likeliest"][0][1] / 100_000
            edge = max(e for e in (0, 0.5, 0.7, 0.9, 0.99, 0.999) if first >= e)
            by_confidence.setdefault(edge, []).append(depth)
    for name, expected in (("position", by_position), ("confidence", by_confidence)):
        table = read_table(page, f"by-{name}")
        assert [float(row[0].split()[0]) for row in table] == sorted(map(float, expected))
        by_key = {float(key): found for key, found in expected.items()}
        for row in table:
            check_row(row, by_key[float(row[0].split()[0])])
    for row in read_table(page, "by-piece"):
        check_row(row, by_piece[row[0]])


def read_table(page: Any, name: str) -> list[list[str]]:
    return [
        row.locator("th, td").all_text_contents() for row in page.locator(f"#{name} tbody tr").all()
    ]


def check_row(row: list[str], exits: list[int]) -> None:
    """The counts of each depth, the mean and the number of tokens."""
    assert row[1] == ", ".join(f"{exits.count(n)} at {n}" for n in sorted(set(exits)))
    assert float(row[2]) == pytest.approx(sum(exits) / len(exits), abs=0.0051)
    assert int(row[3]) == len(exits)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_narrow_screens_and_both_schemes(shown: Any, scheme: str):
    page, _ = shown
    page.emulate_media(color_scheme=scheme)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        page.locator(".piece").nth(3).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.keyboard.press("Escape")
    ratios = page.evaluate(CONTRAST)
    assert min(ratios) >= 4.5


CONTRAST = """(() => {
  const light = (colour) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    const context = canvas.getContext("2d");
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((x) => {
      const value = x / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = getComputedStyle(document.body).backgroundColor;
  const styles = [...document.querySelectorAll("#legend .depth")].map((x) => getComputedStyle(x));
  const pairs = styles.map((style) => [style.color, style.backgroundColor]);
  for (const name of ["#about", "#explain", ".kind"]) {
    pairs.push([getComputedStyle(document.querySelector(name)).color, paper]);
  }
  return pairs.map(([ink, ground]) => {
    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  });
})()"""
"""The contrast of text with its ground."""
