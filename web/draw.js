"use strict";
// The drawing page: what is drawn becomes MNIST's pixels (digit.js), goes through a network (network.js), and every
// step is shown. NETWORKS holds the smallest network; the others are loaded when they are chosen.
{
  const find = (id) => document.getElementById(id);
  const board = find("board");
  const pen = board.getContext("2d", { willReadFrequently: true });
  const said = find("said");
  const bars = document.querySelector(".bars");
  const choices = JSON.parse(find("choices").textContent);
  const networks = {};
  const PAUSE = 100; // milliseconds between two readings while one draws
  let source = board; // or the picture that was chosen
  let chosen = choices[0].name;
  let waiting = false;
  let readAt = 0;
  let actions = 0; // a picture that is loaded late must not undo what was done since

  // ------------------------------------------------------------------------------------------- the board
  function clear() {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, board.width, board.height);
    source = board;
  }

  const placeOf = (event) => {
    const box = board.getBoundingClientRect();
    const unit = board.width / box.width;
    return [(event.clientX - box.left) * unit, (event.clientY - box.top) * unit];
  };
  let last = null;
  let pointer = null; // the finger that draws; others, or the palm, do not

  board.addEventListener("pointerdown", (event) => {
    if (last || event.button !== 0) return;
    event.preventDefault();
    board.setPointerCapture(event.pointerId);
    actions += 1;
    if (source !== board) clear();
    [pointer, last] = [event.pointerId, placeOf(event)];
    stroke(last);
  });
  board.addEventListener("pointermove", (event) => {
    if (!last || event.pointerId !== pointer) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) stroke(placeOf(each));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    board.addEventListener(name, (event) => {
      if (!last || event.pointerId !== pointer) return;
      last = null;
      readSoon();
    });
  }

  function stroke(to) {
    Object.assign(pen, { lineWidth: 22, lineCap: "round", lineJoin: "round", strokeStyle: "#000" });
    pen.beginPath();
    pen.moveTo(...last);
    pen.lineTo(...to);
    pen.stroke();
    last = to;
    readSoon();
  }

  // ------------------------------------------------------------------------------------- a chosen picture
  async function open(file) {
    const action = (actions += 1);
    const picture = new Image(); // which also reads SVG
    picture.src = URL.createObjectURL(file);
    try {
      await picture.decode();
    } catch {
      if (action === actions) say(`${file.name} is not a picture that can be read.`);
      return;
    } finally {
      URL.revokeObjectURL(picture.src);
    }
    if (action !== actions) return;
    const [across, down] = [picture.naturalWidth || 300, picture.naturalHeight || 300];
    const scale = Math.min(1, 400 / Math.max(across, down));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(across * scale));
    canvas.height = Math.max(1, Math.round(down * scale));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const paper = paperBehind(context.getImageData(0, 0, canvas.width, canvas.height).data);
    Object.assign(context, { globalCompositeOperation: "destination-over", fillStyle: paper });
    context.fillRect(0, 0, canvas.width, canvas.height);
    clear();
    source = canvas;
    const fit = board.width / Math.max(canvas.width, canvas.height);
    const [width, height] = [canvas.width * fit, canvas.height * fit];
    pen.drawImage(canvas, (board.width - width) / 2, (board.height - height) / 2, width, height);
    readSoon();
  }

  // Behind what is transparent: white, or black behind light strokes.
  function paperBehind(data) {
    let [light, all] = [0, 0];
    for (let at = 0; at < data.length; at += 4) {
      light += (data[at + 3] * (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471)) / 65536;
      all += data[at + 3];
    }
    return light > 127.5 * all && all < 127.5 * (data.length / 4) ? "#000" : "#fff";
  }

  find("clear").addEventListener("click", () => {
    actions += 1;
    clear();
    readSoon();
  });
  find("file").addEventListener("change", ({ target }) => {
    if (target.files.length) open(target.files[0]);
    target.value = ""; // the same file can be chosen again
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  });

  const isBlank = () => pen.getImageData(0, 0, board.width, board.height).data.every((value) => value === 255);

  // ---------------------------------------------------------------------------------------------- reading
  function greyOf(canvas) {
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const values = new Float64Array(width * height); // weights of red, green and blue as Pillow has them
    for (let at = 0; at < values.length; at += 1) {
      const [red, green, blue] = data.subarray(4 * at, 4 * at + 3);
      values[at] = ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16) / 255;
    }
    return { width, height, values };
  }

  function readSoon() {
    if (waiting) return;
    waiting = true;
    const pause = last ? readAt + PAUSE - performance.now() : 0;
    setTimeout(() => {
      requestAnimationFrame(() => {
        waiting = false;
        read();
        readAt = performance.now();
      });
    }, Math.max(0, pause));
  }

  function read() {
    const network = networks[chosen];
    if (!network) return;
    let pixels;
    try {
      pixels = asMnist(greyOf(source));
    } catch (error) {
      say(source === board && isBlank() ? "Draw a digit." : error.message);
      showNothing();
      return;
    }
    const maps = trace(network, pixels);
    const chances = softmax(maps.at(-1).values);
    const order = [...chances.keys()].sort((one, other) => chances[other] - chances[one]);
    const first = `${order[0] === 8 ? "An" : "A"} ${order[0]}: ${percent(chances[order[0]])}.`;
    say(chances[order[1]] < 0.001 ? first : `${first} Then ${order[1]}: ${percent(chances[order[1]])}.`);
    showBars(chances, order[0]);
    paint(find("seen"), pixels, 28, (value) => grey(value / 255));
    find("seen").ariaLabel = "The 28 x 28 pixels that the network sees";
    showWhy(network, maps, pixels, order[0]);
    showMaps(network, maps);
  }

  const percent = (chance) => (chance > 0.999 ? "over 99.9 %" : `${(100 * chance).toFixed(1)} %`);

  // A screen reader says it when the pen is up; while one draws it would never come to an end.
  function say(text) {
    said.ariaLive = last ? "off" : "polite";
    if (said.textContent !== text) said.textContent = text;
  }

  // ---------------------------------------------------------------------------------------------- showing
  const grey = (share) => [0, 0, 0, 255 * Math.min(1, Math.max(0, share))];

  function paint(canvas, values, width, colour) {
    const small = document.createElement("canvas");
    [small.width, small.height] = [width, values.length / width];
    const image = new ImageData(small.width, small.height);
    values.forEach((value, at) => image.data.set(colour(value), 4 * at));
    small.getContext("2d").putImageData(image, 0, 0);
    const context = canvas.getContext("2d");
    Object.assign(context, { imageSmoothingEnabled: false, fillStyle: "#fff" });
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  function showBars(chances, digit) {
    chances.forEach((chance, at) => {
      const bar = bars.children[at];
      bar.firstChild.style.width = `${100 * chance}%`;
      bar.lastChild.textContent = `${at}: ${percent(chance)}`;
      bar.classList.toggle("said", at === digit);
    });
  }

  function showNothing() {
    showBars(new Array(10).fill(0), null);
    for (const name of ["seen", "why"]) {
      paint(find(name), [0], 1, grey);
      find(name).ariaLabel = "Nothing yet";
    }
    find("maps").replaceChildren();
  }

  // Where a value of the map in front of the mean looks: the pixel in its middle, and pixels between neighbours.
  function placeOfMaps(network) {
    let [first, step] = [0, 1];
    for (const { kind, size, padding } of network) {
      if (kind === "mean") break;
      if (kind === "conv") first += ((size - 1) / 2 - padding) * step;
      if (kind === "maxpool") [first, step] = [first + ((size - 1) / 2) * step, size * step];
    }
    return [first, step];
  }

  function showWhy(network, maps, pixels, digit) {
    const { width, height, values } = activationMap(network, maps, digit);
    const most = values.reduce((one, other) => Math.max(one, Math.abs(other)), 1e-9);
    const canvas = find("why");
    paint(canvas, pixels, 28, (value) => grey((0.35 * value) / 255));
    const context = canvas.getContext("2d");
    const [first, step] = placeOfMaps(network);
    const unit = canvas.width / 28;
    for (let at = 0; at < values.length; at += 1) {
      const [row, column] = [Math.floor(at / width), at % width];
      const strength = (0.75 * Math.abs(values[at])) / most;
      context.fillStyle = values[at] > 0 ? `rgb(11 87 164 / ${strength})` : `rgb(166 27 18 / ${strength})`;
      const corner = (place) => (first + place * step + 0.5 - step / 2) * unit;
      context.fillRect(corner(column), corner(row), step * unit, step * unit);
    }
    canvas.ariaLabel = `Where the evidence for ${digit} lies, ${width} x ${height} places`;
  }

  function showMaps(network, maps) {
    const rows = network.flatMap(({ kind }, at) => (["relu", "mean"].includes(kind) ? [at + 1] : []));
    const box = find("maps");
    while (box.children.length > rows.length) box.lastChild.remove();
    rows.forEach((at, number) => {
      const { channels, height, width, values } = maps[at];
      const row = box.children[number] ?? box.appendChild(document.createElement("div"));
      if (row.childElementCount !== channels + 1) {
        row.replaceChildren(document.createElement("span"));
        for (let channel = 0; channel < channels; channel += 1) {
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height, canvas.ariaHidden] = [48, 48, "true"];
          row.append(canvas);
        }
      }
      row.firstChild.textContent = `${channels} channels, ${height} x ${width}`;
      const most = values.reduce((one, other) => Math.max(one, other), 1e-9);
      for (let channel = 0; channel < channels; channel += 1) {
        const part = values.subarray(channel * height * width, (channel + 1) * height * width);
        paint(row.children[channel + 1], part, width, (value) => grey(value / most));
      }
    });
  }

  // --------------------------------------------------------------------------------------------- networks
  function choose(name) {
    chosen = name;
    if (networks[name]) {
      readSoon();
      return;
    }
    const unpacked = () => {
      networks[name] = unpack(globalThis.NETWORKS[name]);
      readSoon();
    };
    if (globalThis.NETWORKS?.[name]) unpacked();
    else {
      const script = document.createElement("script");
      script.src = `assets/${name}.js`;
      script.addEventListener("load", unpacked);
      script.addEventListener("error", () => say(`The network ${name} could not be loaded.`));
      document.head.append(script);
    }
  }

  for (const { name, words } of choices) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "network", value: name, checked: name === chosen });
    input.addEventListener("change", () => choose(name));
    label.append(input, ` ${words}`);
    document.querySelector(".networks").append(label);
  }
  for (let digit = 0; digit < 10; digit += 1) {
    const item = document.createElement("li");
    item.append(document.createElement("div"), document.createElement("span"));
    bars.append(item);
  }
  document.querySelector(".desk").hidden = false;
  clear();
  showNothing();
  choose(chosen);
}
