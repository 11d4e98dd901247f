// The expert map: a row per MoE layer, a column per expert, coloured by rows as a multiple of the layer's mean.
//
// With --metrics-expert-detail below full the server tells less, and the map says what is missing.

const HOT = 3; // times the mean: as the alert SwitchyardHotExpert has it
const SCALE = [ // class, name, from which multiple of the mean on
  ["h0", "no rows", 0],
  ["h1", "below ½ of the mean", Number.MIN_VALUE],
  ["h2", "½ to 0.8", 0.5],
  ["h3", "0.8 to 1.25: even", 0.8],
  ["h4", "1.25 to 2", 1.25],
  ["h5", "2 to 3", 2],
  ["h6", "3 times and more: hot", HOT],
];
const LAYER = "switchyard_moe_layer_imbalance_ratio";
const NUM_HOTTEST = 6;
const NUM_IDLE_LAYERS = 8;
const MAX_WIDE = 16; // experts whose shares fit into a line as text
const CELL_PIXELS = { wide: 33, dense: 7 }; // at least; below that the map scrolls
const NUM_IDLE_NAMED = 12;

const heatClass = (ratio) => SCALE.findLast(([, , from]) => ratio >= from)[0];
const formatShare = (share) => `${(100 * share).toFixed(share < 0.0995 && share > 0 ? 1 : 0)}%`;

function tableRow(tag, texts) {
  const row = document.createElement("tr");
  row.append(...texts.map((text) => element(tag, text, tag === "th" ? { scope: "col" } : {})));
  return row;
}

// What there is to show: {kind, rows, total, lately}; a row is a layer {layer, cells, imbalance, active, experts,
// seconds}, a cell {layer, expert, share, ratio, rows}.
function readExperts(metrics, period) {
  const counter = "switchyard_moe_expert_tokens_total";
  const shares = metrics.by("switchyard_moe_layer_max_share", "layer");
  const actives = metrics.by("switchyard_moe_layer_active_experts", "layer");
  const base = period === "lately" ? metrics.since(Metrics.KEPT_MS) : null;
  const lately = base !== null && metrics.totalGained("switchyard_steps_total", base) > 0;
  const from = lately ? base : null;
  const rows = [...metrics.by(LAYER, "layer")].map(([layer, id]) => {
    const [imbalance, share] = [metrics.value(id), metrics.value(shares.get(layer))];
    const experts = share > 0 ? Math.round(imbalance / share) : undefined; // of imbalance = share * experts
    return { layer, cells: [], imbalance, active: metrics.value(actives.get(layer)), experts };
  });
  const byLayer = new Map(rows.map((row) => [row.layer, row]));
  for (const id of metrics.all(counter)) {
    const { layer, expert } = metrics.labels[id];
    byLayer.get(layer).cells.push({ layer, expert, rows: metrics.gained(id, from) });
  }
  const there = (name) => metrics.all(name).length > 0;
  const below = there("switchyard_moe_layer_top_expert") ? "topk" : there(LAYER) ? "layer" : "off";
  const kind = there(counter) ? "full" : below;
  if (kind === "full") rows.forEach(balanceRow);
  if (kind === "topk") readBusiest(metrics, byLayer);
  const seconds = metrics.means("switchyard_moe_layer_seconds", "layer", from);
  for (const row of rows) row.seconds = seconds.get(row.layer);
  const total = kind === "full" ? metrics.totalGained(counter, from) : undefined;
  // Below full there is one histogram, of all experts.
  const batchSeconds = metrics.means("switchyard_moe_expert_batch_seconds", "expert", from);
  return { kind, rows, total, lately, batchSeconds };
}

// Of the same rows as the cells, so that both tell of the same time.
function balanceRow(row) {
  const sum = row.cells.reduce((total, cell) => total + cell.rows, 0);
  row.experts = row.cells.length;
  for (const cell of row.cells) {
    cell.share = sum > 0 ? cell.rows / sum : 0;
    cell.ratio = cell.share * row.experts;
  }
  row.active = row.cells.filter((cell) => cell.rows > 0).length;
  row.imbalance = Math.max(...row.cells.map((cell) => cell.ratio));
}

function readBusiest(metrics, byLayer) {
  const key = (id) => `${metrics.labels[id].layer} ${metrics.labels[id].rank}`;
  const shares = new Map(metrics.all("switchyard_moe_layer_top_share").map((id) => [key(id), metrics.value(id)]));
  for (const id of metrics.all("switchyard_moe_layer_top_expert")) {
    const { layer } = metrics.labels[id];
    const [row, share] = [byLayer.get(layer), shares.get(key(id))];
    row.cells.push({ layer, expert: String(metrics.value(id)), share, ratio: share * (row.experts ?? 0) });
  }
}

