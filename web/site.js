"use strict";
// What every page can do: switch between light and dark, sort its tables, search all pages. Nothing is fetched from
// elsewhere, and everything can be read without it.

// --------------------------------------------------------------------------------------- light and dark
{
  const button = document.querySelector(".theme");
  const names = { "": "Theme: auto", light: "Theme: light", dark: "Theme: dark" };
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = names[theme];
  };
  show(document.documentElement.dataset.theme in names ? document.documentElement.dataset.theme : "");
  button.hidden = false;
  button.addEventListener("click", () => {
    const themes = Object.keys(names);
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
    show(next);
    try {
      localStorage.setItem("theme", next);
    } catch {
      // a browser that keeps nothing still shows it on this page
    }
  });
}

// ----------------------------------------------------------------------------------------- sorted tables
// A column of numbers is sorted by the first number in each cell, any other by its text.
const numberIn = (text) => {
  const found = text.replaceAll(",", "").replaceAll("−", "-").match(/[-+]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : NaN;
};

function sortBy(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
  const filled = rows.filter(({ text }) => text && text !== "–");
  const numeric = filled.every(({ text }) => /^[-+−]?[\d,.]+/.test(text));
  const sign = ascending ? 1 : -1;
  const compare = (one, other) =>
    numeric ? numberIn(one.text) - numberIn(other.text) : one.text.localeCompare(other.text, "en", { numeric: true });
  filled.sort((one, other) => sign * compare(one, other));
  body.append(...[...filled, ...rows.filter((each) => !filled.includes(each))].map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    if (!head.textContent.trim()) continue;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.ariaSort !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.ariaSort = ascending ? "ascending" : "descending";
      sortBy(table, column, ascending);
    });
  }
}

// ------------------------------------------------------------------------------------------------ search
// The index is a script, so that it also loads from a folder without a server; only who searches pays for it.
{
  const form = document.querySelector(".search");
  const root = document.body.dataset.root;
  const most = 12;
  const weights = [4, 3, 1]; // of title, heading and text
  let index = null;

  // As it is compared: "2,310" is "2310", "one-cycle" is "one cycle", "normalization" is "normalisation".
  const plain = (text) =>
    text.toLowerCase().replace(/(\d),(?=\d{3})/g, "$1").replaceAll("-", " ").replace(/iz(?=[aei])/g, "is");

  const find = (words) => {
    const score = ({ places }) => {
      if (!words.every((word) => places.some((place) => place.includes(word)))) return 0;
      const counted = [...words, ...(words.length > 1 ? [words.join(" ")] : [])];
      const count = (word) => places.reduce((sum, place, k) => sum + weights[k] * place.includes(word), 0);
      return counted.reduce((sum, word) => sum + count(word), 0);
    };
    const scored = index.map((entry) => ({ entry, score: score(entry) })).filter(({ score }) => score > 0);
    return scored.sort((one, other) => other.score - one.score).map(({ entry }) => entry);
  };

  const around = ({ text, places }, word) => {
    const at = Math.max(0, places[2].indexOf(word) - 50);
    return `${at ? "… " : ""}${text.slice(at, at + 150)}${text.length > at + 150 ? " …" : ""}`;
  };

  const itemOf = (entry, words) => {
    const link = document.createElement("a");
    link.href = root + entry.address;
    link.textContent = entry.heading === entry.title ? entry.title : `${entry.title}: ${entry.heading}`;
    const extract = document.createElement("small");
    extract.textContent = ` ${around(entry, words[0])}`;
    const item = document.createElement("li");
    item.append(link, extract);
    return item;
  };

  const show = () => {
    const box = form.querySelector(".found");
    const words = plain(form.querySelector("input").value).split(/\s+/).filter(Boolean);
    box.hidden = !index || !words.length;
    if (box.hidden) return;
    const found = find(words);
    const count = found.length === 1 ? "1 place" : `${found.length} places`;
    box.querySelector("p").textContent = found.length > most ? `${count}, the first ${most}` : count;
    box.querySelector("ul").replaceChildren(...found.slice(0, most).map((entry) => itemOf(entry, words)));
  };

  if (form) {
    const input = form.querySelector("input");
    const close = () => (form.querySelector(".found").hidden = true);
    form.hidden = false;
    input.addEventListener(
      "focus",
      () => {
        const script = document.createElement("script");
        script.src = `${root}assets/search.js`;
        script.addEventListener("load", () => {
          index = globalThis.SEARCH;
          for (const entry of index) entry.places = [entry.title, entry.heading, entry.text].map(plain);
          show();
        });
        document.head.append(script);
      },
      { once: true },
    );
    for (const name of ["input", "focus"]) input.addEventListener(name, show);
    form.querySelector(".found").addEventListener("click", ({ target }) => target.closest("a") && close());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.querySelector(".found:not([hidden]) a")?.click();
    });

    // What lies over the page goes away with Escape, or with a click beside it.
    const map = document.querySelector("details.map");
    document.addEventListener("keydown", ({ key }) => {
      if (key !== "Escape") return;
      close();
      map.open = false;
    });
    document.addEventListener("click", ({ target }) => {
      if (!form.contains(target)) close();
      if (!map.contains(target)) map.open = false;
    });
  }
}
