// The page at /docs: the service's OpenAPI document for people to read.

import { ServiceError, byId, call, html, showAccess, useKey } from "./common.js";

/** A schema in a few words; what it refers to by name is looked up in the document. */
function typeOf(schema, document) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  const parts = schema.anyOf ?? schema.oneOf;
  if (parts) return parts.filter((part) => part.type !== "null").map((part) => typeOf(part, document)).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items, document) || "anything"}`;
  const least = schema.minimum ?? (schema.exclusiveMinimum === undefined ? "" : `above ${schema.exclusiveMinimum}`);
  const most = schema.maximum ?? (schema.exclusiveMaximum === undefined ? "" : `below ${schema.exclusiveMaximum}`);
  const bounds = [least, most].filter((bound) => bound !== "").join(" to ");
  return `${schema.format ?? schema.type ?? "object"}${bounds && `, ${bounds}`}`;
}

/** Text with `code` in it as nodes. */
const rich = (text) => text.split("`").map((part, i) => (i % 2 ? html("code", {}, part) : part));

const row = (cells) => html("tr", {}, ...cells.map((cell, i) => html(i ? "td" : "th", i ? {} : { scope: "row" }, ...rich(cell))));

const table = (heads, rows) => html("div", { class: "scroll" }, html("table", { class: "prose" },
  html("thead", {}, html("tr", {}, ...heads.map((head) => html("th", { scope: "col" }, head)))),
  html("tbody", {}, ...rows.map(row))));

function members(schema, document) {
  const found = schema?.$ref ? document.components.schemas[schema.$ref.split("/").at(-1)] : schema;
  const needed = new Set(found?.required);
  return Object.entries(found?.properties ?? {}).map(([name, property]) =>
    [`${name}${needed.has(name) ? "" : " (optional)"}`, typeOf(property, document), property.description ?? ""]);
}

function route(path, method, operation, document) {
  const [first, ...more] = (operation.description ?? operation.summary ?? "").split("\n\n");
  const parts = more.map((paragraph) => html("p", {}, ...rich(paragraph)));
  const parameters = (operation.parameters ?? []).map(({ name, in: place, required, schema, description }) =>
    [`${name}${required ? "" : " (optional)"}`, `${place}: ${typeOf(schema, document)}`, description ?? schema?.description ?? ""]);
  if (parameters.length) parts.push(html("h3", {}, "Parameters"), table(["name", "type", "meaning"], parameters));
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    parts.push(html("h3", {}, `Body: ${type}`));
    const rows = members(schema, document);
    if (rows.length) parts.push(table(["member", "type", "meaning"], rows));
  }
  const answers = [];
  for (const [status, { description, content }] of Object.entries(operation.responses ?? {})) {
    const types = Object.entries(content ?? {}).map(([type, { schema }]) => `${type}${schema?.$ref ? ` (${typeOf(schema, document)})` : ""}`);
    answers.push([status, types.join(", "), description ?? ""]);
  }
  parts.push(html("h3", {}, "Answers"), table(["status", "content", "meaning"], answers));
  const own = Object.entries(operation.responses ?? {}).find(([status]) => status.startsWith("2"))?.[1].content?.["application/json"];
  const rows = members(own?.schema, document);
  if (rows.length) parts.push(html("h3", {}, "Members of the answer"), table(["member", "type", "meaning"], rows));
  const id = `${method}-${path}`.replaceAll(/[^a-z0-9]+/gi, "-");
  return html("details", { class: "route", id }, html("summary", {}, html("code", {}, `${method.toUpperCase()} ${path}`), html("p", {}, ...rich(first))), ...parts);
}

async function load() {
  byId("error").hidden = true;
  try {
    const { data: document } = await call("openapi.json");
    byId("description").replaceChildren(...rich(document.info.description));
    byId("routes").replaceChildren(...Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => route(path, method, operation, document))));
    showAccess(null);
  } catch (error) {
    byId("error").hidden = false;
    byId("error").textContent = error.message;
    showAccess(error);
    if (!(error instanceof ServiceError)) throw error;
  }
}

useKey(load);
byId("document").addEventListener("click", async (event) => {
  event.preventDefault(); // a link sends no key
  const { data } = await call("openapi.json");
  location.href = URL.createObjectURL(new Blob([JSON.stringify(data, null, 2)], { type: "application/json" }));
});
load();
