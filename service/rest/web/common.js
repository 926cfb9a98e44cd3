// What both pages share: requests with the key of this tab, and elements.

const KEY = "tandem-api-key";

export class ServiceError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Calls the API, by addresses relative to the page, with a body as JSON or with bytes as they are.
 *
 * Returns the JSON or the text, and how many ms it took in all, to compute, and to wait for second opinions (NaN: none).
 */
export async function call(path, { method = "GET", query = {}, body, bytes, accept = "application/json" } = {}) {
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""));
  const url = given.size ? `${path}?${given}` : path;
  const headers = { Accept: accept };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  if (bytes !== undefined) headers["Content-Type"] = "application/octet-stream";
  const started = performance.now();
  let response, text;
  try {
    response = await fetch(url, { method, headers, body: bytes ?? JSON.stringify(body) });
    text = await response.text();
  } catch {
    throw new ServiceError("The service does not answer. Is it still running?", 0);
  }
  const trip = performance.now() - started;
  if (!response.ok) throw new ServiceError(complaint(response.status, text), response.status);
  const timing = new Map((response.headers.get("Server-Timing") ?? "").split(", ").map((part) => part.split(";dur=")));
  const [compute, second] = ["compute", "second"].map((name) => Number(timing.get(name) ?? NaN));
  const data = accept === "application/json" ? JSON.parse(text) : text;
  return { data, trip, compute, second };
}

/** RFC 9457 problem details in one sentence. */
function complaint(status, text) {
  try {
    const { title, detail } = JSON.parse(text);
    if (title) return detail ? `${title}: ${detail}` : title;
  } catch {
    // Not from the service, but from something in between.
  }
  return `The service answered with status ${status}.`;
}

/** Shows the field for the key where one is missing or wrong, and hides it otherwise. */
export function showAccess(error) {
  const locked = error?.status === 401;
  const wasLocked = !byId("access").hidden;
  byId("access").hidden = !locked;
  if (locked && !wasLocked) byId("access").elements.key.focus();
}

/** Keeps the key that is entered for this tab, and goes on with `then`. */
export function useKey(then) {
  byId("access").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = byId("access").elements.key;
    sessionStorage.setItem(KEY, field.value);
    field.value = "";
    then();
  });
}

export const byId = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";
function make(element, attributes, ...children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
export const html = (tag, attributes = {}, ...children) => make(document.createElement(tag), attributes, ...children);
export const svg = (tag, attributes = {}, ...children) => make(document.createElementNS(SVG, tag), attributes, ...children);
