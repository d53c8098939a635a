"""The pages in a browser: the choice shows its layer, keys move map and chart, and the report keeps nobody out."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from datetime import date, timedelta
from pathlib import Path

import axe_core_python
import h3
import pytest

from jobs.lake import logs
from jobs.seeing.areas import area_of
from jobs.seeing.chart import chart
from jobs.seeing.days import days_page
from jobs.seeing.heatmap import heatmap
from jobs.seeing.page import page
from jobs.seeing.series import Series

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DAY = date(2024, 6, 16)
# What the page says of itself when it has run this; the policy against foreign scripts is taken out for it.
ASKING = """<script>
(async () => {
const said = [], key = (on, name) => on.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
%s
document.title = JSON.stringify(said);
})();
</script></body>"""
AXE = Path(axe_core_python.__file__).with_name("axe.min.js")
DARK_PHONE = ("--blink-settings=preferredColorScheme=0", "--window-size=390,844")


def in_a_browser(tmp_path, text, script, *options):
    text = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", ASKING % script)
    done = shown(tmp_path, text, *options)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))


def shown(tmp_path, text, *options):
    """What became of the page as stdout, what its console said among stderr."""
    if BROWSER is None:
        pytest.skip("needs Chromium, which is not installed: apt-get install chromium")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    # Of the page's own clock: as long as a promise may take.
    command += ["--virtual-time-budget=60000", "--enable-logging=stderr", *options, f"file://{tmp_path / 'page.html'}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)


def test_a_map(tmp_path):
    middle = h3.latlng_to_cell(40.7, -74.0, 9)
    cells = sorted(h3.grid_disk(middle, 9))
    rows = [{"cell": cell, "region": "US/New York/Soho", "slot": "weekday_night", "events": 7} for cell in cells]
    rows += [{**row, "slot": "weekend_evening", "events": 2} for row in rows]
    view = heatmap(area_of("here", rows, [], [], 1000))
    content = {"title": "t", "said": "s", "areas": [view], "days": 56}
    said = in_a_browser(
        tmp_path,
        page("map.html.jinja", DAY, content),
        """
        const picture = document.querySelector(".picture"), svg = picture.querySelector("svg");
        const shown = () => [...document.querySelectorAll(".layer.cells")].map((one) => getComputedStyle(one).display);
        said.push(shown());
        document.querySelector("label[for=a0-weekend_evening]").click();
        said.push(shown());
        const bar = () => svg.querySelector(".bar-of-scale text").textContent;
        said.push(svg.getAttribute("viewBox"), bar());
        key(picture, "+"); key(picture, "+"); said.push(svg.getAttribute("viewBox"), bar());
        key(picture, "ArrowRight"); said.push(svg.getAttribute("viewBox"));
        picture.querySelectorAll(".zoom button")[2].click(); said.push(svg.getAttribute("viewBox"));
        const box = svg.getBoundingClientRect();
        const at = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
        svg.dispatchEvent(new PointerEvent("pointermove", at));
        said.push(picture.querySelector(".told").textContent);
        """,
    )
    assert said[:2] == [["inline", "none", "none"], ["none", "none", "inline"]], "any first, then the one that was chosen"
    start, bar, closer, closer_bar, moved, all_of_it, told = said[2:]
    size = view["height"]
    assert start == all_of_it == f"0 0 10000 {size}"
    x, y, width, height = map(float, closer.split())
    assert (x, y, width, height) == pytest.approx((3200, 0.32 * size, 3600, 0.36 * size))
    assert moved.split()[0] == str(round(x + width / 8)) and bar != closer_bar
    assert told == "US/New York/Soho: 2 of 9 events"


def test_a_chart(tmp_path):
    ahead = [{"date": date(2024, 6, 17), "method": "ets", "expected": 5.0, "lower": 1.0, "upper": 9.0}]
    marked = [{"date": date(2024, 6, 16), "events": 8, "expected": 2.0}]
    series = Series(event_type="click", first=date(2024, 6, 14), counts=[4, 0, 8], hours=[0] * 24, trend=[], season=[],
                    anomalies=marked, change=None, forecast=ahead, facts={})  # fmt: skip
    said = in_a_browser(
        tmp_path,
        page("plot.html.jinja", DAY, {"title": "t", "said": "s", "charts": [chart(series)]}),
        """
        const drawn = document.querySelector(".chart"), out = document.querySelector(".read-out");
        for (const name of ["ArrowLeft", "ArrowRight", "ArrowRight", "ArrowRight", "PageUp"]) {
          key(drawn, name);
          said.push(out.textContent);
        }
        """,
    )
    assert said == [
        "Sat, 15 Jun 2024, 0 events",
        "Sun, 16 Jun 2024, 8 events, anomaly",
        "Mon, 17 Jun 2024, 5.0 expected, between 1.0 and 9.0",
        "Mon, 17 Jun 2024, 5.0 expected, between 1.0 and 9.0",
        "Fri, 14 Jun 2024, 4 events",
    ]


@pytest.mark.parametrize("which", ["report", "index"])
@pytest.mark.parametrize("options", [(), DARK_PHONE], ids=["light", "dark_on_a_phone"])
def test_the_pages_of_a_night_keep_nobody_out(tmp_path, begun, options, which):
    """By axe-core: contrast, names of controls, headings, language; it finds the picture without words that is added."""
    runs = logs.read(begun.before.lake, "runs")
    runs += [{**row, "day": row["day"] - timedelta(days=1), "first_day": row["day"] - timedelta(days=1)} for row in runs]
    runs += [{**row, "day": row["day"] - timedelta(days=2), "first_day": row["day"] - timedelta(days=2)} for row in runs]
    pages = {"report": Path(begun.before.report.path).read_text(encoding="utf-8"),
             "index": days_page(runs, {row["day"]: "page.html" for row in runs}, {}, logs.now())}  # fmt: skip
    shown_page = pages[which].replace("</body>", '<img src="data:,"></body>')
    script = f"""{AXE.read_text(encoding="utf-8")};
    const found = await axe.run(document, {{ resultTypes: ["violations"] }});
    said.push(found.passes.length, ...found.violations.map((one) => [one.impact, one.id, one.nodes.map((node) => node.html)]));
    """
    passed, *barriers = in_a_browser(tmp_path, shown_page, script, *options)
    assert passed > {"report": 30, "index": 20}[which]
    assert [one for one in barriers if one[0] in ("serious", "critical")] == [["critical", "image-alt", ['<img src="data:,">']]]


def test_the_report_asks_for_nothing_and_its_console_is_silent(tmp_path, begun):
    report = Path(begun.before.report.path).read_text(encoding="utf-8")
    assert console(shown(tmp_path, report)) == []
    foreign = report.replace("</body>", '<img src="https://example.com/seen.png"></body>')
    assert "Content Security Policy" in str(console(shown(tmp_path, foreign))), "it would be refused, and told"


def console(done):
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
