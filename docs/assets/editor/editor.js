// The editor of recipes: the page, and, where there is no document, the worker in which Python runs.
const PYODIDE = "https://cdn.jsdelivr.net/pyodide/v314.0.7/full/";
const CURVE = { height: 270, left: 64, right: 14, top: 14, bottom: 44 };

if (typeof document === "undefined") work();
else page();

async function work() {
  try {
    const { loadPyodide } = await import(`${PYODIDE}pyodide.mjs`);
    const python = await loadPyodide({ indexURL: PYODIDE });
    await python.loadPackage(["pydantic", "pyyaml"], { messageCallback: () => {} });
    const files = await fetch(new URL("optax_ext.zip", import.meta.url));
    python.unpackArchive(await files.arrayBuffer(), "zip");
    const { show } = python.pyimport("editor");
    onmessage = ({ data }) => {
      try {
        postMessage({ shown: JSON.parse(show(data)) });
      } catch (error) {
        postMessage({ failed: `This recipe cannot be shown here: ${error.message}` });
      }
    };
    postMessage({ ready: true });
  } catch (error) {
    postMessage({ failed: `Python could not be loaded: ${error.message}`, fatal: true });
  }
}

async function page() {
  const block = document.querySelector("article .highlight");
  const text = element("textarea", { id: "recipe", rows: 18, spellcheck: false, wrap: "off", autocapitalize: "off" });
  const select = element("select", { id: "zoo" }, element("option", { value: "" }, "a recipe of the zoo"));
  const start = element("button", { type: "button", className: "md-button md-button--primary" }, "Load Python (9 MB)");
  const link = element("button", { type: "button", className: "md-button" }, "Copy a link");
  const status = element("p", { className: "editor-status", role: "status" }, "Python is not loaded.");
  const words = element("pre", { className: "editor-words" });
  const curve = element("div", { className: "editor-curve" });
  const table = element("div", { className: "editor-table" });
  const bar = element("div", { className: "editor-bar" }, start, link, element("label", { htmlFor: "zoo" }, "Start from"), select);
  const label = element("label", { htmlFor: "recipe", className: "editor-label" }, "recipe.yaml");
  text.value = linked() ?? block.querySelector("code").textContent.trimEnd() + "\n";
  block.replaceWith(element("div", { className: "editor" }, bar, label, text, status, words, curve, table));

  let worker, timer, shown;
  let busy = true; // until Python is ready
  let waits = true; // whether the text has changed since it was sent to the worker
  const send = () => {
    waits = true;
    if (busy || !worker) return;
    busy = true;
    waits = false;
    worker.postMessage(text.value);
  };
  const receive = ({ data }) => {
    busy = Boolean(data.fatal);
    if (data.ready) start.textContent = "Python is loaded";
    if (data.failed) status.textContent = data.failed;
    if (data.fatal) {
      worker.terminate();
      worker = undefined;
      start.disabled = false;
    }
    if (data.shown) {
      status.textContent = data.shown.problems ? "The recipe has problems." : "The recipe is valid.";
      words.textContent = [data.shown.problems ?? data.shown.words, ...data.shown.warnings.map((it) => `warning: ${it}`)].join("\n");
      words.classList.toggle("editor-problem", Boolean(data.shown.problems));
      curve.classList.toggle("editor-old", Boolean(data.shown.problems)); // the last valid one stays
      table.classList.toggle("editor-old", Boolean(data.shown.problems));
      if (!data.shown.problems) {
        shown = data.shown;
        curve.replaceChildren(draw(shown, curve.clientWidth));
        table.replaceChildren(milestones(shown));
      }
    }
    if (waits) send();
  };
  start.onclick = () => {
    start.disabled = true;
    status.textContent = "Python is being loaded …";
    worker = new Worker(import.meta.url, { type: "module" });
    worker.onmessage = receive;
    worker.onerror = (error) => receive({ data: { failed: `Python could not be loaded: ${error.message}`, fatal: true } });
  };
  text.oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(send, 250);
  };
  link.onclick = async () => {
    const address = new URL(`#recipe=${encodeURIComponent(text.value)}`, location.href);
    history.replaceState(null, "", address);
    try {
      await navigator.clipboard.writeText(address.href);
      status.textContent = "The link is copied.";
    } catch {
      status.textContent = "The link is in the address bar.";
    }
  };
  new ResizeObserver(() => shown && curve.replaceChildren(draw(shown, curve.clientWidth))).observe(curve);
  onhashchange = () => {
    text.value = linked() ?? text.value;
    send();
  };

  const zoo = await (await fetch(new URL("recipes.json", import.meta.url))).json();
  select.append(...Object.keys(zoo).map((name) => element("option", { value: name }, name)));
  select.onchange = () => {
    text.value = zoo[select.value] ?? text.value;
    text.scrollTop = 0;
    send();
  };
}

