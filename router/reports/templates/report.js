// Draws the plots of the report over their static figures, switches their lines and the theme, and
// shows where tables go on. Nothing here is needed to read the page.
"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const specs = read("plots");
  const darker = read("dark-colours");
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const redraw = [];
  const config = {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false,
    showTips: false,
    displayModeBar: coarse.matches ? false : "hover",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  function coloured(value) {
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object") {
      const entries = Object.entries(value).map(([key, one]) => [key, coloured(one)]);
      return Object.fromEntries(entries);
    }
    return dark() && Object.hasOwn(darker, value) ? darker[value] : value;
  }

  function parts(spec, hidden, width) {
    const layout = coloured(spec.layout);
    layout.dragmode = coarse.matches ? false : "zoom"; // a finger must be able to scroll past
    if (!layout.meta.bars) layout.height = Math.min(layout.height, Math.max(300, 0.95 * width));
    const data = coloured(spec.data).map((trace) =>
      Object.assign(trace, { visible: !hidden.has(trace.meta.label) })
    );
    return [data, layout];
  }

  function switches(names, hidden, draw) {
    for (const button of names.children) {
      const label = button.dataset.label;
      button.addEventListener("click", () => {
        if (!hidden.delete(label)) hidden.add(label);
        button.setAttribute("aria-pressed", String(!hidden.has(label)));
        draw();
      });
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
      return window.Plotly.react(live, ...parts(spec, hidden, live.clientWidth || 640), config);
    };
    if (names) switches(names, hidden, draw);
    Promise.resolve()
      .then(draw)
      .then(() => {
        still.classList.add("replaced"); // printing still takes it
        if (names) names.hidden = false;
        redraw.push(draw);
      })
      .catch((error) => {
        live.hidden = true;
        console.error(error);
      });
  }

  const again = () => redraw.forEach((draw) => draw());
  system.addEventListener("change", again);
  const theme = document.getElementById("theme");
  if (theme) {
    const say = () => {
      theme.textContent = dark() ? "Light" : "Dark";
      theme.setAttribute("aria-label", `Change to ${dark() ? "light" : "dark"} colours`);
    };
    theme.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      say();
      again();
    });
    system.addEventListener("change", say);
    say();
    theme.hidden = false;
  }

  function edges(box) {
    const left = box.scrollLeft > 1;
    const right = box.scrollLeft + box.clientWidth < box.scrollWidth - 1;
    box.parentNode.classList.toggle("more-left", left);
    box.parentNode.classList.toggle("more-right", right);
    const down = box.scrollTop + box.clientHeight < box.scrollHeight - 1;
    box.parentNode.classList.toggle("more-down", down);
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (scrolls) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex"); // one stop less for a keyboard
  }
  for (const box of document.querySelectorAll(".scroll")) {
    box.addEventListener("scroll", () => edges(box), { passive: true });
    if (window.ResizeObserver) new ResizeObserver(() => edges(box)).observe(box);
    edges(box);
  }

  const folded = () => [...document.querySelectorAll("details")];
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = folded().filter((one) => !one.open);
    for (const one of opened) one.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });
})();
