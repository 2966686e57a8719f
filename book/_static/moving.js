// Figures that a reader moves (lottolab/pages/moving.py): choose a state and draw it.
// A classic script without requests, so that it runs from file:// too. All numbers stand
// in the page; here they are chosen and formatted, and none is computed; on a grid it is
// counted what a reader flipped. Without it, and on paper, the picture stands that is in
// the page anyway.
(function () {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  let made = 0;  // controls and panels, to name them

  function element(name, words, attributes, space) {
    const e = space ? document.createElementNS(space, name) : document.createElement(name);
    if (words !== "") e.textContent = words;
    for (const key in attributes || {}) e.setAttribute(key, attributes[key]);
    return e;
  }
  const shape = (name, attributes, words) => element(name, words || "", attributes, SVG);

  function percent(value) {
    const v = 100 * value;
    return v.toFixed(v && Math.abs(v) < 0.995 ? 2 : 1);
  }
  const FORMS = { percent: [percent, "\u00a0%"], number: [value => value.toFixed(2), ""] };

  function cell(form, value) {  // nothing, a text, a number, or one with its interval
    if (value === null || typeof value === "string") return [value || "–", ""];
    const [words, unit] = FORMS[form];
    const [middle, ...ends] = [value].flat().map(words);
    return [middle + unit, ends.length ? ends.join(" to ") + unit : ""];
  }

  // ---------------------------------------------------------------- scales and axes

  function scale(kind, low, high, from, to) {
    const f = kind === "log" ? Math.log10 : x => x;
    const at = x => from + (to - from) * (f(x) - f(low)) / (f(high) - f(low));
    return x => at(Math.min(Math.max(x, low), high));
  }

  function ticks(kind, low, high, most) {
    if (kind === "log") {
      const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
      return Array.from({ length: last - first + 1 }, (_, i) => Number("1e" + (first + i)));
    }
    const rough = (high - low) / most, unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 2.5, 5, 10].find(k => k * unit >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  }

  function label(value, axis) {
    return String(Number((value * (axis.endsWith("(%)") ? 100 : 1)).toPrecision(6)))
      .replace("-", "−");
  }

  function picture(width, height, title) {
    const given = { viewBox: "0 0 " + width + " " + height, width, height, role: "img" };
    return shape("svg", { ...given, "aria-label": title });
  }

  const SHAPES = [  // of marks, by look, around 0
    r => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
    r => `M0 ${-r}L${r} ${r}H${-r}Z`,
    r => `M${-r} ${-r}H${r}V${r}H${-r}Z`,
    r => `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0Z`,
    r => `M0 ${r}L${r} ${-r}H${-r}Z`,
    r => `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`,
  ];
  const MARKED = ["points", "joined"];

  function mark(kind, look, x, y, r) {
    const given = { class: kind + " look-" + look, d: SHAPES[look](r) };
    return shape("path", { ...given, transform: `translate(${x} ${y})` });
  }

  function legend(names, type) {  // names, looks and kinds
    const list = element("ul", "", { class: "moving-legend" });
    for (const [name, look, kind] of names) {
      const swatch = shape("svg", { width: 26, height: 12, "aria-hidden": "true" });
      const on = { class: "look-" + look };
      if (type === "Bars") swatch.append(shape("rect", { ...on, x: 1, y: 1, width: 24, height: 10 }));
      else if (kind !== "points") swatch.append(shape("path", { ...on, d: "M0 6H26" }));
      if (MARKED.includes(kind)) swatch.append(mark("mark", look, 13, 6, 4));
      const item = element("li", "");
      item.append(swatch, " " + name);
      list.append(item);
    }
    return list;
  }

  // --------------------------------------------------------------------- the panels

  function plot(panel, pick, width) {
    const height = Math.round(Math.min(260, Math.max(160, width * 0.52)));
    const [left, right, top, bottom] = [46, width - 12, 8, height - 42];
    const [xname, xkind, ...xends] = panel.xs, [yname, ykind, low, high] = panel.ys;
    const all = panel.series.flatMap(s => pick(s.x));
    const ends = xends[0] === null ? [Math.min(...all), Math.max(...all)] : xends;
    const x = scale(xkind, ...ends, left, right), y = scale(ykind, low, high, bottom, top);
    const svg = picture(width, height, panel.title + ". Its numbers stand below.");
    for (const t of ticks(xkind, ...ends, width / 80)) {
      svg.append(shape("path", { class: "grid", d: `M${x(t)} ${top}V${bottom}` }));
      svg.append(shape("text", { x: x(t), y: bottom + 16, "text-anchor": "middle" }, label(t, xname)));
    }
    for (const t of ticks(ykind, low, high, Math.max(4, height / 45))) {
      svg.append(shape("path", { class: "grid", d: `M${left} ${y(t)}H${right}` }));
      svg.append(shape("text", { x: left - 6, y: y(t) + 4, "text-anchor": "end" }, label(t, yname)));
    }
    svg.append(shape("path", { class: "axis", d: `M${left} ${top}V${bottom}H${right}` }));
    svg.append(shape("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, xname));
    const mid = (top + bottom) / 2;
    svg.append(shape("text", { x: 11, y: mid, "text-anchor": "middle", transform: `rotate(-90 11 ${mid})` }, yname));
    if (panel.diagonal) {
      const d = Array.from({ length: 101 }, (_, i) => xkind === "log"
        ? ends[0] * (ends[1] / ends[0]) ** (i / 100) : ends[0] + (ends[1] - ends[0]) * i / 100);
      const inside = d.filter(v => v >= low && v <= high).map(v => x(v) + " " + y(v));
      svg.append(shape("path", { class: "chance", d: "M" + inside.join("L") }));
    }
    if (panel.level != null) {
      svg.append(shape("path", { class: "chance", d: `M${left} ${y(panel.level)}H${right}` }));
    }
    for (const s of panel.series) {
      const xs = pick(s.x).map(x), ys = pick(s.y).map(y), names = s.names ? pick(s.names) : [];
      let d = "M" + xs.map((v, i) => v + " " + ys[i]).join("L");
      if (s.kind === "steps") {
        d = "M" + xs[0] + " " + bottom + ys.map((v, i) => `V${v}H${xs[i + 1]}`).join("") + "V" + bottom;
        svg.append(shape("path", { class: "area look-" + s.look, d }));
      }
      if (s.kind !== "points") svg.append(shape("path", { class: "look-" + s.look, d }));
      if (!MARKED.includes(s.kind)) continue;
      xs.forEach((v, i) => {
        const one = mark("mark", s.look, v, ys[i], 4);
        if (names[i]) one.append(shape("title", {}, names[i]));
        svg.append(one);
      });
    }
    for (const s of panel.series) {
      if (!s.dot) continue;
      const [cx, cy] = pick(s.dot);
      if (s.reach) {
        const [x0, x1, y0, y1] = pick(s.reach);
        const d = `M${x(x0)} ${y(cy)}H${x(x1)}M${x(cx)} ${y(y0)}V${y(y1)}`;
        svg.append(shape("path", { class: "reach look-" + s.look, d }));
      }
      if (MARKED.includes(s.kind)) svg.append(mark("dot", s.look, x(cx), y(cy), 7));
      else svg.append(shape("circle", { class: "dot look-" + s.look, cx: x(cx), cy: y(cy), r: 6 }));
    }
    if (panel.cut) {
      svg.append(shape("path", { class: "cut", d: `M${x(pick(panel.cut))} ${top}V${bottom}` }));
    }
    return [svg];
  }

  function bars(panel, pick, width) {
    const labels = pick(panel.labels), names = Object.keys(panel.series);
    const thick = 11, group = names.length * thick + 9, top = 4;
    const left = Math.min(12 + 7 * Math.max(...labels.map(t => t.length)), width / 3);
    const right = width - 50, height = top + labels.length * group + 34;
    const x = scale("linear", 0, 1, left, right), bottom = height - 32;
    const svg = picture(width, height, panel.title + ". Its numbers stand below.");
    for (const t of ticks("linear", 0, 1, Math.min(5, width / 80))) {
      svg.append(shape("path", { class: "grid", d: `M${x(t)} ${top}V${bottom}` }));
      svg.append(shape("text", { x: x(t), y: bottom + 16, "text-anchor": "middle" }, label(t, "(%)")));
    }
    svg.append(shape("path", { class: "axis", d: `M${left} ${top}V${bottom}H${right}` }));
    svg.append(shape("text", { x: (left + right) / 2, y: height - 2, "text-anchor": "middle" }, "probability (%)"));
    labels.forEach((name, i) => {
      const y = top + 4 + i * group;
      svg.append(shape("text", { x: left - 6, y: y + (group - 9) / 2 + 4, "text-anchor": "end" }, name));
      names.forEach((series, j) => {
        const value = pick(panel.series[series])[i], row = y + j * thick;
        const given = { x: left, y: row, width: Math.max(x(value) - left, 0.5), height: thick - 2 };
        svg.append(shape("rect", { class: "look-" + j, ...given }));
        svg.append(shape("text", { class: "small", x: x(value) + 4, y: row + 9 }, percent(value) + "\u00a0%"));
      });
    });
    const head = [panel.title, ...names];
    const rows = labels.map((name, i) => [name, ...names.map(n => percent(pick(panel.series[n])[i]) + "\u00a0%")]);
    const folded = element("details", "");
    folded.append(element("summary", "These bars as numbers"), table(head, rows.map(r => r.map(t => [t, ""]))));
    return [svg, folded];
  }

  // A code's modules, which a reader flips; what differs from the owner's code is counted.
  function grid(panel, pick, changed) {
    const { byte, block, corrects } = panel, size = Math.sqrt(byte.length);
    const cells = [], flipped = new Set();
    let state = {}, at = byte.findIndex(b => b !== null), shown = -1;
    const name = panel.title + ". Arrow keys go from module to module, Enter flips one.";
    const code = element("div", "", { class: "moving-code", role: "grid", "aria-label": name });
    code.style.setProperty("--size", size);
    const beside = (i, side) => {  // the module above, to the right, below, to the left
      const row = Math.floor(i / size) + [-1, 0, 1, 0][side], column = i % size + [0, 1, 0, -1][side];
      return row < 0 || row >= size || column < 0 || column >= size ? -1 : row * size + column;
    };
    for (let i = 0; i < byte.length; i++) {
      if (i % size === 0) code.append(element("div", "", { role: "row" }));
      const one = element("div", "", { role: "gridcell", tabindex: i === at ? 0 : -1 });
      const inside = byte[i] !== null && byte[i] >= 0;  // lines run around each byte
      const lines = [0, 1, 2, 3].map(s => inside && byte[beside(i, s)] !== byte[i] ? "1px" : "0");
      one.style.borderWidth = lines.join(" ");
      cells.push(one);
      code.lastChild.append(one);
    }
    const invites = "What a module is stands here. Click one, or go by arrow keys and flip it by Enter.";
    const told = element("p", invites, { class: "told", "aria-hidden": "true" });
    const undo = element("button", "Take my flips back", { type: "button" });
    const counts = element("div", "", {});

    function read(modules) {  // count, and choose by the counts
      const owner = pick(panel.owner), damaged = new Set();
      let agree = 0, free = 0;
      modules.forEach((v, i) => {
        if (byte[i] === null) return;
        free += 1;
        if (v === owner[i]) agree += 1;
        else if (byte[i] >= 0) damaged.add(byte[i]);
      });
      const blocks = corrects.map((most, k) => [...damaged].filter(b => block[b] === k).length);
      return { modules, owner, damaged, agree, free, blocks,
        right: blocks.every((n, k) => n <= corrects[k]),
        p: pick(panel.logs)[agree].toFixed(1).replace("-", "−"),
        accepted: agree >= pick(panel.needed) };
    }

    function words(i) {
      const place = `row ${Math.floor(i / size) + 1}, column ${i % size + 1}: `;
      const shade = state.modules[i] === "1" ? "dark" : "light";
      if (byte[i] === null) return place + shade + ", fixed pattern";
      const parts = [place + shade];
      if (state.modules[i] !== state.owner[i]) parts.push("differs from the owner’s code");
      const many = corrects.length > 1 && byte[i] >= 0 ? ` of block ${block[byte[i]] + 1}` : "";
      parts.push(byte[i] < 0 ? "in no byte" : `byte ${byte[i] + 1}${many}`);
      if (state.damaged.has(byte[i])) parts.push("damaged");
      if (flipped.has(i)) parts.push("flipped by you");
      return parts.join(", ");
    }

    function tell(i) {  // of one module, and show its byte
      shown = i;
      told.textContent = words(i);
      const own = byte[i] !== null && byte[i] >= 0;
      cells.forEach((one, k) => one.classList.toggle("same", own && byte[k] === byte[i]));
    }

    function paint() {
      const given = [...pick(panel.modules)], before = read(given);
      state = read(given.map((v, i) => flipped.has(i) ? "10"[v] : v));
      cells.forEach((one, i) => {
        const free = byte[i] !== null;
        const looks = { dark: state.modules[i] === "1", fixed: !free, mine: flipped.has(i),
          wrong: free && state.modules[i] !== state.owner[i], damaged: state.damaged.has(byte[i]) };
        for (const look in looks) one.classList.toggle(look, looks[look]);
        one.setAttribute("aria-label", words(i));
      });
      const both = [before, state], row = (name, of) => [[name, ""], ...both.map(s => [of(s), ""])];
      const total = k => block.filter(b => b === k).length;
      const rows = [row(`modules that agree, of ${state.free}`, s => String(s.agree))];
      corrects.forEach((most, k) => rows.push(
        row(`damaged bytes of ${total(k)}${corrects.length > 1 ? ` in block ${k + 1}` : ""}; ${most} may be`,
          s => String(s.blocks[k]))));
      rows.push(row("text, by error correction alone", s => s.right ? "read" : "not read"),
        row("log₁₀ of the claim’s p-value", s => s.p),
        row("claim of the text", s => s.accepted ? "accepted" : "not accepted"));
      counts.replaceChildren(table(["the code", ...panel.columns], rows));
      if (shown >= 0) tell(shown);
    }

    function go(i) {
      cells[at].tabIndex = -1;
      at = i;
      cells[at].tabIndex = 0;
      cells[at].focus();
    }

    function flip(i) {
      if (byte[i] === null) return;
      if (!flipped.delete(i)) flipped.add(i);
      changed();
    }

    const MOVES = {
      ArrowUp: i => beside(i, 0), ArrowRight: i => beside(i, 1),
      ArrowDown: i => beside(i, 2), ArrowLeft: i => beside(i, 3),
      Home: i => i - i % size, End: i => i - i % size + size - 1,
    };
    code.addEventListener("keydown", event => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const flips = event.key === "Enter" || event.key === " ";
      if (!flips && !(event.key in MOVES)) return;
      event.preventDefault();
      const next = flips ? at : MOVES[event.key](at);
      if (flips) flip(at);
      else if (next >= 0) go(next);
    });
    code.addEventListener("click", event => {
      const i = cells.indexOf(event.target);
      if (i < 0) return;
      go(i);
      flip(i);
    });
    code.addEventListener("focusin", event => tell(cells.indexOf(event.target)));
    code.addEventListener("mouseover", event => {
      const i = cells.indexOf(event.target);
      if (i >= 0) tell(i);
    });
    code.addEventListener("mouseleave", () => tell(at));  // where the keyboard is
    undo.addEventListener("click", () => { flipped.clear(); changed(); });

    const legend = element("ul", "", { class: "moving-legend" });
    for (const [look, told] of [["wrong", "differs from the owner’s code"],
      ["damaged", "in a damaged byte"], ["mine", "flipped by you"], ["fixed dark", "fixed pattern"]]) {
      const item = element("li", "");
      item.append(element("span", "", { class: "module " + look, "aria-hidden": "true" }), " " + told);
      legend.append(item);
    }
    const side = element("div", "", { class: "moving-side" });
    side.append(legend, told, undo, counts);
    const said = () => panel.says.replace(/\{([^}]*)\}/g, (_, name) => ({
      flips: flipped.size, agree: `${state.agree} of ${state.free}`, p: state.p,
      damaged: `${state.damaged.size} of ${block.length}`,
      read: state.right ? "read" : "not read", claim: state.accepted ? "accepted" : "not accepted",
    })[name]);
    return { parts: [code, side], paint, said };
  }

  function table(head, rows) {  // a row is a name and cells, each of two texts
    const made = element("table", "", { class: "dataframe" }), top = element("tr", "");
    for (const words of head) top.append(element("th", words, { scope: "col" }));
    const first = element("thead", ""), body = element("tbody", "");
    first.append(top);
    for (const [name, ...cells] of rows) {
      const row = element("tr", "");
      row.append(element("th", name[0], { scope: "row" }));
      for (const [middle, ends] of cells) {
        const td = element("td", middle);
        if (ends) td.append(" ", element("span", "(" + ends + ")", { class: "ends" }));
        row.append(td);
      }
      body.append(row);
    }
    made.append(first, body);
    return made;
  }

  // --------------------------------------------------------------------- the figure

  function moving(box) {
    const told = JSON.parse(box.querySelector("script").textContent);
    const figure = document.getElementById(box.dataset.figure) || box;
    const at = {}, inputs = [];
    const pick = by => by.names.reduce((values, name) => values[at[name]], by.values);
    const options = c => c.by ? c.options[at[c.by]] : c.options;
    for (const c of told.controls) at[c.name] = c.start;

    const stage = element("div", "", { class: "moving-stage" });
    const form = element("form", "", { "aria-label": "Move this figure" });
    for (const c of told.controls) {
      const id = "moving-" + ++made, pair = element("div", "", { class: "pair" });
      pair.append(element("label", c.name, { for: id }));
      const many = { id, type: "range", min: 0, max: c.count - 1, step: 1, autocomplete: "off" };
      const input = c.slider ? element("input", "", many) : element("select", "", { id, autocomplete: "off" });
      if (!c.slider) options(c).forEach((words, i) => input.append(element("option", words, { value: i })));
      pair.append(input);
      const output = element("span", "", { class: "value", "aria-hidden": "true" });
      if (c.slider) pair.append(output);
      input.value = c.start;
      inputs.push([c, input, output]);
      form.append(pair);
    }
    const panels = told.panels.map(panel => {
      const part = element("div", "", { class: "moving-panel" }), drawn = element("div", "");
      part.append(element("p", panel.title, { class: "title" }));
      if (panel.type === "Grid") {  // it is painted, not made anew: its focus stays
        const made = grid(panel, pick, update);
        drawn.className = "moving-grid";
        drawn.append(...made.parts);
        part.append(drawn);
        return [panel, drawn, made];
      }
      const looks = panel.type === "Bars" ? Object.keys(panel.series).map((name, i) => [name, i])
        : panel.series.map(s => [s.name, s.look, s.kind]);
      if (looks.length > 1) part.append(legend(looks, panel.type));
      part.append(drawn);
      return [panel, drawn, null];
    });
    const all = element("div", "", { class: "moving-panels" });
    all.append(...panels.map(([, drawn]) => drawn.parentNode));
    const status = element("p", "", { role: "status" });
    const numbers = element("div", "", { class: "moving-numbers", role: "group", "aria-label": "Numbers of this state" });
    stage.append(form, all, status, numbers);
    if (figure === box) box.prepend(stage);
    else figure.prepend(stage);
    figure.classList.add("moves");

    function sentence() {
      const { rows, columns, says, cells } = told.readout, state = pick(cells);
      const ends = panels.map(([, , made]) => made ? " " + made.said() : "");
      return says.replace(/\{([^}]*)\}/g, (_, name) => {
        const control = told.controls.find(c => c.name === name);
        if (control) return options(control)[at[name]];
        const [row, column] = name.split("|"), i = Object.keys(rows).indexOf(row);
        return cell(rows[row], state[i][columns.indexOf(column)])[0];
      }) + ends.join("");
    }

    function draw() {
      for (const [panel, drawn, made] of panels) {
        if (made) continue;
        const width = Math.floor(drawn.clientWidth) || 320;
        const open = drawn.querySelector("details[open]") !== null;
        drawn.replaceChildren(...(panel.type === "Bars" ? bars : plot)(panel, pick, width));
        if (open) drawn.querySelector("details").open = true;
      }
    }

    let later = 0;
    function update() {
      for (const [c, input, output] of inputs) {
        at[c.name] = Number(input.value);
      }
      for (const [c, input, output] of inputs) {
        const words = options(c)[at[c.name]];
        output.textContent = words;
        if (c.slider) input.setAttribute("aria-valuetext", words);
      }
      const { rows, columns, head, cells } = told.readout, state = pick(cells);
      const shown = Object.entries(rows).map(([name, form], i) =>
        [[name, ""], ...state[i].map(value => cell(form, value))]);
      numbers.replaceChildren(table([head, ...columns], shown));
      for (const [, , made] of panels) if (made) made.paint();
      draw();
      clearTimeout(later);  // who drags hears where he stops
      later = setTimeout(() => { status.textContent = sentence(); }, 200);
    }

    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("input", update);
    window.addEventListener("pageshow", update);  // a browser may fill in what one chose
    update();
    status.textContent = sentence();
    let seen = all.clientWidth;
    new ResizeObserver(() => {
      if (all.clientWidth !== seen) { seen = all.clientWidth; draw(); }
    }).observe(all);
  }

  function start() {
    for (const box of document.querySelectorAll("div.moving")) moving(box);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
