// Asks /metrics again and again, whatever happens: a server that is gone may come back.

const POLL_MS = 2000;
const MAX_POLL_MS = 30000;
const TIMEOUT_MS = 10000;

const metrics = new Metrics();
const serving = new Serving();
const experts = new ExpertMap();
let answered = null; // when the server last did

// Whether there was an answer.
async function ask() {
  try {
    const answer = await fetch("/metrics", { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    metrics.add(await answer.text(), performance.now());
    answered = performance.now();
    return true;
  } catch (error) {
    const since = answered === null ? "" : ` for ${formatAge((performance.now() - answered) / 1000)}`;
    showState(`No answer from the server${since}: trying again`, "bad");
    return false;
  }
}

async function poll() {
  const start = performance.now();
  const there = await ask();
  // A large model's text costs the server some time: at most a tenth of it.
  setTimeout(whenVisible, Math.min(Math.max(POLL_MS, 10 * (performance.now() - start)), MAX_POLL_MS));
  if (!there) return;
  serving.show(metrics);
  experts.show(metrics);
}

// A page that nobody looks at asks for nothing.
function whenVisible() {
  if (!document.hidden) return poll();
  document.addEventListener("visibilitychange", whenVisible, { once: true });
}

poll();
