"use strict";
// Which examples a view shows, and in which order. No page is needed for this: it is tested by
// itself. Notation: n examples, k scales; a cell is example * k + scale.

const RIGHT = 0.5; // as in router/metrics/oracles.py

const TYPES = {
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array,
};

// Base64 of little-endian numbers -> typed array.
function unpack(column) {
  const text = atob(column.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const codes = new TYPES[column.type](bytes.buffer);
  if (!column.values) return codes;
  const values = Float64Array.from(column.values, (value) => (value === null ? NaN : value));
  const numbers = new Float64Array(codes.length);
  for (let i = 0; i < codes.length; i++) numbers[i] = values[codes[i]];
  return numbers;
}

function decode(payload) {
  const data = { ...payload, n: payload.ids.length, k: payload.options.length };
  for (const part of ["examples", "cells", "smallest", "orders"]) {
    data[part] = {};
    for (const [name, column] of Object.entries(payload[part])) data[part][name] = unpack(column);
  }
  return data;
}

const EMPTY = {
  dataset: "", scale: "", outcome: "", from: "", to: "", change: "",
  rule: "", smallest: "", errors: "", text: "", sort: "logged",
};

const OUTCOMES = ["right", "wrong", "error", "missing"];
const CHANGES = ["lost", "won", "right", "wrong", "differ", "same"];
const ERRORS = ["any", "none"];
const SORTS = ["logged", "id", "dearest", "cheapest", "disagreement"];

// What a link may ask for, with all that this log does not have left out.
function sanitize(data, wanted) {
  const state = { ...EMPTY };
  const among = (name, values) => {
    if (values.includes(wanted[name])) state[name] = wanted[name];
  };
  among("dataset", data.datasets);
  among("scale", data.options);
  among("outcome", OUTCOMES);
  among("from", data.options);
  among("to", data.options);
  among("change", CHANGES);
  among("rule", data.rules);
  among("smallest", [...data.options, "never", "gap"]);
  among("errors", ERRORS);
  among("sort", SORTS);
  if (typeof wanted.text === "string") state.text = wanted.text;
  if (!data.rules.length) state.smallest = ""; // no example is complete
  // One spelling per view: the first choice of these lists is the empty one.
  if (state.rule === data.rules[0]) state.rule = "";
  if (state.change === CHANGES[0]) state.change = "";
  return state;
}

// right, wrong, error or missing.
function outcome(data, cell) {
  const score = data.cells.score[cell];
  if (score >= RIGHT) return "right";
  if (score < RIGHT) return "wrong";
  return data.cells.error[cell] ? "error" : "missing";
}

// Folded texts, made once: a search then only compares.
function folded(data) {
  if (!data.folded) {
    data.folded = data.strings.map((text) => text.toLowerCase());
    data.foldedIds = data.ids.map((text) => text.toLowerCase());
  }
  return data.folded;
}

function textTest(data, text) {
  const wanted = text.toLowerCase();
  const hit = Uint8Array.from(folded(data), (one) => one.includes(wanted));
  const { answer } = data.cells;
  return (i) => {
    if (hit[data.examples.question[i]] || data.foldedIds[i].includes(wanted)) return true;
    for (let cell = i * data.k, end = cell + data.k; cell < end; cell++) {
      if (hit[answer[cell]]) return true;
    }
    return false;
  };
}

function changeTest(data, state) {
  const { k } = data;
  const { score, said } = data.cells;
  const from = data.options.indexOf(state.from), to = data.options.indexOf(state.to);
  const change = state.change || CHANGES[0];
  return (i) => {
    const a = i * k + from, b = i * k + to;
    if (change === "differ" || change === "same") {
      // 0 says that no answer is recorded.
      return said[a] > 0 && said[b] > 0 && (said[a] !== said[b]) === (change === "differ");
    }
    const x = score[a], y = score[b];
    if (Number.isNaN(x) || Number.isNaN(y)) return false;
    const before = change === "lost" || change === "right";
    const after = change === "won" || change === "right";
    return x >= RIGHT === before && y >= RIGHT === after;
  };
}

function errorTest(data, wanted) {
  const { k } = data;
  const { error } = data.cells;
  return (i) => {
    let found = false;
    for (let cell = i * k, end = cell + k; cell < end; cell++) found = found || error[cell] > 0;
    return found === (wanted === "any");
  };
}

// The conditions of a view, cheapest first.
function tests(data, state) {
  const list = [];
  if (state.dataset) {
    const code = data.datasets.indexOf(state.dataset);
    list.push((i) => data.examples.dataset[i] === code);
  }
  if (state.scale && state.outcome) {
    const place = data.options.indexOf(state.scale);
    list.push((i) => outcome(data, i * data.k + place) === state.outcome);
  }
  if (state.from && state.to && state.from !== state.to) list.push(changeTest(data, state));
  if (state.smallest) {
    const names = [...data.options, "never", "gap"];
    const column = data.smallest[state.rule || data.rules[0]];
    const code = names.indexOf(state.smallest);
    list.push((i) => column[i] === code);
  }
  if (state.errors) list.push(errorTest(data, state.errors));
  if (state.text) list.push(textTest(data, state.text));
  return list;
}

// Numbers of the examples that a view shows, in its order.
function select(data, state) {
  const conditions = tests(data, state);
  const found = new Uint32Array(data.n);
  const order = { id: "id", dearest: "cost", cheapest: "cost", disagreement: "disagreement" };
  const sorted = data.orders[order[state.sort]];
  const backwards = state.sort === "cheapest";
  let count = 0;
  for (let place = 0; place < data.n; place++) {
    const at = backwards ? data.n - 1 - place : place;
    const i = sorted ? sorted[at] : at;
    let kept = true;
    for (let c = 0; kept && c < conditions.length; c++) kept = conditions[c](i);
    if (kept) found[count++] = i;
  }
  return found.subarray(0, count);
}

// Per scale of the examples shown: mean score, answers, errors, mean cost.
function summary(data, shown) {
  return data.options.map((scale, place) => {
    let answered = 0, total = 0, errors = 0, spent = 0;
    for (let s = 0; s < shown.length; s++) {
      const cell = shown[s] * data.k + place;
      const score = data.cells.score[cell];
      if (data.cells.error[cell]) errors++;
      if (Number.isNaN(score)) continue;
      answered++;
      total += score;
      spent += data.cells.cost[cell];
    }
    return { scale, answered, errors, accuracy: total / answered, cost: spent / answered };
  });
}

const LONG = 18; // letters

const CHANGED = {
  lost: "right → wrong", won: "wrong → right", right: "right → right", wrong: "wrong → wrong",
  differ: "to another answer", same: "to the same answer",
};

// The filters of a view that narrow it, in words, each with the names of what it was set by. A
// filter that is half set, such as an option without an outcome, is not among them.
function active(data, state) {
  const word = data.option || "scale";
  const list = [];
  const add = (names, text) => list.push({ names, text });
  if (state.text) add(["text"], "“" + state.text + "”");
  if (state.dataset) add(["dataset"], "dataset " + state.dataset);
  if (state.scale && state.outcome) {
    add(["scale", "outcome"], "at " + word + " " + state.scale + ": " + state.outcome);
  }
  if (state.from && state.to && state.from !== state.to) {
    const change = CHANGED[state.change || CHANGES[0]];
    add(["from", "to", "change"], state.from + " to " + state.to + ": " + change);
  }
  if (state.smallest) {
    const rule = state.rule || data.rules[0];
    const names = { never: "none", gap: "unknown, a result is missing" };
    const which = data.options.includes(state.smallest) ? state.smallest : names[state.smallest];
    add(["smallest", "rule"], "smallest sufficient " + word + ": " + which + " (" + rule + ")");
  }
  if (state.errors) add(["errors"], state.errors === "any" ? "with an error" : "without errors");
  return list;
}

// The view without some filters; its order stays.
function without(state, names) {
  const next = { ...state };
  for (const name of names) next[name] = EMPTY[name];
  return next;
}

// Names that fit the head of a narrow column: without what all begin with, up to a sign between
// words; without folders; and without their middle where they are still long.
function shortNames(options) {
  let length = options.length > 1 ? options[0].length : 0;
  for (const name of options) {
    while (!name.startsWith(options[0].slice(0, length))) length--;
  }
  while (length && !/[=:/_ -]/.test(options[0][length - 1])) length--;
  if (options.some((name) => name.length === length)) length = 0;
  let names = options.map((name) => name.slice(length));
  const last = names.map((name) => name.split("/").pop());
  const long = names.some((name) => name.length > LONG);
  if (long && !last.includes("") && new Set(last).size === last.length) names = last;
  names = names.map((name) => {
    const letters = [...name]; // no letter of two code units is cut
    if (letters.length <= LONG) return name;
    return letters.slice(0, LONG / 2 - 2).join("") + "…" + letters.slice(-LONG / 2 - 1).join("");
  });
  return { shared: length ? options[0].slice(0, length) : "", names };
}

function toHash(state, selected) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (value !== EMPTY[name]) parts.set(name, value);
  }
  if (selected) parts.set("id", selected);
  return parts.toString();
}

function fromHash(hash) {
  return Object.fromEntries(new URLSearchParams(hash.replace(/^#/, "")));
}

if (typeof module !== "undefined") {
  module.exports = {
    decode, sanitize, select, summary, toHash, fromHash, outcome, active, without, shortNames, EMPTY,
  };
}
