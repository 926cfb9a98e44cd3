// Failures against p, a hundred shots at a time, of one experiment's code, basis and rounds.

import { byId, call, html, svg } from "./common.js";
import { failures, interval, wrong } from "./numbers.js";

const FACTORS = [0.5, 0.7, 1, 1.4, 2]; // of the p that is set
const SHOTS = 100;
const HEIGHT = 220;
const [LEFT, BOTTOM, TOP, RIGHT] = [52, 24, 8, 28];

let curve = { name: "", names: [], points: [] };

/** Has a hundred more shots decoded, at the p that has the fewest; `current` says whether they are still wanted. */
export async function addToCurve({ decoders, query, current }) {
  const name = JSON.stringify([decoders.map(({ model }) => model.id), query]);
  if (curve.name !== name) curve = newCurve(name, decoders, Number(query.p));
  const mine = curve;
  const point = mine.points.reduce((least, other) => (other.shots < least.shots ? other : least));
  const asked = { ...query, p: point.p };
  const { data: sample } = await call(`v1/models/${decoders[0].model.id}/sample`, { method: "POST", query: { ...asked, shots: SHOTS } });
  const failed = [];
  for (const { model } of decoders) {
    const { data } = await call(`v1/models/${model.id}/decode`, { method: "POST", query: asked, body: { shots_b8: sample.shots_b8 } });
    failed.push(data.predictions.filter((prediction, i) => wrong(prediction, sample.observable_flips[i]).length > 0).length);
  }
  if (curve !== mine || !current()) return;
  point.shots += sample.num_shots;
  failed.forEach((count, i) => { point.failures[i] += count; });
  drawCurve();
}

function newCurve(name, decoders, p) {
  const rates = FACTORS.map((factor) => Number((factor * p).toPrecision(2))).filter((rate) => rate < 0.5);
  return {
    name,
    names: decoders.map((decoder) => decoder.name),
    points: [...new Set(rates)].map((rate) => ({ p: rate, shots: 0, failures: decoders.map(() => 0) })),
  };
}

export function drawCurve() {
  const counted = curve.points.filter(({ shots }) => shots);
  byId("curve").hidden = counted.length === 0;
  if (counted.length === 0) return;
  byId("curve-plot").replaceChildren(drawPlot(counted, byId("curve-plot").clientWidth));
  byId("curve-table").tHead.replaceChildren(html("tr", {}, ...["p", ...curve.names].map((head) => html("th", { scope: "col" }, head))));
  byId("curve-table").tBodies[0].replaceChildren(...counted.map((point) => html("tr", {},
    html("th", { scope: "row" }, String(point.p)),
    ...point.failures.map((count) => html("td", {}, failures(count, point.shots))))));
}

function drawPlot(counted, width) {
  const intervals = counted.map((point) => point.failures.map((count) => interval(count, point.shots)));
  const positive = counted.flatMap((point, i) => point.failures.map((count, j) => (count ? intervals[i][j][0] : intervals[i][j][1] / 10)));
  const low = Math.floor(Math.log10(Math.min(...positive)));
  const [first, last] = [curve.points[0].p, curve.points.at(-1).p].map(Math.log10);
  const x = (p) => LEFT + (last > first ? (Math.log10(p) - first) / (last - first) : 0.5) * (width - LEFT - RIGHT);
  const y = (rate) => TOP + (Math.log10(Math.max(rate, 10 ** low)) / low) * (HEIGHT - TOP - BOTTOM);
  const rows = Array.from({ length: 1 - low }, (_, i) => 10 ** -i);
  const marks = curve.names.map((name, j) => {
    const kind = `series s${Math.min(j, 1)}`;
    const seen = counted.filter((point) => point.failures[j]);
    const line = seen.map((point) => `${x(point.p)} ${y(point.failures[j] / point.shots)}`).join("L");
    const bars = counted.map((point, i) => `M${x(point.p) + 3 * j} ${y(intervals[i][j][0])}V${y(intervals[i][j][1])}`).join("");
    return svg("g", { class: kind },
      ...(seen.length > 1 ? [svg("path", { class: "line", d: `M${line}` })] : []),
      svg("path", { class: "bar", d: bars }),
      ...seen.map((point) => drawMark(j, x(point.p) + 3 * j, y(point.failures[j] / point.shots))));
  });
  const label = `Failures of ${curve.names.join(" and ")} against p, on logarithmic axes; the table below has the numbers`;
  return svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label },
    ...rows.map((rate) => svg("g", {},
      svg("path", { class: "tick", d: `M${LEFT} ${y(rate)}H${width - RIGHT}` }),
      svg("text", { x: LEFT - 6, y: y(rate) + 4, "text-anchor": "end" }, `${Number((100 * rate).toPrecision(1))} %`))),
    ...curve.points.map(({ p }) => svg("text", { x: x(p), y: HEIGHT - 6, "text-anchor": "middle" }, String(p))),
    ...marks);
}

/** A disc or a square, so that nobody needs to tell the colours apart. */
const drawMark = (j, x, y) => (j === 0
  ? svg("circle", { class: "mark", cx: x, cy: y, r: 4 })
  : svg("rect", { class: "mark", x: x - 4, y: y - 4, width: 8, height: 8 }));