function linked() {
  try {
    return location.hash.startsWith("#recipe=") ? decodeURIComponent(location.hash.slice("#recipe=".length)) : null;
  } catch {
    return null; // not what the button copied
  }
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function inWords(number) {
  if (number === null) return "not finite";
  if (number === 0) return "0";
  const size = Math.abs(number);
  if (size >= 1e-3 && size < 1e6) return Number(number.toPrecision(4)).toLocaleString("en-US", { maximumFractionDigits: 8 });
  return Number(number.toPrecision(4)).toExponential().replace("e+", "e");
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((it) => it >= rough * 0.999);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, index) => (first + index) * step);
}

function draw({ curves, run_steps }, width) {
  const points = curves.flatMap((curve) => curve.points).filter(([, rate]) => rate !== null);
  if (!points.length) return element("p", {}, "There is no learning rate to draw.");
  const end = Math.max(1, ...points.map(([step]) => step));
  const rates = points.map(([, rate]) => rate);
  const low = Math.min(0, ...rates);
  const high = Math.max(...rates) > low ? Math.max(...rates) : low + 1;
  const { height, left, right, top, bottom } = CURVE;
  const x = (step) => left + ((width - left - right) * step) / end;
  const y = (rate) => top + (height - top - bottom) * (1 - (rate - low) / (high - low));
  const title = `Learning rate over ${inWords(end)} steps, at most ${inWords(Math.max(...rates))}`;
  const drawing = svg("svg", { width, height, role: "img", "aria-label": title });
  for (const rate of ticks(low, high, 4)) {
    drawing.append(svg("line", { class: "editor-grid", x1: left, x2: width - right, y1: y(rate), y2: y(rate) }));
    drawing.append(svg("text", { x: left - 8, y: y(rate) + 4, "text-anchor": "end" }, inWords(rate)));
  }
  for (const step of ticks(0, end, Math.max(2, Math.floor(width / 130)))) {
    const anchor = x(step) > width - 40 ? "end" : "middle";
    const at = anchor === "end" ? width - right : x(step);
    drawing.append(svg("text", { x: at, y: height - bottom + 18, "text-anchor": anchor }, inWords(step)));
  }
  const what = run_steps ? "step of the run" : "step";
  drawing.append(svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, what));
  curves.forEach((curve, index) => {
    let pen = "M";
    const path = curve.points.map(([step, rate]) => {
      const part = rate === null ? "" : `${pen}${x(step).toFixed(1)} ${y(rate).toFixed(1)}`;
      pen = rate === null ? "M" : "L";
      return part;
    });
    drawing.append(svg("path", { class: `editor-line editor-line-${index % 4}`, d: path.join("") }));
  });
  if (curves.length < 2) return drawing;
  const names = curves.map((curve, index) => {
    const sample = svg("svg", { width: 28, height: 8, "aria-hidden": "true" });
    sample.append(svg("path", { class: `editor-line editor-line-${index % 4}`, d: "M0 4L28 4" }));
    return element("span", {}, sample, ` ${curve.group}`);
  });
  return element("div", {}, drawing, element("p", { className: "editor-names" }, ...names));
}

function milestones({ curves, rows }) {
  const names = curves.map((curve) => (curve.group ? `rate of ${curve.group}` : "learning rate"));
  const head = element("tr", {}, ...["step", ...names, ""].map((name) => element("th", { scope: "col" }, name)));
  const lines = rows.map(({ step, rates, reason }) =>
    element("tr", {}, ...[inWords(step), ...rates.map(inWords), reason].map((cell) => element("td", {}, cell))),
  );
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines));
}
