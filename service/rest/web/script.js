// The page at /: has the service sample a shot and both decoders decode it, and draws what came out.

import { ServiceError, byId, call, html, showAccess, svg, useKey } from "./common.js";
import { addToCurve, drawCurve } from "./curve.js";
import { duration, failures, probability, wrong } from "./numbers.js";
import { decodeOwn } from "./own.js";

const RUN_INTERVAL_MS = 500;
const MAX_LATENCIES = 10000; // of each decoder; the oldest are dropped
const CELL = 18; // px
const NAMES = { neural: "Network", bposd: "BP-OSD" };
const INTERESTING = { model: "bb72", p: 0.004 }; // where shots go wrong now and then
const MOST_SHOTS_TO_A_FAILURE = 2000;
const NAMED = ["model", "basis", "rounds", "p", "seed"]; // what names a shot in the address, with its number

const settings = byId("settings");
const fields = settings.elements;
const state = {
  models: [],
  count: null, // what was counted since the settings were last changed; null before the first shot
  shot: null, // the last sample, with the answers
  run: null, // what tells one run from the next; null when stopped
  wanted: null, // what was asked for last, while something else is under way
  underway: Promise.resolve(),
  width: 0,
};

// --- Shots ---

/** The values of some fields by name; only the seed may be empty, which leaves the choice to the service. */
function values(...names) {
  const wrong = names.find((name) => fields[name].validity.badInput || (name !== "seed" && fields[name].value === ""));
  if (wrong) {
    fields[wrong].focus();
    throw new ServiceError(`${fields[wrong].labels[0].textContent.trim()}: enter a number.`);
  }
  return Object.fromEntries(names.map((name) => [name, fields[name].value]));
}

function decoders() {
  const chosen = state.models.find((model) => model.id === fields.model.value);
  const rivals = state.models.filter(
    (model) => model.decoder === "bposd" && model.code.id === chosen.code.id && model.id !== chosen.id,
  );
  const rival = rivals.find((model) => model.id === `${chosen.id}-bposd`) ?? rivals[0];
  return rival ? [chosen, rival] : [chosen];
}

const newCount = () => ({
  decoders: decoders().map((model) => ({
    model, name: NAMES[model.decoder] ?? model.decoder, shots: 0, failures: 0, compute: [], second: [], trip: [],
  })),
});

const decode = ({ model }, query, shots_b8) =>
  call(`v1/models/${model.id}/decode`, { method: "POST", query: { ...query, flip_probabilities: true }, body: { shots_b8 } });

/** Samples the next shot and has it decoded, by one decoder after the other so that neither disturbs the other's time. */
async function takeShot() {
  const isNew = state.count === null;
  const count = (state.count ??= newCount());
  const query = values("basis", "rounds", "p");
  const path = `v1/models/${count.decoders[0].model.id}/sample`;
  const { data: sample } = await call(path, { method: "POST", query: { ...query, ...values("seed", "first") } });
  if (isNew) {
    say("The service prepares its decoders for this experiment, which may take half a minute the first time.");
    if (state.shot) document.body.classList.add("stale"); // what is still shown is of another experiment
    for (const decoder of count.decoders) if (state.count === count) await decode(decoder, query, sample.shots_b8);
  }
  const answers = [];
  for (const decoder of count.decoders) if (state.count === count) answers.push(await decode(decoder, query, sample.shots_b8));
  if (state.count !== count) return say("The settings were changed meanwhile; sample a shot of the new ones.");
  [fields.rounds.value, fields.p.value] = [sample.experiment.rounds, sample.experiment.p];
  [fields.seed.value, fields.first.value] = [sample.seed, sample.first + 1];
  const truth = sample.observable_flips[0];
  count.decoders.forEach((decoder, i) => {
    decoder.shots += 1;
    decoder.failures += wrong(answers[i].data.predictions[0], truth).length > 0;
    for (const part of ["compute", "second", "trip"]) {
      if (!Number.isNaN(answers[i][part])) decoder[part].push(answers[i][part]);
      if (decoder[part].length > MAX_LATENCIES) decoder[part].shift();
    }
  });
  document.body.classList.remove("stale");
  const named = Object.fromEntries(NAMED.map((name) => [name, fields[name].value]));
  history.replaceState(null, "", `#${new URLSearchParams({ ...named, shot: sample.first })}`);
  state.shot = { sample, truth, answers: answers.map((answer) => answer.data), times: answers, names: count.decoders.map((d) => d.name) };
  draw();
}

const anyWrong = () => state.shot.answers.some(({ predictions }) => wrong(predictions[0], state.shot.truth).length > 0);

// --- Drawing ---

const say = (text) => { byId("summary").textContent = text; };

