// What a page shows once it has loaded: unfold what is folded, then measure.
async () => {
  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
  await document.fonts.ready;
  for (const e of document.querySelectorAll("details")) e.open = true;
  for (const e of document.querySelectorAll(".toggle-hidden"))
    e.classList.remove("toggle-hidden");
  for (const e of document.querySelectorAll(".later")) e.classList.remove("later");

  const all = (css, from = document) => [...from.querySelectorAll(css)];
  const text = e => e.textContent.trim().replace(/\s+/g, " ").slice(0, 60);
  const style = e => getComputedStyle(e).overflowX;
  const scrolls = e => ["auto", "scroll"].includes(style(e));
  const hides = e => ["hidden", "clip"].includes(style(e));
  const wide = e => e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1;
  const name = e => e.tagName.toLowerCase() + [...e.classList].map(c => "." + c).join("");
  const root = document.documentElement, main = document.querySelector("main") ?? document.body;

  const math = [];
  for (const e of all(".math"))
    if (all("mjx-container", e).length !== 1) math.push(`formula not rendered: ${text(e)}`);
  const formulas = all(".math").length, rendered = all("mjx-container").length;
  if (formulas !== rendered) math.push(`${formulas} formulas but ${rendered} rendered`);
  for (const e of all("mjx-container")) {
    if (e.querySelector("[data-mml-node=merror], [data-mjx-error]"))
      math.push(`formula with an error: ${text(e)}`);
    if (e.querySelector("[data-mml-node=mtext][fill=red]"))
      math.push(`formula with an unknown command: ${text(e)}`);
  }
  const raw = /\\[()\[\]]|\$\$|\\begin\{|\$[^\s$][^$\n]*\$/;
  const skip = "pre, code, script, style, noscript, template, mjx-container, .math";
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    if (raw.test(node.data) && !node.parentElement.closest(skip))
      math.push(`raw mathematics: ${text(node)}`);
  }

  const overflow = [];
  if (root.scrollWidth > root.clientWidth)
    overflow.push(`the page is ${root.scrollWidth} px wide in a window of ${root.clientWidth}`);
  const boxes = "pre, mjx-container, .pst-scrollable-table-container, .output";
  for (const e of [main, ...all("*", main)])
    if (wide(e) && scrolls(e) && !e.matches(boxes))
      overflow.push(`${name(e)} scrolls sideways: ${e.scrollWidth} in ${e.clientWidth} px`);

  const cut = [];
  for (const e of all("pre, table, img, mjx-container", main)) {
    if (e.matches("pre") && wide(e) && !scrolls(e)) cut.push(`code leaves its box: ${text(e)}`);
    const right = e.getBoundingClientRect().right;
    let a = e.parentElement;
    for (; a && !scrolls(a); a = a.parentElement)
      if (hides(a) && right > a.getBoundingClientRect().right + 1)
        cut.push(`${name(e)} is cut off by ${name(a)}: ${text(e)}`);
    if (!a && right > root.clientWidth + 1) cut.push(`${name(e)} leaves the window: ${text(e)}`);
  }

  const images = [];
  for (const e of all("img")) {
    const src = (e.getAttribute("src") ?? "").slice(0, 60);
    if (e.complete && e.naturalWidth === 0) images.push(`image not shown: ${src}`);
    if (!e.alt.trim()) images.push(`image without alternative text: ${src}`);
  }
  return {math, overflow, cut, images};
}
