// Move through a chart by arrow keys, and show times in the reader's zone on request. Pages are complete without this.
const KEYS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
const STORED = "jobtester-local-times";

document.addEventListener("keydown", (event) => {
  const link = event.target.closest?.("svg.plot a");
  if (!link || !(event.key in KEYS || event.key === "Home" || event.key === "End")) return;
  const links = [...link.closest("svg").querySelectorAll("a")];
  const place = { Home: 0, End: links.length - 1 }[event.key] ?? links.indexOf(link) + KEYS[event.key];
  const next = links[Math.min(Math.max(place, 0), links.length - 1)];
  link.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
  event.preventDefault();
});

// As `2026-05-04 10:00:00 +02:00`: the same form as in UTC, which also the inputs accept.
const offsetOf = (date) => {
  const minutes = -date.getTimezoneOffset();
  const two = (number) => String(Math.trunc(number)).padStart(2, "0");
  return `${minutes < 0 ? "-" : "+"}${two(Math.abs(minutes) / 60)}:${two(Math.abs(minutes) % 60)}`;
};
const localText = (date) => {
  const shifted = new Date(date.getTime() - date.getTimezoneOffset() * 60000);
  return `${shifted.toISOString().slice(0, 19).replace("T", " ")} ${offsetOf(date)}`;
};
const utcText = (date) => `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;

const zone = document.querySelector("[data-zone]");
const times = [...document.querySelectorAll("time[datetime]")];
const show = (isLocal) => {
  for (const time of times) {
    const date = new Date(time.dateTime);
    time.textContent = isLocal ? localText(date) : utcText(date);
    time.title = isLocal ? utcText(date) : localText(date);
  }
  zone.textContent = isLocal ? "times are those of your zone, charts are UTC" : "all times are UTC";
};
const button = document.createElement("button");
const read = () => { try { return localStorage.getItem(STORED) === "yes"; } catch { return false; } };
const label = () => { button.textContent = read() ? "show UTC" : "show my time zone"; };
button.type = "button";
button.addEventListener("click", () => {
  try { localStorage.setItem(STORED, read() ? "no" : "yes"); } catch { return; }
  show(read());
  label();
});
zone.after(" ", button);
label();
show(read());

// What is typed without an offset is meant in the zone that the page shows.
for (const form of document.querySelectorAll("form.filters")) {
  form.addEventListener("submit", () => {
    for (const input of form.querySelectorAll("[name=since], [name=until]")) {
      const text = input.value.trim();
      if (read() && /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?$/.test(text)) {
        input.value = text + offsetOf(new Date(text.replace(" ", "T")));
      }
    }
  });
}
