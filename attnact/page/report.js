"use strict";

const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

// Learning curves: a box for each model.
for (const box of all("[data-toggles]")) {
  const shown = all(`#curves g[data-setting="${box.dataset.toggles}"]`);
  const show = () => shown.forEach((line) => { line.style.display = box.checked ? "" : "none"; });
  box.addEventListener("change", show);
  show(); // a browser keeps the boxes when the page is loaded again
}

// Classes: one model at a time, rows and columns of it in the same order.
const ORDERS = {
  listed: (a, b) => a.listed - b.listed,
  name: (a, b) => a.name.localeCompare(b.name),
  best: (a, b) => b.value - a.value,
  worst: (a, b) => a.value - b.value,
  videos: (a, b) => b.videos - a.videos,
};

function sortClasses(table, order) {
  const rows = all("tbody tr", table).map((row) => {
    const { listed, name, value, videos } = row.dataset;
    const known = value !== "nan";
    return { row, listed: +listed, name, value: known ? +value : 0, known, videos: +videos };
  });
  rows.sort((a, b) => b.known - a.known || ORDERS[order](a, b) || a.listed - b.listed);
  // The class columns follow the rows; they stand as the last order left them.
  const moved = all("tbody tr", table).map((row) => +row.dataset.listed);
  const from = rows.map((it) => moved.indexOf(it.listed));
  for (const row of all("tr", table)) {
    const cells = all(".class-column, .count", row);
    if (cells.length) row.firstElementChild.after(...from.map((i) => cells[i]));
  }
  table.tBodies[0].append(...rows.map((it) => it.row));
}

function showClasses() {
  for (const part of all(".breakdown")) {
    part.hidden = part.dataset.model !== byId("class-model").value;
    if (!part.hidden) sortClasses(part.querySelector("table"), byId("class-order").value);
  }
}

if (byId("class-model")) {
  byId("class-model").addEventListener("change", showClasses);
  byId("class-order").addEventListener("change", showClasses);
  showClasses();
}

// Videos: a canvas each, the frame under the map.
const SIDE = 7; // locations in height and in width

function light(attentionMap, largest) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(SIDE, SIDE);
  attentionMap.forEach((share, i) => {
    // Drawn over a frame: a third of it where nothing is looked at, to three quarters and white.
    const glow = share / largest, cover = 0.65 - 0.4 * glow;
    pixels.data.fill(Math.round((255 * 0.25 * glow) / cover), 4 * i, 4 * i + 3);
    pixels.data[4 * i + 3] = Math.round(255 * cover);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function drawCard(card) {
  const { video, guess } = card;
  const t = +card.slider.value, frame = `frame ${video.frames[t]}`;
  const [width, height] = video.size;
  const context = card.canvas.getContext("2d");
  context.drawImage(card.strip, t * width, 0, width, height, 0, 0, width, height);
  card.frame.textContent = frame;
  let said = frame;
  if (guess && guess.maps && byId("maps").checked) {
    const largest = Math.max(...guess.maps.flat());
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(light(guess.maps[t], largest), 0, 0, width, height);
    const most = Math.max(...guess.maps[t]), at = guess.maps[t].indexOf(most);
    const where = `row ${Math.floor(at / SIDE) + 1}, column ${(at % SIDE) + 1}`;
    said += `, most attention at ${where}: ${percent(most / DATA.unit)}`;
  }
  card.canvas.setAttribute("aria-label", said);
  card.slider.setAttribute("aria-valuetext", said);
}

function describe(card, attends) {
  const { guess } = card;
  const line = card.element.querySelector(".guess"), looks = card.element.querySelector(".looks");
  line.className = "guess";
  if (!guess) {
    line.textContent = "not a test video of this model";
    looks.textContent = "";
    return;
  }
  line.classList.add(guess.right ? "right" : "wrong");
  const [first, second] = guess.best.map(([name, score]) => `${name} (${percent(score)})`);
  line.textContent = `taken for ${first}${second ? `, then ${second}` : ""}`;
  if (guess.maps) {
    looks.textContent = `white: ${percent(Math.max(...guess.maps.flat()) / DATA.unit)} of the attention`;
  } else {
    looks.textContent = attends ? "its maps are missing" : "a model without attention: frames only";
  }
}

function fits(card) {
  if (!card.guess) return false;
  const named = byId("class").value, result = byId("result").value;
  const confidence = 100 * card.guess.best[0][1];
  const low = byId("low").value, high = byId("high").value;
  return (!named || card.classes.includes(named))
    && (!result || card.guess.right === (result === "right"))
    && confidence >= (low === "" ? 0 : +low) && confidence <= (high === "" ? 100 : +high);
}

function showCards() {
  const number = +byId("model").value;
  for (const card of CARDS) {
    card.guess = card.video.guesses[number];
    describe(card, DATA.settings[number].attends);
    card.element.hidden = !fits(card);
    if (!card.element.hidden) drawCard(card);
  }
  const shown = CARDS.filter((card) => !card.element.hidden).length;
  byId("count").textContent = `${shown} of ${CARDS.length} videos`;
}

const DATA = byId("data") ? JSON.parse(byId("data").textContent) : { videos: [] };
const CARDS = all(".card").map((element) => ({
  element,
  video: DATA.videos[+element.dataset.video],
  classes: JSON.parse(element.dataset.true),
  strip: element.querySelector(".strip"),
  canvas: element.querySelector("canvas"),
  slider: element.querySelector("input"),
  frame: element.querySelector(".frame"),
}));

function startGallery() {
  for (const card of CARDS) {
    [card.canvas.width, card.canvas.height] = card.video.size;
    card.strip.hidden = true;
    card.canvas.hidden = card.element.querySelector(".time").hidden = false;
    card.slider.addEventListener("input", () => drawCard(card));
  }
  byId("filters").addEventListener("input", showCards);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  showCards();
}

if (CARDS.length) Promise.all(CARDS.map((card) => card.strip.decode())).then(startGallery);
