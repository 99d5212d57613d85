"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const one = (selector, from = document) => from.querySelector(selector);
  root.classList.add("scripted");

  // --- the bar and the head of the page ---

  const bar = one(".bar");
  if (bar) {
    const measure = () => root.style.setProperty("--bar", `${bar.offsetHeight}px`);
    new ResizeObserver(measure).observe(bar);
    measure();
  }

  // Pages of a disk may have no storage; the choice then lasts as long as the page.
  const theme = one("#theme");
  const stored = (action) => {
    try {
      return action(localStorage);
    } catch {
      return null;
    }
  };
  const setTheme = (value) => {
    theme.value = value;
    if (value) root.dataset.theme = value;
    else delete root.dataset.theme;
  };
  setTheme(stored((storage) => storage.getItem("invjax-theme")) || "");
  theme.addEventListener("change", () => {
    setTheme(theme.value);
    stored((storage) => storage.setItem("invjax-theme", theme.value));
  });

  const copy = one("#copy");
  copy.addEventListener("click", async () => {
    const command = one("#command");
    try {
      await navigator.clipboard.writeText(command.textContent);
      copy.textContent = "Copied";
    } catch {
      // Where a page may not write to the clipboard, the reader can.
      getSelection().selectAllChildren(command);
      copy.textContent = "Selected: copy it";
    }
  });

  // --- filters, of pictures and table alike ---

  const lanes = all(".lane");
  const body = one("tbody");
  const form = one(".filters form");
  const count = one("#count");

  const applyFilters = () => {
    const wanted = form
      ? all("select", form).filter((select) => select.value)
      : [];
    const isShown = ({ dataset }) =>
      wanted.every((select) => dataset[select.name] === select.value);
    for (const item of [...lanes, ...body.rows]) item.hidden = !isShown(item);
    for (const row of all(".row")) row.hidden = !one(".lane:not([hidden])", row);
    for (const section of all(".image")) {
      const isEmpty = !one(".lane:not([hidden])", section);
      section.hidden = wanted.length > 0 && isEmpty;
    }
    for (const row of all(".row:not([hidden])")) rove(row);
    if (!form) return;
    const number = lanes.filter((lane) => !lane.hidden).length;
    const isAll = number === lanes.length;
    count.textContent = isAll ? "" : `${number} of ${lanes.length} shown`;
    one(".filters").classList.toggle("active", wanted.length > 0);
  };

  if (form) {
    form.addEventListener("change", applyFilters);
    form.addEventListener("submit", (event) => event.preventDefault());
    one("button", form).addEventListener("click", () => {
      form.reset();
      applyFilters();
    });
    const details = one(".filters");
    document.addEventListener("pointerdown", ({ target }) => {
      if (!details.contains(target)) details.open = false;
    });
    details.addEventListener("keydown", ({ key }) => {
      if (key !== "Escape") return;
      details.open = false;
      one("summary", details).focus();
    });
  }

  // --- the table ---

  const sortKey = (cell) => {
    const value = cell.dataset.value;
    if (value !== undefined) return Number(value);
    return cell.textContent === "–" ? null : cell.textContent;
  };
  const collator = new Intl.Collator("en-GB", { numeric: true });
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);

  const sortBy = (column) => {
    const heading = all("thead th")[column];
    const isDescending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of all("thead th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [sortKey(row.cells[column]), row]);
    // What is not defined comes last in both directions.
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return isDescending ? compare(b, a) : compare(a, b);
    });
    // Rows move faster outside the page.
    const table = body.parentNode;
    body.remove();
    body.append(...rows.map(([, row]) => row));
    table.append(body);
  };

  all("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sortBy(column));
    heading.replaceChildren(button);
  });

  // --- the original over a reconstruction ---

  const originalOf = (tile) => one("figure.original img", tile.closest(".image"));
  const shownLink = (tile) => all("a", tile).find((link) => link.offsetParent);
  const shownPicture = (tile) => {
    const link = shownLink(tile);
    return link ? one("img", link) : null;
  };

  // Pictures of different shapes show different parts of the image.
  const fits = (picture, original) => {
    if (!picture?.naturalWidth || !original?.naturalWidth) return false;
    const shapes = [picture, original].map((i) => i.naturalWidth / i.naturalHeight);
    return Math.abs(shapes[0] / shapes[1] - 1) < 0.02;
  };

  const overlay = document.createElement("div");
  overlay.className = "overlay";
  overlay.setAttribute("aria-hidden", "true");
  const overlayImage = document.createElement("img");
  overlayImage.alt = "";
  overlay.append(overlayImage);

  const removeOverlay = () => overlay.remove();
  const placeOverlay = (picture, original, mode, wipe) => {
    overlay.className = `overlay ${mode}`;
    overlay.style.setProperty("--wipe", wipe);
    if (overlayImage.src !== original.src) overlayImage.src = original.src;
    if (overlay.parentElement !== picture.parentElement) {
      picture.parentElement.append(overlay);
    }
  };

  const mode = () => one("[name=compare]:checked")?.value ?? "flicker";
  const compareTile = (tile, how, wipe = "50%") => {
    const picture = shownPicture(tile);
    const original = originalOf(tile);
    if (fits(picture, original)) placeOverlay(picture, original, how, wipe);
  };

  const main = one("main");
  main.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" || viewer.open) return;
    const link = event.target.closest(".tile a");
    if (!link) return;
    const box = link.getBoundingClientRect();
    const part = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    compareTile(link.closest(".tile"), mode(), `${100 * part}%`);
  });
  main.addEventListener("pointerout", ({ target, relatedTarget }) => {
    const link = target.closest(".tile a");
    if (link && !link.contains(relatedTarget)) removeOverlay();
  });

  // --- moving among pictures by keys: one stop of the Tab key in each row ---

  const tilesOf = (row) => all(".tile:not([hidden])", row).filter((t) => one("a", t));
  const rove = (row, chosen) => {
    const tiles = tilesOf(row);
    const stop = chosen ?? tiles[0];
    for (const tile of tiles) {
      for (const link of all("a", tile)) link.tabIndex = tile === stop ? 0 : -1;
    }
  };
  const focusTile = (tile) => {
    rove(tile.closest(".row"), tile);
    shownLink(tile)?.focus();
    tile.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  const beside = (tile, steps) => {
    const tiles = tilesOf(tile.closest(".row"));
    return tiles[tiles.indexOf(tile) + steps];
  };
  const below = (tile, steps) => {
    const place = tilesOf(tile.closest(".row")).indexOf(tile);
    const rows = all(".row").filter((row) => row.offsetParent && tilesOf(row).length);
    const row = rows[rows.indexOf(tile.closest(".row")) + steps];
    const tiles = row ? tilesOf(row) : [];
    return tiles[Math.min(place, tiles.length - 1)];
  };
  const MOVES = {
    ArrowLeft: (tile) => beside(tile, -1),
    ArrowRight: (tile) => beside(tile, 1),
    ArrowUp: (tile) => below(tile, -1),
    ArrowDown: (tile) => below(tile, 1),
  };
  const isPlain = (event) => !(event.ctrlKey || event.altKey || event.metaKey);

  main.addEventListener("keydown", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile || !isPlain(event)) return;
    if (event.key in MOVES) {
      event.preventDefault();
      const other = MOVES[event.key](tile);
      if (other) focusTile(other);
    } else if (event.key.toLowerCase() === "f") {
      event.preventDefault();
      if (tile.contains(overlay)) removeOverlay();
      else compareTile(tile, "flicker");
    }
  });
  main.addEventListener("focusout", removeOverlay);

  // --- one picture, large ---

  const viewer = one("#viewer");
  const found = document.createElement("img");
  one(".stage", viewer).append(found);
  const wipe = one("#wipe");
  const flicker = one("[data-action=flicker]");
  const note = one("#viewer-note");
  let current = null;

  const visibleTiles = () =>
    all(".image:not([hidden]) .row:not([hidden])").flatMap(tilesOf);
  const neighbour = (steps) => {
    const tiles = visibleTiles();
    return tiles[tiles.indexOf(current) + steps];
  };

  const compareInViewer = () => {
    const original = originalOf(current);
    const canCompare = fits(found, original);
    wipe.disabled = flicker.disabled = !canCompare;
    if (!original) note.textContent = "There is no original to compare with.";
    else if (!canCompare && found.complete && original.complete) {
      note.textContent =
        "The original has another shape, so it cannot be laid over this picture.";
    } else note.textContent = "";
    const flickers = flicker.getAttribute("aria-pressed") === "true";
    if (!canCompare || !(flickers || Number(wipe.value))) removeOverlay();
    else placeOverlay(found, original, flickers ? "flicker" : "wipe", `${wipe.value}%`);
  };

  const show = (tile) => {
    current = tile;
    removeOverlay();
    const picture = shownPicture(tile);
    const caption = one("figcaption", tile).cloneNode(true);
    const name = one("h2", tile.closest(".image")).textContent;
    const row = one("h3", tile.closest(".row")).textContent;
    one("#viewer-title").textContent = `${name}, ${row}`;
    one("#viewer-caption").replaceChildren(...caption.childNodes);
    found.src = picture.src;
    found.alt = picture.alt;
    one("[data-action=previous]").disabled = !neighbour(-1);
    one("[data-action=next]").disabled = !neighbour(1);
    if (!viewer.open) viewer.showModal();
    compareInViewer();
  };
  const go = (steps) => {
    const tile = neighbour(steps);
    if (!tile) return;
    // So that it is laid out, and one of its two pictures can be asked for.
    tile.scrollIntoView({ block: "nearest", inline: "nearest" });
    show(tile);
  };
  const toggleFlicker = () => {
    if (flicker.disabled) return;
    const isPressed = flicker.getAttribute("aria-pressed") === "true";
    flicker.setAttribute("aria-pressed", String(!isPressed));
    compareInViewer();
  };

  main.addEventListener("click", (event) => {
    const link = event.target.closest(".tile a");
    if (!link || !isPlain(event) || event.shiftKey) return;
    event.preventDefault();
    show(link.closest(".tile"));
  });
  viewer.addEventListener("click", ({ target }) => {
    const action = target.dataset.action;
    if (action === "close" || target === viewer) viewer.close();
    else if (action === "previous") go(-1);
    else if (action === "next") go(1);
    else if (action === "flicker") toggleFlicker();
  });
  viewer.addEventListener("keydown", (event) => {
    if (!isPlain(event)) return;
    const isSliding = event.target === wipe;
    if (event.key === "ArrowLeft" && !isSliding) go(-1);
    else if (event.key === "ArrowRight" && !isSliding) go(1);
    else if (event.key.toLowerCase() === "f") toggleFlicker();
  });
  viewer.addEventListener("close", () => {
    removeOverlay();
    focusTile(current);
  });
  found.addEventListener("load", () => viewer.open && compareInViewer());
  wipe.addEventListener("input", () => {
    flicker.setAttribute("aria-pressed", "false");
    compareInViewer();
  });

  applyFilters();
})();
