"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const rowsOf = (id) => [...at(id).tBodies[0].rows];
const shown = () => new Set(rowsOf("table").filter((row) => row.querySelector(".show").checked).map((row) => row.dataset.method));

function embed(id, spec) {
  if (!spec.data.values.length) return at(id).replaceChildren("Nothing is ticked, or nothing has both measures.");
  return vegaEmbed(at(id), spec, { actions: false, renderer: "svg" });
}

function axis(key, values) {
  const wide = Math.min(...values) > 0 && Math.max(...values) > 8 * Math.min(...values);
  return { field: key, type: "quantitative", title: data.axes[key], axis: { tickCount: 8 }, scale: { nice: false, padding: 20, ...(wide ? { type: "log" } : { zero: false }) } };
}

function front() {
  const spec = structuredClone(data.charts.front), chosen = shown();
  const across = at("across").value, upwards = at("upwards").value;
  const values = spec.data.values.filter((one) => chosen.has(one.method) && one[across] !== null && one[upwards] !== null);
  spec.data = { values };
  spec.layer = spec.layer.filter((layer) => layer.name !== "intervals" || upwards === "accuracy");
  for (const layer of spec.layer) {
    delete layer.data;
    layer.encoding.x = axis(across, values.map((one) => one[across]));
    if (layer.name !== "intervals") layer.encoding.y = axis(upwards, values.map((one) => one[upwards]));
  }
  return embed("front", spec);
}

function filtered(id) {
  const chosen = shown(), spec = structuredClone(data.charts[id]);
  spec.data = { values: spec.data.values.filter((one) => !one.method || chosen.has(one.method)) };
  return embed(id, spec);
}

function draw() {
  const chosen = shown();
  for (const row of document.querySelectorAll("tr[data-method]")) {
    const on = chosen.has(row.dataset.method);
    if (row.closest("#table")) row.classList.toggle("off", !on);
    else row.hidden = !on;
  }
  for (const id of Object.keys(data.charts)) id === "front" ? front() : filtered(id);
}

function sort(heading) {
  const up = heading.getAttribute("aria-sort") !== "ascending", place = heading.cellIndex;
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.cells[place].textContent.trim(), number = (row) => parseFloat(value(row));
  const rows = rowsOf("table"), numbers = rows.some((row) => !Number.isNaN(number(row))) && place > 1;
  rows.sort((one, other) => {
    if (!numbers) return (up ? 1 : -1) * value(one).localeCompare(value(other));
    const [a, b] = [number(one), number(other)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // what was not measured comes last
    return up ? a - b : b - a;
  });
  at("table").tBodies[0].append(...rows);
}

function wipe() {
  const sample = data.samples[at("sample").value];
  for (const [image, side] of [["under", "left"], ["over", "right"]]) {
    const method = at(side).value;
    at(image).src = sample.images[method];
    at(image).alt = `${sample.asked}, ${at(side).selectedOptions[0].text}`;
  }
  at("wipe").style.setProperty("--edge", `${at("edge").value}%`);
}

for (const button of document.querySelectorAll(".sort")) button.addEventListener("click", () => sort(button.closest("th")));
for (const box of document.querySelectorAll(".show")) box.addEventListener("change", draw);
at("all").addEventListener("change", () => {
  for (const box of document.querySelectorAll(".show")) box.checked = at("all").checked;
  draw();
});
if (data.charts.front) {
  for (const [id, name] of [["across", "x"], ["upwards", "y"]]) {
    at(id).value = data.charts.front.layer.at(-1).encoding[name].field;
    at(id).addEventListener("change", front);
  }
}
if (data.samples.length) {
  const names = Object.keys(data.samples[0].images);
  at("right").value = names.at(-1);
  for (const id of ["left", "right", "sample"]) at(id).addEventListener("change", wipe);
  at("edge").addEventListener("input", wipe);
  for (const image of document.querySelectorAll(".sample")) {
    const method = image.closest("tr").dataset.method;
    image.src = data.samples[image.dataset.sample].images[method];
    image.addEventListener("click", () => {
      at("sample").value = image.dataset.sample;
      at("right").value = method;
      wipe();
    });
  }
  wipe();
}
draw();