function draw() {
  say(summary(state.shot));
  drawRounds(state.shot.sample);
  drawObservables(state.shot);
  drawTimes(state.shot);
  drawPosterior(state.shot);
  drawDecoders();
}

function summary({ sample, truth, answers, names }) {
  const events = sample.coordinates[0].length;
  const verdicts = answers.map((answer, i) => {
    const missed = wrong(answer.predictions[0], truth);
    const sure = answer.confidence ? ` with confidence ${probability(answer.confidence[0])}` : "";
    return missed.length ? `${names[i]}: wrong on observable ${missed.join(", ")}${sure}.` : `${names[i]}: right${sure}.`;
  });
  return `Shot ${sample.first} of seed ${sample.seed}: ${events} detection event${events === 1 ? "" : "s"}. ${verdicts.join(" ")}`;
}

function drawRounds({ torus, coordinates, experiment: { rounds } }) {
  const layers = Array.from({ length: rounds + 1 }, () => []);
  for (const event of coordinates[0]) layers[event[2]].push(event);
  byId("rounds").replaceChildren(...layers.map((events, round) => {
    const name = round === rounds ? "readout" : `round ${round}`;
    return html("li", {}, html("figure", {},
      drawTorus(torus, events, name),
      html("figcaption", {}, html("span", {}, name), html("span", {}, String(events.length || "–")))));
  }));
}

/** One layer; a cell's two checks stand where the circuit's QUBIT_COORDS put them: X below left, Z above right. */
function drawTorus([l, m], events, name) {
  const [width, height] = [l * CELL, m * CELL];
  const lines = [];
  for (let x = 1; x < l; x += 1) lines.push(`M${x * CELL} 0V${height}`);
  for (let y = 1; y < m; y += 1) lines.push(`M0 ${y * CELL}H${width}`);
  const words = events.map(([x, y, , type]) => `${type ? "Z" : "X"} (${x}, ${y})`).join(", ") || "no events";
  const marks = events.map(([x, y, round, type]) => {
    const [cx, cy] = [(x + (type ? 0.7 : 0.3)) * CELL, (m - 1 - y + (type ? 0.3 : 0.7)) * CELL];
    const d = type ? `M${cx} ${cy - 4.4}l4.4 4.4l-4.4 4.4l-4.4-4.4z` : `M${cx - 3.4} ${cy - 3.4}l6.8 6.8m0-6.8l-6.8 6.8`;
    return svg("path", { class: `event ${type ? "z" : "x"}`, d, "data-event": [x, y, round, type] },
      svg("title", {}, `${type ? "Z" : "X"} check at x = ${x}, y = ${y}`));
  });
  return svg("svg", { viewBox: `-1 -1 ${width + 2} ${height + 2}`, width: width + 2, height: height + 2, role: "img", "aria-label": `${name}: ${words}` },
    svg("path", { class: "lattice", d: lines.join("") }),
    svg("rect", { class: "seam", width, height }), ...marks);
}

function drawObservables({ truth, answers, names }) {
  const soft = answers.findIndex((answer) => answer.flip_probabilities);
  const heads = ["Observable", "Truth", ...(soft < 0 ? [] : [`${names[soft]}: P(flip)`]), ...names];
  byId("observables").tHead.replaceChildren(html("tr", {}, ...heads.map((head) => html("th", { scope: "col" }, head))));
  const answer = (bit, right) => {
    const cell = html("td", { class: `${bit ? "flip" : "none"}${right ? "" : " wrong"}` }, String(bit));
    if (!right) cell.append(html("span", { "aria-hidden": "true" }, " ✗"), html("span", { class: "unseen" }, " wrong"));
    return cell;
  };
  byId("observables").tBodies[0].replaceChildren(...truth.map((bit, j) => html("tr", {},
    html("th", { scope: "row" }, String(j)),
    html("td", { class: bit ? "flip" : "none" }, String(bit)),
    ...(soft < 0 ? [] : [html("td", {}, probability(answers[soft].flip_probabilities[0][j]))]),
    ...answers.map(({ predictions }) => answer(predictions[0][j], predictions[0][j] === bit)))));
}

/** What the shot took each decoder, side by side below what they say; without P(flip), which stands between. */
function drawTimes({ answers, times, names }) {
  const empty = answers.some((answer) => answer.flip_probabilities) ? 2 : 1; // truth, P(flip)
  const row = (head, part) => html("tr", {}, html("th", { scope: "row" }, head),
    ...Array.from({ length: empty }, () => html("td")),
    ...times.map((time) => html("td", {}, Number.isNaN(time[part]) ? "–" : duration(time[part], 3))));
  const second = times.some((time) => !Number.isNaN(time.second)) ? [row("Second opinion", "second")] : [];
  byId("observables").tFoot.replaceChildren(row("Compute", "compute"), ...second, row("Round trip", "trip"));
  byId("observables").tFoot.setAttribute("aria-label", `Times of ${names.join(" and ")}`);
}