class ExpertMap {
  constructor() {
    for (const [name, text] of SCALE) {
      const item = element("li");
      item.append(element("i", "", { className: name }), text);
      find("legend").append(item);
    }
    find("period").addEventListener("change", () => this.metrics && this.show(this.metrics));
    for (const event of ["pointerover", "click"]) find("map").addEventListener(event, (e) => this.point(e.target));
    find("map").addEventListener("keydown", (e) => this.move(e));
    this.shape = "";
    this.chosen = null; // [row, column]
  }

  show(metrics) {
    this.metrics = metrics;
    find("experts").hidden = metrics.all("switchyard_build_info").length === 0;
    this.data = readExperts(metrics, find("period").value);
    const { kind, rows } = this.data;
    find("period").parentNode.hidden = kind !== "full";
    find("legend").hidden = find("detail").hidden = kind !== "full" && kind !== "topk";
    find("note").textContent = this.note();
    const shape = kind + rows.map((row) => `${row.layer}:${row.cells.length}`).join();
    if (shape !== this.shape) this.build();
    this.shape = shape;
    this.fill();
    this.tell("off");
    this.list();
  }

  note() {
    const window = "over the latest 512 to 1,024 tokens";
    const more = "(all experts, and their latency: --metrics-expert-detail full)";
    const { kind, total, lately } = this.data;
    if (kind === "off") return "The server tells nothing of layers and experts: --metrics-expert-detail is off.";
    if (kind === "layer") return `The balance of each layer, ${window} ${more}.`;
    if (kind === "topk") return `The busiest experts of each layer, ${window} ${more}.`;
    if (total === 0) return "No expert has computed a row yet.";
    if (lately) return `${formatCount(total)} rows in the last 30 seconds.`;
    const why = find("period").value === "lately" ? "Nothing ran in the last 30 seconds: " : "";
    return `${why}${formatCount(total)} rows since the start.`;
  }

  // An empty table of the right shape.
  build() {
    const { kind, rows } = this.data;
    const columns = rows[0]?.cells ?? [];
    const dense = columns.length > MAX_WIDE;
    const heads = columns.map((cell, i) => (kind === "full" ? cell.expert : ["busiest", "2nd", "3rd", "4th"][i]));
    const head = tableRow("th", ["layer", "imbalance", ...heads, "active", "ms/step"]);
    const body = document.createElement("tbody");
    this.cells = rows.map((row) => {
      const line = tableRow("td", ["", ...columns.map(() => ""), "", ""]);
      line.prepend(element("th", row.layer, { scope: "row" }));
      body.append(line);
      return [...line.children];
    });
    this.foot = kind === "full" && !dense ? tableRow("td", ["", ...columns.map(() => ""), "", ""]) : null;
    for (const line of [head, ...body.children, ...(this.foot ? [this.foot] : [])]) {
      const cells = [...line.children].slice(line === this.foot ? 0 : 1);
      cells.forEach((cell, i) => (cell.className = i > 0 && i <= columns.length ? "expert" : "figure"));
    }
    if (dense) [...head.children].slice(2, -2).forEach((cell, i) => cell.classList.toggle("marked", i % 8 === 0));
    const title = "mean time of the expert's batches, over all layers";
    this.foot?.firstChild.replaceWith(element("th", "µs/batch", { scope: "row", title, colSpan: 2 }));
    const table = element("table", "", { className: dense ? "dense" : "wide" });
    table.style.minWidth = `calc(${columns.length * CELL_PIXELS[table.className]}px + var(--other-columns))`;
    const [thead, tfoot] = [document.createElement("thead"), document.createElement("tfoot")];
    thead.append(head);
    if (this.foot) tfoot.append(this.foot);
    table.append(thead, body, tfoot);
    find("map").replaceChildren(...(rows.length > 0 ? [table] : []));
    this.chosen = null;
  }

