// Draws the page. Texts of the log are written by textContent and nothing else.

const ROW = 60; // pixels, as in the style sheet
const TALLEST = 8e6; // pixels that every browser can scroll through
const SPARE = 6; // rows drawn above and below what is seen
const MARKS = { right: "✓", wrong: "✗", error: "!", missing: "–" };

function startPage(document, window) {
  const $ = (name) => document.getElementById(name);
  const data = decode(JSON.parse($("data").textContent));
  const list = $("list"), space = $("space");
  const images = typeof data.folder === "string";
  const drawn = new Map(); // place -> row
  let state = sanitize(data, {}), shown = new Uint32Array(0), chosen = -1, stretch = 1;

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function number(value, digits = 3) {
    if (!Number.isFinite(value)) return "–";
    return value >= 100
      ? Math.round(value).toLocaleString("en")
      : String(Number(value.toPrecision(digits)));
  }
  const percent = (value) => (Number.isFinite(value) ? (100 * value).toFixed(1) + " %" : "–");

  // --- images ---------------------------------------------------------------------------

  function address(path) {
    if (!data.folder || !path) return "";
    try {
      return data.folder + path.split("/").map(encodeURIComponent).join("/");
    } catch {
      return ""; // a name that no address can hold
    }
  }

  function image(i, large) {
    const box = element("div", "image");
    const code = data.examples.image[i];
    const inside = data.thumbnails[code];
    const outside = inside === "" ? "" : address((data.files || {})[code] || data.images[code]);
    const sources = (large ? [outside, inside] : [inside, outside]).filter(Boolean);
    const next = () => {
      box.replaceChildren();
      const source = sources.shift();
      if (!source) {
        if (images) box.textContent = "no image";
        return;
      }
      const image = element("img");
      image.loading = "lazy";
      image.alt = "";
      image.addEventListener("error", next, { once: true });
      image.src = source;
      box.append(image);
    };
    next();
    return box;
  }

  // --- the list: only what is seen exists ---------------------------------------------------

  function row(place) {
    const i = shown[place];
    const one = element("div", "row");
    one.id = "row" + place;
    one.setAttribute("role", "option");
    one.setAttribute("aria-setsize", String(shown.length));
    one.setAttribute("aria-posinset", String(place + 1));
    if (images) one.append(image(i, false));
    const words = element("div", "words");
    words.append(
      element("div", "", data.strings[data.examples.question[i]]),
      element("div", "soft", data.datasets[data.examples.dataset[i]] + " · " + data.ids[i]),
    );
    const marks = element("div", "marks");
    data.options.forEach((scale, at) => {
      const what = outcome(data, i * data.k + at);
      const mark = element("span", "mark " + what, MARKS[what]);
      mark.title = scale + ": " + what;
      marks.append(mark);
    });
    one.append(words, marks);
    one.addEventListener("click", () => choose(place, false));
    return one;
  }

  function draw() {
    const first = Math.floor((list.scrollTop * stretch) / ROW);
    const fits = Math.ceil(list.clientHeight / ROW);
    const begin = Math.max(0, first - SPARE), end = Math.min(shown.length, first + fits + SPARE);
    // Where the list is too tall for a browser, it is scrolled through faster than it is long.
    const shift = list.scrollTop - list.scrollTop * stretch;
    for (const place of drawn.keys()) if (place < begin || place >= end) drawn.delete(place);
    const rows = [];
    for (let place = begin; place < end; place++) {
      if (!drawn.has(place)) drawn.set(place, row(place));
      const one = drawn.get(place); // kept, so that images are not loaded again
      one.style.top = place * ROW + shift + "px";
      one.setAttribute("aria-selected", String(shown[place] === chosen));
      rows.push(one);
    }
    space.replaceChildren(...rows);
  }

  function layOut() {
    const height = shown.length * ROW;
    space.style.height = Math.min(height, TALLEST) + "px";
    const tall = height > TALLEST;
    stretch = tall ? (height - list.clientHeight) / (TALLEST - list.clientHeight) : 1;
  }

  let waiting = false;
  function drawSoon() {
    if (waiting) return;
    waiting = true;
    window.requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }

  function choose(place, scroll) {
    if (!shown.length) return;
    place = Math.max(0, Math.min(shown.length - 1, place));
    chosen = shown[place];
    if (scroll) {
      const top = place * ROW, seen = list.scrollTop * stretch;
      if (top < seen) list.scrollTop = top / stretch;
      else if (top + ROW > seen + list.clientHeight) {
        list.scrollTop = (top + ROW - list.clientHeight) / stretch;
      }
    }
    list.setAttribute("aria-activedescendant", "row" + place);
    detail();
    draw();
    remember();
  }

  // --- the chosen question ------------------------------------------------------------------

  function detail() {
    const pane = $("detail");
    pane.replaceChildren();
    pane.scrollTop = 0;
    if (chosen < 0) {
      pane.append(element("p", "soft", "Choose a question: click, or use the arrow keys."));
      return;
    }
    const i = chosen;
    if (images) pane.append(image(i, true));
    pane.append(element("p", "question", data.strings[data.examples.question[i]]));
    pane.append(
      element("p", "soft", data.datasets[data.examples.dataset[i]] + " · " + data.ids[i]),
    );
    const name = data.images[data.examples.image[i]];
    if (name) pane.append(element("p", "soft", name));
    const { expected, metric } = data.examples;
    if (expected[i] || metric[i]) {
      const told = expected[i] ? data.strings[expected[i]] : "no reference answer";
      const how = metric[i] ? " (" + data.strings[metric[i]] + ")" : "";
      pane.append(element("p", "", "expected: " + told + how));
    }
    const table = element("table"), head = element("tr"), body = element("tbody");
    const top = element("thead");
    for (const title of [data.option || "scale", "", "answer", "score", "sure", data.unit, "text", "answer tokens", "GFLOPs"]) {
      head.append(element("th", "", title));
    }
    top.append(head);
    data.options.forEach((scale, place) => {
      const cell = i * data.k + place, cells = data.cells;
      const what = outcome(data, cell), line = element("tr");
      const said = cells.error[cell]
        ? data.strings[cells.error[cell]]
        : cells.answer[cell] ? data.strings[cells.answer[cell]] : "(not recorded)";
      const cut = cells.cut[cell] ? " (cut at its longest length)" : "";
      line.append(element("td", "", scale), element("td", what, MARKS[what] + " " + what));
      line.append(element("td", cells.error[cell] ? "error" : "", said + cut));
      line.append(element("td", "", number(cells.score[cell])));
      line.append(element("td", "", percent(cells.confidence[cell])));
      for (const key of ["cost", "text_tokens", "answer_tokens"]) {
        line.append(element("td", "", number(cells[key][cell])));
      }
      line.append(element("td", "", number(cells.flops[cell] / 1e9)));
      body.append(line);
    });
    table.append(top, body);
    pane.append(table);
    const names = [...data.options, "never", "unknown: a gap"];
    for (const rule of data.rules) {
      const text = "smallest sufficient, " + rule + ": " + names[data.smallest[rule][i]];
      pane.append(element("p", "soft", text));
    }
  }

  // --- filters ------------------------------------------------------------------------------

  function fill(name, choices, all) {
    const select = $(name);
    const wanted = all === undefined ? choices : [["", all], ...choices];
    for (const [value, text] of wanted) {
      const option = element("option", "", text);
      option.value = value;
      select.append(option);
    }
  }

  function fillAll() {
    const same = (values) => values.map((value) => [value, value]);
    fill("dataset", same([...data.datasets].sort()), "all");
    for (const name of ["scale", "from", "to"]) fill(name, same(data.options), "any");
    fill("outcome", same(OUTCOMES), "anything");
    fill("change", [
      ["", "right → wrong"], ["won", "wrong → right"], ["right", "right → right"],
      ["wrong", "wrong → wrong"], ["differ", "to another answer"], ["same", "to the same answer"],
    ]);
    fill("smallest", [...same(data.options), ["never", "never"], ["gap", "unknown: a gap"]], "any");
    fill("rule", data.rules.map((rule, place) => [place ? rule : "", rule]));
    fill("errors", [["any", "with an error"], ["none", "without errors"]], "with and without");
    fill("sort", [
      ["logged", "as logged"], ["id", "id"], ["dearest", "most expensive"],
      ["cheapest", "least expensive"], ["disagreement", "most different answers"],
    ]);
    for (const name of data.rules.length ? [] : ["smallest", "rule"]) $(name).disabled = true;
  }

  function read() {
    const wanted = {};
    for (const name of Object.keys(EMPTY)) wanted[name] = $(name).value;
    return sanitize(data, wanted);
  }

  function remember() {
    const hash = "#" + toHash(state, chosen < 0 ? "" : data.ids[chosen]);
    if (window.location.hash !== hash) window.history.replaceState(null, "", hash);
  }

  function show(next, id) {
    state = next;
    for (const name of Object.keys(EMPTY)) $(name).value = state[name];
    shown = select(data, state);
    drawn.clear();
    layOut();
    $("count").textContent =
      shown.length.toLocaleString("en") + " of " + data.n.toLocaleString("en") + " questions";
    $("summary").textContent = summary(data, shown)
      .map((one) => {
        const failed = one.errors ? ", " + one.errors.toLocaleString("en") + " errors" : "";
        return one.scale + ": " + percent(one.accuracy) + " right" + failed;
      })
      .join(" · ");
    list.scrollTop = 0;
    const wanted = id === undefined ? chosen : data.ids.indexOf(id);
    const place = wanted < 0 ? -1 : shown.indexOf(wanted);
    if (place < 0) {
      chosen = -1;
      list.removeAttribute("aria-activedescendant");
      detail();
      draw();
      remember();
    } else choose(place, true);
  }

  function fromAddress() {
    const wanted = fromHash(window.location.hash);
    show(sanitize(data, wanted), wanted.id);
  }

  const KEYS = {
    ArrowDown: (at) => at + 1,
    ArrowUp: (at) => at - 1,
    j: (at) => at + 1,
    k: (at) => at - 1,
    PageDown: (at, page) => at + page,
    PageUp: (at, page) => at - page,
    Home: () => 0,
    End: () => shown.length - 1,
  };
  list.addEventListener("keydown", (event) => {
    const move = KEYS[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const at = chosen < 0 ? -1 : shown.indexOf(chosen);
    choose(move(at, page), true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target !== $("text")) {
      event.preventDefault();
      $("text").focus();
    } else if (event.key === "Escape" && event.target === $("text")) list.focus();
  });
  let typing = 0;
  $("text").addEventListener("input", () => {
    window.clearTimeout(typing);
    typing = window.setTimeout(() => show(read()), 150);
  });
  for (const name of Object.keys(EMPTY)) {
    if (name !== "text") $(name).addEventListener("change", () => show(read()));
  }
  $("reset").addEventListener("click", () => show(sanitize(data, {})));
  list.addEventListener("scroll", drawSoon, { passive: true });
  window.addEventListener("resize", () => {
    layOut();
    drawSoon();
  });
  window.addEventListener("hashchange", fromAddress);
  fillAll();
  fromAddress();
}

if (typeof document !== "undefined") startPage(document, window);
