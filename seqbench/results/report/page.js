// Shows the data of the page. What comes from runs becomes text nodes only: never markup, and never
// a part of a style or an address. The state of the view (filters, order, theme, the run that is
// open) stands in the address behind the `#`, so that a link to it shows the same.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const PAGE = document.getElementById("page");
const DASHES = ["longdash", "dashdot", "dash", "dot", "solid", "longdashdot"];
const STROKES = { longdash: "9 4", dashdot: "7 3 2 3", dash: "5 3", dot: "2 3", solid: "none", longdashdot: "11 3 2 3" };
const STYLES = new Map(DATA.models.map((model) => [model.label, model]));
const MANY_MODELS = 8; // a search box finds them
const FIRST_ROWS = 300; // of a long list: a button shows the others
const coarse = matchMedia("(pointer: coarse)");
const dark = matchMedia("(prefers-color-scheme: dark)");

let state = new URLSearchParams(location.hash.slice(1));
let shown = []; // functions that bring what is on the page up to date with the state
let plots = []; // functions that draw a plot again, for another theme
let listed = DATA.runs; // in the order of the list of runs

// ---------------------------------------------------------------- elements and state

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(2).filter((child) => child !== null));
  return node;
}

function keep(key, value) {
  if (value === "" || value === null) state.delete(key);
  else state.set(key, value);
  save();
}

function save() {
  history.replaceState(null, "", `#${state}`);
  shown.forEach((update) => update());
}

function address(changes) {
  const next = new URLSearchParams(state);
  for (const [key, value] of Object.entries(changes)) value === null ? next.delete(key) : next.set(key, value);
  return `#${next}`;
}

const hidden = () => new Set(state.getAll("hide"));
const visible = (label) => !hidden().has(label) && label.includes(state.get("model") || "");
const ofTask = (task) => !state.get("task") || state.get("task") === task;

function select(label, key, options, quiet = false) {
  const box = el("select", { "aria-label": label, onchange: () => keep(key, box.value) },
    options.map(([value, text]) => el("option", { value, selected: (state.get(key) || "") === value }, text)));
  return quiet ? box : el("label", {}, `${label} `, box);
}

function checkbox(label, key) {
  const box = el("input", { type: "checkbox", checked: state.has(key), onchange: () => keep(key, box.checked ? "1" : "") });
  return el("label", {}, box, label);
}

function swatch(style) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [name, value] of Object.entries({ x1: 0, y1: 5, x2: 26, y2: 5, "stroke-width": 3, "stroke-dasharray": STROKES[DASHES[style.dash]] })) line.setAttribute(name, value);
  line.style.stroke = `var(--series-${style.colour})`;
  svg.setAttribute("class", "swatch");
  svg.setAttribute("aria-hidden", "true");
  svg.append(line);
  return svg;
}

// ---------------------------------------------------------------- tables

// Rows that one column puts in order: numbers by size, texts by alphabet, and what is missing last.
function ordered(rows, column, descending) {
  const missing = (value) => value === null || value === "" || Number.isNaN(value);
  return [...rows].sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return descending ? -order : order;
  });
}

