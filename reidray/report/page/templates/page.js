"use strict";
(() => {
  const CLUSTERS_A_PAGE = 20, THUMBS_A_CLUSTER = 18, OUTLIERS_A_PAGE = 120, SPLITS_A_PAGE = 10, LISTS_A_PAGE = 8;
  const COLOURS = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5"];
  const FLAGS = {
    camera: "one camera only", merge: "may belong to another cluster", split: "may be two clusters",
    persons: "several persons", changed: null,
  };
  const parts = new Map(), waiting = new Map();
  const byId = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString("en-US");
  const padded = (value) => String(value).padStart(4, "0");

  // ---- files beside the page: scripts that hand over a value, since a page opened from disk may not read others

  window.reidrayPart = (name, value) => { parts.set(name, value); };

  function part(name) {
    if (parts.has(name)) return Promise.resolve(parts.get(name));
    if (!waiting.has(name)) {
      waiting.set(name, new Promise((found, failed) => {
        const script = document.createElement("script");
        script.src = `report/${name}.js`;
        script.onload = () => found(parts.get(name));
        script.onerror = () => failed(new Error(`report/${name}.js is missing: keep the folder report beside the page`));
        document.head.append(script);
      }));
    }
    return waiting.get(name);
  }

  // ---- elements; texts are set as texts, never as markup

  function element(tag, options = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(options)) {
      if (key === "class") made.className = value;
      else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }
  const nameOf = (name) => element("bdi", { class: "name" }, name);
  const link = (text, act) => element("button", { type: "button", class: "link", onclick: act }, text);

  function complain(where, error) {
    where.replaceChildren(element("p", { class: "error" }, error.message));
  }

  let facts = null;

  function cut(made, sheet, place, size, factor = 1) {
    const column = place % facts.columns, row = Math.floor(place / facts.columns);
    made.style.width = `${size.width * factor}px`;
    made.style.height = `${size.height * factor}px`;
    made.style.backgroundImage = `url("report/${sheet}.jpg")`;
    made.style.backgroundPosition = `${-column * size.width * factor}px ${-row * size.height * factor}px`;
    if (factor !== 1) made.style.backgroundSize = `${facts.columns * size.width * factor}px auto`;
  }

  async function imageAt(place) {
    const sheet = Math.floor(place / facts.sheet), within = place % facts.sheet;
    const own = await part(`names-${padded(sheet)}`);
    const value = (key) => own[key] && own[key][within];
    return {
      place, sheet, within, name: own.names[within], cluster: own.clusters[within], camera: own.cameras[within],
      doubt: own.doubts[within], nearest: own.nearest[within], half: own.halves[within], person: value("persons"),
    };
  }

  const cameraWord = (camera) => (camera < 0 ? "unknown camera" : `camera ${camera + 1}`);
  const clusterWord = (cluster) => (cluster < 0 ? "outlier" : `cluster ${cluster}`);

  function describe(image) {
    const words = [clusterWord(image.cluster), cameraWord(image.camera)];
    if (image.cluster >= 0) words.push(`doubt ${image.doubt}`);
    if (image.nearest >= 0) words.push(`next: cluster ${image.nearest}`);
    if (image.person !== undefined) words.push(image.person > 0 ? `person ${image.person}` : "nobody's");
    return words.join(", ");
  }

  function thumb(image, kind = "") {
    const made = element("button", { type: "button", class: `thumb ${kind}`, "aria-label": `${image.name}: ${describe(image)}` });
    cut(made, `sheet-${padded(image.sheet)}`, image.within, facts);
    const show = () => tell(() => made.getBoundingClientRect(), [element("div", {}, nameOf(image.name)), element("div", { class: "soft" }, describe(image))]);
    made.addEventListener("mouseenter", show);
    made.addEventListener("focus", show);
    made.addEventListener("mouseleave", hush);
    made.addEventListener("blur", hush);
    made.addEventListener("click", () => open(image));
    return made;
  }

  // ---- the note beside a thumbnail, and the dialog of one image

  const tip = byId("tip"), more = byId("more");

  let boxOf = null;

  function tell(where, children) {
    boxOf = where;
    tip.replaceChildren(...children);
    tip.hidden = false;
    settle();
  }
  function settle() { // beside what it is about, also where that moves: the focus scrolls the page
    if (tip.hidden) return;
    const box = boxOf();
    if (box.bottom < 0 || box.top > window.innerHeight) { hush(); return; }
    const own = tip.getBoundingClientRect();
    const left = Math.max(4, Math.min(box.left, window.innerWidth - own.width - 4));
    const below = box.bottom + 6 + own.height < window.innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.max(4, below ? box.bottom + 6 : box.top - own.height - 6)}px`;
  }
  function hush() { tip.hidden = true; }

  function open(image) {
    hush();
    const picture = element("div", { class: "thumb", role: "img", "aria-label": "the image" });
    cut(picture, `sheet-${padded(image.sheet)}`, image.within, facts, 3);
    const rows = [["name", nameOf(image.name)], ["cluster", clusterWord(image.cluster)], ["camera", cameraWord(image.camera)]];
    if (image.cluster >= 0) rows.push(["doubt", String(image.doubt)]);
    if (image.nearest >= 0) rows.push([image.cluster < 0 ? "nearest" : "next", `cluster ${image.nearest}`]);
    if (image.person !== undefined) rows.push(["true person", image.person > 0 ? String(image.person) : "none"]);
    const list = element("dl", {}, ...rows.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
    const buttons = element("div", { class: "tools" });
    const goTo = (cluster) => element("button", { type: "button", onclick: () => { more.close(); goToCluster(cluster); } }, `Go to cluster ${cluster}`);
    if (image.cluster >= 0) buttons.append(goTo(image.cluster));
    if (image.nearest >= 0) buttons.append(goTo(image.nearest));
    buttons.append(element("button", { type: "button", autofocus: "", onclick: () => more.close() }, "Close"));
    more.replaceChildren(picture, list, buttons);
    more.showModal();
  }
  if (more) more.addEventListener("click", (event) => { if (event.target === more) more.close(); });

  // ---- pages of a list

  function paged(pagers, count, size, what, draw) {
    let page = 0;
    const last = () => Math.max(0, Math.ceil(count() / size) - 1);
    async function show(wanted, jump = false) {
      page = Math.max(0, Math.min(wanted, last()));
      for (const pager of pagers) {
        const first = page * size + 1, end = Math.min(count(), (page + 1) * size);
        const said = count() ? `${number(first)}–${number(end)} of ${number(count())} ${count() === 1 ? what.replace(/s$/, "") : what}` : `no ${what}`;
        const step = (word, to, off) => {
          const made = element("button", { type: "button", onclick: () => show(to, pager !== pagers[0]) }, word);
          made.disabled = off;
          return made;
        };
        pager.replaceChildren(step("Previous", page - 1, page === 0), element("span", { class: "said" }, said), step("Next", page + 1, page >= last()));
      }
      await draw(page * size, Math.min(count(), (page + 1) * size));
      if (jump) pagers[0].scrollIntoView();
    }
    return { show, size };
  }

  // ---- clusters

  let clusters = [], kept = [], clusterPages = null;

  function clusterLink(cluster) { return link(`cluster ${cluster}`, () => goToCluster(cluster)); }

  async function clusterRow(row) {
    const made = element("article", { class: "cluster", id: `cluster-${row.cluster}` });
    const cameras = row.cameras.filter(([camera]) => camera >= 0).length;
    const facts_ = [`${number(row.size)} ${facts.unit}`];
    if (cameras) facts_.push(`${cameras} camera${cameras > 1 ? "s" : ""}`);
    facts_.push(`doubt ${row.doubt}`);
    const chips = element("span", { class: "chips" });
    for (const flag of row.flags) if (FLAGS[flag]) chips.append(element("span", { class: "chip" }, FLAGS[flag]));
    made.append(element("header", {}, element("h3", { tabindex: "-1" }, `Cluster ${row.cluster}`), element("span", { class: "soft" }, facts_.join(" · ")), chips));
    const said = element("p", { class: "small" });
    if (row.nearest >= 0) said.append(`${Math.round(100 * row.towards)} % of its ${facts.unit} have `, clusterLink(row.nearest), " as the nearest other. ");
    if (row.sources) {
      const words = row.sources.map(([cluster, images]) => `${cluster < 0 ? "outliers" : `cluster ${cluster}`} (${images})`);
      said.append(`${row.kind[0].toUpperCase()}${row.kind.slice(1)}. Before: ${words.join(", ")}. `);
    }
    if (row.persons && row.persons.length > 1) {
      const words = row.persons.slice(0, 6).map(([person, images]) => `${person} (${images})`);
      said.append(`Persons: ${words.join(", ")}${row.persons.length > 6 ? ", ..." : ""}.`);
    }
    const thumbs = element("div", { class: "thumbs" }), tools = element("div");
    made.append(said, thumbs, tools);
    const main = row.persons && row.persons.length ? row.persons[0][0] : null;
    const kind = (image) => (main !== null && image.person > 0 && image.person !== main ? "wrong" : "");
    async function fill(count) {
      const images = [];
      for (let place = row.start; place < row.start + count; place += 1) images.push(await imageAt(place));
      if (row.flags.includes("split") && count === row.size) {
        const halves = [0, 1].map((half) => images.filter((image) => image.half === half));
        thumbs.replaceChildren(...halves.map((own) => element("div", { class: "half" }, ...own.map((image) => thumb(image, kind(image))))));
      } else thumbs.replaceChildren(...images.map((image) => thumb(image, kind(image))));
      tools.replaceChildren();
      if (count < row.size) tools.append(link(`Show all ${number(row.size)}`, () => fill(row.size)));
    }
    await fill(Math.min(row.size, THUMBS_A_CLUSTER));
    return made;
  }

  async function drawClusters(start, end) {
    const list = byId("clusters-list");
    try { list.replaceChildren(...await Promise.all(kept.slice(start, end).map(clusterRow))); } catch (error) { complain(list, error); }
  }

  function filterClusters(flag) {
    kept = flag ? clusters.filter((row) => row.flags.includes(flag)) : clusters;
    byId("filter").value = flag;
    return clusterPages.show(0);
  }

  async function goToCluster(cluster) {
    const wanted = clusters.findIndex((row) => row.cluster === cluster);
    if (wanted < 0) return;
    kept = clusters;
    byId("filter").value = "";
    await clusterPages.show(Math.floor(wanted / CLUSTERS_A_PAGE));
    const found = byId(`cluster-${cluster}`);
    found.scrollIntoView();
    found.querySelector("h3").focus({ preventScroll: true });
  }

  async function startClusters() {
    const list = byId("clusters-list");
    if (!list) return;
    try { clusters = await part("clusters"); } catch (error) { complain(list, error); return; }
    kept = clusters;
    clusterPages = paged([byId("clusters-pager"), byId("clusters-pager-2")], () => kept.length, CLUSTERS_A_PAGE, "clusters", drawClusters);
    byId("filter").addEventListener("change", (event) => filterClusters(event.target.value));
    const wanted = () => { if (byId("wanted").value !== "") goToCluster(Number(byId("wanted").value)); };
    byId("go").addEventListener("click", wanted);
    byId("wanted").addEventListener("keydown", (event) => { if (event.key === "Enter") wanted(); });
    for (const button of document.querySelectorAll("[data-filter]")) {
      button.addEventListener("click", async () => { await filterClusters(button.dataset.filter); byId("clusters").scrollIntoView(); });
    }
    await clusterPages.show(0);
  }

  // ---- outliers, wrong splits, ranked lists

  async function startOutliers() {
    const list = byId("outliers-list");
    if (!list) return;
    const first = facts.images - facts.outliers;
    await paged([byId("outliers-pager")], () => facts.outliers, OUTLIERS_A_PAGE, "outliers", async (start, end) => {
      try {
        const images = [];
        for (let place = start; place < end; place += 1) images.push(await imageAt(first + place));
        list.replaceChildren(...images.map((image) => thumb(image)));
      } catch (error) { complain(list, error); }
    }).show(0);
  }

  async function startSplits() {
    const list = byId("splits-list");
    if (!list) return;
    const rows = await part("splits");
    const draw = async (start, end) => {
      const made = [];
      for (const row of rows.slice(start, end)) {
        const groups = element("div", { class: "thumbs" });
        for (let at = 0; at < row.clusters.length; at += 1) {
          const [cluster, images] = row.clusters[at];
          const shown = await Promise.all(row.shown[at].map(imageAt));
          const label = cluster < 0 ? "outliers" : clusterLink(cluster);
          groups.append(element("div", { class: "group" }, element("div", { class: "small" }, label, ` (${images})`), element("div", { class: "half" }, ...shown.map((image) => thumb(image)))), element("div", { class: "gap" }));
        }
        made.push(element("article", { class: "cluster" }, element("header", {}, element("h3", {}, `Person ${row.person}`), element("span", { class: "soft" }, `${number(row.size)} ${facts.unit}`)), groups));
      }
      list.replaceChildren(...made);
    };
    await paged([byId("splits-pager")], () => rows.length, SPLITS_A_PAGE, "persons", draw).show(0);
  }

  async function startRanked() {
    const list = byId("ranked-list");
    if (!list) return;
    const rows = await part("ranked");
    let place = 0;
    for (const row of rows) { row.first = place; place += 1 + row.ranked.length; }
    const picture = (name, at, kind, said) => {
      const made = element("button", { type: "button", class: `thumb ${kind}`, "aria-label": `${name}: ${said}` });
      cut(made, "ranked", at, facts.ranked);
      const show = () => tell(() => made.getBoundingClientRect(), [element("div", {}, nameOf(name)), element("div", { class: "soft" }, said)]);
      for (const event of ["mouseenter", "focus", "click"]) made.addEventListener(event, show);
      for (const event of ["mouseleave", "blur"]) made.addEventListener(event, hush);
      return made;
    };
    const draw = async (start, end) => {
      list.replaceChildren(...rows.slice(start, end).map((row) => {
        const right = row.right.filter(Boolean).length;
        const score = row.score === null ? "" : `average precision ${(100 * row.score).toFixed(1)} %, `;
        const thumbs = row.ranked.map((name, rank) => picture(name, row.first + 1 + rank, row.right[rank] ? "right" : "wrong", `rank ${rank + 1}, ${row.right[rank] ? "the same person" : "somebody else"}`));
        return element("article", { class: "cluster" },
          element("header", {}, element("h3", {}, nameOf(row.query)), element("span", { class: "soft" }, `${score}${right} of the first ${row.ranked.length} right`)),
          element("div", { class: "thumbs" }, picture(row.query, row.first, "query", "the query"), element("div", { class: "gap" }), ...thumbs));
      }));
    };
    await paged([byId("ranked-pager")], () => rows.length, LISTS_A_PAGE, "lists", draw).show(0);
  }

  // ---- the map

  async function startMap() {
    const canvas = byId("map-canvas");
    if (!canvas) return;
    const map = await part("map"), pen = canvas.getContext("2d"), colour = byId("map-colour"), said = byId("map-said");
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    let width = 0, height = 0, chosen = -1, asked = 0;
    const at = (point) => [14 + map.xy[point][0] * (width - 28), 14 + (1 - map.xy[point][1]) * (height - 28)];

    function shade(point) {
      const value = map[colour.value][point], style = getComputedStyle(document.documentElement);
      if (colour.value === "doubts") return `hsl(${210 - 180 * Math.min(1, value / 0.6)} 80% ${dark.matches ? 65 : 42}%)`;
      if (value < 0 || (colour.value === "persons" && value === 0)) return style.getPropertyValue("--soft");
      if (colour.value === "cameras" && value < COLOURS.length) return style.getPropertyValue(COLOURS[value]);
      return `hsl(${(value * 137.508) % 360} 65% ${dark.matches ? 65 : 40}%)`;
    }

    function draw() {
      width = canvas.clientWidth;
      height = Math.max(300, Math.min(620, Math.round(width * 0.6)));
      const ratio = window.devicePixelRatio || 1;
      canvas.style.height = `${height}px`;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, width, height);
      const radius = width < 600 ? 3 : 4;
      for (let point = 0; point < map.xy.length; point += 1) {
        const [x, y] = at(point);
        pen.beginPath();
        pen.fillStyle = shade(point);
        if (map.clusters[point] < 0) pen.fillRect(x - radius / 2, y - radius / 2, radius, radius);
        else { pen.arc(x, y, radius, 0, 7); pen.fill(); }
      }
      if (chosen >= 0) {
        const [x, y] = at(chosen);
        pen.beginPath();
        pen.lineWidth = 2;
        pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
        pen.arc(x, y, radius + 5, 0, 7);
        pen.stroke();
      }
    }

    async function choose(point, aloud) {
      chosen = point;
      draw();
      asked += 1;
      if (point < 0) { hush(); return; }
      const mine = asked, image = await imageAt(map.places[point]);
      if (mine !== asked) return;
      const picture = element("div", { class: "thumb" });
      cut(picture, `sheet-${padded(image.sheet)}`, image.within, facts);
      const where = () => {
        const box = canvas.getBoundingClientRect(), [x, y] = at(point);
        return { left: box.left + x + 12, top: box.top + y - 12, bottom: box.top + y + 12 };
      };
      tell(where, [picture, element("div", {}, nameOf(image.name)), element("div", { class: "soft" }, describe(image))]);
      if (aloud) said.textContent = describe(image);
    }

    function nearest(x, y, within, ahead) {
      let best = -1, least = within;
      for (let point = 0; point < map.xy.length; point += 1) {
        const [px, py] = at(point), distance = Math.hypot(px - x, py - y);
        if (distance < least && (!ahead || (point !== chosen && ahead(px - x, py - y)))) { best = point; least = distance; }
      }
      return best;
    }

    canvas.addEventListener("mousemove", (event) => {
      const point = nearest(event.offsetX, event.offsetY, 16);
      if (point !== chosen) choose(point, false);
    });
    canvas.addEventListener("mouseleave", () => choose(-1, false));
    canvas.addEventListener("blur", () => choose(-1, false));
    canvas.addEventListener("click", async (event) => {
      const point = nearest(event.offsetX, event.offsetY, 16);
      if (point >= 0) open(await imageAt(map.places[point]));
    });
    canvas.addEventListener("keydown", async (event) => {
      const ways = {
        ArrowRight: (x, y) => x > Math.abs(y), ArrowLeft: (x, y) => -x > Math.abs(y),
        ArrowDown: (x, y) => y > Math.abs(x), ArrowUp: (x, y) => -y > Math.abs(x),
      };
      if (event.key === "Enter" && chosen >= 0) {
        event.preventDefault(); // or the key would press a button of the dialog that it opens
        open(await imageAt(map.places[chosen]));
        return;
      }
      if (!ways[event.key]) return;
      event.preventDefault();
      const [x, y] = chosen < 0 ? [width / 2, height / 2] : at(chosen);
      const point = chosen < 0 ? nearest(x, y, Infinity) : nearest(x, y, Infinity, ways[event.key]);
      if (point >= 0) choose(point, true);
    });
    colour.addEventListener("change", draw);
    dark.addEventListener("change", draw);
    new ResizeObserver(() => { if (canvas.clientWidth !== width) draw(); }).observe(canvas);
    draw();
  }

  // ---- all of it

  async function start() {
    try { facts = await part("facts"); } catch (error) {
      complain(document.querySelector("#clusters-list, #ranked-list") || document.querySelector("main"), error);
      return;
    }
    await Promise.all([startClusters(), startOutliers(), startSplits(), startRanked(), startMap()]);
    document.documentElement.dataset.ready = "yes";
  }
  window.addEventListener("scroll", settle, { passive: true });
  start();
})();
