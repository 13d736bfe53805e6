// Runs a report's scripts without a browser: `node report_stub.js PAGE [dark]`. Prints, as JSON,
// what plotly itself says against each plot, and what the page's own script drew and showed.
"use strict";
const fs = require("fs");
const vm = require("vm");

const page = fs.readFileSync(process.argv[2], "utf8");
const scripts = [...page.matchAll(/<script([^>]*)>([\s\S]*?)<\/script>/g)];
const json = (id) => scripts.find((one) => one[1].includes(`id="${id}"`))[2];
const [drawing, own] = scripts.filter((one) => one[1] === "").map((one) => one[2]);

// Anything at all, for the bundle's probing of browsers while it loads.
function anything(name) {
  return new Proxy(function () {}, {
    get: (target, key) => {
      if (key === Symbol.toPrimitive) return () => "";
      if (key === "length") return 0;
      if (key === "then") return undefined;
      return key in target ? target[key] : anything(`${name}.${String(key)}`);
    },
    set: () => true,
    apply: () => anything(`${name}()`),
    construct: () => anything(`new ${name}`),
  });
}
const asked = [];
const refuse = (name) => (...args) => {
  asked.push(`${name} ${String(args[0])}`);
  throw new Error(`${name} was used`);
};
globalThis.window = globalThis.self = globalThis;
globalThis.document = anything("document");
Object.defineProperty(globalThis, "navigator", { value: { userAgent: "node" } });
for (const name of ["DOMParser", "XMLSerializer", "Image", "Worker"]) {
  globalThis[name] = anything(name);
}
globalThis.fetch = refuse("fetch");
globalThis.XMLHttpRequest = refuse("XMLHttpRequest");
globalThis.getComputedStyle = () => anything("style");
globalThis.requestAnimationFrame = setTimeout;
vm.runInThisContext(drawing);
const plots = JSON.parse(json("plots"));
const width = 640; // else plotly asks the window
const wrong = Object.entries(plots).flatMap(([name, one]) =>
  (Plotly.validate(one.data, { ...one.layout, width }) || []).map((it) => `${name}: ${it.msg}`)
);

// The page's own script, with a document that has just what it may use.
class Element {
  constructor(name) {
    Object.assign(this, { name, children: [], dataset: {}, style: {}, listeners: {}, hidden: true });
    this.attributes = {};
    this.classes = new Set();
    this.classList = { add: (one) => this.classes.add(one) };
  }
  append(...more) {
    this.children.push(...more);
  }
  setAttribute(name, value) {
    this.attributes[name] = value;
  }
  addEventListener(name, listener) {
    this.listeners[name] = listener;
  }
  querySelector(name) {
    return this.parts[name];
  }
}
const figures = [...page.matchAll(/<figure data-plot="([^"]+)"/g)].map((match) => {
  const figure = new Element("figure");
  figure.dataset.plot = match[1];
  figure.parts = {};
  for (const name of [".still", ".live", ".legend"]) figure.parts[name] = new Element(name);
  const inside = page.slice(match.index, page.indexOf("</figure>", match.index));
  for (const [, label] of inside.matchAll(/<button [^>]*data-label="([^"]*)"/g)) {
    const button = new Element("button");
    button.dataset.label = label.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
    button.setAttribute("aria-pressed", "true");
    figure.parts[".legend"].append(button);
  }
  return figure;
});
globalThis.document = {
  documentElement: new Element("html"),
  getElementById: (id) => (id === "theme" ? null : { textContent: json(id) }),
  querySelectorAll: (query) => (query.startsWith("figure") ? figures : []),
};
const changes = [];
globalThis.addEventListener = () => {};
globalThis.matchMedia = (query) => ({
  matches: process.argv[3] === "dark" && query.includes("dark"),
  addEventListener: (_, listener) => changes.push(listener),
});
const drawn = [];
Plotly.react = (live, data, layout) => {
  drawn.push({ data, layout });
  return Promise.resolve(live);
};
vm.runInThisContext(own);
setTimeout(() => {
  const first = drawn.slice();
  const legend = figures[0].parts[".legend"].children;
  legend[0].listeners.click();
  const toggled = drawn[drawn.length - 1];
  const out = {
    version: Plotly.version,
    wrong,
    asked,
    plots: figures.map((one) => one.dataset.plot),
    drawn: first,
    replaced: figures.map((one) => one.parts[".still"].classes.has("replaced")),
    shown: figures.map((one) => !one.parts[".live"].hidden && !one.parts[".legend"].hidden),
    legend: legend.map((one) => one.dataset.label),
    pressed: legend.map((one) => one.attributes["aria-pressed"]),
    hidden: toggled.data.filter((one) => !one.visible).map((one) => one.meta.label),
    themes: changes.length,
  };
  // Exiting cuts what a pipe has not taken yet.
  process.stdout.write(JSON.stringify(out), () => process.exit(0));
}, 0);
