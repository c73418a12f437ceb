// What each page is made of: elements, numbers for people, a line of values, messages, refreshing. Everything that a
// peer can choose (names of channels, users, payloads) is set as text, never as markup, and with hidden characters
// escaped: `element` and `setText` know no other way.

/** Control, bidi and zero-width characters, and others without a glyph. Two names that differ in them look the same. */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;
const escaped = (character) => `\\u{${character.codePointAt(0).toString(16)}}`;

/** A text as it may be shown, for example `\u{202e}` for that character. `keeps`: characters that stay as they are. */
export function visible(text, keeps = "") {
  return String(text).replace(HIDDEN, (character) => (keeps.includes(character) ? character : escaped(character)));
}

/** Makes an element. `options`: text (or `lines`, which keeps its ends), properties, attributes, listeners as `on`. */
export function element(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (name === "text") node.textContent = visible(value);
    else if (name === "lines") node.textContent = visible(value, "\n\t");
    else if (name === "title") node.title = visible(value);
    else if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (name === "class") node.className = value;
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function field(label, input, small = false) {
  return element("label", { class: small ? "small" : "" }, element("span", { text: label }), input);
}

/** By parent: its rows by key. */
const rowsOf = new WeakMap();

/** Keeps the children of `parent` in step with a list, so that a refresh takes neither focus nor selection. */
export function reconcile(parent, items, keyOf, make, update) {
  const before = rowsOf.get(parent) ?? new Map();
  const rows = new Map();
  let next = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (rows.has(key)) continue;
    const row = before.get(key) ?? make(item);
    update(row, item);
    rows.set(key, row);
    if (row === next) next = next.nextSibling;
    else parent.insertBefore(row, next);
  }
  for (const [key, row] of before) if (!rows.has(key)) row.remove();
  rowsOf.set(parent, rows);
}

export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

// Numbers for people.

const grouped = new Intl.NumberFormat("en");
export const count = (number) => grouped.format(Math.round(number));
export function short(number) {
  if (number < 10 && number % 1) return number.toFixed(1);
  if (number < 10_000) return count(number);
  const [scale, unit] = number < 1e6 ? [1e3, "k"] : number < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return (number / scale).toFixed(number / scale < 100 ? 1 : 0) + unit;
}
export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit += 1; }
  return `${number.toFixed(unit && number < 100 ? 1 : 0)} ${units[unit]}`;
}
export function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}
export function nanoseconds(ns) {
  if (ns < 1e3) return `${ns} ns`;
  if (ns < 1e6) return `${+(ns / 1e3).toFixed(0)} µs`;
  if (ns < 1e9) return `${+(ns / 1e6).toFixed(1)} ms`;
  return `${+(ns / 1e9).toFixed(1)} s`;
}
export function clockTime(ms) {
  const date = new Date(ms);
  return date.toLocaleTimeString("en-GB") + "." + String(date.getMilliseconds()).padStart(3, "0");
}
/** The bound below which a share of the values is; `null` without values. */
export function quantile(bounds, counts, share) {
  const all = counts.reduce((sum, one) => sum + one, 0);
  if (!all) return null;
  let seen = 0;
  for (const [index, one] of counts.entries()) {
    seen += one;
    if (seen >= all * share) return { bound: bounds[Math.min(index, bounds.length - 1)], over: index >= bounds.length };
  }
  return null;
}

/** Values of a line. */
export const HISTORY = 60;

/** A line of the last values. */
export class Sparkline {
  constructor(label) {
    const make = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);
    this.values = [];
    this.node = make("svg");
    this.node.setAttribute("class", "spark");
    this.node.setAttribute("viewBox", "0 0 120 38");
    this.node.setAttribute("preserveAspectRatio", "none");
    this.node.setAttribute("role", "img");
    this.label = label;
    this.area = make("path");
    this.area.setAttribute("class", "area");
    this.line = make("path");
    this.node.append(this.area, this.line);
  }
  draw(values) {
    if (values.length < 2) return;
    const top = Math.max(...values, 1e-9);
    const bottom = Math.min(...values);
    const floor = bottom > top * 0.7 ? bottom - (top - bottom) * 0.4 : 0;
    const step = 120 / (Math.max(values.length, HISTORY / 3) - 1);
    const x = (index) => (120 - (values.length - 1 - index) * step).toFixed(1);
    const y = (value) => (36 - ((value - floor) / (top - floor || 1)) * 33).toFixed(1);
    const line = values.map((value, index) => `${index ? "L" : "M"}${x(index)} ${y(value)}`).join("");
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", `${line}L120 38L${x(0)} 38Z`);
    this.node.setAttribute("aria-label", `${this.label}, the last ${values.length} values, at most ${short(top)}`);
  }
}

const state = document.getElementById("state");
const said = document.getElementById("said");
let saidTimer = 0;

/** Says something for a moment, also to a screen reader. */
export function say(text) {
  said.textContent = text;
  said.classList.add("shown");
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => said.classList.remove("shown"), 4000);
}

export function showState(kind, text) {
  if (state.textContent === text) return;
  state.className = `badge ${kind}`;
  state.textContent = text;
}

/** Calls `work` now and every so often while the view is shown and the page is visible. */
export function repeat(view, work, milliseconds) {
  let timer = 0;
  const run = async () => {
    clearTimeout(timer);
    if (!document.hidden) {
      try {
        await work();
      } catch (error) {
        view.failed(error);
      }
    }
    if (!view.signal.aborted) timer = setTimeout(run, milliseconds);
  };
  const wake = () => { if (!document.hidden) run(); };
  document.addEventListener("visibilitychange", wake, { signal: view.signal });
  view.signal.addEventListener("abort", () => clearTimeout(timer));
  run();
  return run;
}

export const link = (name, parameters) => `#/${name}?${new URLSearchParams(parameters)}`;
