// A visitor's own circuit and shots, decoded by the service.

import { ServiceError, byId, call, html } from "./common.js";
import { duration, failures, probability, wrong } from "./numbers.js";

const BATCH = 256; // shots in a request
const MOST_SHOTS = 100000;
const OF_A_MODEL = /^\s*(error\s*[[(]|logical_observable\s|shift_detectors\b)/im; // lines that no circuit has

/** Sends the circuit, and has each of the models decode the shots if there are any; `say` tells how far that is. */
export async function decodeOwn(models, say) {
  const fields = byId("own").elements;
  const [file] = fields.circuit.files;
  const text = file ? await file.text() : fields.text.value;
  if (!text.trim()) throw new ServiceError("Choose a file with a circuit or an error model, or paste its text.");
  const kind = OF_A_MODEL.test(text) ? "dem" : "circuit";
  const { data: record } = await call("v1/experiments", { method: "POST", query: { kind }, bytes: text });
  const { detectors, observables } = record.inspection;
  const shots = await readBits(fields.shots.files[0], detectors, "shots");
  const truth = await readBits(fields.flips.files[0], observables, "observables");
  if (shots && truth && shots.length !== truth.length) {
    throw new ServiceError(`There are ${shots.length} shots, and observables of ${truth.length}.`);
  }
  const rows = [];
  if (shots) {
    for (const { model, name } of models) rows.push([name, await decodeAll(model, record.id, shots, say(name))]);
  }
  show(record.inspection, rows, truth && bitsOf(truth, observables));
}

/** The bytes of each shot in b8, of a file in that format or in 01; null without a file. */
async function readBits(file, size, what) {
  if (!file) return null;
  const bytes = new Uint8Array(await file.arrayBuffer());
  const shots = bytes.every((byte) => [10, 13, 48, 49].includes(byte)) && bytes.length > 0
    ? from01(new TextDecoder().decode(bytes), size, file.name)
    : fromB8(bytes, size, file.name);
  if (shots.length === 0) throw new ServiceError(`${file.name} is empty; it has no ${what}.`);
  if (shots.length > MOST_SHOTS) throw new ServiceError(`${file.name}: the page takes ${MOST_SHOTS} shots at most.`);
  return shots;
}

function fromB8(bytes, size, name) {
  const each = Math.ceil(size / 8);
  if (bytes.length % each) {
    throw new ServiceError(`${name}: ${bytes.length} bytes are no whole number of shots of ${size} bits (${each} bytes each).`);
  }
  return Array.from({ length: bytes.length / each }, (_, i) => bytes.subarray(i * each, (i + 1) * each));
}

function from01(text, size, name) {
  return text.split(/\r?\n/).filter(Boolean).map((line, i) => {
    if (line.length !== size) throw new ServiceError(`${name}, line ${i + 1}: ${line.length} bits where there are ${size}.`);
    const shot = new Uint8Array(Math.ceil(size / 8));
    [...line].forEach((bit, j) => { shot[j >> 3] |= Number(bit) << (j & 7); });
    return shot;
  });
}

const bitsOf = (shots, size) => shots.map((shot) => Array.from({ length: size }, (_, j) => (shot[j >> 3] >> (j & 7)) & 1));

function base64(shots) {
  let binary = "";
  for (const shot of shots) for (const byte of shot) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** All answers of one model together, or what it says against the experiment. */
async function decodeAll(model, experiment, shots, tell) {
  const all = { predictions: [], confidence: [], compute: 0, second: NaN };
  for (let first = 0; first < shots.length; first += BATCH) {
    tell(first, shots.length);
    const body = { shots_b8: base64(shots.slice(first, first + BATCH)) };
    try {
      const { data, compute, second } = await call(`v1/models/${model.id}/decode`, { method: "POST", query: { experiment }, body });
      all.predictions.push(...data.predictions);
      all.confidence.push(...(data.confidence ?? []));
      all.compute += compute;
      if (!Number.isNaN(second)) all.second = (Number.isNaN(all.second) ? 0 : all.second) + second;
    } catch (error) {
      if (!(error instanceof ServiceError) || error.status !== 422) throw error;
      return { refused: error.message };
    }
  }
  return all;
}

function show(inspection, rows, truth) {
  const { code, rounds, basis, detectors, observables, decoders } = inspection;
  const known = [code, basis && `${basis} memory`, rounds && `${rounds} rounds`].filter(Boolean);
  const takes = decoders.filter(({ applies }) => applies).map(({ decoder }) => decoder);
  byId("own-said").textContent = `${[...known, `${detectors} detectors`, `${observables} observables`].join(", ")}. `
    + `Decoders that take it: ${takes.join(", ") || "none"}.`;
  byId("own-table").hidden = rows.length === 0;
  byId("own-table").tBodies[0].replaceChildren(...rows.map(([name, found]) => {
    const head = html("th", { scope: "row" }, name);
    if (found.refused) return html("tr", {}, head, html("td", { colspan: 5, class: "said" }, found.refused));
    const shots = found.predictions.length;
    const failed = truth && found.predictions.filter((prediction, i) => wrong(prediction, truth[i]).length > 0).length;
    const sure = found.confidence;
    const mean = sure.reduce((sum, value) => sum + value, 0) / sure.length;
    const second = Number.isNaN(found.second) ? "" : ` + ${duration(found.second / shots, 3)} second opinions`;
    const link = html("a", { href: URL.createObjectURL(asFile(found.predictions)), download: `${name}.01` }, "predictions.01");
    return html("tr", {}, head,
      html("td", { class: "said" }, truth ? failures(failed, shots) : `${shots} shots`),
      html("td", {}, sure.length ? probability(mean) : "–"),
      html("td", {}, sure.length ? String(sure.filter((value) => value < 0.9).length) : "–"),
      html("td", { class: "said" }, `${duration(found.compute / shots, 3)}${second}`),
      html("td", {}, link));
  }));
}

const asFile = (predictions) => new Blob([predictions.map((bits) => `${bits.join("")}\n`).join("")], { type: "text/plain" });
