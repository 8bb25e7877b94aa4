"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [KIND, TIME, FROM, TO, TEXT, LIVES, SETS, IDS, LINE, FACTS] = Array(10).keys();
  const { rows, lives, actors, sets } = data;
  const ROW = 26, PER_CHUNK = 8, GUTTER = 74, BASE = 12, ARROW = 18, MOST_COLUMNS = 14;
  const WAITS = ["CPU", "DEVICE", "IOMMU", "LAST", "REFERENCE"];
  const byId = (id) => document.getElementById(id);
  const page = byId("page");

  const showing = { vm: "", actor: "", id: "", life: null, hidden: new Set(), chosen: null };
  let view = []; // What is shown, top to bottom: numbers of rows, strings for pauses, null for air.
  let placeOf = new Map(); // Where in `view` a row is.
  let shownRows = []; // The rows in `view`, ascending.
  let columns = [], columnOf = [], lanes = [], chunks = [];
  let width = 0, columnWidth = 0, lanesAt = 0, laneWidth = 0;

  // -- words ------------------------------------------------------------------------------------

  const span = (micros) => {
    if (micros < 1000) return `${Math.round(micros)} µs`;
    if (micros < 1e6) return `${(micros / 1e3).toPrecision(3)} ms`;
    if (micros < 6e7) return `${(micros / 1e6).toPrecision(3)} s`;
    return micros < 3.6e9 ? `${Math.round(micros / 6e7)} min` : `${(micros / 3.6e9).toFixed(1)} h`;
  };
  const last = rows[rows.length - 1][TIME];
  const [unit, per, digits] = last < 1e4 ? ["ms", 1e3, 3] : last < 1e6 ? ["ms", 1e3, 1] : ["s", 1e6, 3];
  const clock = (micros) => (micros / per).toFixed(digits);
  const tagOf = (life) => life.id === life.last ? `${life.id}` : `${life.id}…`;
  const idOf = (life) => life.id === life.last ? `${life.id}` : `${life.id}–${life.last}`;
  const waitsFor = (kind) => kind === "REFERENCE" ? "a reference" : kind;
  const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

  const pen = document.createElement("canvas").getContext("2d");
  const measured = new Map();
  const widthOf = (text, font) => {
    const key = font + text;
    let found = measured.get(key);
    if (found === undefined) {
      pen.font = font;
      measured.set(key, found = pen.measureText(text).width);
    }
    return found;
  };
  const family = getComputedStyle(document.body).fontFamily;
  const SAID = `italic 600 12.5px ${family}`, SMALL = `700 11px ${family}`;
  const fitted = (text, room, font = SAID) => {
    if (widthOf(text, font) <= room) return text;
    let low = 0, high = text.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (widthOf(text.slice(0, middle) + "…", font) <= room) low = middle; else high = middle - 1;
    }
    return text.slice(0, low) + "…";
  };

  // -- what is shown ----------------------------------------------------------------------------

  const partOf = (name) => name.slice(name.indexOf(":") + 1);
  const isAbout = (row, wanted) => {
    if (showing.hidden.has(row[KIND])) return false;
    if (row[KIND] === "opening" || row[KIND] === "note") return true;
    if (showing.vm && !row[SETS].includes(wanted.set)
        && partOf(actors[row[FROM]].name) !== showing.vm
        && !row[TO].some((each) => partOf(actors[each].name) === showing.vm)) return false;
    if (wanted.actor >= 0 && row[FROM] !== wanted.actor && !row[TO].includes(wanted.actor)) return false;
    if (showing.life !== null) {
      return row[LIVES].includes(showing.life)
        || (wanted.waitedFor.has(row[FROM]) && (row[KIND] === "crash" || row[KIND] === "return"));
    }
    if (wanted.id >= 0) {
      return row[IDS].includes(wanted.id)
        || row[LIVES].some((each) => lives[each].id <= wanted.id && wanted.id <= lives[each].last);
    }
    return true;
  };

  const pause = (() => {
    const steps = [];
    for (let i = 1; i < rows.length; i++) {
      const step = rows[i][TIME] - rows[i - 1][TIME];
      if (step > 0) steps.push(step);
    }
    steps.sort((a, b) => a - b);
    return Math.max(1000, 30 * (steps[steps.length >> 1] || 0));
  })();

  const choose_rows = () => {
    const wanted = {
      set: sets.indexOf(showing.vm),
      actor: showing.actor ? actors.findIndex((each) => each.name === showing.actor) : -1,
      id: /^\d+$/.test(showing.id) ? Number(showing.id) : -1,
      waitedFor: new Set(),
    };
    if (showing.life !== null) {
      for (const each of lives[showing.life].spans) each[1].forEach((who) => wanted.waitedFor.add(who));
    }
    view = [null];
    placeOf = new Map();
    shownRows = [];
    let before = null;
    rows.forEach((row, number) => {
      if (!isAbout(row, wanted)) return;
      if (row[KIND] !== "note" && before !== null && row[TIME] - before > pause) view.push(`${span(row[TIME] - before)} later`);
      before = row[TIME];
      const above = view[view.length - 1];
      if (row[KIND] === "note" && typeof above === "number" && rows[above][KIND] === "note") {
        // Nothing is shown of what that one was about.
        placeOf.delete(view.pop());
        shownRows.pop();
      }
      placeOf.set(number, view.length);
      shownRows.push(number);
      view.push(number);
    });
    return wanted;
  };

  const atOrAfter = (number) => {
    let low = 0, high = shownRows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (shownRows[middle] < number) low = middle + 1; else high = middle;
    }
    return low;
  };
  // Where something is that begins in a row, shown or not.
  const place = (number) => {
    const found = atOrAfter(number);
    return found < shownRows.length ? placeOf.get(shownRows[found]) : view.length;
  };

  const set_columns = () => {
    const used = new Set([data.allocator]);
    for (const number of shownRows) {
      used.add(rows[number][FROM]);
      rows[number][TO].forEach((each) => used.add(each));
    }
    const members = [...used].sort((a, b) => a - b);
    columns = [];
    columnOf = [];
    const byKind = members.length > MOST_COLUMNS;
    for (const each of members) {
      const { name, tier } = actors[each];
      const kind = byKind ? name.split(":")[0].split(" ")[0].replace(/[-_.]?\d+$/, "") : name;
      let column = columns.find((other) => other.kind === kind && (other.tier || "") === (tier || ""));
      if (!column) columns.push(column = { kind, tier, members: [], name });
      column.members.push(each);
      columnOf[each] = column;
    }
    for (const column of columns) {
      if (column.members.length > 1) column.name = `${column.kind} (${column.members.length})`;
    }
  };

  const set_lanes = (wanted) => {
    const bars = [];
    lives.forEach((life, number) => {
      if (showing.life !== null && number !== showing.life) return;
      if (wanted.set >= 0 && life.set !== wanted.set) return;
      if (wanted.id >= 0 && !(life.id <= wanted.id && wanted.id <= life.last)) return;
      const from = place(life.first);
      const end = life.end === null ? place(life.until + 1) - 1 : place(life.end);
      const to = Math.min(end, view.length - 1);
      if (from < view.length) bars.push({ life, number, from, to: Math.max(from, to) });
    });
    bars.sort((a, b) => a.from - b.from || a.number - b.number);
    const ends = [];
    for (const bar of bars) {
      // The row above a bar is for its ID.
      let lane = ends.findIndex((end) => end + 2 <= bar.from);
      if (lane < 0) lane = ends.push(0) - 1;
      ends[lane] = bar.to;
      bar.lane = lane;
    }
    lanes = bars;
    const widest = bars.reduce((most, bar) => Math.max(most, widthOf(tagOf(bar.life), SMALL)), 16);
    laneWidth = Math.ceil(widest) + 8;
    return ends.length;
  };

  const lay_out = () => {
    const wanted = choose_rows();
    set_columns();
    const count = set_lanes(wanted);
    page.parentNode.style.setProperty("--seen", `${document.documentElement.clientWidth}px`);
    const beside = Math.max(Math.min(count, 12) * laneWidth, 112) + 10;
    const room = document.documentElement.clientWidth - GUTTER - 14 - beside;
    columnWidth = Math.max(columns.length < 6 ? 150 : 104, Math.min(190, Math.floor(room / columns.length)));
    columns.forEach((column, number) => {
      column.x = GUTTER + Math.round(columnWidth * (number + 0.5));
    });
    lanesAt = GUTTER + columnWidth * columns.length + 14;
    const seen = document.documentElement.clientWidth;
    width = Math.max(lanesAt + Math.max(count * laneWidth, 112) + 10, seen);
    chunks = [];
    watcher.disconnect();
    page.replaceChildren();
    for (let first = 0; first < view.length; first += PER_CHUNK) {
      const element = document.createElement("div");
      element.className = "chunk";
      const end = Math.min(first + PER_CHUNK, view.length);
      element.style.height = `${(end - first) * ROW}px`;
      element.style.width = `${width}px`;
      const chunk = { element, first, end, drawn: false };
      element.chunk = chunk;
      chunks.push(chunk);
      page.append(element);
    }
    if (!shownRows.length) {
      page.innerHTML = '<p class="nothing">Nothing is shown: the filters leave no row.</p>';
    }
    draw_head();
    draw_near();
    chunks.forEach((chunk) => watcher.observe(chunk.element));
    byId("clear").disabled = !(showing.vm || showing.actor || showing.id || showing.life !== null
      || showing.hidden.size);
    tell();
  };

  // -- drawing ----------------------------------------------------------------------------------

  const draw_head = () => {
    const parts = [`<svg width="${width}" height="40" viewBox="0 0 ${width} 40">`];
    parts.push(`<text class="time" x="${GUTTER - 14}" y="32" text-anchor="end">${unit}</text>`);
    for (const column of columns) {
      const name = fitted(column.name, columnWidth - 8);
      parts.push(`<g><title>${escaped(column.name)}</title>`
        + `<text class="name" x="${column.x}" y="17" text-anchor="middle">${escaped(name)}</text>`);
      if (column.tier) {
        const x = column.x - widthOf(column.tier, `10.5px ${family}`) / 2;
        parts.push(`<rect class="chip ${column.tier}" x="${x - 8}" y="25" width="8" height="8" rx="2"/>`
          + `<text class="tier" x="${x + 4}" y="33">${column.tier}</text>`);
      }
      else {
        const role = column.members[0] === data.allocator ? "decides" : "asks";
        parts.push(`<text class="tier" x="${column.x}" y="33" text-anchor="middle">${role}</text>`);
      }
      parts.push("</g>");
    }
    parts.push(`<text class="name" x="${lanesAt + 4}" y="17">lives of IDs</text>`
      + `<text class="tier" x="${lanesAt + 4}" y="33">how many have it</text></svg>`);
    byId("head").innerHTML = parts.join("");
  };

  const draw_lifelines = (chunk, parts) => {
    const height = (chunk.end - chunk.first) * ROW;
    for (const column of columns) {
      const line = (from, to, state) => {
        const y1 = Math.max(0, from - chunk.first * ROW), y2 = Math.min(height, to - chunk.first * ROW);
        if (y2 > y1) {
          parts.push(`<line class="lifeline ${state}" x1="${column.x}" x2="${column.x}" y1="${y1}" y2="${y2}"/>`);
        }
      };
      const states = column.members.length > 1 ? [] : actors[column.members[0]].states;
      let from = 0, state = "";
      for (const [row, next] of states) {
        const to = place(row) * ROW + (row ? ARROW : 0);
        line(from, to, state);
        [from, state] = [to, next];
      }
      line(from, view.length * ROW, state);
    }
  };

  const draw_row = (number, y, parts, before) => {
    const row = rows[number];
    const source = columnOf[row[FROM]];
    const targets = [...new Set(row[TO].map((each) => columnOf[each]))].filter((each) => each !== source);
    let text = row[TEXT];
    const other = row[FROM] === data.allocator ? row[TO][0] : row[FROM];
    if (other !== undefined && columnOf[other].members.length > 1) {
      text = row[FROM] === data.allocator
        ? `${text} to ${row[TO].length > 1 ? `${row[TO].length} of them` : partOf(actors[other].name)}`
        : `${partOf(actors[other].name)}: ${text}`;
    }
    const chosen = number === showing.chosen ? " chosen" : "";
    parts.push(`<g class="row ${row[KIND]}${chosen}" data-row="${number}" transform="translate(0 ${y})">`
      + `<title>${escaped(text)}</title><rect class="back" width="${width}" height="${ROW}"/>`);
    if (row[KIND] === "note") {
      parts.push(`<path class="rule" d="M${GUTTER - 60} 24.5H${lanesAt - 20}"/>`
        + `<text class="said" x="${GUTTER - 60}" y="${ARROW}">${escaped(fitted(text, lanesAt - GUTTER))}</text></g>`);
      return before;
    }
    const time = clock(row[TIME]);
    if (time !== before) parts.push(`<text class="time" x="${GUTTER - 14}" y="${ARROW}" text-anchor="end">${time}</text>`);
    const x = source.x, right = lanesAt - 14;
    if (targets.length) {
      const xs = targets.map((each) => each.x);
      const [low, high] = [Math.min(x, ...xs), Math.max(x, ...xs)];
      parts.push(`<path class="arrow" d="M${low} ${ARROW}H${high}"/>`);
      for (const to of xs) {
        const way = to > x ? -1 : 1;
        parts.push(`<path class="tip" d="M${to + way} ${ARROW}l${7 * way} -3.8v7.6z"/>`);
      }
    } else if (row[KIND] === "crash") {
      parts.push(`<path class="cross" d="M${x - 5} ${ARROW - 10}l10 10m0 -10l-10 10"/>`);
    } else {
      parts.push(`<circle class="dot" cx="${x}" cy="${ARROW - 5}" r="3.5"/>`);
    }
    const note = !targets.length;
    const toRight = note ? right - x - 10 >= Math.min(widthOf(text, SAID), x - GUTTER) : targets[0].x > x;
    const room = toRight ? right - x - 10 : x - 10 - GUTTER;
    parts.push(`<text class="said" x="${toRight ? x + 10 : x - 10}" y="${note ? ARROW - 1 : BASE}"`
      + `${toRight ? "" : ' text-anchor="end"'}>${escaped(fitted(text, room))}</text></g>`);
    return time;
  };

  const draw_bar = (bar, chunk, parts) => {
    const { life, from, to, lane } = bar;
    if (from - 1 >= chunk.end || to < chunk.first) return;
    const top = (row) => (row - chunk.first) * ROW;
    const x = lanesAt + lane * laneWidth + 4, wide = laneWidth - 8, middle = x + wide / 2;
    const followed = showing.life === bar.number ? " followed" : "";
    parts.push(`<g class="bar${followed}" data-life="${bar.number}">`);
    if (from - 1 >= chunk.first) {
      parts.push(`<text class="tag" x="${middle}" y="${top(from) - 5}">${tagOf(life)}</text>`);
    }
    if (from < chunk.end) {
      const whole = [top(from) + 1, top(to + 1) - (life.end === null ? 0 : 3)];
      const clip = [Math.max(0, whole[0]), Math.min((chunk.end - chunk.first) * ROW, whole[1])];
      const part = (start, end, kind, words) => {
        const a = Math.max(clip[0], start), b = Math.min(clip[1], end);
        if (b > a) {
          const fill = kind ? ` style="fill:url(#waits-${kind})"` : "";
          parts.push(`<rect class="body" data-waits="${kind}" x="${x}" y="${a}" width="${wide}" height="${b - a}"${fill}>`
            + `<title>${escaped(words)}</title></rect>`);
        }
      };
      const name = `${idOf(life)} of ${sets[life.set]}, life ${life.generation}`;
      const freed = life.freed === null ? whole[1] : top(place(life.freed));
      part(whole[0], Math.max(freed, whole[0]), "", `${name}: in use`);
      for (const [waits, who, first, begun, end, ended] of life.spans) {
        const names = who.map((each) => actors[each].name).join(", ");
        const time = ended === null ? "still at the end" : span(ended - begun);
        part(top(place(first)), end === null ? whole[1] : top(place(end)) + (end === life.end ? ROW : 0),
          waits, `${name}: freed, waits for ${waitsFor(waits)}: ${names}; ${time}`);
      }
      if (life.freed !== null && !life.spans.length) part(freed, whole[1], "", `${name}: back at once`);
      const texts = new Map();
      for (const [row, count] of life.counts) {
        if (count || row !== life.end) texts.set(place(row), count);
      }
      if (life.end !== null && place(life.end) === to && to >= chunk.first && to < chunk.end) {
        texts.delete(to);
        parts.push(`<rect class="pool" x="${x}" y="${top(to)}" width="${wide}" height="${ROW - 3}"/>`
          + `<text class="check" x="${middle}" y="${top(to) + 17}">✓</text>`);
      }
      for (const [row, text] of texts) {
        if (row >= chunk.first && row < chunk.end && row <= to) {
          parts.push(`<text x="${middle}" y="${top(row) + 17}">${text}</text>`);
        }
      }
    }
    parts.push("</g>");
  };

  const draw = (chunk) => {
    if (chunk.drawn) return;
    chunk.drawn = true;
    const height = (chunk.end - chunk.first) * ROW;
    const parts = [`<svg width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`];
    const items = [];
    let before = "";
    for (let at = chunk.first; at < chunk.end; at++) {
      const y = (at - chunk.first) * ROW;
      const item = view[at];
      if (typeof item === "number") {
        before = draw_row(item, y, items, before);
      } else if (item !== null) {
        const x = GUTTER - 6, end = lanesAt - 20, middle = y + 13;
        const half = widthOf(item, SMALL) / 2 + 8, centre = (x + end) / 2;
        items.push(`<g class="gap"><path d="M${x} ${middle}H${centre - half}M${centre + half} ${middle}H${end}"`
          + ` stroke-dasharray="1 5" stroke-linecap="round"/>`
          + `<text x="${centre}" y="${middle + 4}" text-anchor="middle">${item}</text></g>`);
      }
    }
    draw_lifelines(chunk, parts);
    parts.push(...items);
    for (const bar of lanes) draw_bar(bar, chunk, parts);
    parts.push("</svg>");
    chunk.element.innerHTML = parts.join("");
  };
  const wipe = (chunk) => {
    if (chunk.drawn) {
      chunk.drawn = false;
      chunk.element.replaceChildren();
    }
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) draw(target.chunk); else if (!printing) wipe(target.chunk);
    }
  }, { rootMargin: "900px 0px" });
  const draw_near = () => {
    const top = window.scrollY - 900 - page.offsetTop, bottom = top + window.innerHeight + 1800;
    for (const chunk of chunks) {
      if (chunk.end * ROW > top && chunk.first * ROW < bottom) draw(chunk);
    }
  };

  const draw_patterns = () => {
    const marks = {
      CPU: "M0 2H8M0 6H8", DEVICE: "M-2 2L2 -2M0 8L8 0M6 10L10 6", IOMMU: "M0 4H8M4 0V8",
      LAST: "M2 2h1M6 6h1", REFERENCE: "M-2 6L2 10M0 0L8 8M6 -2L10 2",
    };
    const holder = document.createElement("div");
    holder.innerHTML = '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
      + WAITS.map((kind) => `<pattern id="waits-${kind}" class="${kind}" width="8" height="8"`
        + ` patternUnits="userSpaceOnUse"><rect width="8" height="8"/><path d="${marks[kind]}"/></pattern>`).join("")
      + "</defs></svg>";
    document.body.append(holder.firstChild);
    const swatch = (style, kind) => '<svg width="16" height="14"><rect class="body" width="16" height="14" rx="3"'
      + ` style="fill:${style}"/></svg>${kind}`;
    const used = WAITS.filter((kind) => lives.some((life) => life.spans.some((each) => each[0] === kind)));
    byId("legend").innerHTML = [
      `<span>a bar: ${swatch("var(--alive)", "<b>in use</b>")}</span>`,
      ...used.map((kind, n) => `<span>${n ? "" : "freed, and in quarantine until "}`
        + `${swatch(`url(#waits-${kind})`, `<b>${waitsFor(kind)}</b> is done`)}</span>`),
      "<span><b>✓</b> back in the pool: only now may it be handed out again</span>",
    ].join("");
  };

  // -- what is told of a row or a life ----------------------------------------------------------

  const life_told = (life) => {
    const parts = [`<p><b>PASID ${idOf(life)}</b> of <b>${escaped(sets[life.set])}</b>`];
    parts.push(` (life ${life.generation})`);
    if (life.freed === null) parts.push(" is in use at the end.");
    else {
      parts.push(` was in use for ${span(life.freedAt - life.begun)}`);
      const ended = life.ended === null ? last : life.ended;
      if (!life.spans.length) parts.push(", and back in the pool as soon as it was freed.");
      else {
        parts.push(`, then in quarantine for ${span(ended - life.freedAt)}: `);
        parts.push(life.spans.map(([waits, who, , begun, , until]) => `${span((until === null ? ended : until) - begun)} for `
          + `<b>${waitsFor(waits)}</b> (${escaped(who.map((each) => actors[each].name).join(", "))})`).join(", then "));
        parts.push(life.ended === null ? ". <b>It is not back at the end.</b>" : ". Then it was back in the pool.");
      }
    }
    return parts.join("") + "</p>";
  };

  const tell = () => {
    const footer = byId("facts");
    const parts = [];
    if (showing.life !== null) parts.push(life_told(lives[showing.life]));
    if (showing.chosen !== null) {
      const row = rows[showing.chosen];
      const to = row[TO].map((each) => actors[each].name).join(", ");
      parts.push(`<p><b>${escaped(actors[row[FROM]].name)}${to ? ` → ${escaped(to)}` : ""}</b>: `
        + `${escaped(row[TEXT])} <span class="time">at ${clock(row[TIME])} ${unit}, line ${row[LINE]}</span> `);
      for (const each of row[LIVES].slice(0, 6)) {
        if (each !== showing.life) parts.push(`<button data-follow="${each}">follow ${idOf(lives[each])}</button> `);
      }
      parts.push(`</p><code>${escaped(row[FACTS])}</code>`);
    }
    footer.hidden = !parts.length;
    footer.innerHTML = parts.join("");
    const filters = new URLSearchParams();
    for (const name of ["vm", "actor", "id"]) if (showing[name]) filters.set(name, showing[name]);
    if (showing.life !== null) filters.set("life", showing.life);
    if (showing.chosen !== null) filters.set("row", showing.chosen);
    history.replaceState(null, "", `#${filters}`);
  };

  const mark_chosen = () => {
    page.querySelectorAll(".chosen").forEach((each) => each.classList.remove("chosen"));
    const found = page.querySelector(`[data-row="${showing.chosen}"]`);
    if (found) found.classList.add("chosen");
  };
  const choose = (number) => {
    if (number === undefined) return;
    showing.chosen = number;
    tell();
    const at = placeOf.get(number);
    if (at !== undefined) {
      const y = page.offsetTop + at * ROW;
      const above = byId("top").offsetHeight + ROW, below = byId("facts").offsetHeight + 2 * ROW;
      if (y < window.scrollY + above || y > window.scrollY + window.innerHeight - below) {
        window.scrollTo(window.scrollX, y - window.innerHeight / 2);
        draw_near();
      }
    }
    mark_chosen();
  };
  const follow = (life) => {
    showing.life = life;
    const chosen = showing.chosen;
    lay_out();
    choose(chosen !== null && placeOf.has(chosen) ? chosen : shownRows.find((each) => rows[each][LIVES].includes(life)));
  };
  const clear = () => {
    Object.assign(showing, { vm: "", actor: "", id: "", life: null });
    showing.hidden.clear();
    for (const name of ["vm", "actor", "ioasid"]) byId(name).value = "";
    byId("kind-list").querySelectorAll("input").forEach((each) => { each.checked = true; });
    lay_out();
    if (showing.chosen !== null) choose(showing.chosen);
  };

  // -- hands ------------------------------------------------------------------------------------

  const theme = (dark) => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    byId("theme").textContent = dark ? "light" : "dark";
  };
  const is_dark = () => document.documentElement.dataset.theme === "dark";
  const step = (by) => {
    const at = showing.chosen === null ? (by > 0 ? -1 : shownRows.length) : atOrAfter(showing.chosen);
    choose(shownRows[Math.max(0, Math.min(shownRows.length - 1, at + by))]);
  };
  const next = (wanted) => {
    const from = showing.chosen === null ? -1 : showing.chosen;
    choose(shownRows.find((each) => each > from && wanted(each)) ?? shownRows.find(wanted));
  };
  const stuck = () => lives.map((_, number) => number)
    .filter((each) => lives[each].freed !== null && lives[each].end === null);

  page.addEventListener("click", (event) => {
    const bar = event.target.closest(".bar"), row = event.target.closest(".row");
    if (bar) follow(Number(bar.dataset.life));
    else if (row) choose(Number(row.dataset.row));
  });
  byId("facts").addEventListener("click", (event) => {
    const button = event.target.closest("[data-follow]");
    if (button) follow(Number(button.dataset.follow));
  });
  byId("vm").addEventListener("change", (event) => { showing.vm = event.target.value; showing.life = null; lay_out(); });
  byId("actor").addEventListener("change", (event) => { showing.actor = event.target.value; lay_out(); });
  byId("ioasid").addEventListener("input", (event) => {
    showing.id = event.target.value.trim();
    showing.life = null;
    lay_out();
  });
  byId("kind-list").addEventListener("change", (event) => {
    const { name, checked } = event.target;
    if (checked) showing.hidden.delete(name); else showing.hidden.add(name);
    lay_out();
  });
  byId("clear").addEventListener("click", clear);
  byId("theme").addEventListener("click", () => theme(!is_dark()));
  byId("help").addEventListener("click", () => byId("about").showModal());

  const keys = {
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    g: () => choose(shownRows[0]), G: () => choose(shownRows[shownRows.length - 1]),
    c: () => next((each) => rows[each][KIND] === "crash"),
    f: () => {
      const found = showing.chosen === null ? [] : rows[showing.chosen][LIVES];
      if (found.length) follow(found[(found.indexOf(showing.life) + 1) % found.length]);
    },
    q: () => {
      const found = stuck();
      if (found.length) follow(found[(found.indexOf(showing.life) + 1) % found.length]);
    },
    "/": () => byId("ioasid").focus(), d: () => theme(!is_dark()),
    "?": () => byId("about").showModal(), Escape: clear,
  };
  keys.Enter = keys.f;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("about").open) return;
    if (event.target.closest("input, select, button, summary")) {
      if (event.key === "Escape") { event.target.blur(); page.focus({ preventScroll: true }); clear(); }
      return;
    }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  let printing = false, dark = false;
  window.addEventListener("beforeprint", () => {
    printing = true;
    dark = is_dark();
    theme(false);
    chunks.forEach(draw);
  });
  window.addEventListener("afterprint", () => { printing = false; theme(dark); lay_out(); });
  let resized = 0;
  window.addEventListener("resize", () => {
    clearTimeout(resized);
    if (!printing) resized = setTimeout(lay_out, 100);
  });

  // -- the beginning ----------------------------------------------------------------------------

  const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  const waiting = stuck().length;
  byId("figures").textContent = [
    count(data.decisions, "decision"), count(actors.length, "actor"),
    count(lives.length, lives.length === 1 ? "life of an ID" : "lives of IDs").replace(/IDss$/, "IDs"),
    `${span(last)}`, waiting ? `${waiting} in quarantine at the end` : "",
  ].filter(Boolean).join(" · ");
  const options = (select, names) => names.forEach((name) => select.append(new Option(name, name)));
  options(byId("vm"), sets);
  options(byId("actor"), actors.map((each) => each.name));
  byId("kind-list").innerHTML = [...new Set(rows.map((row) => row[KIND]))].sort()
    .map((kind) => `<label><input type="checkbox" name="${kind}" checked> ${kind}</label>`).join("");
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const name of ["vm", "actor", "id"]) showing[name] = asked.get(name) || "";
  byId("vm").value = showing.vm;
  byId("actor").value = showing.actor;
  byId("ioasid").value = showing.id;
  const number = (name, most) => /^\d+$/.test(asked.get(name) || "") && Number(asked.get(name)) < most
    ? Number(asked.get(name)) : null;
  showing.life = number("life", lives.length);
  theme(asked.has("theme") ? asked.get("theme") === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  draw_patterns();
  const chosen = number("row", rows.length);
  lay_out();
  if (chosen !== null) choose(chosen);
  page.focus({ preventScroll: true });
  document.documentElement.dataset.drawn = Math.round(performance.now());
})();
