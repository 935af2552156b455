"use strict";
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value;
      const missing = (row) => head.classList.contains("word") ? false : value(row) === undefined;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        const order = head.classList.contains("word")
          ? b.cells[column].textContent.localeCompare(a.cells[column].textContent)
          : Number(value(b)) - Number(value(a));
        return descending ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

function element(tag, attributes, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

const home = document.getElementById("sliders");
for (const item of JSON.parse(document.getElementById("cases").textContent)) {
  const names = item.pictures.map((picture) => picture.name);
  const at = (name) => item.pictures[names.indexOf(name)];
  const under = element("img", {className: "under"}), over = element("img", {className: "over"});
  const left = element("span", {className: "name"}), right = element("span", {className: "name"});
  const range = element("input", {type: "range", min: 0, max: 100, step: 1, value: 50});
  range.setAttribute("aria-label", `${item.title}: how much of the left picture shows, per cent`);
  const slider = element("div", {className: "slider"}, under, over, element("div", {className: "bar"}), left, right, range);
  range.addEventListener("input", () => slider.style.setProperty("--at", `${range.value}%`));
  const pick = (label, start, show) => {
    const select = element("select", {}, ...names.map((name) => element("option", {value: name, textContent: name})));
    select.value = start;
    select.addEventListener("change", () => show(select.value));
    show(start);
    return element("label", {}, `${label} `, select);
  };
  const show = (image, label) => (name) => {
    image.src = at(name).source;
    image.alt = `${item.title}, ${name}`;
    label.textContent = name;
  };
  const picks = element("div", {className: "picks"},
    pick("left", item.left, show(over, left)), pick("right", item.right, show(under, right)));
  const strip = element("div", {className: "strip"}, ...(item.strip ? item.pictures : []).map((picture) => element(
    "figure", {}, element("img", {src: picture.source, alt: `${item.title}, ${picture.name}`}),
    element("figcaption", {textContent: picture.note ? `${picture.name} ${picture.note}` : picture.name}))));
  home.append(element("figure", {className: "case"},
    element("figcaption", {textContent: item.title}), slider, picks, strip));
}
