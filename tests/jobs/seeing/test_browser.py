"""The pages in a browser: the choice shows its layer, keys and buttons move the map, the chart tells its days."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from datetime import date

import h3
import pytest

from jobs.seeing.areas import area_of
from jobs.seeing.chart import chart
from jobs.seeing.heatmap import heatmap
from jobs.seeing.page import page
from jobs.seeing.series import Series

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DAY = date(2024, 6, 16)
# What the page says of itself when it has run this; the policy against foreign scripts is taken out for it.
ASKING = """<script>
const said = [], key = (on, name) => on.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
%s
document.title = JSON.stringify(said);
</script></body>"""


def in_a_browser(tmp_path, text, script):
    if BROWSER is None:
        pytest.skip("needs Chromium, which is not installed: apt-get install chromium")
    text = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", ASKING % script)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [*command, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))


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
