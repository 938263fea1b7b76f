"use strict";
(() => {
  const AT_ONCE = 20;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const { targets, train } = data;
  const numbers = new Intl.NumberFormat("en");
  const wrong = (t) => t.predicted !== undefined && t.label !== undefined && t.predicted !== t.label;
  const first = (t) => t.up.scores[0];
  const last = (t) => t.down.scores[0];
  const byLabel = new Intl.Collator("en", { numeric: true }).compare;
  const orders = {
    index: ["target's index", (a, b) => a.id - b.id],
    highest: ["highest score first", (a, b) => first(b) - first(a)],
    lowest: ["lowest score first", (a, b) => last(a) - last(b)],
    strongest: ["greatest |score| first", (a, b) => strongest(b) - strongest(a)],
    label: ["label", (a, b) => byLabel(a.label ?? "", b.label ?? "")],
    predicted: ["predicted label", (a, b) => byLabel(a.predicted ?? "", b.predicted ?? "")],
  };
  const strongest = (t) => Math.max(Math.abs(first(t)), Math.abs(last(t)));
  const start = { query: "", label: "", order: "index", wrong: "", deep: "", page: "1" };
  const state = { ...start };

  /* Contents of a data set become text nodes and properties only, never markup. */
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.startsWith("--")) element.style.setProperty(name, value);
      else if (name in element) element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  function score(value) {
    const size = Math.abs(value);
    const text = size >= 1e6 || (size && size < 1e-4) ? value.toExponential(2) : size < 1000 ? value.toPrecision(3) : value.toFixed(0);
    return (value > 0 ? "+" : "") + text.replace("-", "−");
  }

  const words = (example) => (example.text ?? (example.tokens ?? []).join("")).toLowerCase();
  const own = new Map(), deep = new Map();
  function text(target) {
    if (!own.has(target)) own.set(target, [words(target), target.label ?? "", target.predicted ?? ""].join("\n").toLowerCase());
    return own.get(target);
  }
  const neighbours = (target) => [...target.up.indices, ...target.down.indices];
  function deepText(target) {
    if (!deep.has(target)) {
      deep.set(target, [text(target), ...neighbours(target).map((i) => words(train[i]) + "\n" + (train[i].label ?? "").toLowerCase())].join("\n"));
    }
    return deep.get(target);
  }
  function matches(target, terms) {
    return terms.every((term) => {
      if (/^#\d+$/.test(term)) return target.id === Number(term.slice(1));
      if (/^train:\d+$/.test(term)) return neighbours(target).includes(Number(term.slice(6)));
      return (state.deep ? deepText(target) : text(target)).includes(term);
    });
  }
  function found() {
    const terms = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    return targets
      .filter((t) => (!state.label || t.label === state.label.slice(1)) && (!state.wrong || wrong(t)) && matches(t, terms))
      .sort(orders[state.order][1]);
  }

  /* Images stand in parts, all but the first behind this script: the first page is seen before the rest is read. */
  const elements = document.getElementsByClassName("images"), parts = new Map(), awaited = new Map();
  function source(number) {
    const part = Math.floor(number / data.images_at_once);
    const whole = part === 0 || part + 1 < elements.length || document.readyState !== "loading";
    if (!parts.has(part) && whole) parts.set(part, JSON.parse(elements[part].textContent));
    return parts.get(part)?.[number % data.images_at_once];
  }
  function draw(image, number) {
    const found = source(number);
    if (found === undefined) awaited.set(image, number);
    else image.src = "data:image/" + found;
  }
  document.addEventListener("DOMContentLoaded", () => {
    for (const [image, number] of awaited) if (image.isConnected) draw(image, number);
    awaited.clear();
  });
  /* As large as it is, within bounds; small ones are enlarged to the area of a square with an edge of `least` pixels. */
  function size(number, least, most = 248) {
    const [width, height] = data.sizes[number];
    const area = Math.min(Math.max(width * height, least ** 2), Math.max(most, least) ** 2);
    const shown = Math.sqrt(area * width / height);
    const bounded = Math.min(shown, most * Math.SQRT2, most * width / height);
    return { "--width": (bounded / 16).toFixed(3) + "rem", "--aspect": (width / height).toFixed(4) };
  }
  function image(number, alt) {
    const found = make("img", { alt, decoding: "async", className: Math.max(...data.sizes[number]) <= 64 ? "small" : "" });
    draw(found, number);
    return found;
  }
  function picture(example, name) {
    if (example.image === undefined) return null;
    const button = make("button", { type: "button", className: "enlarge", "aria-label": "Enlarge " + name, title: "Enlarge" }, image(example.image, name));
    button.addEventListener("click", () => enlarge(example, name));
    return button;
  }
  const large = byId("large");
  function enlarge(example, name) {
    const caption = name[0].toUpperCase() + name.slice(1) + (example.label === undefined ? "" : ", label " + example.label);
    large.querySelector("figure").replaceChildren(image(example.image, name), make("figcaption", {}, caption));
    for (const [property, value] of Object.entries(size(example.image, 400, 1200))) large.style.setProperty(property, value);
    large.setAttribute("aria-label", caption);
    large.showModal();
  }
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
  large.querySelector("button").addEventListener("click", () => large.close());
  /* What has to be scrolled must be reached by the keyboard. */
  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const found = target.scrollHeight > target.clientHeight ? { tabindex: 0, role: "region", "aria-label": target.dataset.name } : {};
      for (const name of ["tabindex", "role", "aria-label"]) {
        if (name in found) target.setAttribute(name, found[name]);
        else target.removeAttribute(name);
      }
    }
  });
  function writing(example, shades, name) {
    if (example.text === undefined && example.tokens === undefined) return null;
    const box = make("p", { className: "text" });
    if (shades && example.tokens) {
      example.tokens.forEach((token, place) => {
        const share = shades[place] ?? 0;
        const word = token.trimStart();
        box.append(token.slice(0, token.length - word.length), make("span", { className: share < 0 ? "shade negative" : "shade", "--share": Math.abs(share), title: score(share) + " of the strongest" }, word));
      });
    } else box.append(example.text ?? example.tokens.join(""));
    box.dataset.name = name;
    sized.observe(box);
    return box;
  }
  function neighbour(index, value, shades, greatest) {
    const example = train[index], name = "training example " + index;
    const more = make("button", { type: "button", title: "Targets that have this training example at an end", "aria-label": name + ": show the targets that have it at an end" }, "#" + index);
    more.addEventListener("click", () => change({ query: "train:" + index }, true));
    const caption = make("figcaption", {},
      make("span", { className: "score" }, score(value)), more,
      make("span", { className: value < 0 ? "bar negative" : "bar", "--share": Math.abs(value) / greatest, "aria-hidden": "true" }),
      example.label === undefined ? null : make("span", { className: "label" }, "label " + example.label));
    const cell = example.image === undefined ? {} : size(example.image, example.text ?? example.tokens ? 112 : 90);
    return make("li", cell, make("figure", {}, picture(example, name), writing(example, shades, "text of " + name), caption));
  }
  function end(target, side, title) {
    const part = target[side];
    const copy = make("button", { type: "button", "aria-label": `Copy the indices of target ${target.id}'s ${title.split(":")[0].toLowerCase()}` }, "Copy indices");
    copy.addEventListener("click", () => toClipboard(JSON.stringify(part.indices)));
    const greatest = strongest(target) || 1;
    const some = train[part.indices[0]];
    const written = some.text !== undefined || some.tokens !== undefined;
    const kind = some.image === undefined ? (written ? " written" : " bare") : written ? " captioned" : " pictured";
    return make("section", { className: "end " + side + kind, "aria-label": title },
      make("header", {}, make("h3", {}, title), copy),
      make("ol", {}, ...part.indices.map((index, place) => neighbour(index, part.scores[place], part.shades?.[place], greatest))));
  }
  function article(target) {
    const name = "target " + target.id, id = "target-" + target.id;
    const caption = make("figcaption", {});
    if (target.label !== undefined) caption.append(make("div", {}, "label " + target.label));
    if (target.predicted !== undefined) caption.append(make("div", {}, "predicted " + target.predicted));
    if (wrong(target)) caption.append(make("span", { className: "badge" }, "wrong"));
    const plain = target.image === undefined && target.text === undefined && target.tokens === undefined;
    return make("article", { className: plain ? "plain" : "", "aria-labelledby": id },
      make("div", { className: "of" }, make("h2", { id }, "Target " + target.id),
        make("figure", target.image === undefined ? {} : size(target.image, 128), picture(target, name), writing(target, target.shades, "text of " + name), caption)),
      end(target, "up", "Highest scores: pushed the output up"),
      end(target, "down", "Lowest scores: pushed it down"));
  }

  async function toClipboard(value) {
    try {
      await navigator.clipboard.writeText(value);
    } catch {
      const area = make("textarea", { value, readOnly: true, className: "said" });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say("Copied " + value);
  }
  let silence;
  function say(message) {
    byId("said").textContent = message;
    clearTimeout(silence);
    silence = setTimeout(() => { byId("said").textContent = ""; }, 4000);
  }

  let shown = [];
  const pages = () => Math.max(1, Math.ceil(shown.length / AT_ONCE));
  function show() {
    shown = found();
    const page = Math.min(Math.max(1, Number.parseInt(state.page, 10) || 1), pages());
    state.page = String(page);
    const from = (page - 1) * AT_ONCE, some = shown.slice(from, from + AT_ONCE);
    sized.disconnect();
    byId("list").replaceChildren(...(some.length ? some.map(article) : [make("p", { className: "none" }, "No target is like this.")]));
    byId("status").textContent = some.length
      ? `Targets ${numbers.format(from + 1)} to ${numbers.format(from + some.length)} of ${numbers.format(shown.length)}` + (shown.length < targets.length ? ` found among ${numbers.format(targets.length)}` : "")
      : `None of ${numbers.format(targets.length)} targets`;
    for (const where of document.querySelectorAll(".where")) where.textContent = `page ${numbers.format(page)} of ${numbers.format(pages())}`;
    for (const button of document.querySelectorAll("[data-go]")) button.disabled = goal(button.dataset.go) === page;
    for (const [name, control] of Object.entries(controls)) {
      if (control.type === "checkbox") control.checked = Boolean(state[name]);
      else if (control.value !== state[name]) control.value = state[name];
    }
  }
  function goal(where) {
    const page = Number(state.page);
    return { first: 1, previous: Math.max(1, page - 1), next: Math.min(pages(), page + 1), last: pages() }[where];
  }
  const fragment = () => new URLSearchParams(Object.entries(state).filter(([name, value]) => value !== start[name])).toString();
  function change(what, top) {
    Object.assign(state, { page: "1" }, what);
    show();
    const next = fragment();
    /* A page opened from a file may not be allowed to change its address. */
    try { history.replaceState(null, "", next ? "#" + next : location.pathname + location.search); } catch { /* then it stays */ }
    if (top) {
      byId("results").focus({ preventScroll: true });
      byId("results").scrollIntoView();
    }
  }
  function fromAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const name of Object.keys(start)) state[name] = given.get(name) ?? start[name];
    if (!Object.hasOwn(orders, state.order)) state.order = start.order;
  }

  const controls = { query: byId("query"), label: byId("label"), order: byId("order"), wrong: byId("wrong"), deep: byId("deep") };
  const labels = [...new Set(targets.map((t) => t.label).filter((l) => l !== undefined))].sort(byLabel);
  const predicted = targets.some((t) => t.predicted !== undefined);
  byId("label-box").hidden = labels.length < 2 || labels.length > 2000;
  byId("wrong-box").hidden = !(labels.length && predicted);
  controls.label.append(make("option", { value: "" }, "all"), ...labels.map((label) => make("option", { value: "=" + label }, label)));
  for (const [name, [title]] of Object.entries(orders)) {
    if ((name !== "label" || labels.length) && (name !== "predicted" || predicted)) controls.order.append(make("option", { value: name }, title));
  }
  const widest = targets.reduce((most, t) => t.image === undefined ? most : Math.max(most, Number.parseFloat(size(t.image, 128)["--width"])), 0);
  byId("list").style.setProperty("--of", widest + "rem");
  byId("meaning").textContent = data.meaning;
  byId("about").querySelector("summary").textContent = "How the scores were made";
  for (const [name, value] of Object.entries(data.facts)) {
    const words = Object.hasOwn(data.explained, name) ? make("p", {}, data.explained[name]) : null;
    byId("facts").append(make("dt", {}, name), make("dd", {}, value, ...(words ? [words] : [])));
  }

  let waiting;
  const asked = (control) => control.type !== "checkbox" ? control.value : control.checked ? "1" : "";
  for (const control of Object.values(controls)) {
    control.addEventListener("input", () => {
      clearTimeout(waiting);
      /* All of them, since another may have changed while this was waiting. */
      waiting = setTimeout(() => change(Object.fromEntries(Object.entries(controls).map(([name, one]) => [name, asked(one)]))), control === controls.query ? 120 : 0);
    });
  }
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); byId("results").focus(); });
  for (const button of document.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => change({ page: String(goal(button.dataset.go)) }, true));
  }
  addEventListener("hashchange", () => { fromAddress(); show(); });
  fromAddress();
  show();
})();
