// The head of the page and its tiles: is the server there, how fast is it, who waits.

const RATE_MS = 10000; // over which rates are taken
const NUM_POINTS = 90; // of a sparkline: three minutes

const find = (id) => document.getElementById(id);

// An element with text, never markup: whatever a name holds, it is shown as it is.
function element(tag, text = "", properties = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  return Object.assign(made, properties);
}

const formatCount = new Intl.NumberFormat("en", { maximumFractionDigits: 0 }).format;
const formatRate = (rate) => (rate < 9.95 ? rate.toFixed(1) : formatCount(rate));

function formatSeconds(seconds) {
  if (seconds === undefined) return "–";
  if (seconds < 1e-3) return `${Number((1e6 * seconds).toPrecision(2))} µs`;
  if (seconds < 1) return `${Number((1e3 * seconds).toPrecision(3))} ms`;
  return seconds < 120 ? `${Number(seconds.toPrecision(3))} s` : `${formatCount(seconds / 60)} min`;
}

function formatAge(seconds) {
  const units = [[86400, "days"], [3600, "hours"], [60, "minutes"]];
  const [size, name] = units.find(([size]) => seconds >= 2 * size) ?? [1, "seconds"];
  return `${Math.floor(seconds / size)} ${name}`;
}

// A figure with a name, a line below it, and for some how it went lately.
class Tile {
  constructor(name, unit) {
    this.unit = unit;
    this.points = [];
    this.big = element("p", "–", { className: "big" });
    this.sub = element("p", "", { className: "sub" });
    this.root = element("section", "", { className: "tile" });
    this.root.append(element("h2", name), this.big, this.sub);
    find("tiles").append(this.root);
  }

  show(text, sub) {
    this.big.textContent = text === "–" || !this.unit ? text : `${text} ${this.unit}`;
    this.sub.textContent = sub;
  }

  plot(value) {
    if (!this.line) {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", "0 0 100 26");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      this.line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
      svg.append(this.line);
      this.root.append(svg);
    }
    this.points = [...this.points, value].slice(-NUM_POINTS);
    const scale = 24 / Math.max(...this.points, 1e-9);
    const x = (i) => 100 - ((this.points.length - 1 - i) * 100) / (NUM_POINTS - 1);
    this.line.setAttribute("points", this.points.map((y, i) => `${x(i)},${25 - scale * y}`).join(" "));
    return Math.max(...this.points);
  }
}

class Serving {
  constructor() {
    this.generated = new Tile("Generated tokens", "/s");
    this.prompt = new Tile("Prompt tokens", "/s");
    this.running = new Tile("Running requests");
    this.waiting = new Tile("Waiting requests");
    this.kv = new Tile("KV cache in use");
    this.ttft = new Tile("Time to first token");
  }

  show(metrics) {
    this.showHead(metrics);
    this.showRate(metrics, this.generated, "switchyard_generation_tokens_total");
    this.showRate(metrics, this.prompt, "switchyard_prompt_tokens_total");
    const running = metrics.first("switchyard_num_requests_running");
    this.running.show(formatCount(running), `${formatCount(metrics.first("switchyard_open_calls"))} open calls`);
    this.running.plot(running);
    const waiting = metrics.first("switchyard_num_requests_waiting");
    const oldest = `the oldest for ${formatSeconds(metrics.first("switchyard_oldest_waiting_seconds"))}`;
    this.waiting.show(formatCount(waiting), waiting > 0 ? oldest : "nobody waits");
    this.waiting.plot(waiting);
    const usage = metrics.first("switchyard_kv_cache_usage_ratio");
    const [used, blocks] = [metrics.first("switchyard_kv_blocks_used"), metrics.first("switchyard_kv_blocks")];
    const cached = formatCount(metrics.first("switchyard_kv_blocks_cached"));
    this.kv.show(`${(100 * usage).toFixed(usage < 0.0995 ? 1 : 0)} %`,
      `${formatCount(used)} of ${formatCount(blocks)} blocks, ${cached} cached`);
    this.kv.plot(usage);
    this.showLatency(metrics);
  }

  showHead(metrics) {
    const info = metrics.labels[metrics.all("switchyard_build_info")[0]];
    const ready = metrics.first("switchyard_ready") === 1;
    // What runs is told once the model is loaded.
    const state = ready ? "Serving" : info ? "Draining: takes no new requests" : "Loading the model";
    showState(state, ready ? "good" : "waiting");
    const { model_name: model } = metrics.labels[metrics.all("switchyard_ready")[0]];
    find("model").textContent = model;
    document.title = `${model} – Switchyard`;
    const age = Date.now() / 1000 - metrics.first("process_start_time_seconds");
    const running = `up ${formatAge(Math.max(age, 0))}`;
    find("about").textContent = info ? `${info.version} on ${info.backend}, ${running}` : running;
  }

  showRate(metrics, tile, name) {
    const total = metrics.first(name);
    const base = metrics.since(RATE_MS);
    if (!base) return tile.show("–", `${formatCount(total)} since the start`);
    const rate = (1000 * metrics.totalGained(name, base)) / (metrics.now.time - base.time);
    const peak = tile.plot(rate);
    tile.show(formatRate(rate), `peak ${formatRate(peak)}, ${formatCount(total)} in all`);
  }

  showLatency(metrics) {
    const ttft = "switchyard_time_to_first_token_seconds";
    let base = metrics.since(Metrics.KEPT_MS);
    const lately = base && metrics.totalGained(ttft + "_count", base) > 0;
    if (!lately) base = null;
    const quantile = (name, share) => formatSeconds(metrics.quantile(name, share, base));
    const between = quantile("switchyard_inter_token_latency_seconds", 0.5);
    this.ttft.show(quantile(ttft, 0.5),
      `p95 ${quantile(ttft, 0.95)}; between tokens ${between}; ${lately ? "last 30 s" : "since the start"}`);
  }
}

// Told to screen readers when it changes, and only then.
function showState(text, kind) {
  const state = find("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = kind;
  find("main").classList.toggle("stale", kind === "bad");
}
