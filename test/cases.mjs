// `npm run cases`: which cases a test carries the id of, which are open and why. Exits 1 when one is neither.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { CASES, OPEN } from './cases.table.mjs';

const ROOT = path.resolve(import.meta.dirname, '..');
const ID = /\b(?:[A-Z]{2}-\d+|[YEJVDP]\d+)\b/g;

/** id → files with a test of that name. Names are what it, it.each and describe are given, rows of a table included. */
export function covered() {
  const found = new Map();
  for (const root of ['test', 'src']) {
    for (const file of readdirSync(path.join(ROOT, root), { recursive: true, encoding: 'utf8' })) {
      if (!/\.(e2e-)?spec\.ts$/.test(file)) continue;
      for (const id of namesIn(readFileSync(path.join(ROOT, root, file), 'utf8')).match(ID) ?? [])
        if (id in CASES) found.set(id, (found.get(id) ?? new Set()).add(`${root}/${file}`));
    }
  }
  return found;
}

/** The string literals that a test or a group of tests is named with. */
function namesIn(text) {
  const names = [];
  const opening = /\b(?:it|test|describe)(?:\.(?:only|skip|failing|each))*\s*\(/g;
  for (const { index, 0: call } of text.matchAll(opening)) {
    if (/skip/.test(call)) continue;
    const start = index + call.length;
    // A table of it.each holds its names in its rows; else the name is the first argument.
    const rest = text.slice(start);
    const table = /\.each/.test(call);
    const end = table
      ? rest.search(/\]\s*(?:as const)?,?\s*\)\s*\(|\)\s*\(/)
      : rest.search(/,\s*(?:async\b|\(|function\b|\w+\s*=>|\d)/);
    const head = rest.slice(0, end < 0 ? 200 : end + (table ? 200 : 0));
    names.push(...(head.match(/'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`[^`]*`/g) ?? []));
  }
  return names.join('\n');
}

export function report() {
  const tests = covered();
  const reasons = new Map(Object.entries(OPEN).flatMap(([reason, ids]) => ids.split(' ').map((id) => [id, reason])));
  const unknown = [...reasons.keys()].filter((id) => !(id in CASES));
  const rest = Object.keys(CASES).filter((id) => !tests.has(id));
  return {
    covered: [...tests].sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true })),
    open: rest.filter((id) => reasons.has(id)).map((id) => [id, reasons.get(id)]),
    missing: rest.filter((id) => !reasons.has(id)),
    unknown,
  };
}

if (process.argv[1] === import.meta.filename) {
  const { covered, open, missing, unknown } = report();
  console.log(`Covered: ${covered.length}`);
  for (const [id, files] of covered) console.log(`  ${id.padEnd(6)} ${CASES[id]}  (${[...files].join(', ')})`);
  console.log(`\nOpen: ${open.length}`);
  for (const [id, reason] of open) console.log(`  ${id.padEnd(6)} ${CASES[id]}  (${reason})`);
  if (unknown.length > 0) console.log(`\nReasons for what is no case: ${unknown.join(', ')}`);
  if (missing.length > 0) {
    console.log(`\nNeither covered nor with a reason: ${missing.length}`);
    for (const id of missing) console.log(`  ${id.padEnd(6)} ${CASES[id]}`);
  }
  process.exit(missing.length + unknown.length > 0 ? 1 : 0);
}
