"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const [map, cells, trail, said, tip] = ["map", "cells", "trail", "said", "tip"].map(byId);
  const HUES = [14, 205, 42, 160, 268, 88, 330, 190, 24, 232, 120, 300];
  const HEADER = 18, GAP = 2, LEVELS = 4, CELLS = 3000;

  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
    return unit ? `${bytes.toFixed(1)} ${units[unit]}` : `${bytes} B`;
  };
  const share = (part, of) => `${(of ? 100 * part / of : 0).toFixed(1)} %`;
  const files = (count) => count === 1 ? "1 file" : `${count.toLocaleString("en")} files`;

  // A tree for each way to group. No step here calls itself: folders may be nested as deep as an image likes.
  function build(mode) {
    const nodes = [];
    const make = (parent, name, more) => {
      const node = { parent, name, bytes: 0, files: 0, children: [], ...more };
      nodes.push(node);
      if (parent) parent.children.push(node);
      return node;
    };
    const root = make(null, data.title);
    root.name = { directory: "/", package: "all packages", layer: "all layers" }[mode];
    const groups = new Map(), folders = new Map();
    const group = (key, name) => {
      if (!groups.has(key)) groups.set(key, make(root, name, { plain: key === null }));
      return groups.get(key);
    };
    const folderIn = (top, at) => {
      if (!folders.has(top)) folders.set(top, new Map([[0, top]]));
      const known = folders.get(top), missing = [];
      while (!known.has(at)) { missing.push(at); at = data.folders[at][0]; }
      let node = known.get(at);
      for (const id of missing.reverse()) {
        node = make(node, data.folders[id][1], { folder: id });
        known.set(id, node);
      }
      return node;
    };
    for (const [folder, name, bytes, owner, layer, count] of data.files) {
      let top = root;
      if (mode === "package") {
        const label = owner === null ? "of no package" : data.packages[owner][0];
        top = group(owner, label);
      } else if (mode === "layer") {
        top = group(layer, layer === null ? "in no layer" : data.layers[layer]);
      }
      const parent = folderIn(top, folder);
      if (name === null && parent.small) {
        // The data has them for each package and layer; here they are one.
        const small = parent.small;
        small.bytes += bytes;
        small.files += count;
        if (small.owner !== owner) small.owner = null;
        if (small.layer !== layer) small.layer = null;
        continue;
      }
      const leaf = make(parent, name, { folder, owner, layer, leaf: true, bytes, files: count });
      if (name === null) {
        leaf.rest = true;
        parent.small = leaf;
      }
    }
    for (const node of nodes) if (node.rest) node.name = files(node.files);
    for (let index = nodes.length - 1; index > 0; index -= 1) {
      const node = nodes[index];
      node.parent.bytes += node.bytes;
      node.parent.files += node.files;
    }
    for (const node of nodes) {
      // A folder with nothing but a folder is drawn as one. What stands in it moves up.
      while (node.parent && node.children.length === 1 && !node.children[0].leaf) {
        const only = node.children[0];
        // A package or a layer keeps its name.
        if (node.folder !== undefined) {
          node.name += `/${only.name}`;
          node.folder = only.folder;
        }
        node.children = only.children;
        for (const child of node.children) child.parent = node;
        only.children = [];
      }
      node.children.sort((a, b) => b.bytes - a.bytes);
    }
    return root;
  }

  const pathOf = (folder) => {
    const names = [];
    while (folder) { names.push(data.folders[folder][1]); folder = data.folders[folder][0]; }
    return `/${names.reverse().join("/")}`;
  };

  function lines(node) {
    let where = node.name;
    if (node.folder !== undefined) {
      const folder = pathOf(node.folder);
      where = node.leaf ? (node.rest ? `${files(node.files)} in ${folder}, each too small to be drawn` : `${folder === "/" ? "" : folder}/${node.name}`) : folder;
    }
    const facts = [`${size(node.bytes)}, ${share(node.bytes, roots[mode].bytes)}`];
    if (!node.leaf || node.rest) facts.push(files(node.files));
    if (node.owner != null) {
      const [name, version, kind] = data.packages[node.owner];
      facts.push(`${name} ${version}${kind ? ` (${kind})` : ""}`);
    }
    if (node.layer != null && data.layers) facts.push(data.layers[node.layer]);
    return [where, facts.join(" · ")];
  }

  // Squarified: rows that are as near to squares as they can be.
  function squarify(children, x, y, w, h, total, visit) {
    let start = 0, left = total;
    while (start < children.length && w > 1 && h > 1 && left > 0) {
      const short = Math.min(w, h), scale = w * h / left;
      let sum = 0, worst = Infinity, end = start;
      while (end < children.length) {
        const next = sum + children[end].bytes * scale;
        const side = next / short;
        const ratio = (part) => Math.max(side * side / part, part / (side * side));
        const now = Math.max(ratio(children[start].bytes * scale || 1e-9), ratio(children[end].bytes * scale || 1e-9));
        if (now > worst) break;
        [worst, sum, end] = [now, next, end + 1];
      }
      const thick = sum / short;
      let along = 0;
      for (let index = start; index < end; index += 1) {
        const long = children[index].bytes * scale / thick;
        if (w >= h) visit(children[index], x, y + along, thick, long);
        else visit(children[index], x + along, y, long, thick);
        along += long;
        left -= children[index].bytes;
      }
      if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
      start = end;
    }
  }

  let mode = "directory", current, shown = [], nodeOf = new Map();
  const roots = {};

  // Neighbours differ in colour: below what the map shows, and again below whatever fills most of that.
  let hues = new Map();
  function paint(top) {
    hues = new Map();
    let offset = 0;
    for (let node = top; node; offset += 1) {
      node.children.forEach((child, index) => hues.set(child, { hue: HUES[(index + offset) % HUES.length], plain: child.plain || child.rest }));
      const largest = node.children[0];
      node = largest && largest.bytes > node.bytes * 0.4 && largest.children.length > 1 ? largest : null;
    }
  }

  function put(node, x, y, w, h, level, look) {
    const [left, top] = [Math.round(x), Math.round(y)];
    const [width, height] = [Math.round(x + w) - left - GAP, Math.round(y + h) - top - GAP];
    if (width < 3 || height < 3 || shown.length >= CELLS) return;
    look = hues.get(node) ?? look;
    const inside = node.children.length > 0 && level < LEVELS && width > 44 && height > HEADER + 14;
    const cell = document.createElement("button");
    cell.type = "button";
    cell.tabIndex = -1;
    cell.className = "cell";
    if (node.children.length) cell.classList.add(level > 1 ? "deep" : "group");
    else cell.classList.add("leaf");
    if (look.plain) cell.classList.add("plain");
    if (node.rest) cell.classList.add("rest");
    cell.style.left = `${left}px`;
    cell.style.top = `${top}px`;
    cell.style.width = `${width}px`;
    cell.style.height = `${height}px`;
    cell.style.setProperty("--hue", look.hue);
    if (width > 30 && height > 15) {
      const name = document.createElement("b"), bytes = document.createElement("span");
      name.textContent = node.name;
      bytes.textContent = size(node.bytes);
      cell.append(name);
      const tall = !inside && height > 36;
      if (tall) cell.classList.add("tall");
      if (tall ? width > 76 : width > 120) cell.append(bytes);
    } else {
      cell.style.padding = "0";
    }
    cell.setAttribute("aria-label", lines(node).join(", "));
    cells.append(cell);
    nodeOf.set(cell, node);
    shown.push(cell);
    if (inside) {
      squarify(node.children, left + 3, top + HEADER, width - 4, height - HEADER - 1, node.bytes,
        (child, ...place) => put(child, ...place, level + 1, look));
    }
  }

  function draw(fresh) {
    const { width, height } = cells.getBoundingClientRect();
    cells.textContent = "";
    shown = [];
    nodeOf = new Map();
    cells.classList.toggle("fresh", fresh);
    paint(current);
    const list = current.children.length ? current.children : [current];
    squarify(list, 0, 0, width + GAP, height + GAP, current.bytes, (child, ...place) => put(child, ...place, 1, { hue: HUES[0] }));
    if (shown[0]) shown[0].tabIndex = 0;

    const way = [];
    for (let node = current; node; node = node.parent) way.push(node);
    const cut = way.length > 8 ? [...way.slice(0, 6), null, way[way.length - 1]] : way;
    trail.textContent = "";
    cut.reverse().forEach((node, index) => {
      if (index) {
        const slash = document.createElement("i");
        slash.textContent = node ? "›" : "› …";
        trail.append(slash);
      }
      if (!node) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = node.name;
      button.addEventListener("click", () => go(node));
      trail.append(button);
    });
    const sum = document.createElement("span");
    sum.textContent = ` ${size(current.bytes)}, ${files(current.files)}`;
    trail.append(sum);
  }

  function go(node, from) {
    current = node;
    tip.hidden = true;
    draw(true);
    const again = from && shown.find((cell) => nodeOf.get(cell) === from);
    if (from) focusOn(again ?? shown[0]);
  }

  function focusOn(cell) {
    if (!cell) return;
    for (const other of shown) other.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
  }

  // The nearest cell in a direction that is neither around this one nor inside it.
  function next(cell, dx, dy) {
    const from = cell.getBoundingClientRect();
    const middle = (box) => [box.left + box.width / 2, box.top + box.height / 2];
    const [x, y] = middle(from);
    let best, least = Infinity;
    for (const other of shown) {
      const box = other.getBoundingClientRect(), [ox, oy] = middle(box);
      const inside = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;
      if (other === cell || inside(box, from) || inside(from, box)) continue;
      const along = (ox - x) * dx + (oy - y) * dy, across = Math.abs((ox - x) * dy) + Math.abs((oy - y) * dx);
      if (along <= 1) continue;
      const distance = along + across * 2;
      if (distance < least) [best, least] = [other, distance];
    }
    return best;
  }

  const cellAt = (event) => event.target instanceof Element ? event.target.closest(".cell") : null;

  cells.addEventListener("click", (event) => {
    const node = nodeOf.get(cellAt(event));
    if (!node) return;
    said.textContent = lines(node).join(" · ");
    if (node.children.length) go(node, event.detail === 0 ? node.children[0] : undefined);
  });
  map.addEventListener("keydown", (event) => {
    const cell = cellAt(event);
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way && cell) {
      focusOn(next(cell, ...way));
    } else if ((event.key === "Escape" || event.key === "Backspace") && current.parent) {
      go(current.parent, current);
    } else {
      return;
    }
    event.preventDefault();
  });
  cells.addEventListener("focusin", (event) => {
    const node = nodeOf.get(cellAt(event));
    if (node) said.textContent = lines(node).join(" · ");
  });
  cells.addEventListener("pointermove", (event) => {
    const node = nodeOf.get(cellAt(event));
    tip.hidden = !node || event.pointerType === "touch";
    if (tip.hidden) return;
    const [where, facts] = lines(node);
    const bold = document.createElement("b");
    bold.textContent = where;
    tip.replaceChildren(bold, facts);
    const { width, height } = tip.getBoundingClientRect();
    const fit = (at, len, room) => at + 16 + len > room ? Math.max(4, at - 14 - len) : at + 16;
    tip.style.left = `${fit(event.clientX, width, innerWidth)}px`;
    tip.style.top = `${fit(event.clientY, height, innerHeight)}px`;
  });
  cells.addEventListener("pointerleave", () => { tip.hidden = true; });

  function choose(wanted) {
    mode = wanted;
    roots[mode] ??= build(mode);
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    }
    current = roots[mode];
    said.textContent = "";
    draw(true);
  }

  if (data.files.length) {
    map.hidden = false;
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.addEventListener("click", () => choose(button.dataset.mode));
    }
    choose("directory");
    let width = cells.clientWidth;
    new ResizeObserver(() => {
      if (cells.clientWidth !== width) { width = cells.clientWidth; draw(false); }
    }).observe(cells);
  }

  for (const more of document.querySelectorAll("tbody.more")) {
    const button = document.createElement("button");
    const rows = more.rows.length;
    const label = () => { button.textContent = more.classList.contains("folded") ? `Show ${rows} more` : "Show fewer"; };
    button.type = "button";
    button.className = "fold";
    more.classList.add("folded");
    button.addEventListener("click", () => { more.classList.toggle("folded"); label(); });
    label();
    more.closest(".scroll").after(button);
  }
})();
