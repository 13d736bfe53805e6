// Draws the plots of the report over their static figures, with a legend that keyboards reach.
"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const specs = read("plots");
  const darker = read("dark-colours");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const config = {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false,
    showTips: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };

  function coloured(value) {
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object") {
      const entries = Object.entries(value).map(([key, one]) => [key, coloured(one)]);
      return Object.fromEntries(entries);
    }
    return dark.matches && Object.hasOwn(darker, value) ? darker[value] : value;
  }

  function parts(spec, hidden) {
    const layout = coloured(spec.layout);
    layout.dragmode = coarse.matches ? false : "zoom"; // a finger must be able to scroll past
    const data = coloured(spec.data).map((trace) =>
      Object.assign(trace, { visible: !hidden.has(trace.meta.label) })
    );
    return [data, layout];
  }

  function legend(place, spec, hidden, draw) {
    const seen = new Set();
    for (const trace of spec.data) {
      const label = trace.meta.label;
      if (seen.has(label) || spec.data.every((one) => one.meta.label === label)) continue;
      seen.add(label);
      const button = document.createElement("button");
      const swatch = document.createElement("i");
      button.type = "button";
      swatch.dataset.kind = trace.marker && trace.mode !== "lines" ? "mark" : "line";
      button.append(swatch, document.createTextNode(label));
      const paint = () => {
        const own = spec.data.filter((one) => one.meta.label === label).pop();
        const look = (own.marker && own.marker.color) || own.line.color;
        swatch.style.color = coloured(look);
        swatch.style.borderTopStyle = own.line && own.line.dash ? "dashed" : "solid";
        button.setAttribute("aria-pressed", String(!hidden.has(label)));
      };
      button.addEventListener("click", () => {
        if (!hidden.delete(label)) hidden.add(label);
        draw();
      });
      button.paint = paint;
      place.append(button);
    }
  }

  for (const figure of document.querySelectorAll("figure[data-plot]")) {
    const spec = specs[figure.dataset.plot];
    const [still, live, names] = [".still", ".live", ".legend"].map((one) =>
      figure.querySelector(one)
    );
    if (!spec || !window.Plotly) continue;
    const hidden = new Set();
    const draw = () => {
      live.hidden = false;
      for (const button of names.children) button.paint();
      return window.Plotly.react(live, ...parts(spec, hidden), config);
    };
    legend(names, spec, hidden, draw);
    Promise.resolve()
      .then(draw)
      .then(() => {
        still.classList.add("replaced"); // printing still takes it
        names.hidden = false;
        dark.addEventListener("change", draw);
      })
      .catch((error) => {
        live.hidden = true;
        console.error(error);
      });
  }
})();
