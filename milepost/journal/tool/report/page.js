"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const narrow = matchMedia("(max-width:720px)");

  const span = (us) => {
    if (us === null || us === undefined) return "-";
    if (us < 1e3) return Math.round(us) + " us";
    if (us < 1e6) return (us / 1e3).toPrecision(3) + " ms";
    if (us < 6e7) return (us / 1e6).toFixed(2) + " s";
    const s = Math.round(us / 1e6);
    return s < 3600 ? Math.floor(s / 60) + " min " + (s % 60) + " s" : (s / 3600).toFixed(1) + " h";
  };
  const size = (bytes) => {
    if (bytes === null) return "-";
    let left = bytes;
    for (const unit of ["B", "KiB", "MiB", "GiB"]) {
      if (left < 1000) return (unit === "B" ? left : left.toPrecision(3)) + " " + unit;
      left /= 1024;
    }
    return left.toFixed(1) + " TiB";
  };
  const time = (us) => {
    if (!us) return "-";
    const at = new Date(us / 1e3);
    return isNaN(at) ? us + " us" : at.toISOString().replace("T", " ").replace("Z", "");
  };

  const make = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };

  const show = (pairs) => {
    const dialog = make("dialog"), list = make("dl"), close = make("button", "Close");
    for (const [name, value] of pairs) list.append(make("dt", name), make("dd", value));
    close.onclick = () => dialog.close();
    dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
    dialog.onclose = () => dialog.remove();
    dialog.append(list, close);
    document.body.append(dialog);
    dialog.showModal();
  };

  // A list of any length: only the rows in sight are in the document.
  class List {
    constructor(place, kind, columns, rows, count) {
      Object.assign(this, { columns, rows, count, shown: rows, sorted: null, down: false });
      const box = make("div", undefined, "list " + kind), head = make("div", undefined, "head");
      columns.forEach((column, at) => {
        const name = "c" + at + (column.number ? " number" : "");
        const button = make("button", column.name, name);
        button.onclick = () => this.sort(at);
        column.button = button;
        head.append(button);
      });
      this.rowsBox = make("div", undefined, "rows");
      this.filler = make("div");
      this.rowsBox.append(this.filler);
      this.rowsBox.onscroll = () => this.draw();
      box.append(head, this.rowsBox);
      place.append(box);
      narrow.addEventListener("change", () => this.draw());
      this.draw();
    }
    height() { return narrow.matches ? 40 : 32; }
    filter(keep) {
      this.kept = keep;
      this.shown = keep ? this.rows.filter(keep) : this.rows;
      if (this.sorted !== null) this.order();
      this.rowsBox.scrollTop = 0;
      this.draw();
    }
    sort(at) {
      this.down = this.sorted === at ? !this.down : Boolean(this.columns[at].number);
      this.sorted = at;
      this.columns.forEach((column, number) => {
        column.button.textContent = column.name + (number === at ? (this.down ? " ↓" : " ↑") : "");
      });
      this.order();
      this.rowsBox.scrollTop = 0;
      this.draw();
    }
    order() {
      const value = this.columns[this.sorted].value, sign = this.down ? -1 : 1;
      const low = this.down ? -Infinity : Infinity;
      this.shown = this.shown.slice().sort((a, b) => {
        let x = value(a), y = value(b);
        if (x === null) x = low;
        if (y === null) y = low;
        if (typeof x === "string") return sign * x.localeCompare(y, undefined, { numeric: true });
        return x === y ? 0 : sign * (x < y ? -1 : 1);
      });
    }
    draw() {
      const height = this.height(), box = this.rowsBox;
      this.filler.style.height = this.shown.length * height + "px";
      const first = Math.max(0, Math.floor(box.scrollTop / height) - 8);
      const last = Math.min(this.shown.length, first + Math.ceil(600 / height) + 16);
      while (this.filler.nextSibling) this.filler.nextSibling.remove();
      for (let at = first; at < last; at++) {
        const row = this.shown[at], line = make("div", undefined, "row");
        line.style.top = at * height + "px";
        this.columns.forEach((column, number) => {
          const name = "c" + number + (column.number ? " number" : "");
          const cell = make("span", column.text(row), name);
          if (column.mark) cell.classList.add(column.mark(row));
          line.append(cell);
        });
        line.onclick = () => show(this.columns.map((column) => [column.name, column.text(row)]));
        box.append(line);
      }
      const all = this.rows.length.toLocaleString("en"), some = this.shown.length.toLocaleString("en");
      this.count.textContent = some === all ? all + " rows" : some + " of " + all + " rows";
    }
  }

  const column = (name, value, text, more) => ({ name, value, text: text || value, ...more });
  const soon = (act) => { let timer; return () => { clearTimeout(timer); timer = setTimeout(act, 80); }; };
  const element = (id) => document.getElementById(id);
  const number = { number: true };

  const words = data.tasks.words, word = (kind, at) => words[kind][at];
  const tasks = new List(element("task-list"), "tasks", [
    column("Task", (row) => row[0]),
    column("Function", (row) => word("function", row[1])),
    column("State", (row) => word("state", row[2]), null, { mark: (row) => "s-" + word("state", row[2]) }),
    column("Tries", (row) => row[4], (row) => String(row[4]), number),
    column("Queued", (row) => row[6], (row) => span(row[6]), number),
    column("Lasted", (row) => row[7], (row) => span(row[7]), number),
    column("Worker", (row) => word("worker", row[3])),
    column("Size", (row) => row[8], (row) => size(row[8]), number),
  ], data.tasks.rows, element("task-count"));
  for (const state of words.state) element("task-state").append(new Option(state.toLowerCase(), state));
  const findTasks = () => {
    const text = element("task-search").value.toLowerCase(), state = element("task-state").value;
    tasks.filter(!text && !state ? null : (row) =>
      (!state || word("state", row[2]) === state) &&
      (!text || row[0].toLowerCase().includes(text) ||
        word("function", row[1]).toLowerCase().includes(text) ||
        word("worker", row[3]).toLowerCase().includes(text)));
  };
  element("task-search").oninput = soon(findTasks);
  element("task-state").onchange = findTasks;

  const events = new List(element("event-list"), "events", [
    column("Seq", (row) => row[0], (row) => String(row[0]), number),
    column("Epoch", (row) => row[1], (row) => String(row[1]), number),
    column("Kind", (row) => row[2]),
    column("Time (UTC)", (row) => row[3], (row) => time(row[3])),
    column("What", (row) => row[4]),
  ], data.events, element("event-count"));
  element("event-search").oninput = soon(() => {
    const text = element("event-search").value.toLowerCase();
    events.filter(!text ? null : (row) => (row[2] + " " + row[4]).toLowerCase().includes(text));
  });
})();