// A table with a button in each header; `key` is where its order is kept in the state.
function dataTable({ key, caption, columns, rows, foot, limit, then }) {
  const body = el("tbody");
  const heads = columns.map((column, i) => {
    const name = column.under ? [el("b", {}, column.label), el("small", {}, column.under)] : [column.label];
    const turn = () => keep(key, state.get(key) === `${i}` ? `-${i}` : `${i}`);
    return el("th", { scope: "col", class: column.number ? "number" : null }, el("button", { type: "button", onclick: turn }, name));
  });
  const bottom = foot ? el("tbody") : null;
  const more = el("button", { type: "button", class: "act", onclick: () => { limit = Infinity; update(); } });
  const table = el("table", { class: "pinned" }, el("thead", {}, el("tr", {}, heads)), body, bottom);
  const box = el("div", { class: "box", tabindex: 0, role: "region", "aria-label": caption }, table);

  function line(row) {
    const cells = columns.map((column, i) => {
      if (column.hidden && column.hidden()) return null;
      const content = [column.cell ? column.cell(row) : column.value(row) ?? "-"].flat();
      const inner = el("div", { class: "cell" }, content);
      return i ? el("td", { class: column.number ? "number" : column.class || null }, inner) : el("th", { scope: "row" }, inner);
    });
    return el("tr", { class: row.bound ? "bound" : null }, cells);
  }
  function update() {
    const sort = state.get(key) || "";
    const column = columns[Math.abs(parseInt(sort, 10))];
    const chosen = rows();
    const inOrder = column ? ordered(chosen, column, sort.startsWith("-")) : chosen;
    heads.forEach((head, i) => {
      head.hidden = Boolean(columns[i].hidden && columns[i].hidden());
      if (columns[i] === column) head.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(...inOrder.slice(0, limit).map(line));
    if (bottom) bottom.replaceChildren(...foot().map(line));
    more.hidden = !(inOrder.length > limit);
    more.textContent = `Show all ${inOrder.length}`;
    if (then) then(inOrder);
  }
  shown.push(update);
  return [box, more];
}

function modelCell(label) {
  return [STYLES.has(label) ? swatch(STYLES.get(label)) : null, label].filter((part) => part !== null);
}

function notesOf(notes) {
  return el("ul", { class: "notes" }, notes.map((note) => el("li", {}, note)));
}

function caveatsOf(published) {
  if (!published.caveats.length) return null;
  return el("details", {}, el("summary", { class: "quiet" }, `caveats of the published number: ${published.caveats.length}`),
    el("ul", { class: "caveats" }, published.caveats.map((text) => el("li", {}, text))));
}

function entryCell(entry) {
  if (!entry) return "";
  const text = entry.number + entry.marks;
  return [entry.best ? el("strong", {}, text) : text, ...entry.flags.map((flag) => el("small", {}, flag))];
}

function comparison() {
  const { title, columns, rows, notes } = DATA.table;
  const shownColumns = columns.map((column, i) => ({
    label: column.task, under: column.measure, number: true,
    value: (row) => (row.entries[i] ? parseFloat(row.entries[i].value) : null),
    cell: (row) => entryCell(row.entries[i]),
    hidden: () => !ofTask(column.name),
  }));
  const anything = (row) => columns.some((column, i) => ofTask(column.name) && row.entries[i]);
  const model = {
    label: "model", value: (row) => row.label,
    cell: (row) => modelCell(row.label),
  };
  return el("section", { class: "card", "aria-labelledby": "comparison" },
    el("h2", { id: "comparison" }, title),
    dataTable({
      key: "order", caption: title, columns: [model, ...shownColumns],
      rows: () => rows.filter((row) => !row.bound && visible(row.label) && anything(row)),
      foot: () => rows.filter((row) => row.bound && anything(row)),
    }),
    notesOf(notes));
}

function verdicts() {
  const columns = [
    { label: "task", value: (row) => row.size, cell: (row) => [row.size, el("div", { class: "quiet little" }, row.metric)] },
    { label: "model", value: (row) => row.label, cell: (row) => modelCell(row.label) },
    { label: "verdict", value: (row) => row.verdict },
    { label: "here", number: true, value: (row) => parseFloat(row.ours), cell: (row) => row.ours },
    { label: "published", number: true, value: (row) => parseFloat(row.theirs), cell: (row) => row.theirs },
    {
      label: "why", class: "caveats", value: (row) => row.reason || "",
      cell: (row) => [row.reason ? el("div", { class: "quiet little" }, row.reason) : null, caveatsOf(row)].filter(Boolean),
    },
  ];
  return el("section", { class: "card", "aria-labelledby": "verdicts" },
    el("h2", { id: "verdicts" }, `Against ${DATA.paper}`),
    dataTable({
      key: "verdicts", caption: "Published numbers", columns,
      rows: () => DATA.verdicts.filter((row) => ofTask(row.task) && visible(row.label)),
    }),
    notesOf(DATA.verdict_notes));
}

// ---------------------------------------------------------------- plots

const probe = el("span", { hidden: true });
function colour(name, alpha = 1) {
  probe.style.color = `var(--${name})`;
  const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g);
  return `rgba(${r},${g},${b},${alpha})`;
}

// Plotly reads its own small markup, and templates, in names.
function plotText(text) {
  const short = text.length > 48 ? `${text.slice(0, 47)}…` : text;
  return short.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/[%$]\{/g, "{");
}

function lineTrace(label, steps, values, style, more = {}) {
  return {
    type: "scatter", mode: steps.length === 1 ? "markers" : "lines", x: steps, y: values, showlegend: false,
    line: { color: colour(`series-${style.colour}`), dash: DASHES[style.dash], width: 2 },
    hovertemplate: `%{y:.3g}<extra>${plotText(label)}</extra>`, ...more,
  };
}

function bandTraces(line, style) {
  const edge = { type: "scatter", mode: "lines", x: line.steps, line: { width: 0 }, hoverinfo: "skip", showlegend: false };
  const fillcolor = colour(`series-${style.colour}`, 0.17);
  return [{ ...edge, y: line.low }, { ...edge, y: line.high, fill: "tonexty", fillcolor }];
}

// The worst and the best possible, each labelled on the side where curves are.
function boundLines({ baseline, baseline_name, optimum, direction }, log) {
  const below = direction === "min" ? "top" : "bottom";
  const above = direction === "min" ? "bottom" : "top";
  return [...boundLine(baseline, baseline_name, "dot", below, log), ...boundLine(optimum, "best possible", "longdash", above, log)];
}

function boundLine(value, text, dash, yanchor, log) {
  if (value === null || (log && value <= 0)) return [];
  return [{
    type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, layer: "below",
    line: { color: colour("quiet"), width: 1.2, dash },
    label: { text: plotText(text), textposition: "end", yanchor, font: { size: 11, color: colour("quiet") } },
  }];
}

function draw(node, traces, shapes, log, unified, across = {}) {
  const values = traces.flatMap((trace) => trace.y).filter((value) => value > 0);
  const decades = log.y ? Math.log10(values.reduce((a, b) => Math.max(a, b), 1e-9) / values.reduce((a, b) => Math.min(a, b), 1e9)) : 0;
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true, fixedrange: false };
  Plotly.react(node, traces, {
    margin: { l: 48, r: 10, t: coarse.matches ? 30 : 12, b: 38 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("text") },
    hovermode: unified ? "x unified" : "closest", dragmode: coarse.matches ? false : "zoom",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("text") },
    xaxis: { ...axis, title: { text: "step", standoff: 6 }, unifiedhovertitle: { text: "step %{x:,}" }, type: log.x ? "log" : "linear", hoverformat: ",", ...across },
    yaxis: { ...axis, type: log.y ? "log" : "linear", exponentformat: "power", dtick: decades > 1.5 ? Math.ceil(decades / 8) : null },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    shapes, uirevision: `${log.x}${log.y}`,
  }, {
    responsive: true, displaylogo: false, displayModeBar: coarse.matches ? true : "hover",
    // Named one by one: Plotly's own choice has a button that sends the chart to a server.
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    showSendToCloud: false, plotlyServerURL: "",
  });
}

