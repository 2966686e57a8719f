// Tables whose rows unfold (lottolab/pages/catalogue.py): find, filter and sort rows.
// A classic script without requests, so that it runs from file:// too. Without it every
// row stands in the page and unfolds; with it the page shows some, and all when asked.
(function () {
  "use strict";
  const SHOWN = 20;  // rows before one asks for all
  let made = 0;  // controls, to name them

  function element(name, words, attributes) {
    const e = document.createElement(name);
    if (words) e.textContent = words;
    for (const key in attributes || {}) e.setAttribute(key, attributes[key]);
    return e;
  }

  function labelled(form, words, control) {
    control.id = "catalogue-" + ++made;
    const label = element("label", words, { for: control.id });
    const pair = element("span", "", { class: "pair" });
    pair.append(label, control);
    form.append(pair);
    return control;
  }

  function choice(form, words, any, values) {
    const select = element("select");
    select.append(element("option", any, { value: "" }));
    for (const value of values) select.append(element("option", value, { value }));
    return labelled(form, words, select);
  }

  const unique = values => [...new Set(values)].filter(value => value);
  const lower = text => text.toLowerCase().replace(/\s+/g, " ");

  function catalogue(box) {
    const noun = box.dataset.noun, state = box.dataset.state;
    const body = box.querySelector("tbody"), rows = [...body.rows];
    const texts = new Map(rows.map(row => [row, lower(row.textContent)]));
    const states = row => [...row.querySelectorAll("td.state")].filter(c => c.dataset.state);
    const tags = cell => cell.dataset.tags.split(", ");
    const cells = rows.flatMap(states), places = unique(cells.map(c => c.dataset.where));
    const every = unique(cells.flatMap(tags)).sort();
    let whole = false;

    const form = element("form", "", { role: "search", "aria-label": "Find " + noun });
    const words = labelled(form, "Search", element("input", "", { type: "search" }));
    const groups = unique(rows.map(row => row.dataset.group));
    const group = choice(form, box.dataset.group, "all", groups);
    const verdict = choice(form, state, "any", unique(cells.map(c => c.dataset.state)).sort());
    const tag = every.length > 1 ? choice(form, box.dataset.tag, "any", every) : null;
    const order = choice(form, "Sort by", box.dataset.group, [noun, ...places]);
    const told = element("p", "", { role: "status" });
    const more = element("button", "", { type: "button" });
    const unfold = element("button", "Unfold all", { type: "button" });
    const foot = element("p", "", { class: "catalogue-foot" });
    form.append(told, unfold);
    foot.append(more);
    box.prepend(form);
    box.append(foot);

    function fits(row) {
      if (group.value && row.dataset.group !== group.value) return false;
      if (!lower(words.value).split(" ").every(w => texts.get(row).includes(w))) return false;
      const of = tag ? tag.value : "";
      if (!verdict.value && !of) return true;
      return states(row).some(c => (!verdict.value || c.dataset.state === verdict.value)
        && (!of || tags(c).includes(of)));
    }

    function key(row) {
      if (!order.value) return "";
      if (order.value === noun) return lower(row.querySelector("td.says").textContent);
      const cell = states(row).find(c => c.dataset.where === order.value);
      return cell ? cell.dataset.state : "\uffff";  // those without one come last
    }

    function apply() {
      const keys = new Map(rows.map(row => [row, key(row)]));
      const sorted = [...rows].sort((a, b) => keys.get(a) < keys.get(b) ? -1
        : keys.get(a) > keys.get(b) ? 1 : rows.indexOf(a) - rows.indexOf(b));
      let count = 0;
      for (const row of sorted) {
        row.hidden = !fits(row);
        if (!row.hidden) count++;
        row.classList.toggle("later", !whole && count > SHOWN);
      }
      body.append(...sorted);
      const seen = whole ? count : Math.min(count, SHOWN);
      told.textContent = count ? "Showing " + seen + " of " + count + " " + noun
        + (count < rows.length ? " that fit, of " + rows.length + " in all." : ".")
        : "None of " + rows.length + " " + noun + " fits: change the search or a filter.";
      more.textContent = whole ? "Show fewer" : "Show all " + count;
      more.hidden = count <= SHOWN;
    }

    function seek() {  // a link to a row shows it, unfolded, whatever is filtered
      let row = null;
      try {
        row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      } catch (error) { return; }  // no text that decodes
      if (!row || !body.contains(row)) return;
      if (row.hidden) form.reset();
      whole = whole || row.hidden || row.classList.contains("later");
      apply();
      const folded = row.querySelector("details");
      if (folded) folded.open = true;
      row.scrollIntoView({ block: "center" });
    }

    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("input", apply);
    more.addEventListener("click", () => { whole = !whole; apply(); });
    unfold.addEventListener("click", () => {
      const open = unfold.textContent === "Unfold all";
      for (const row of rows) {
        const folded = row.querySelector("details");
        if (folded && !row.hidden) folded.open = open;
      }
      unfold.textContent = open ? "Fold all" : "Unfold all";
    });
    window.addEventListener("pageshow", apply);  // a browser may fill in what one chose
    window.addEventListener("hashchange", seek);
    apply();
    seek();
  }

  function start() {
    for (const box of document.querySelectorAll(".catalogue")) catalogue(box);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
