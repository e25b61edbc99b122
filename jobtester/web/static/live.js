// Keeps the overview's current tick alive; the page is whole without it.
const places = Object.fromEntries([...document.querySelectorAll("[data-live]")].map((node) => [node.dataset.live, node]));
const OUTCOMES = ["passed", "failed", "unscored"];
let shownTick = places.tick.textContent;
let wasRunning = places.state.textContent === "running";

const showState = (state) => { places.state.textContent = places.state.dataset.state = state; };

const showCounts = (now) => {
  places.settled.textContent = now.settled;
  places.planned.textContent = now.planned;
  places.bar.ariaValueMax = now.planned || 1;
  places.bar.ariaValueNow = now.settled;
  places.meter.setAttribute("viewBox", `0 0 ${now.planned || 1} 1`);
  let start = 0;
  for (const [at, name] of OUTCOMES.entries()) {
    const count = now.outcomes[name] || 0;
    places[name].textContent = count;
    places.meter.children[at].setAttribute("x", start);
    places.meter.children[at].setAttribute("width", count);
    start += count;
  }
};

const showAir = (jobs) => places.air.replaceChildren(...jobs.map((one) => {
  const item = document.createElement("li");
  item.textContent = `${one.gateway}: ${one.orchestrator} ${one.pipeline} ${one.model}`;
  return item;
}));

const source = new EventSource("/live");
source.addEventListener("error", () => showState("not connected"));
source.addEventListener("message", (event) => {
  const now = JSON.parse(event.data);
  showState(now.running ? "running" : "waiting");
  places.next.textContent = now.next || "not scheduled";
  if (!now.tick) return; // none since the tester was started: what is shown is an older one
  places.tick.textContent = now.tick;
  places.tick.href = "/t/" + now.tick;
  places.tick.hidden = false;
  showCounts(now);
  showAir(now.in_air);
  if (wasRunning && !now.running && now.tick === shownTick) location.reload();
  shownTick = now.tick;
  wasRunning = now.running;
});