// A plot is drawn when it comes into view, or is printed: forty at once would take seconds.
function plot(label, paint) {
  const node = el("div", { class: "plot", role: "group", "aria-label": label });
  let drawn = false;
  const now = () => { drawn = true; paint(node); };
  const seen = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) { seen.disconnect(); now(); }
  }, { rootMargin: "200px" });
  seen.observe(node);
  plots.push((all) => { if (drawn || all) now(); });
  return node;
}

function logarithmic(auto) {
  const y = state.get("y");
  return { x: state.has("logx"), y: y ? y === "log" : auto };
}

// As `spans_decades` in curves.py, of what is to be seen.
function spansDecades(lines) {
  const values = lines.flatMap((line) => line.median);
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  return least > 0 && values.reduce((a, b) => Math.max(a, b), 0) / least > 30;
}

function figure(data, number) {
  const key = `chart${number}`;
  const chosen = () => data.charts[Number(state.get(key)) || 0] || data.charts[0];
  const choice = select(`Metric for ${data.title}`, key, data.charts.map((chart, i) => [i ? `${i}` : "", chart.name]), true);
  const note = el("p", { class: "quiet" });
  const node = plot(`Learning curves on ${data.title}`, (target) => {
    const chart = chosen();
    const lines = chart.lines.filter((line) => visible(line.label));
    const log = logarithmic(chart.may_be_log && spansDecades(lines));
    const seeds = state.get("draw") === "seeds";
    const traces = lines.flatMap((line) => {
      const style = STYLES.get(line.label);
      if (!seeds) {
        const name = line.n > 1 ? `${line.label} (n=${line.n})` : line.label;
        return [...(line.low ? bandTraces(line, style) : []), lineTrace(name, line.steps, line.median, style)];
      }
      return line.runs.flatMap((i) => DATA.runs[i].curves
        .filter((curve) => curve.split === chart.split && chart.metric in curve.values)
        .map((curve) => lineTrace(`${line.label}, seed ${DATA.runs[i].seed}`, curve.steps, curve.values[chart.metric], style, { line: { color: colour(`series-${style.colour}`, 0.75), dash: DASHES[style.dash], width: 1.4 } })));
    });
    const shapes = chart.scored ? boundLines(data, log.y) : [];
    draw(target, traces, shapes, log, traces.length <= 24 && !seeds);
    note.textContent = lines.length ? "" : "All models are hidden.";
    if (lines.length && chart.scored && log.y && data.optimum !== null && data.optimum <= 0) note.textContent = `The best possible, ${data.optimum}, is not on a log axis.`;
  });
  const box = el("figure", {}, el("div", { class: "filters" }, el("div", {}, el("h3", {}, data.title), el("span", { class: "quiet" }, data.measure)), choice), node, note);
  shown.push(() => { box.hidden = !ofTask(data.task); });
  return box;
}

