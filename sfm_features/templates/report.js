"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displaylogo: false, responsive: true, showTips: false };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const xyz = (v) => ({ x: v[0], y: v[1], z: v[2] });
  const column = (rows, k) => rows.filter((_, i) => i % 3 === k);
  const number = (value) => value.toLocaleString("en-US");
  const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;
  // Plotly reads some HTML in its texts, and a file's name may look like it.
  const escape = (text) => text.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);
  const colour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const themed = () => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { family: "system-ui, sans-serif", size: 13, color: colour("--mute") },
    hoverlabel: {
      bgcolor: colour("--card"), bordercolor: colour("--line"),
      font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 13 },
      namelength: -1,
    },
  });

  function drawScene(element, scene) {
    const points = floats(scene.points), rgb = bytes(scene.colours);
    const frusta = floats(scene.frusta);
    // Few points would be lost in the dark, many would run together.
    const size = scene.shown < 1500 ? 4 : scene.shown < 5000 ? 3 : scene.shown < 15000 ? 2.5 : 2;
    find("size").value = size;
    const colours = Array.from({ length: rgb.length / 3 }, (_, i) =>
      `rgb(${rgb[3 * i]},${rgb[3 * i + 1]},${rgb[3 * i + 2]})`);
    const traces = [
      { type: "scatter3d", mode: "markers", hoverinfo: "skip",
        ...xyz([0, 1, 2].map((k) => column(points, k))),
        marker: { size, color: colours, line: { width: 0 } } },
      ...scene.kinds.flatMap((kind) => drawCameras(scene, frusta, kind)),
    ];
    const axis = { visible: false, showspikes: false, range: [-1, 1] };
    const camera = initialCamera(scene.extent, element);
    const layout = {
      ...themed(), margin: { l: 0, r: 0, t: 0, b: 0 },
      scene: { xaxis: axis, yaxis: { ...axis }, zaxis: { ...axis }, camera,
        aspectmode: "cube", dragmode: "turntable", bgcolor: "#15171b" },
    };
    layout.hoverlabel = { bgcolor: "#23262c", bordercolor: "#4a4f58",
      font: { color: "#f1f2f4", size: 13 } };
    Plotly.newPlot(element, traces, layout, { ...config, displayModeBar: false });
    keepWheel(element);
    find("size").addEventListener("input", (event) =>
      Plotly.restyle(element, { "marker.size": Number(event.target.value) }, [0]));
    for (const box of document.querySelectorAll("[data-kind]"))
      box.addEventListener("change", () => {
        const first = 1 + 3 * Number(box.dataset.kind);
        Plotly.restyle(element, { visible: box.checked }, [first, first + 1, first + 2]);
      });
    find("reset").addEventListener("click", () =>
      Plotly.relayout(element, { "scene.camera": camera }));
  }

  // Three traces for the cameras of a kind: their edges, their pictures, their centres.
  function drawCameras(scene, frusta, kind) {
    const lines = [[], [], []], spots = [[], [], []], faces = [[], [], []];
    const corner = [[], [], []];
    // Each frustum is its centre and four corners; null lifts the pen.
    kind.cameras.forEach((camera, rank) => {
      for (let axis = 0; axis < 3; axis++) {
        const at = (i) => frusta[15 * camera + 3 * i + axis];
        for (const i of [1, 2, 3, 4, 1, 0, 2]) lines[axis].push(at(i));
        lines[axis].push(null, at(3), at(0), at(4), null);
        spots[axis].push(at(0));
        for (const i of [1, 2, 3, 4]) faces[axis].push(at(i));
      }
      for (const [k, i] of [[0, 0], [1, 1], [2, 2], [0, 0], [1, 2], [2, 3]])
        corner[k].push(4 * rank + i);
    });
    const color = kind.colour;
    return [
      { type: "scatter3d", mode: "lines", hoverinfo: "skip", ...xyz(lines),
        connectgaps: false, line: { color, width: 2 } },
      { type: "mesh3d", hoverinfo: "skip", ...xyz(faces), i: corner[0], j: corner[1],
        k: corner[2], color, opacity: 0.18 },
      { type: "scatter3d", mode: "markers", ...xyz(spots),
        marker: { size: scene.names.length > 60 ? 2.5 : 4.5, color, line: { width: 0 } },
        text: kind.cameras.map((i) =>
          `<b>${escape(scene.names[i])}</b><br>${escape(scene.notes[i])}`),
        hovertemplate: "%{text}<extra></extra>" },
    ];
  }

  function initialCamera(extent, element) {
    // Far enough for the width and the height of the scene, seen from 30 degrees up.
    const shape = element.clientWidth / element.clientHeight;
    const tall = extent[2] * 0.87 + extent[1] * 0.5;
    const far = 0.6 * Math.max(extent[0] / shape, tall, 0.3) + 0.2 * extent[1];
    const sideways = 0.35;
    return {
      up: { x: 0, y: 0, z: 1 }, center: { x: 0, y: 0, z: 0 },
      eye: { x: far * sideways, y: -far * 0.8, z: far * 0.5 },
    };
  }

  // The wheel scrolls the page until the plot has been clicked.
  function keepWheel(element) {
    let active = false;
    element.addEventListener("pointerdown", () => { active = true; }, true);
    element.addEventListener("pointerleave", () => { active = false; });
    element.addEventListener("wheel", (event) => {
      if (!active) event.stopPropagation();
    }, { capture: true, passive: true });
  }

  function drawGraph(element, graph, layoutName) {
    const place = graph[layoutName];
    const most = graph.edges.length ? graph.edges[0][2] : 1;
    const levels = 6;
    const edges = Array.from({ length: levels }, () => [[], []]);
    const middles = [[], [], []];
    for (const [a, b, count] of graph.edges) {
      const level = Math.min(levels - 1, Math.floor(levels * Math.sqrt(count / most)));
      edges[level][0].push(place[a][0], place[b][0], null);
      edges[level][1].push(place[a][1], place[b][1], null);
      middles[0].push((place[a][0] + place[b][0]) / 2);
      middles[1].push((place[a][1] + place[b][1]) / 2);
      middles[2].push(`${escape(graph.names[a])} &amp; ${escape(graph.names[b])}<br><b>` +
        `${plural(count, "verified match", "verified matches")}</b>`);
    }
    const traces = edges.map(([x, y], level) => ({
      type: "scatter", mode: "lines", x, y, hoverinfo: "skip",
      opacity: 0.1 + 0.75 * ((level + 1) / levels) ** 1.5,
      line: { color: colour("--node"), width: 0.6 + 2.4 * (level / levels) },
    }));
    traces.push({ type: "scatter", mode: "markers", x: middles[0], y: middles[1],
      text: middles[2], hovertemplate: "%{text}<extra></extra>",
      marker: { size: 9, opacity: 0 } });
    const few = graph.names.length <= 60;
    traces.push({ type: "scatter", mode: few ? "markers+text" : "markers",
      x: place.map((p) => p[0]), y: place.map((p) => p[1]), cliponaxis: false,
      marker: { size: few ? 11 : 7, line: { width: 2, color: colour("--card") },
        color: graph.registered.map((yes) => colour(yes ? "--node" : "--out")) },
      text: graph.names.map((name) => escape(name.split("/").pop().replace(/\.\w+$/, ""))),
      // Outwards, away from most lines.
      textposition: place.map(([x, y]) =>
        Math.abs(x) < 0.4 * Math.abs(y) ? (y > 0 ? "top center" : "bottom center")
          : x > 0 ? "middle right" : "middle left"),
      textfont: { size: 11, color: colour("--mute") },
      customdata: graph.names.map((name, i) => `<b>${escape(name)}</b><br>` +
        `${plural(graph.partners[i], "verified pair", "verified pairs")}` +
        (graph.registered[i] ? "" : "<br>not registered")),
      hovertemplate: "%{customdata}<extra></extra>" });
    const axis = { visible: false, fixedrange: false };
    Plotly.react(element, traces, { ...themed(), hovermode: "closest", dragmode: "pan",
      margin: { l: 70, r: 70, t: 40, b: 40 }, xaxis: axis,
      yaxis: { ...axis, scaleanchor: "x" } }, { ...config, displayModeBar: false });
  }

  function drawBars(element, bars, x) {
    const grid = { gridcolor: colour("--line"), zeroline: false, fixedrange: true };
    Plotly.react(element, [{ type: "bar", y: bars.counts, ...bars.trace,
      marker: { color: colour("--bar"), line: { width: 0 } } }],
    { ...themed(), bargap: 0.12, margin: { l: 52, r: 8, t: 10, b: 26 },
      xaxis: { ...grid, showgrid: false, ...x },
      yaxis: { ...grid, tickformat: ",d", automargin: true, rangemode: "tozero" } },
    { ...config, displayModeBar: false });
  }

  function sortRows(table, heading, column) {
    const falling = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const body = table.tBodies[0];
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
    };
    const keyed = [...body.rows].map((row) => [key(row), row]);
    keyed.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (falling ? -1 : 1));
    body.append(...keyed.map(([, row]) => row));
  }

  function drawAll() {
    if (find("graph")) drawGraph(find("graph"), data.graph, chosenLayout);
    if (find("tracks")) {
      drawBars(find("tracks"), { counts: data.tracks.counts, trace: {
        x: data.tracks.labels, hovertemplate: "%{x} images: %{y:,} points<extra></extra>",
      } }, { type: "category" });
      const edges = data.errors.edges;
      drawBars(find("errors"), { counts: data.errors.counts, trace: {
        x: data.errors.counts.map((_, i) => (edges[i] + edges[i + 1]) / 2),
        hovertemplate: "%{x:.2f} px: %{y:,} points<extra></extra>",
      } }, { rangemode: "tozero" });
    }
  }

  let chosenLayout = data.graph?.above ? "above" : "circle";
  for (const button of document.querySelectorAll("[data-layout]"))
    button.addEventListener("click", () => {
      chosenLayout = button.dataset.layout;
      for (const other of document.querySelectorAll("[data-layout]"))
        other.setAttribute("aria-pressed", String(other === button));
      drawGraph(find("graph"), data.graph, chosenLayout);
    });
  const large = find("large");
  for (const button of document.querySelectorAll(".zoom"))
    button.addEventListener("click", () => {
      const picture = button.querySelector("img");
      large.firstElementChild.src = picture.src;
      large.firstElementChild.alt = picture.alt;
      large.showModal();
    });
  large.addEventListener("click", () => large.close());
  for (const table of document.querySelectorAll("table.sortable"))
    table.querySelectorAll("thead th").forEach((heading, column) =>
      heading.addEventListener("click", () => sortRows(table, heading, column)));
  if (data.scene) drawScene(find("scene"), data.scene);
  drawAll();
  dark.addEventListener("change", drawAll);
})();
