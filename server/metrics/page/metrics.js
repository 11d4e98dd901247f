"use strict";

// What /metrics said at the latest polls, so that counters can be read as rates.
//
// A series is known by the text before its value and has a number (id); a sample is the time (ms) and the value of each
// id. "Gained" is what a counter grew by since a sample, or since the server's start where there is none.
class Metrics {
  static KEPT_MS = 30000;

  constructor() {
    this.clear();
  }

  clear() {
    this.ids = new Map(); // text of the series -> id
    this.labels = []; // id -> {label: value}
    this.names = new Map(); // name -> [id]
    this.samples = [];
  }

  // Takes in one text. A server that was started anew counts from 0: what the old one said is forgotten.
  add(text, time) {
    const values = [];
    for (const line of text.split("\n")) {
      if (line === "" || line[0] === "#") continue;
      const end = line.lastIndexOf(" ");
      const series = line.slice(0, end);
      values[this.ids.get(series) ?? this.intern(series)] = Metrics.number(line.slice(end + 1));
    }
    const started = this.names.get("process_start_time_seconds")?.[0];
    if (this.samples.length > 0 && this.samples.at(-1).values[started] !== values[started]) {
      this.clear();
      this.add(text, time);
      return;
    }
    this.samples = this.samples.filter((sample) => sample.time >= time - Metrics.KEPT_MS);
    this.samples.push({ time, values });
  }

  static number(text) {
    return text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text);
  }

  intern(series) {
    const brace = series.indexOf("{");
    const name = brace < 0 ? series : series.slice(0, brace);
    const labels = {};
    for (const [, label, value] of series.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[label] = value.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
    }
    const id = this.labels.push(labels) - 1;
    this.ids.set(series, id);
    if (!this.names.has(name)) this.names.set(name, []);
    this.names.get(name).push(id);
    return id;
  }

  get now() {
    return this.samples.at(-1);
  }

  // The oldest sample that is at most `ms` old; null where there is but the newest.
  since(ms) {
    const base = this.samples.find((sample) => sample.time >= this.now.time - ms);
    return base === this.now ? null : base;
  }

  // The ids of a name that the newest sample has.
  all(name) {
    return (this.names.get(name) ?? []).filter((id) => this.now.values[id] !== undefined);
  }

  // {label's value: id} of a name whose series differ in that label alone.
  by(name, label) {
    return new Map(this.all(name).map((id) => [this.labels[id][label], id]));
  }

  value(id) {
    return this.now.values[id];
  }

  gained(id, base) {
    return this.now.values[id] - (base?.values[id] ?? 0);
  }

  // Of the first series of a name; undefined where there is none.
  first(name) {
    const ids = this.all(name);
    return ids.length > 0 ? this.value(ids[0]) : undefined;
  }

  totalGained(name, base) {
    return this.all(name).reduce((sum, id) => sum + this.gained(id, base), 0);
  }

  // {label's value: mean of what a histogram observed}, of those that observed anything.
  means(name, label, base) {
    const counts = this.by(name + "_count", label);
    const means = new Map();
    for (const [value, id] of this.by(name + "_sum", label)) {
      const count = this.gained(counts.get(value), base);
      if (count > 0) means.set(value, this.gained(id, base) / count);
    }
    return means;
  }

  // Of a histogram, as Prometheus' histogram_quantile has it; undefined when nothing was observed.
  quantile(name, share, base) {
    let below = { edge: 0, count: 0 };
    const buckets = this.all(name + "_bucket")
      .map((id) => ({ edge: Metrics.number(this.labels[id].le), count: this.gained(id, base) }))
      .sort((a, b) => a.edge - b.edge);
    const rank = share * (buckets.at(-1)?.count ?? 0);
    if (rank === 0) return undefined;
    for (const bucket of buckets) {
      if (bucket.count >= rank) {
        if (bucket.edge === Infinity) return below.edge;
        return below.edge + ((bucket.edge - below.edge) * (rank - below.count)) / (bucket.count - below.count);
      }
      below = bucket;
    }
    return undefined;
  }
}