function curves() {
  const section = el("section", { class: "card", "aria-labelledby": "curves" },
    el("div", { class: "filters between" }, el("h2", { id: "curves" }, "Learning curves"),
      el("div", { class: "filters options" },
        select("draw", "draw", [["", "median and range of seeds"], ["seeds", "every seed"]]),
        select("y axis", "y", [["", "as fits"], ["linear", "linear"], ["log", "log"]]),
        checkbox("log steps", "logx"))),
    el("div", { class: "figures" }, DATA.figures.map(figure)));
  let last = plotState();
  shown.push(() => {
    if (last !== plotState()) { last = plotState(); plots.forEach((again) => again(false)); }
  });
  return section;
}

// What plots depend on: a search in the list of runs must not draw them again.
function plotState() {
  return JSON.stringify([...state].filter(([key]) => ["hide", "model", "draw", "y", "logx"].includes(key) || key.startsWith("chart")));
}

// ---------------------------------------------------------------- the overview

function filters() {
  const tasks = [...new Set(DATA.runs.map((run) => run.task))].sort();
  const boxes = DATA.models.map((model) => {
    const box = el("input", { type: "checkbox", checked: !hidden().has(model.label), onchange: () => {
      const labels = hidden();
      box.checked ? labels.delete(model.label) : labels.add(model.label);
      setHidden([...labels]);
    } });
    return [model, box, el("label", {}, box, swatch(model), model.label)];
  });
  const find = el("input", { type: "search", placeholder: "find models", "aria-label": "Find models", value: state.get("model") || "", oninput: () => keep("model", find.value) });
  shown.push(() => boxes.forEach(([model, , label]) => { label.hidden = !model.label.includes(find.value); }));
  function setHidden(labels) {
    state.delete("hide");
    labels.forEach((label) => state.append("hide", label));
    boxes.forEach(([model, box]) => { box.checked = !labels.includes(model.label); });
    save();
  }
  return el("section", { class: "card filters", "aria-label": "Filters" },
    tasks.length > 1 ? select("task", "task", [["", "all"], ...tasks.map((task) => [task, task])]) : null,
    boxes.length > MANY_MODELS ? find : null,
    el("fieldset", { class: "models", "aria-label": "Models" },
      boxes.length > 1 ? [
        el("button", { type: "button", class: "act", onclick: () => setHidden([]) }, "all"),
        el("button", { type: "button", class: "act", onclick: () => setHidden(DATA.models.map((model) => model.label)) }, "none")] : null,
      boxes.map(([, , label]) => label)));
}

