"use strict";
// The gallery of a run's page. All data is in the page; nothing is fetched. Text is set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const T = data.texts;
  const byId = (id) => document.getElementById(id);
  const el = (tag, cls, text) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // ---- language -------------------------------------------------------------------------------------------------
  let lang = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
  const say = (key, fields) => {
    const pair = T[key];
    let text = pair[lang === "zh" ? 1 : 0];
    for (const [name, value] of Object.entries(fields || {})) text = text.split("{" + name + "}").join(String(value));
    return lang === "zh" ? text : text.replace(/(^|[^\d.,])(1 (?:picture|region))s\b/g, "$1$2");
  };
  const className = (c) => {
    const found = data.classes[c];
    if (!found) return "?";
    return lang === "zh" && found.zh ? found.zh : found.name;
  };
  const setLanguage = (to) => {
    lang = to;
    root.lang = to === "zh" ? "zh-CN" : "en";
    root.dataset.lang = to;
    for (const node of document.querySelectorAll("[data-label]")) {
      node.setAttribute("aria-label", say(node.dataset.label));
      if (node.title !== undefined && node.dataset.title) node.title = say(node.dataset.title);
    }
    for (const button of document.querySelectorAll("[data-set-lang]"))
      button.setAttribute("aria-pressed", String(button.dataset.setLang === to));
    fillFilters();
    apply();
    if (shown) showDetails();
  };

  // ---- masks ----------------------------------------------------------------------------------------------------
  // COCO's compressed RLE: five bits a character, continued by the sixth, signed; from the third run on, differences to
  // the run two before. Runs go down the columns.
  const runsOf = (text) => {
    const runs = [];
    let at = 0;
    while (at < text.length) {
      let value = 0, scale = 1, code;
      do {
        code = text.charCodeAt(at++) - 48;
        value += (code & 31) * scale;
        scale *= 32;
      } while (code & 32 && at < text.length);
      if (code & 16) value -= scale;
      runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
    }
    return runs;
  };
  const maskOf = (rle) => {
    const [h, w, text] = rle;
    const mask = new Uint8Array(h * w);
    let at = 0, on = 0;
    for (const run of runsOf(text)) {
      const end = Math.min(at + Math.max(run, 0), h * w);
      if (on) for (let i = at; i < end; i++) mask[(i % h) * w + ((i / h) | 0)] = 1;
      at = end;
      on ^= 1;
    }
    return mask;
  };
  const rgb = (c) => (data.classes[c] ? data.classes[c].rgb : [128, 128, 128]);

  // A mask in the colour of its class, with a stronger edge, as an image of the mask's own size.
  const stamp = (region) => {
    if (region.stamp !== undefined) return region.stamp;
    const [h, w, text] = region.g;
    if (!text) return (region.stamp = null);
    const mask = maskOf(region.g), [r, g, b] = rgb(region.c);
    const canvas = el("canvas");
    canvas.width = w;
    canvas.height = h;
    const context = canvas.getContext("2d");
    const image = context.createImageData(w, h);
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++) {
        const i = y * w + x;
        if (!mask[i]) continue;
        const edge =
          (x > 0 && !mask[i - 1]) || (x + 1 < w && !mask[i + 1]) || (y > 0 && !mask[i - w]) || (y + 1 < h && !mask[i + w]);
        image.data.set([r, g, b, edge ? 235 : 112], 4 * i);
      }
    context.putImageData(image, 0, 0);
    return (region.stamp = canvas);
  };

  const pictures = new Map();
  const picture = (image) => {
    if (!image.t) return Promise.resolve(null);
    if (!pictures.has(image))
      pictures.set(
        image,
        new Promise((done) => {
          const found = new Image();
          found.onload = () => done(found);
          found.onerror = () => done(null);
          found.src = "data:image/webp;base64," + image.t;
        })
      );
    return pictures.get(image);
  };

  const show = { masks: true, boxes: false, captions: false };

  // Small pictures are drawn in whole multiples, so that their pixels stay square and lines thin.
  const draw = async (canvas, image, regions, options) => {
    const factor = Math.max(1, Math.ceil((options.big ? 700 : 360) / image.W));
    const W = image.W * factor, H = image.H * factor;
    const found = await picture(image);
    canvas.width = W;
    canvas.height = H;
    const c = canvas.getContext("2d");
    c.imageSmoothingEnabled = false;
    if (found) c.drawImage(found, 0, 0, W, H);
    else blank(c, W, H);
    if (options.masks)
      for (const region of regions) {
        const mask = stamp(region);
        if (mask) c.drawImage(mask, 0, 0, W, H);
        else box(c, region, W / image.w, H / image.h, 2);
      }
    if (options.boxes) for (const region of regions) box(c, region, W / image.w, H / image.h, options.big ? 3 : 2);
    if (options.captions) for (const region of regions) tag(c, region, W / image.w, H / image.h, W, H, options.big ? 15 : 13);
    if (!found) excuse(c, W, image);
    if (options.lit !== undefined && image.r[options.lit]) light(c, image.r[options.lit], image, W, H);
    canvas.dataset.drawn = "1";
  };
  // What stands where a picture cannot be had: stripes, and why.
  const blank = (c, W, H) => {
    c.fillStyle = "#cdd3da";
    c.fillRect(0, 0, W, H);
    c.strokeStyle = "#b9c1ca";
    c.lineWidth = 6;
    c.beginPath();
    for (let x = -H; x < W; x += 24) {
      c.moveTo(x, H);
      c.lineTo(x + H, 0);
    }
    c.stroke();
  };
  const excuse = (c, W, image) => {
    c.font = "15px system-ui, sans-serif";
    const text = say("missing_" + (image.m || "image"));
    c.fillStyle = "rgba(12,14,18,.82)";
    c.fillRect(0, 0, W, 30);
    c.fillStyle = "#fff";
    c.fillText(text, 10, 20, W - 20);
  };
  const box = (c, region, sx, sy, width) => {
    const [x, y, w, h] = region.b;
    c.lineWidth = width + 2;
    c.strokeStyle = "rgba(0,0,0,.55)";
    c.strokeRect(x * sx, y * sy, w * sx, h * sy);
    c.lineWidth = width;
    c.strokeStyle = "rgb(" + rgb(region.c).join() + ")";
    c.setLineDash(region.d === "review" ? [7, 5] : []);
    c.strokeRect(x * sx, y * sy, w * sx, h * sy);
    c.setLineDash([]);
  };
  const tag = (c, region, sx, sy, W, H, size) => {
    const text = className(region.c) + " " + scoreOf(region).toFixed(2);
    c.font = size + "px system-ui, sans-serif";
    const width = c.measureText(text).width + 8;
    const x = Math.max(0, Math.min(region.b[0] * sx, W - width));
    const y = Math.max(0, Math.min(region.b[1] * sy, H - size - 6));
    c.fillStyle = "rgba(12,14,18,.82)";
    c.fillRect(x, y, width, size + 6);
    c.fillStyle = "rgb(" + rgb(region.c).map((v) => Math.round(0.45 * v + 140)).join() + ")";
    c.fillText(text, x + 4, y + size);
  };
  const light = (c, region, image, W, H) => {
    const mask = stamp(region);
    c.save();
    c.fillStyle = "rgba(0,0,0,.45)";
    c.fillRect(0, 0, W, H);
    if (mask) {
      const cut = el("canvas");
      cut.width = W;
      cut.height = H;
      const k = cut.getContext("2d");
      k.imageSmoothingEnabled = false;
      for (let i = 0; i < 3; i++) k.drawImage(mask, 0, 0, W, H);
      c.drawImage(cut, 0, 0);
    }
    c.restore();
    box(c, region, W / image.w, H / image.h, 2);
  };

  // ---- filters --------------------------------------------------------------------------------------------------
  const scoreOf = (region) => (data.calibrated && region.p !== undefined ? region.p : region.s);
  const filter = { c: "", d: "", q: "", low: 0, high: 1, n: false };
  const matches = (region) =>
    (filter.c === "" || region.c === Number(filter.c)) &&
    (filter.d === "" || (region.d || "none") === filter.d) &&
    (filter.q === "" || region.q.includes(filter.q)) &&
    (!filter.n || region.N) &&
    scoreOf(region) >= filter.low - 1e-9 && scoreOf(region) <= filter.high + 1e-9;
  const isFiltered = () => filter.c !== "" || filter.d || filter.q || filter.n || filter.low > 0 || filter.high < 1;
  const visible = (image) => {
    const regions = image.r.filter(matches);
    return regions.length || (!isFiltered() && !image.r.length) || filter.c === "empty" ? regions : null;
  };

  const cards = data.images.map((image, at) => {
    const card = el("button", "card-image");
    card.type = "button";
    const frame = el("span", "frame");
    const canvas = el("canvas");
    canvas.width = image.W;
    canvas.height = image.H;
    frame.append(canvas);
    const line = el("span", "line");
    const key = el("bdi", "key-text", image.k);
    const count = el("span", "count");
    line.append(key, count);
    const caption = el("bdi", "caption", image.c);
    caption.dir = "auto";
    card.append(frame, line, caption);
    card.addEventListener("click", () => open(at));
    return { card, canvas, count, caption, image, regions: image.r, dirty: true, near: false };
  });
  const grid = byId("grid");
  for (const one of cards) grid.append(one.card);

  const paint = (one) => {
    if (!one.dirty || !one.near || one.card.hidden) return;
    one.dirty = false;
    draw(one.canvas, one.image, one.regions, show);
  };
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const one = cards.find((each) => each.card === entry.target);
        one.near = entry.isIntersecting;
        paint(one);
      }
    },
    { rootMargin: "600px" }
  );
  for (const one of cards) watcher.observe(one.card);

  let order = [];
  const apply = () => {
    let regions = 0;
    order = [];
    cards.forEach((one, at) => {
      const found = visible(one.image);
      one.card.hidden = found === null || (filter.c === "empty" && one.image.r.length > 0);
      one.regions = found || [];
      one.dirty = true;
      one.caption.hidden = !show.captions || !one.image.c;
      one.count.textContent = one.image.r.length
        ? one.regions.length === one.image.r.length
          ? say("n_regions", { n: one.image.n })
          : say("n_of_regions", { n: one.regions.length, m: one.image.n })
        : say("empty_image");
      one.card.setAttribute("aria-label", one.image.k + ", " + one.count.textContent);
      if (!one.card.hidden) {
        order.push(at);
        regions += one.regions.length;
      }
      paint(one);
    });
    byId("found").textContent = say("found", { images: order.length, all: cards.length, regions });
    byId("nothing").hidden = order.length > 0;
    byId("clear").disabled = !isFiltered();
  };

  const option = (value, text) => {
    const node = el("option", "", text);
    node.value = value;
    return node;
  };
  const refill = (id, entries, value) => {
    const select = byId(id);
    select.replaceChildren(...entries.map(([v, text]) => option(v, text)));
    select.value = value;
  };
  const tally = (get) => {
    const found = new Map();
    for (const image of data.images) for (const region of image.r) for (const key of get(region)) found.set(key, (found.get(key) || 0) + 1);
    return found;
  };
  const perClass = tally((r) => [r.c]), perDecision = tally((r) => [r.d || "none"]), perReason = tally((r) => r.q);
  const numEmpty = data.images.filter((image) => !image.r.length).length;
  function fillFilters() {
    refill(
      "by-class",
      [["", say("all_classes")]]
        .concat([...perClass].map(([c, n]) => [String(c), className(c) + " (" + n + ")"]).sort((a, b) => a[1].localeCompare(b[1], lang)))
        .concat(numEmpty ? [["empty", say("without_regions") + " (" + numEmpty + ")"]] : []),
      filter.c
    );
    refill(
      "by-decision",
      [["", say("all_decisions")]].concat([...perDecision].map(([d, n]) => [d, say("decision_" + d) + " (" + n + ")"])),
      filter.d
    );
    refill(
      "by-reason",
      [["", say("all_reasons")]].concat([...perReason].sort((a, b) => b[1] - a[1]).map(([q, n]) => [q, q.replace(/^R_/, "") + " (" + n + ")"])),
      filter.q
    );
  }
  const onFilter = (id, name) =>
    byId(id).addEventListener("change", (event) => {
      filter[name] = event.target.value;
      apply();
    });
  onFilter("by-class", "c");
  onFilter("by-decision", "d");
  onFilter("by-reason", "q");
  const onRange = () => {
    let low = Number(byId("low").value), high = Number(byId("high").value);
    if (low > high) [low, high] = [high, low];
    Object.assign(filter, { low, high });
    byId("range").textContent = low.toFixed(2) + "–" + high.toFixed(2);
    apply();
  };
  byId("low").addEventListener("input", onRange);
  byId("high").addEventListener("input", onRange);
  byId("clear").addEventListener("click", () => {
    Object.assign(filter, { c: "", d: "", q: "", n: false });
    byId("low").value = 0;
    byId("high").value = 1;
    const only = byId("only-negatives");
    if (only) only.setAttribute("aria-pressed", "false");
    fillFilters();
    onRange();
  });
  const only = byId("only-negatives");
  if (only)
    only.addEventListener("click", () => {
      filter.n = !filter.n;
      only.setAttribute("aria-pressed", String(filter.n));
      apply();
    });
  const toggle = (name) => {
    show[name] = !show[name];
    for (const button of document.querySelectorAll('[data-toggle="' + name + '"]')) button.setAttribute("aria-pressed", String(show[name]));
    apply();
    if (shown) redraw();
  };
  for (const button of document.querySelectorAll("[data-toggle]")) button.addEventListener("click", () => toggle(button.dataset.toggle));
  for (const button of document.querySelectorAll("[data-set-lang]")) button.addEventListener("click", () => setLanguage(button.dataset.setLang));
  for (const link of document.querySelectorAll("[data-filter-class], [data-filter-reason]"))
    link.addEventListener("click", () => {
      if (link.dataset.filterClass) filter.c = link.dataset.filterClass;
      if (link.dataset.filterReason) filter.q = link.dataset.filterReason;
      fillFilters();
      apply();
    });

  // ---- one picture, large ---------------------------------------------------------------------------------------
  const dialog = byId("viewer");
  let shown = null, lit;
  const open = (at) => {
    shown = { at };
    lit = undefined;
    if (!dialog.open) dialog.showModal();
    showDetails();
    dialog.scrollTop = 0;
  };
  const redraw = () => {
    const one = cards[shown.at];
    draw(byId("large"), one.image, one.regions, { ...show, big: true, lit });
  };
  const step = (by) => {
    const place = order.indexOf(shown.at);
    if (order.length) open(order[(place + by + order.length) % order.length]);
  };
  const term = (list, name, value) => {
    if (!value && value !== 0) return;
    const text = el("dd");
    const inner = el("bdi", "", String(value));
    inner.dir = "auto";
    text.append(inner);
    list.append(el("dt", "", name), text);
  };
  function showDetails() {
    const one = cards[shown.at], image = one.image;
    byId("viewer-title").textContent = image.k;
    byId("place").textContent = order.indexOf(shown.at) + 1 + " / " + order.length;
    const facts = byId("facts");
    facts.replaceChildren();
    term(facts, say("shard"), image.s);
    term(facts, say("size"), image.w + " × " + image.h + " px");
    term(facts, say("licence"), image.l);
    term(facts, say("caption"), image.c);
    term(facts, say("long_caption"), image.C);
    if (image.n > image.r.length) term(facts, say("drawn"), say("n_of_regions", { n: image.r.length, m: image.n }));
    const list = byId("regions");
    list.replaceChildren(...one.regions.slice().sort((a, b) => scoreOf(b) - scoreOf(a)).map((region) => entry(region, image)));
    redraw();
  }
  const entry = (region, image) => {
    const item = el("li", "region");
    const head = el("button", "head");
    head.type = "button";
    const swatch = el("i", "swatch");
    swatch.style.background = "rgb(" + rgb(region.c).join() + ")";
    head.append(swatch, el("b", "", className(region.c)), el("span", "num", scoreOf(region).toFixed(2)));
    if (region.d) head.append(el("span", "chip " + region.d, say("decision_" + region.d)));
    const on = () => {
      lit = image.r.indexOf(region);
      redraw();
    };
    const off = () => {
      lit = undefined;
      redraw();
    };
    for (const event of ["mouseenter", "focus", "click"]) head.addEventListener(event, on);
    for (const event of ["mouseleave", "blur"]) head.addEventListener(event, off);
    item.append(head);
    const list = el("dl");
    if (region.p !== undefined) {
      term(list, say("chance"), region.p.toFixed(3));
      term(list, say("raw_score"), region.s.toFixed(3));
    }
    term(list, say("area"), region.a.toLocaleString() + " px");
    if (region.v) term(list, say("verdict"), region.v);
    term(list, say("caption"), region.t);
    if (region.T !== region.t) term(list, say("long_caption"), region.T);
    if (region.x) term(list, say("rivals"), region.x.map(([c, s]) => className(c) + " " + s.toFixed(2)).join(", "));
    for (const code of region.q) term(list, code, data.reasons[code] ? data.reasons[code][lang === "zh" ? 1 : 0] : "");
    item.append(list);
    if (region.N) {
      const both = el("div", "negatives");
      const good = el("p", "positive");
      good.append(el("span", "mark", "✓"), el("bdi", "", region.o));
      both.append(el("h4", "", say("negatives")), good);
      const all = el("ul");
      for (const [text, kind] of region.N) {
        const bad = el("li");
        bad.append(el("span", "mark", "✗"), changed(text, region.o));
        if (kind) bad.append(el("span", "kind", kind));
        all.append(bad);
      }
      both.append(all);
      item.append(both);
    }
    return item;
  };
  // Words of a negative that its positive does not have stand out.
  const changed = (text, positive) => {
    const line = el("bdi");
    const known = new Set(positive.toLowerCase().split(/\s+/));
    for (const piece of text.split(/(\s+)/)) line.append(/\S/.test(piece) && !known.has(piece.toLowerCase()) ? el("mark", "", piece) : piece);
    return line;
  };
  byId("close").addEventListener("click", () => dialog.close());
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    if (shown) cards[shown.at].card.focus();
    shown = null;
  });

  // ---- keys -----------------------------------------------------------------------------------------------------
  const columns = () => {
    const tops = cards.filter((one) => !one.card.hidden).map((one) => one.card.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  };
  const moveFocus = (by) => {
    const here = order.indexOf(cards.findIndex((one) => one.card === document.activeElement));
    const place = here < 0 ? 0 : Math.max(0, Math.min(order.length - 1, here + by));
    if (order.length) cards[order[place]].card.focus();
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
    const key = event.key;
    if (key === "m") toggle("masks");
    else if (key === "b") toggle("boxes");
    else if (key === "c") toggle("captions");
    else if (key === "/") byId("by-class").focus();
    else if (shown && (key === "ArrowRight" || key === "j")) step(1);
    else if (shown && (key === "ArrowLeft" || key === "k")) step(-1);
    else if (!shown && key === "j") moveFocus(1);
    else if (!shown && key === "k") moveFocus(-1);
    else if (!shown && event.target.classList.contains("card-image") && key.startsWith("Arrow"))
      moveFocus({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[key] || 0);
    else return;
    event.preventDefault();
  });

  setLanguage(lang);
  root.dataset.ready = "1";
})();
