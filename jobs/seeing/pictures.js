"use strict";
// Zoom, and what lies under the pointer. Without it the pictures are whole; nothing is fetched.
const WIDTH = 10000;

for (const picture of document.querySelectorAll(".picture")) zoomable(picture);
for (const chart of document.querySelectorAll(".chart:not(.weights)")) readable(chart);

function zoomable(picture) {
  const svg = picture.querySelector("svg"), height = Number(picture.dataset.height), ratio = height / WIDTH;
  const held = new Map();
  let view = { x: 0, y: 0, w: WIDTH };
  const buttons = document.createElement("div");
  buttons.className = "zoom";
  for (const [sign, said, by] of [["+", "closer", 0.6], ["−", "farther", 1 / 0.6], ["⤢", "all", 0]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = sign;
    button.setAttribute("aria-label", said);
    button.addEventListener("click", () => (by ? zoom(by) : show({ x: 0, y: 0, w: WIDTH })));
    buttons.append(button);
  }
  picture.append(buttons);
  picture.tabIndex = 0;
  picture.setAttribute("role", "group");
  picture.setAttribute("aria-label", "Map: arrow keys move it, plus and minus zoom, 0 shows all");

  function show(next) {
    next.w = Math.min(Math.max(next.w, WIDTH / 60), WIDTH * 8);
    view = next;
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.w * ratio}`);
    const k = view.w / WIDTH, bar = svg.querySelector(".bar-of-scale");
    for (const one of svg.querySelectorAll(".names text")) one.style.transform = `scale(${k})`;
    for (const one of svg.querySelectorAll(".mark")) one.style.transform = `scale(${k})`;
    const metres = Number(picture.dataset.metres), room = (view.w / 5) * metres, power = 10 ** Math.floor(Math.log10(room));
    const long = [5, 2, 1].map((step) => step * power).find((length) => length <= room);
    bar.querySelector("path").setAttribute("d", `M250 ${height - 330}v100h${long / metres / k}v-100`);
    bar.querySelector("text").textContent = long >= 1000 ? `${long / 1000} km` : `${long} m`;
    bar.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${k})`);
  }

  function zoom(by, at = { x: 0.5, y: 0.5 }) {
    const w = Math.min(Math.max(view.w * by, WIDTH / 60), WIDTH * 8);
    show({ x: view.x + (view.w - w) * at.x, y: view.y + (view.w - w) * ratio * at.y, w });
  }

  function where(event) {
    const box = svg.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  picture.addEventListener("keydown", (event) => {
    const step = view.w / 8;
    const keys = {
      ArrowLeft: () => show({ ...view, x: view.x - step }),
      ArrowRight: () => show({ ...view, x: view.x + step }),
      ArrowUp: () => show({ ...view, y: view.y - step }),
      ArrowDown: () => show({ ...view, y: view.y + step }),
      "+": () => zoom(0.6),
      "-": () => zoom(1 / 0.6),
      0: () => show({ x: 0, y: 0, w: WIDTH }),
    };
    if (event.target !== picture || !keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
  });
  // A page is scrolled by the wheel; a map is zoomed by it once it has been chosen.
  picture.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== picture) return;
    zoom(event.deltaY < 0 ? 0.8 : 1.25, where(event));
    event.preventDefault();
  }, { passive: false });
  svg.addEventListener("pointerdown", (event) => {
    held.set(event.pointerId, where(event));
    svg.setPointerCapture(event.pointerId);
  });
  for (const kind of ["pointerup", "pointercancel"]) svg.addEventListener(kind, (event) => held.delete(event.pointerId));
  svg.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId), now = where(event);
    if (!before) return;
    if (held.size === 1) show({ ...view, x: view.x - (now.x - before.x) * view.w, y: view.y - (now.y - before.y) * view.w * ratio });
    else {
      const other = [...held].find(([id]) => id !== event.pointerId)[1];
      const span = (at) => Math.hypot(at.x - other.x, (at.y - other.y) * ratio) || 0.01;
      zoom(span(before) / span(now), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
    }
    held.set(event.pointerId, now);
  });

  const points = picture.closest("section")?.querySelector(".points");
  if (points) telling(picture, svg, JSON.parse(points.textContent), () => view, ratio, where);
}

function telling(picture, svg, points, view, ratio, where) {
  const box = document.createElement("output");
  box.className = "told";
  picture.append(box);
  svg.addEventListener("pointermove", (event) => {
    const at = where(event), x = view().x + at.x * view().w, y = view().y + at.y * view().w * ratio;
    let near = null, least = Infinity;
    for (const cell of points.cells) {
      const distance = (cell[0] - x) ** 2 + (cell[1] - y) ** 2;
      if (distance < least) [near, least] = [cell, distance];
    }
    const chosen = picture.parentElement.querySelector(".choice:checked").id.split("-").pop();
    const within = near && Math.sqrt(least) < Math.max(120, view().w / 60);
    const events = within ? near[3 + points.slots.indexOf(chosen)] : 0;
    box.textContent = within ? `${points.regions[near[2]] ?? "elsewhere"}: ${events} of ${near[3]} events` : "";
  });
  svg.addEventListener("pointerleave", () => (box.textContent = ""));
}

function readable(chart) {
  const card = chart.parentElement, out = card.querySelector(".read-out");
  const days = JSON.parse(card.querySelector(".days").textContent), known = days.counts.length;
  const all = known + days.forecast.length;
  const line = document.createElement("span");
  let chosen = known - 1;
  line.className = "pointer";
  line.hidden = true;
  chart.append(line);
  chart.tabIndex = 0;
  chart.setAttribute("role", "group");
  chart.setAttribute("aria-label", "Chart: arrow keys tell day by day");

  function tell(number) {
    chosen = Math.min(Math.max(number, 0), all - 1);
    const date = new Date(`${days.first}T00:00:00Z`);
    date.setUTCDate(date.getUTCDate() + chosen);
    const said = [date.toUTCString().slice(0, 16)];
    if (chosen < known) {
      said.push(`${days.counts[chosen]} events`);
      if (days.trend[chosen] != null) said.push(`trend ${days.trend[chosen]}`);
      if (days.anomalies.includes(chosen)) said.push("anomaly");
    } else if (days.forecast[chosen - known]) {
      const [expected, lower, upper] = days.forecast[chosen - known].map((value) => value?.toFixed(1));
      said.push(`${expected} expected`, ...(lower && upper ? [`between ${lower} and ${upper}`] : []));
    }
    out.textContent = said.join(", ");
    line.style.left = `${(100 * (chosen + 0.5)) / all}%`;
    line.hidden = false;
  }

  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    tell(Math.floor(((event.clientX - box.left) / box.width) * all));
  });
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -7, PageDown: 7 }[event.key];
    if (!step) return;
    tell(chosen + step);
    event.preventDefault();
  });
}
