// The box over the index: rows that hold every word typed stay, the others hide. Greek may be typed as names.
const names = { alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", eta: "η", lambda: "λ", mu: "μ", pi: "π",
  sigma: "σ", tau: "τ", phi: "φ", sum: "Σ", sqrt: "√" };
const box = document.getElementById("finder");
if (box) {
  const rows = [...document.querySelectorAll("table.formulas tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const show = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((w) => texts[i].includes(w) || (names[w] && texts[i].includes(names[w].toLowerCase())));
      found += !row.hidden;
    });
    document.querySelectorAll("article section section").forEach((section) => {
      section.hidden = section.querySelector("tbody tr") && !section.querySelector("tbody tr:not([hidden])");
    });
    document.getElementById("found").textContent = words.length ? `${found} of ${rows.length}` : "";
    history.replaceState(null, "", words.length ? "?q=" + encodeURIComponent(box.value) : location.pathname);
  };
  box.addEventListener("input", show);
  const wanted = new URLSearchParams(location.search).get("q");
  if (wanted) { box.value = wanted; show(); }
}