  fill() {
    const { kind, rows, batchSeconds } = this.data;
    const set = (cell, text) => cell.textContent !== text && (cell.textContent = text);
    rows.forEach((row, r) => {
      const cells = this.cells[r];
      set(cells[1], row.imbalance.toFixed(2));
      cells[1].classList.toggle("hot", row.imbalance >= HOT);
      row.cells.forEach((cell, i) => {
        const share = formatShare(cell.share);
        set(cells[i + 2], kind === "topk" ? `${cell.expert}: ${share}` : share);
        cells[i + 2].className = `expert ${heatClass(cell.ratio)}`;
      });
      set(cells.at(-2), `${row.active}/${row.experts ?? "?"}`);
      set(cells.at(-1), row.seconds === undefined ? "–" : (1e3 * row.seconds).toFixed(row.seconds < 0.1 ? 2 : 0));
    });
    if (!this.foot) return;
    [...this.foot.children].slice(1, -2).forEach((cell, i) => {
      const seconds = batchSeconds.get(rows[0].cells[i].expert);
      set(cell, seconds === undefined ? "–" : formatCount(1e6 * seconds));
    });
  }

  point(target) {
    const cell = target.closest("td.expert");
    const row = this.cells?.findIndex((cells) => cells.includes(cell)) ?? -1;
    if (row >= 0) this.choose(row, this.cells[row].indexOf(cell) - 2, "off");
  }

  move(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const { rows } = this.data ?? { rows: [] };
    if (!step || !rows[0]?.cells.length) return;
    event.preventDefault();
    const within = (at, end) => Math.min(Math.max(at, 0), end - 1);
    const [row, column] = this.chosen ? this.chosen.map((at, i) => at + step[i]) : [0, 0];
    this.choose(within(row, rows.length), within(column, rows[0].cells.length), "polite");
    find("map").querySelector(".chosen").scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  choose(row, column, live) {
    this.chosen = [row, column];
    this.tell(live);
  }

  // Read out when somebody moved with the keyboard, not at each poll.
  tell(live) {
    find("map").querySelector(".chosen")?.classList.remove("chosen");
    if (!this.chosen) return;
    const [r, c] = this.chosen;
    const cell = this.data.rows[r].cells[c];
    this.cells[r][c + 2].classList.add("chosen");
    const rows = cell.rows === undefined ? "" : `, ${formatCount(cell.rows)} rows`;
    const batch = this.data.batchSeconds.get(cell.expert);
    const where = `Expert ${cell.expert} over all layers`;
    const latency = batch === undefined ? "" : ` ${where}: ${formatSeconds(batch)} per batch.`;
    const share = `${(100 * cell.share).toFixed(1)} % of the layer's rows, ${cell.ratio.toFixed(2)} times the mean`;
    find("detail").setAttribute("aria-live", live);
    find("detail").textContent = `Layer ${cell.layer}, expert ${cell.expert}: ${share}${rows}.${latency}`;
  }

  list() {
    const { kind, rows, batchSeconds } = this.data;
    const cells = rows.flatMap((row) => row.cells).filter((cell) => cell.share > 0);
    document.querySelector(".lists").hidden = cells.length === 0;
    const hottest = cells.sort((a, b) => b.ratio - a.ratio).slice(0, NUM_HOTTEST);
    const table = document.createElement("table");
    const [head, body] = [document.createElement("thead"), document.createElement("tbody")];
    head.append(tableRow("th", ["layer", "expert", "share", "× mean", ...(kind === "full" ? ["per batch"] : [])]));
    for (const cell of hottest) {
      const latency = kind === "full" ? [formatSeconds(batchSeconds.get(cell.expert))] : [];
      const texts = [cell.layer, cell.expert, formatShare(cell.share), cell.ratio.toFixed(2), ...latency];
      const line = tableRow("td", texts);
      line.children[3].className = heatClass(cell.ratio);
      body.append(line);
    }
    table.append(head, body);
    find("hottest").replaceChildren(table);

    const idle = rows.filter((row) => row.active < row.experts);
    const lines = idle.slice(0, NUM_IDLE_LAYERS).map((row) => {
      const experts = this.names(row.cells.filter((cell) => cell.rows === 0));
      const count = `${row.experts - row.active} of ${row.experts}`;
      return element("p", `Layer ${row.layer}: ${count}${experts && `: ${experts}`}`);
    });
    if (idle.length > NUM_IDLE_LAYERS) lines.push(element("p", `and in ${idle.length - NUM_IDLE_LAYERS} more layers`));
    find("idle").replaceChildren(...(lines.length > 0 ? lines : [element("p", "None: every expert had rows.")]));
  }

  names(cells) {
    const named = cells.slice(0, NUM_IDLE_NAMED).map((cell) => cell.expert).join(", ");
    return cells.length > NUM_IDLE_NAMED ? `${named} and ${cells.length - NUM_IDLE_NAMED} more` : named;
  }
}