/** How likely each decoder that says so holds its answer, and all others together. */
function drawPosterior({ answers, names }) {
  byId("posterior").replaceChildren(...answers.flatMap(({ confidence }, i) => {
    if (!confidence) return [];
    const share = 100 * confidence[0];
    const bar = svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "others", width: 100, height: 6 }), svg("rect", { class: "answer", width: share, height: 6 }));
    return [html("p", {}, `${names[i]}: its answer ${probability(confidence[0])}, any other ${probability(1 - confidence[0])}`, bar)];
  }));
}

function drawDecoders() {
  const range = decades(state.count.decoders.flatMap(({ compute, second, trip }) => [...compute, ...second, ...trip]));
  state.width = byId("decoders").clientWidth;
  byId("decoders").replaceChildren(...state.count.decoders.map((decoder) => html("div", { class: "decoder" },
    html("h3", {}, html("span", {}, decoder.name), html("span", { class: "failures" }, failures(decoder.failures, decoder.shots))),
    html("div", { class: "histogram" }, drawHistogram(decoder, range, state.width)),
    latencyTable(decoder))));
}

/** Whole powers of ten, at least two decades, around all values in ms. */
function decades(values) {
  const low = Math.floor(Math.log10(Math.max(1e-3, Math.min(...values))));
  return [low, Math.max(low + 2, Math.ceil(Math.log10(Math.max(...values))))];
}

function drawHistogram({ name, compute, trip }, [low, high], width) {
  const [height, bins] = [72, (high - low) * 10]; // ten bins a decade
  const counts = (values) => {
    const bars = new Array(bins).fill(0);
    for (const ms of values) bars[Math.min(bins - 1, Math.max(0, Math.floor((Math.log10(ms) - low) * 10)))] += 1;
    return bars;
  };
  const [bars, outline] = [counts(compute), counts(trip)];
  const most = Math.max(...bars, ...outline);
  const x = (i) => 1 + i * (width - 2) / bins;
  const y = (count) => height - (height - 6) * count / most;
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => svg("g", {},
    svg("path", { class: "tick", d: `M${x(i * 10)} 4V${height}` }),
    svg("text", { x: x(i * 10), y: height + 14, "text-anchor": i === 0 ? "start" : i === high - low ? "end" : "middle" }, duration(10 ** (low + i), 1))));
  const filled = bars.map((count, i) => (count ? `M${x(i)} ${height}V${y(count)}H${x(i + 1)}V${height}z` : "")).join("");
  const steps = outline.map((count, i) => `V${y(count)}H${x(i + 1)}`).join("");
  const label = `${name}: latencies of ${compute.length} shots on a logarithmic axis from ${duration(10 ** low, 1)} to ${duration(10 ** high, 1)}`;
  return svg("svg", { viewBox: `0 0 ${width} 92`, role: "img", "aria-label": label }, ...ticks,
    svg("path", { class: "compute", d: filled }),
    svg("path", { class: "trip", d: `M${x(0)} ${height}${steps}` }),
    svg("path", { class: "axis", d: `M0 ${height}H${width}` }));
}

function latencyTable({ compute, second, trip }) {
  const row = (name, values) => {
    const sorted = [...values].sort((a, b) => a - b);
    const rank = (q) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)];
    return html("tr", {}, html("th", { scope: "row" }, name), ...[0.5, 0.99, 1].map((q) => html("td", {}, duration(rank(q), 3))));
  };
  return html("table", {},
    html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "Latency"), ...["p50", "p99", "max"].map((q) => html("th", { scope: "col" }, q)))),
    html("tbody", {}, row("Compute", compute), ...(second.length ? [row("Second opinion", second)] : []), row("Round trip", trip)));
}

// --- Controls ---

/** Runs `work` when what is under way has ended, unless something else was asked for meanwhile: the last one counts. */
async function attempt(work) {
  const mine = (state.wanted = { work });
  await state.underway;
  if (state.wanted !== mine) return;
  state.wanted = null;
  await (state.underway = perform(work));
}

/** Runs `work`, and shows what went wrong in it. */
async function perform(work) {
  showError(null);
  try {
    await work();
  } catch (error) {
    stop();
    if (state.count?.decoders[0].shots === 0) state.count = null; // the decoders are not prepared yet
    showError(error);
    if (!(error instanceof ServiceError)) setTimeout(() => { throw error; }); // to the console
  }
}

