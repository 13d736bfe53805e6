// Draws the page. Texts of the log are written by textContent and nothing else.

const ROW = 72, NARROW_ROW = 100; // pixels, as in the style sheet
const NARROW = "(max-width: 60rem)"; // as in the style sheet: the detail is then below its row
const TALLEST = 8e6; // pixels that every browser can scroll through
const SPARE = 6; // rows drawn above and below what is seen
const PRINTED = 200; // rows on paper
const MARK = { widest: 30, least: 3, glyph: 13, letter: 8, gap: 2 }; // pixels
const MARKS = { right: "✓", wrong: "✗", error: "!", missing: "–" };

function startPage(document, window) {
  const $ = (name) => document.getElementById(name);
  const data = decode(JSON.parse($("data").textContent));
  const list = $("list"), space = $("space"), pane = $("detail");
  const narrow = window.matchMedia(NARROW);
  const images = typeof data.folder === "string";
  const short = shortNames(data.options);
  const drawn = new Map(); // place -> row
  let state = sanitize(data, {}), shown = new Uint32Array(0), chosen = -1, stretch = 1;
  let at = -1; // place of the chosen question
  let paper = false; // whether the page is being printed

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

  const meta = (i) => data.datasets[data.examples.dataset[i]] + " · " + data.ids[i];
  const row = () => (narrow.matches ? NARROW_ROW : ROW);
  const head = () => $("head").offsetHeight || 0;
  const inPlace = () => (narrow.matches && at >= 0 ? pane.offsetHeight || 0 : 0);
  const seen = () => list.clientHeight - head();
  const topOf = (place, extra = inPlace()) => place * row() + (place > at ? extra : 0);

  // The place whose row is at so many pixels.
  function placeAt(y) {
    const end = (at + 1) * row(), extra = inPlace();
    if (!extra || y < end) return Math.floor(y / row());
    return Math.max(at, Math.floor((y - extra) / row()));
  }

  function marks(i) {
    const box = element("div", "marks");
    data.options.forEach((scale, place) => {
      const what = outcome(data, i * data.k + place);
      const mark = element("span", "mark " + what, MARKS[what]);
      mark.title = scale + ": " + what;
      box.append(mark);
    });
    return box;
  }

  function line(place) {
    const i = shown[place];
    const one = element("div", "row");
    one.id = "row" + place;
    one.setAttribute("role", "option");
    one.setAttribute("aria-setsize", String(shown.length));
    one.setAttribute("aria-posinset", String(place + 1));
    const question = data.strings[data.examples.question[i]];
    const told = data.options.map((scale, k) => scale + " " + outcome(data, i * data.k + k));
    one.setAttribute("aria-label", [question, ...told].join(", "));
    if (images) one.append(image(i, false));
    const words = element("div", "words");
    words.append(element("div", "asked", question), element("div", "soft", meta(i)));
    one.append(words, marks(i));
    one.addEventListener("click", () => (place === at && narrow.matches ? close() : choose(place)));
    return one;
  }

  function draw() {
    const y = list.scrollTop * stretch;
    const begin = paper ? 0 : Math.max(0, placeAt(y) - SPARE);
    const last = paper ? PRINTED : placeAt(y + seen()) + 1 + SPARE;
    const end = Math.min(shown.length, last);
    // Where the list is too tall for a browser, it is scrolled through faster than it is long.
    const shift = list.scrollTop - y, extra = inPlace(), top = head();
    for (const place of drawn.keys()) if (place < begin || place >= end) drawn.delete(place);
    const rows = [];
    for (let place = begin; place < end; place++) {
      if (!drawn.has(place)) drawn.set(place, line(place));
      const one = drawn.get(place); // kept, so that images are not loaded again
      one.style.top = topOf(place, extra) + shift + "px";
      one.setAttribute("aria-selected", String(place === at));
      rows.push(one);
    }
    space.replaceChildren(...rows);
    $("place").style.top = top + (at + 1) * row() + shift + "px";
  }

  function layOut() {
    const height = shown.length * row() + inPlace();
    space.style.height = Math.min(height, TALLEST) + "px";
    const tall = height > TALLEST;
    stretch = tall ? (height - seen()) / (TALLEST - seen()) : 1;
  }

  // Where the pane is, and how wide a mark can be.
  function settle() {
    const wanted = narrow.matches ? $("place") : $("work");
    if (pane.parentNode !== wanted) wanted.append(pane);
    pane.hidden = narrow.matches && at < 0;
    const room = narrow.matches ? list.clientWidth - 26 : 0.45 * list.clientWidth;
    const width = Math.floor((room || Infinity) / data.k) - MARK.gap;
    const mark = Math.max(MARK.least, Math.min(MARK.widest, width));
    list.style.setProperty("--mark", mark + "px");
    const longest = Math.max(...short.names.map((name) => name.length));
    const classes = { small: mark < MARK.glyph, upright: longest * MARK.letter > mark };
    list.className = Object.keys(classes).filter((name) => classes[name]).join(" ");
    layOut();
    draw();
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

  function choose(place, follow) {
    if (!shown.length) return;
    place = Math.max(0, Math.min(shown.length - 1, place));
    const before = topOf(place) - list.scrollTop * stretch; // where its row is seen
    at = place;
    chosen = shown[place];
    list.setAttribute("aria-activedescendant", "row" + place);
    detail();
    settle();
    const top = topOf(place), y = list.scrollTop * stretch;
    const bottom = top + row() + (narrow.matches ? Math.min(inPlace(), seen() - row()) : 0);
    if (!follow) {
      if (inPlace()) list.scrollTop = Math.max(0, top - before) / stretch;
    } else if (top < y) list.scrollTop = top / stretch;
    else if (bottom > y + seen()) list.scrollTop = (bottom - seen()) / stretch;
    draw();
    remember();
  }

  function close() {
    at = chosen = -1;
    list.removeAttribute("aria-activedescendant");
    detail();
    settle();
    remember();
  }

  // --- the chosen question ------------------------------------------------------------------

  // The columns of a question's table: heading, and a cell's text; one without any is left out.
  function columns(i) {
    const { cells } = data;
    const numbers = (key, part = 1) => (cell) => number(cells[key][cell] / part);
    const all = [
      ["score", numbers("score")], ["sure", (cell) => percent(cells.confidence[cell])],
      [data.unit, numbers("cost")], ["text tokens", numbers("text_tokens")],
      ["answer tokens", numbers("answer_tokens")], ["GFLOPs", numbers("flops", 1e9)],
    ];
    const own = data.options.map((_, place) => i * data.k + place);
    // A score of 0 or 1 says no more than its mark.
    const plain = own.every((cell) => [0, 1].includes(cells.score[cell] || 0));
    return all.filter(
      ([title, text]) => own.some((cell) => text(cell) !== "–") && !(title === "score" && plain),
    );
  }

  function answers(i) {
    const table = element("table"), top = element("thead"), head = element("tr");
    const body = element("tbody"), { cells } = data, numbers = columns(i);
    for (const title of [data.option || "scale", "result", "answer"]) head.append(element("th", "", title));
    for (const [title] of numbers) head.append(element("th", "number", title));
    top.append(head);
    data.options.forEach((scale, place) => {
      const cell = i * data.k + place, what = outcome(data, cell), line = element("tr");
      const said = cells.error[cell]
        ? data.strings[cells.error[cell]]
        : cells.answer[cell] ? data.strings[cells.answer[cell]] : "(not recorded)";
      const cut = cells.cut[cell] ? " (cut at its longest length)" : "";
      const mark = MARKS[what] + " " + (what === "missing" ? "missing result" : what);
      line.append(element("td", "option", scale), element("td", what, mark));
      line.append(element("td", cells.error[cell] ? "said error" : "said", said + cut));
      for (const [title, text] of numbers) {
        const one = element("td", "number", text(cell));
        one.setAttribute("data-label", title);
        line.append(one);
      }
      body.append(line);
    });
    table.append(top, body);
    const wide = element("div", "wide");
    wide.append(table);
    return wide;
  }

  function detail() {
    pane.replaceChildren();
    pane.scrollTop = 0;
    if (chosen < 0) {
      pane.append(element("p", "soft hint", "Choose a question: click, or use the arrow keys."));
      return;
    }
    const i = chosen;
    if (images) pane.append(image(i, true));
    pane.append(element("p", "question", data.strings[data.examples.question[i]]));
    pane.append(element("p", "soft", meta(i)));
    const name = data.images[data.examples.image[i]];
    if (name) pane.append(element("p", "soft", name));
    const { expected, metric } = data.examples;
    if (expected[i] || metric[i]) {
      const told = expected[i] ? data.strings[expected[i]] : "no reference answer";
      const how = metric[i] ? " (" + data.strings[metric[i]] + ")" : "";
      pane.append(element("p", "", "expected: " + told + how));
    }
    pane.append(answers(i));
    const names = [...data.options, "none", "unknown: a result is missing"];
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
    fill("change", CHANGES.map((name, place) => [place ? name : "", CHANGED[name]]));
    const others = [["never", "none"], ["gap", "unknown: a result is missing"]];
    fill("smallest", [...same(data.options), ...others], "any");
    fill("rule", data.rules.map((rule, place) => [place ? rule : "", rule]));
    fill("errors", [["any", "with an error"], ["none", "without errors"]], "with and without");
    fill("sort", [
      ["logged", "as logged"], ["id", "id"], ["dearest", "most expensive"],
      ["cheapest", "least expensive"], ["disagreement", "most different answers"],
    ]);
    $("smallest").disabled = !data.rules.length;
    $("shared").textContent = short.shared;
    for (const [place, name] of short.names.entries()) {
      const one = element("span", "name");
      one.append(element("b", "", name), element("i"));
      one.title = data.options[place];
      $("names").append(one);
    }
  }

  // Filters that do nothing look so; those that do stand in words beside the count.
  function tell() {
    const found = active(data, state);
    const set = new Set(found.flatMap((one) => one.names));
    for (const name of Object.keys(EMPTY)) {
      const place = $(name).parentNode;
      if (place) place.className = set.has(name) && state[name] ? "on" : "";
    }
    for (const [name, box] of [["outcome", "outcomes"], ["change", "changes"], ["rule", "sufficient"]]) {
      $(box).className = set.has(name) ? "on" : "";
    }
    $("text").parentNode.className = state.text ? "find on" : "find";
    $("outcome").disabled = !state.scale;
    $("change").disabled = !state.from || !state.to || state.from === state.to;
    $("rule").disabled = !state.smallest;
    $("reset").hidden = !found.length;
    for (const place of ["chips", "set"]) $(place).replaceChildren(...found.map(chip));
    $("empty").hidden = shown.length > 0;
    $("head").hidden = !shown.length;
  }

  function chip(one) {
    const made = element("button", "chip", one.text + " ✕");
    made.type = "button";
    made.title = one.text;
    made.setAttribute("aria-label", "Remove the filter " + one.text);
    made.addEventListener("click", () => {
      show(without(state, one.names));
      list.focus({ preventScroll: true });
    });
    return made;
  }

  function clear() {
    show(without(state, Object.keys(EMPTY).filter((name) => name !== "sort")));
    list.focus({ preventScroll: true });
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
    const means = summary(data, shown);
    $("summary").textContent = means
      .map((one) => {
        const failed = one.errors ? ", " + one.errors.toLocaleString("en") + " errors" : "";
        return one.scale + ": " + percent(one.accuracy) + " right" + failed;
      })
      .join(" · ");
    means.forEach((one, place) => {
      const right = Number.isFinite(one.accuracy) ? Math.round(100 * one.accuracy) + "%" : "–";
      const [, told] = $("names").children[place].children;
      told.textContent = right;
      $("names").children[place].title = one.scale + ": accuracy " + percent(one.accuracy);
    });
    tell();
    list.scrollTop = 0;
    const wanted = id === undefined ? chosen : data.ids.indexOf(id);
    const place = wanted < 0 ? -1 : shown.indexOf(wanted);
    at = -1;
    if (place < 0) close();
    else choose(place, true);
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
    if (event.target !== list) return; // keys inside the detail are the detail's
    if (event.key === "Enter") {
      if (at < 0) choose(0, true);
      pane.focus();
    }
    if (event.key === "Escape" && at >= 0) close();
    const move = KEYS[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const page = Math.max(1, Math.floor(seen() / row()) - 1);
    choose(move(at, page), true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target !== $("text")) {
      event.preventDefault();
      $("text").focus();
    } else if (event.key === "Escape") {
      const inside = event.target === $("text") || pane.contains(event.target);
      if (inside) list.focus({ preventScroll: true });
    }
  });
  let typing = 0;
  $("text").addEventListener("input", () => {
    window.clearTimeout(typing);
    typing = window.setTimeout(() => show(read()), 150);
  });
  for (const name of Object.keys(EMPTY)) {
    if (name !== "text") $(name).addEventListener("change", () => show(read()));
  }
  for (const name of ["reset", "again"]) $(name).addEventListener("click", clear);
  list.addEventListener("scroll", drawSoon, { passive: true });
  const fold = () => ($("more").open = !narrow.matches);
  narrow.addEventListener("change", () => {
    fold();
    drawn.clear();
    settle();
  });
  window.addEventListener("resize", settle);
  if (window.ResizeObserver) {
    const grown = new window.ResizeObserver(() => {
      layOut();
      drawSoon();
    });
    grown.observe(pane);
    grown.observe(list);
  }
  let tables = false; // whether the reader had them open
  for (const [name, printing] of [["beforeprint", true], ["afterprint", false]]) {
    window.addEventListener(name, () => {
      paper = printing;
      if (printing) tables = $("tables").open;
      $("tables").open = printing || tables;
      $("printed").hidden = !printing || shown.length <= PRINTED;
      $("printed").textContent =
        "The first " + PRINTED + " of " + shown.length.toLocaleString("en") + " questions.";
      draw();
    });
  }
  window.addEventListener("hashchange", fromAddress);
  fold();
  fillAll();
  fromAddress();
}

if (typeof document !== "undefined") startPage(document, window);