function runList() {
  const columns = [
    { label: "run", value: (run) => run.id, cell: (run) => el("a", { href: address({ run: run.id }) }, run.id.slice(0, 8)) },
    { label: "task", value: (run) => run.size },
    { label: "model", value: (run) => run.label, cell: (run) => modelCell(run.label) },
    { label: "seed", number: true, value: (run) => (run.seed === "-" ? null : Number(run.seed)), cell: (run) => run.seed },
    { label: "budget", value: (run) => run.budget },
    { label: "status", value: (run) => run.status, cell: (run) => el("span", { class: `status ${run.status}` }, run.status) },
    { label: "score", number: true, value: (run) => run.value ?? null, cell: (run) => [el("span", { class: "quiet metric" }, run.measure ? `${run.measure} ` : ""), run.score || "-"] },
    { label: "steps", number: true, value: (run) => run.steps, cell: (run) => (run.steps === null ? "-" : run.steps.toLocaleString("en")) },
    { label: "took", number: true, value: (run) => run.seconds ?? null, cell: (run) => run.took || "-" },
    { label: "finished", value: (run) => run.finished, cell: (run) => el("span", { class: "status-time" }, run.finished.slice(0, 16).replace("T", " ")) },
  ];
  const texts = new Map(DATA.runs.map((run) => [run, columns.map((column) => column.value(run)).join(" ").concat(" ", run.error || "").toLowerCase()]));
  const words = () => (state.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (run, wanted) => ofTask(run.task) && visible(run.label)
    && (!state.get("status") || run.status === state.get("status")) && wanted.every((word) => texts.get(run).includes(word));
  const search = el("input", { type: "search", placeholder: "search", "aria-label": "Search runs", value: state.get("q") || "", oninput: () => keep("q", search.value) });
  const count = el("span", { class: "quiet", role: "status" });
  return el("section", { class: "card", "aria-labelledby": "runs" },
    el("div", { class: "filters between" }, el("div", { class: "filters" }, el("h2", { id: "runs" }, "Runs"), count),
      el("div", { class: "filters" }, search, select("status", "status", [["", "all"], ...Object.keys(DATA.counts).map((name) => [name, name])]))),
    dataTable({
      key: "sort", caption: "Runs", columns, limit: FIRST_ROWS,
      rows: () => { const wanted = words(); return DATA.runs.filter((run) => matches(run, wanted)); },
      then: (rows) => { listed = rows; count.textContent = rows.length === DATA.runs.length ? `${rows.length}` : `${rows.length} of ${DATA.runs.length}`; },
    }));
}

function headline(title, beneath) {
  const isDark = () => (state.get("theme") || (dark.matches ? "dark" : "light")) === "dark";
  const name = () => (isDark() ? "Light" : "Dark");
  const button = el("button", { type: "button", class: "act", onclick: () => {
    keep("theme", isDark() ? "light" : "dark");
    button.textContent = name();
    theme();
  } }, name());
  const heading = el("h1", { tabindex: -1 }, title);
  const skip = el("button", { type: "button", class: "skip", onclick: () => PAGE.querySelector("section").querySelector("input, select, a, button").focus() }, "Skip to content");
  return el("header", {}, skip, el("div", {}, heading, beneath), button);
}

function overview() {
  const counts = Object.entries(DATA.counts).map(([status, count]) => `${count} ${status}`).join(", ");
  const beneath = el("p", { class: "quiet" }, `${counts} · written ${DATA.created.replace("T", " ")} UTC by seqbench ${DATA.version}`);
  return [
    headline("seqbench report", beneath), filters(),
    DATA.table ? comparison() : null,
    DATA.verdicts.length ? verdicts() : null,
    DATA.figures.length ? curves() : null,
    runList(),
    DATA.left_out.length ? el("section", { class: "card" }, el("h2", {}, "Left out"), el("ul", {}, DATA.left_out.map((line) => el("li", {}, line)))) : null,
  ];
}

// ---------------------------------------------------------------- a run

function facts(rows) {
  return el("dl", {}, rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function card(title, ...content) {
  return el("section", { class: "card" }, el("h2", {}, title), content);
}

function folded(title, open, ...content) {
  return el("section", { class: "card" }, el("details", { open }, el("summary", {}, el("h2", {}, title)), content));
}

function commandBox(run) {
  const button = el("button", { type: "button", class: "act", onclick: async () => {
    await navigator.clipboard.writeText(run.command);
    button.textContent = "Copied";
  } }, "Copy");
  return card("Run it again",
    run.command ? el("div", { class: "command" }, el("pre", { tabindex: 0 }, el("code", {}, run.command)), navigator.clipboard ? button : null) : el("p", {}, "No command gives this run."),
    run.remark ? el("p", { class: "quiet" }, run.remark) : null);
}

function runFigures(run) {
  const byMetric = new Map();
  run.curves.forEach((curve) => Object.entries(curve.values).forEach(([metric, values]) => {
    if (!byMetric.has(metric)) byMetric.set(metric, []);
    byMetric.get(metric).push({ split: curve.split, steps: curve.steps, values });
  }));
  const style = STYLES.get(run.label) || DATA.models.find((model) => model.model === run.model);
  const rank = (metric) => (metric === run.metric ? 0 : metric === "loss" ? 1 : metric === "lr" || metric === "grad_norm" ? 3 : 2);
  const figures = [...byMetric].sort(([a], [b]) => rank(a) - rank(b)).map(([metric, parts]) => {
    const values = parts.flatMap((part) => part.values).filter((value) => value !== null);
    const auto = metric !== "lr" && Math.min(...values) > 0 && Math.max(...values) > 30 * Math.min(...values);
    const name = `${parts.map((part) => part.split).join(", ")} ${DATA.metrics[metric]}`;
    const node = plot(`${name} over steps`, (target) => {
      const log = logarithmic(auto);
      const bounds = metric === run.metric ? boundLines(run, log.y) : [];
      const traces = parts.map((part, i) => lineTrace(part.split, part.steps, part.values, { colour: style.colour, dash: i ? 2 : 4 }));
      draw(target, traces, bounds, log, true);
    });
    return el("figure", {}, el("h3", {}, name), node);
  });
  return figures.length ? card("Curves", el("div", { class: "figures small" }, figures)) : null;
}

// A few windows of the test: the truth, a naive forecast and the model's, in the unit of the target.
function forecastCard(windows) {
  const figures = windows.map((shown) => {
    const node = plot(`Forecast of ${shown.target}, ${shown.name}`, (target) => {
      const ahead = shown.times.slice(shown.past.length);
      const dated = typeof shown.times[0] === "string";
      const line = (label, times, values, series, dash) => lineTrace(label, times, values, { colour: series, dash }, { showlegend: true, name: label, hovertemplate: `%{y:.5g}<extra>${plotText(label)}</extra>` });
      draw(target, [
        line("truth", shown.times, [...shown.past, ...shown.truth], 6, 4),
        line(shown.naive_name, ahead, shown.naive, 2, 3),
        line("forecast", ahead, shown.forecast, 4, 4),
      ], [], { x: false, y: false }, true, { type: dated ? "date" : "linear", title: { text: dated ? "" : "row" }, tickangle: 0, nticks: 6, unifiedhovertitle: { text: "%{x}" }, hoverformat: dated ? "%Y-%m-%d %H:%M" : "," });
    });
    return el("figure", {}, el("h3", {}, `${shown.target}, ${shown.name}`), el("span", { class: "quiet" }, shown.error), node);
  });
  return card("Forecasts of the test", el("div", { class: "figures small" }, figures));
}

function differencesTable(run) {
  if (!run.differences.length) return el("p", {}, "Nothing: task, model, recipe, protocol and budget as they come.");
  return el("div", { class: "box", tabindex: 0, role: "region", "aria-label": "Differences" }, el("table", {},
    el("thead", {}, el("tr", {}, ["setting", "recipe", "this run"].map((name) => el("th", { scope: "col" }, el("span", { class: "plain" }, name))))),
    el("tbody", {}, run.differences.map(([key, ...pair]) => el("tr", {}, el("th", { scope: "row" }, key), pair.map((value) => el("td", {}, el("code", {}, value))))))));
}

// The counts by true class (row) and predicted class, the mistakes darker the more frequent they are.
function confusionCard(confusion) {
  const { classes, counts, recalls, mistakes, scores } = confusion;
  const head = (names) => el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col", class: "number" }, el("span", { class: "plain" }, `${name}`)))));
  const most = mistakes.length ? mistakes[0][2] : 1;
  const cell = (count, right) => el("td", { class: `number ${right ? "right" : `heat-${Math.ceil((4 * count) / most)}`}` }, count ? count.toLocaleString("en") : "·");
  const table = counts.length
    ? el("table", { class: "pinned" }, head(["true ↓ predicted →", ...classes, "recall %"]),
      el("tbody", {}, counts.map((row, i) => el("tr", {}, el("th", { scope: "row", class: "number" }, classes[i]), row.map((count, j) => cell(count, i === j)), el("td", { class: "number quiet" }, recalls[i])))))
    : el("table", {}, head(["true", "predicted", "examples"]),
      el("tbody", {}, mistakes.map((row) => el("tr", {}, row.map((value) => el("td", { class: "number" }, value.toLocaleString("en")))))));
  return card("Confusion matrix", facts(scores), el("div", { class: "box confusion", tabindex: 0, role: "region", "aria-label": "Confusion matrix" }, table));
}

function runPage(run) {
  const place = listed.indexOf(run);
  const link = (text, other) => (other ? el("a", { href: address({ run: other.id }) }, text) : null);
  const links = el("nav", { class: "filters", "aria-label": "Runs" }, el("a", { href: address({ run: null }) }, "← All runs"),
    link("Previous", listed[place - 1]), link("Next", listed[place + 1]));
  const beneath = el("p", { class: "quiet" }, el("span", { class: `status ${run.status}` }, run.status), ` · run ${run.id} · budget ${run.budget} · protocol ${run.protocol} · ${run.folder}`);
  const failure = run.error || run.log;
  const log = el("pre", { tabindex: 0, role: "region", "aria-label": "End of the log" }, run.log);
  shown.push(() => { log.scrollTop = log.scrollHeight; }); // the traceback is its end
  const [score, metrics, training, environment, data] = run.sections;
  const section = (part) => (part && part[1].length ? card(part[0], facts(part[1])) : null);
  return [
    links, headline(`${run.model} on ${run.size}, seed ${run.seed}`, beneath),
    failure ? card(run.status === "unfinished" ? "Log" : "What went wrong", run.error ? el("p", { class: "error" }, run.error) : null,
      run.log ? log : null) : null,
    run.forecasts.length ? forecastCard(run.forecasts) : null,
    el("div", { class: "sections" }, [score, metrics, training].map(section)),
    run.published ? card(`Against ${DATA.paper}`,
      el("p", {}, `published: ${run.published.theirs} · `, el("span", { class: run.published.like ? "like" : "quiet" }, run.published.verdict)),
      caveatsOf(run.published)) : null,
    run.confusion ? confusionCard(run.confusion) : null,
    runFigures(run),
    card("Differences from its recipe", differencesTable(run)),
    commandBox(run),
    folded("Configuration", false, facts(run.config)),
    el("div", { class: "sections two" }, [environment, data].map(section)),
  ];
}

// ---------------------------------------------------------------- the whole

function theme() {
  const chosen = state.get("theme");
  if (chosen) document.documentElement.dataset.theme = chosen === "dark" ? "dark" : "light";
  else delete document.documentElement.dataset.theme;
  plots.forEach((again) => again(false));
}

let opened = null;
function show(first) {
  state = new URLSearchParams(location.hash.slice(1));
  document.querySelectorAll(".plot").forEach((node) => Plotly.purge(node));
  [shown, plots] = [[], []];
  theme();
  const run = state.has("run") ? DATA.runs.find((candidate) => candidate.id === state.get("run")) : undefined;
  PAGE.replaceChildren(...(run ? runPage(run) : overview()).filter(Boolean));
  document.title = run ? `${run.model} on ${run.size} · seqbench report` : "seqbench report";
  if (!first && run !== opened) {
    scrollTo(0, 0);
    PAGE.querySelector("h1").focus({ preventScroll: true });
  }
  opened = run;
  shown.forEach((update) => update());
}

document.body.append(probe);
addEventListener("hashchange", () => show(false));
dark.addEventListener("change", () => { if (!state.get("theme")) show(false); });
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((node) => { node.open = true; });
  document.documentElement.dataset.theme = "light";
  plots.forEach((again) => again(true));
});
addEventListener("afterprint", theme);
show(true);
