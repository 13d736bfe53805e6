// Runs the script of a page without a browser: `node page_stub.js PAGE < steps`, steps being a
// JSON list of {set: {id: value}}, {key: name}, {click: row}, {press: id} or {hash: text}. Prints what the page
// shows before the first and after every step. The stub knows no innerHTML: using it is an error.
"use strict";
const fs = require("fs");

class Element {
  constructor(name) {
    Object.assign(this, { name, children: [], attributes: {}, listeners: {}, parentNode: null });
    this.style = { setProperty() {} };
    Object.assign(this, { className: "", scrollTop: 0, clientHeight: 600, text: "", chosen: "" });
  }
  set textContent(text) {
    this.children = [];
    this.text = String(text);
  }
  get textContent() {
    return this.text + this.children.map((one) => one.textContent).join("");
  }
  set innerHTML(_) {
    throw new Error("innerHTML was written");
  }
  set value(value) {
    const known = this.children.filter((one) => one.name === "option");
    this.chosen = !known.length || known.some((one) => one.chosen === value) ? value : "";
    if (this.name === "option") this.chosen = value;
  }
  get value() {
    return this.chosen;
  }
  append(...more) {
    for (const one of more) if (!(one instanceof Element)) throw new Error("text was appended");
    for (const one of more) one.parentNode = this;
    this.children.push(...more);
  }
  replaceChildren(...more) {
    this.text = "";
    this.children = [];
    this.append(...more);
  }
  setAttribute(name, value) {
    this.attributes[name] = value;
  }
  removeAttribute(name) {
    delete this.attributes[name];
  }
  addEventListener(name, listener) {
    (this.listeners[name] ||= []).push(listener);
  }
  fire(name, event = {}) {
    for (const one of this.listeners[name] || []) {
      one({ preventDefault() {}, target: this, ...event });
    }
  }
  focus() {}
  find(test) {
    const below = this.children.flatMap((one) => one.find(test));
    return test(this) ? [this, ...below] : below;
  }
}

const page = fs.readFileSync(process.argv[2], "utf8");
const [, data] = page.match(/<script type="application\/json" id="data">(.*?)<\/script>/s);
const [, script] = page.match(/<script>(.*?)<\/script>/s);
const named = {};
for (const [, name, id] of page.matchAll(/<(\w+)[^>]*\bid="(\w+)"/g)) named[id] = new Element(name);
named.data.textContent = data;
for (const one of Object.values(named)) one.parentNode = new Element("label");
named.detail.parentNode = named.work;
const document = Object.assign(new Element("document"), {
  getElementById: (id) => named[id],
  createElement: (name) => new Element(name),
});
const window = Object.assign(new Element("window"), {
  location: { hash: process.argv[3] || "" },
  history: { replaceState: (_, __, hash) => (window.location.hash = hash) },
  requestAnimationFrame: (run) => run(),
  matchMedia: () => ({ matches: false, addEventListener() {} }),
  setTimeout: (run) => run(),
  clearTimeout() {},
});

function look() {
  const rows = named.space.children.filter((one) => one.className === "row");
  return {
    count: named.count.textContent,
    summary: named.summary.textContent,
    rows: rows.map((one) => one.textContent),
    tops: rows.map((one) => one.style.top),
    height: named.space.style.height,
    chosen: rows.filter((one) => one.attributes["aria-selected"] === "true").map((one) => one.id),
    images: rows.flatMap((one) => one.find((e) => e.name === "img").map((image) => image.src)),
    detail: named.detail.textContent,
    hash: window.location.hash,
    chips: named.chips.children.map((one) => one.textContent),
    empty: !named.empty.hidden,
    head: named.names.children.map((one) => one.textContent),
    elements: [...new Set(named.space.find(() => true).map((one) => one.name))],
  };
}

new Function("document", "window", script)(document, window);
const seen = [look()];
for (const step of JSON.parse(fs.readFileSync(0, "utf8"))) {
  for (const [id, value] of Object.entries(step.set || {})) {
    named[id].value = value;
    named[id].fire(id === "text" ? "input" : "change");
  }
  if (step.key) named.list.fire("keydown", { key: step.key });
  if (step.click !== undefined) named.space.children[step.click].fire("click");
  if (step.press) named[step.press].fire("click");
  if (step.scroll !== undefined) {
    named.list.scrollTop = step.scroll;
    named.list.fire("scroll");
  }
  if (step.broken) {
    for (const image of named.space.find((one) => one.name === "img")) image.fire("error");
  }
  if (step.hash !== undefined) {
    window.location.hash = step.hash;
    window.fire("hashchange");
  }
  seen.push(look());
}
console.log(JSON.stringify(seen));
