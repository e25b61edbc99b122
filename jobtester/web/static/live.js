// Keep the overview's current tick up to date. The page is complete without this script.
const places = Object.fromEntries([...document.querySelectorAll("[data-live]")].map((node) => [node.dataset.live, node]));
const OUTCOMES = ["passed", "failed", "unscored"];
const MAX_TEXT = 120;
// Control characters and marks that change the direction of writing, which would disguise a text.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;
let shownTick = places.tick.textContent;
let wasRunning = places.state.textContent === "running";

const brief = (text) => (text.length > MAX_TEXT ? text.slice(0, MAX_TEXT) + "…" : text)
  .replace(HIDDEN, (char) => `⟨U+${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
const shortAddress = (address) => address.length > 14 ? `${address.slice(0, 8)}…${address.slice(-4)}` : address;
const instant = (seconds) => `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;

const showState = (state) => {
  places.state.textContent = places.state.dataset.state = state;
  if (state === "running" || state === "waiting") {
    places.heading.textContent = state === "running" ? "Current tick" : "Last tick";
  }
};

const showCounts = (progress) => {
  places.finished.textContent = progress.settled;
  places.planned.textContent = progress.planned;
  places.bar.ariaValueMax = progress.planned || 1;
  places.bar.ariaValueNow = progress.settled;
  places.meter.setAttribute("viewBox", `0 0 ${progress.planned || 1} 1`);
  let start = 0;
  for (const [index, name] of OUTCOMES.entries()) {
    const count = progress.outcomes[name] || 0;
    places[name].textContent = count;
    places.meter.children[index].setAttribute("x", start);
    places.meter.children[index].setAttribute("width", count);
    start += count;
  }
};

const showJobsInFlight = (jobs) => places["in-flight"].replaceChildren(...jobs.map((job) => {
  const item = document.createElement("li");
  item.textContent = `${brief(job.gateway)}: ${shortAddress(job.orchestrator)} ${brief(job.pipeline)} ${brief(job.model)}`;
  return item;
}));

const source = new EventSource("/live");
source.addEventListener("error", () => showState("not connected"));
source.addEventListener("message", (event) => {
  const { next_tick_at: nextTickAt, progress } = JSON.parse(event.data);
  const running = progress !== null && progress.running;
  showState(running ? "running" : "waiting");
  places.next.textContent = nextTickAt ? instant(nextTickAt) : "not scheduled";
  if (progress === null) return; // no tick since the tester was started: the page shows an older one
  places.tick.textContent = progress.tick;
  places.tick.href = "/t/" + progress.tick;
  places.tick.hidden = false;
  showCounts(progress);
  showJobsInFlight(progress.in_flight);
  // The tables of results and ticks are only rendered by the server.
  if (wasRunning && !running && progress.tick === shownTick) location.reload();
  shownTick = progress.tick;
  wasRunning = running;
});
