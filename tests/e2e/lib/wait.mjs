// Waiting without sleeping: it ends when the thing waited for happens, or fails at its deadline.

export const DEADLINE_MS = 10_000;

/** Settles as `promise` does, or rejects when the deadline passes first. */
export function within(promise, what, deadlineMs = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${deadlineMs} ms: ${what}`)), deadlineMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Asks until the answer is accepted, for state that no event announces; returns that answer. */
export async function until(ask, accept, what, deadlineMs = DEADLINE_MS) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const value = await ask();
    if (accept(value)) return value;
    if (Date.now() > end) {
      throw new Error(`not within ${deadlineMs} ms: ${what}; last seen ${JSON.stringify(value)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** An append-only list of what happened, which can be waited on. */
export class Log {
  #waiting = new Set();

  constructor(name) {
    this.name = name;
    this.items = [];
  }

  push(item) {
    this.items.push(item);
    for (const check of this.#waiting) check();
  }

  /** The first item, from `from` on, that matches. */
  async first(matches, what = "item", from = 0, deadlineMs = DEADLINE_MS) {
    await this.when(() => this.items.slice(from).some(matches), what, deadlineMs);
    return this.items.slice(from).find(matches);
  }

  /** Waits until at least `count` items are there, and returns all of them. */
  async atLeast(count, deadlineMs = DEADLINE_MS) {
    await this.when(() => this.items.length >= count, `${count} items`, deadlineMs);
    return this.items;
  }

  when(condition, what, deadlineMs = DEADLINE_MS) {
    let check;
    const happened = new Promise((resolve) => {
      check = () => {
        if (condition()) resolve();
      };
      this.#waiting.add(check);
      check();
    });
    return within(happened, `${this.name}: ${what}`, deadlineMs)
      .catch((error) => {
        const seen = JSON.stringify(this.items).slice(0, 2000);
        throw new Error(`${error.message}; seen ${this.items.length}: ${seen}`);
      })
      .finally(() => this.#waiting.delete(check));
  }
}
