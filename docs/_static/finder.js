// The box over the index: rows that hold every word typed stay, the others hide. Both are compared without blanks,
// hyphens and accents, and with subscripts on the line: q(x_t|x_0) finds q(x_t | x₀). Greek may be typed as names.
const names = { alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", varepsilon: "ε", eta: "η", lambda: "λ",
  mu: "μ", pi: "π", sigma: "σ", tau: "τ", phi: "φ", sum: "σ", sqrt: "√", partial: "∂", mid: "|" };
const greek = (text) => text.replace(/[a-z]+/g, (word) => names[word] ?? word);
const fold = (text) => text.normalize("NFKD").replace(/log/g, "ln").replace(/[\u0300-\u036f\u200b\s_^{}\\*·–−-]/g, "");
// Formulas are still TeX when this runs.
const plain = (text) => text.replace(/\\tilde (\w)/g, "$1~").replace(/\\math(rm|sf|bb)/g, "")
  .replace(/\\[a-z]+/g, (command) => greek(command.slice(1)));
const box = document.getElementById("finder");
if (box) {
  const rows = [...document.querySelectorAll("table.formulas tbody tr")];
  const texts = rows.map((row) => fold(plain(row.textContent.toLowerCase())));
  const show = () => {
    const words = box.value.toLowerCase().split(/\s+/).map((word) => [fold(word), fold(greek(word))]);
    let found = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((spellings) => spellings.some((word) => texts[i].includes(word)));
      found += !row.hidden;
    });
    document.querySelectorAll("article section section").forEach((section) => {
      section.hidden = section.querySelector("tbody tr") && !section.querySelector("tbody tr:not([hidden])");
    });
    const asked = box.value.trim();
    document.getElementById("found").textContent = asked ? `${found} of ${rows.length}` : "";
    history.replaceState(null, "", asked ? "?q=" + encodeURIComponent(box.value) : location.pathname);
  };
  box.addEventListener("input", show);
  const wanted = new URLSearchParams(location.search).get("q");
  if (wanted) { box.value = wanted; show(); }
}
