// Keeps the overview's current tick alive; the page is whole without it.
const places = Object.fromEntries([...document.querySelectorAll("[data-live]")].map((node) => [node.dataset.live, node]));
let shownTick = places.tick.textContent;
let wasRunning = places.state.textContent === "running";
new EventSource("/live").addEventListener("message", (event) => {
  const now = JSON.parse(event.data);
  places.state.textContent = now.running ? "running" : "waiting";
  places.tick.textContent = now.tick;
  places.tick.href = "/t/" + now.tick;
  places.next.textContent = now.next || "not scheduled";
  places.bar.max = now.planned || 1;
  places.bar.value = now.settled;
  places.settled.textContent = now.settled;
  places.planned.textContent = now.planned;
  for (const name of ["passed", "failed", "unscored"]) places[name].textContent = now.outcomes[name] || 0;
  places.air.replaceChildren(...now.in_air.map((one) => {
    const item = document.createElement("li");
    item.textContent = `${one.lane}: ${one.orchestrator} ${one.pipeline} ${one.model}`;
    return item;
  }));
  if (wasRunning && !now.running && now.tick === shownTick) location.reload();
  shownTick = now.tick;
  wasRunning = now.running;
});