function showError(error) {
  byId("error").hidden = error === null;
  byId("error").textContent = error?.message ?? "";
  showAccess(error);
  if (error) say("");
}

async function loadModels() {
  const { models } = (await call("v1/models")).data;
  state.models = models;
  const first = models.filter((model) => model.decoder !== "bposd");
  fields.model.replaceChildren(...(first.length ? first : models).map(({ id }) => html("option", {}, id)));
  takeAddress();
}

/** The shot that the address names, else one of an experiment in which something goes wrong now and then. */
function takeAddress() {
  const named = new URLSearchParams(location.hash.slice(1));
  const ids = [...fields.model.options].map(({ value }) => value);
  const model = [named.get("model"), INTERESTING.model].find((id) => ids.includes(id));
  if (model) fields.model.value = model;
  takeDefaults();
  fields.p.value = INTERESTING.p;
  for (const name of NAMED.slice(1)) if (named.has(name)) fields[name].value = named.get(name);
  fields.first.value = named.get("shot") ?? 0;
}

function takeDefaults() {
  const { experiment: own, limits } = state.models.find((model) => model.id === fields.model.value);
  [fields.basis.value, fields.rounds.value, fields.p.value] = [own.basis, own.rounds, own.p];
  fields.rounds.max = limits.max_rounds;
}

async function sampleOnce() {
  if (state.models.length === 0) await loadModels();
  await takeShot();
}

async function begin() {
  await loadModels();
  await takeShot();
}

function stop() {
  if (!state.run) return;
  state.run = null;
  byId("run").textContent = "Run";
  byId("summary").setAttribute("aria-live", "polite");
  if (state.shot) say(`Stopped. ${summary(state.shot)}`);
}

/** A hundred more shots for the curve. */
async function fillCurve() {
  if (state.models.length === 0) await loadModels();
  const mine = state.run;
  say("Shots at five error rates are decoded; each decoder is prepared for each of them.");
  await addToCurve({ decoders: newCount().decoders, query: values("basis", "rounds", "p"), current: () => state.run === mine });
}

async function decodeTheirs() {
  if (state.models.length === 0) await loadModels();
  const tell = (name) => (done, all) => say(`${name}: ${done} of ${all} shots of your circuit are decoded.`);
  say("Your circuit is read, and decoders are prepared for it.");
  await decodeOwn(newCount().decoders, tell);
  say("What came of your circuit stands below it.");
}

/** Does a step until stopped, or until a decoder is wrong. */
async function run({ step = sampleOnce, toFailure = false } = {}) {
  const mine = (state.run = {});
  byId("run").textContent = "Stop";
  let left = MOST_SHOTS_TO_A_FAILURE;
  // Two shots a second are more than anyone can listen to; the last one is read out when it stops.
  byId("summary").setAttribute("aria-live", "off");
  while (state.run === mine) {
    const started = performance.now();
    await attempt(step);
    if (toFailure && state.run === mine && ((state.shot && anyWrong()) || --left === 0)) {
      stop();
      if (left === 0) say(`No failure in ${MOST_SHOTS_TO_A_FAILURE} shots; raise p.`);
      return;
    }
    const pause = toFailure || step === fillCurve ? 0 : Math.max(50, started + RUN_INTERVAL_MS - performance.now());
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

settings.addEventListener("submit", (event) => {
  event.preventDefault();
  stop();
  attempt(sampleOnce);
});
settings.addEventListener("input", (event) => {
  if (event.target === fields.model) takeDefaults();
  if (event.target !== fields.first) fields.first.value = 0;
  state.count = null;
});
byId("run").addEventListener("click", () => (state.run ? stop() : run()));
byId("failure").addEventListener("click", () => run({ toFailure: true }));
byId("sweep").addEventListener("click", () => run({ step: fillCurve }));
byId("own").addEventListener("submit", (event) => {
  event.preventDefault();
  stop();
  attempt(decodeTheirs);
});
byId("metrics").addEventListener("click", (event) => {
  event.preventDefault(); // a link sends no key
  attempt(async () => {
    const { data } = await call("metrics", { accept: "text/plain" });
    location.href = URL.createObjectURL(new Blob([data], { type: "text/plain" }));
  });
});
useKey(() => {
  fields.model.focus();
  attempt(begin);
});
addEventListener("hashchange", () => {
  stop();
  takeAddress();
  state.count = null;
  attempt(takeShot);
});
new ResizeObserver(([{ contentRect }]) => {
  drawCurve();
  if (state.count?.decoders[0].shots && Math.round(contentRect.width) !== state.width) drawDecoders();
}).observe(byId("decoders"));
attempt(begin);
