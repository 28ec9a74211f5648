// Errors whose text may leave the component.

/**
 * An error that the operator may read. The texts of other errors stay inside while batches are processed, because engines like
 * to quote the value at fault; of those only the kind and the place are told.
 */
export class PluginError extends Error {
  name = "PluginError";
}

/** What is told of an error of `process`. */
export function publicText(error) {
  if (error instanceof PluginError) return error.message;
  const kind = error instanceof Error ? error.name : `thrown ${typeof error}`;
  const frame = String(error?.stack ?? "")
    .split("\n")
    .find((line) => /^\s*at .*:\d+|^[\w.$/<]*@.*:\d+/.test(line));
  return frame ? `${kind} ${frame.trim()}` : kind;
}

/** ` did you mean …?` if one of the names is close, else nothing. */
export function suggestion(wrong, names) {
  const [best, distance] = [...names]
    .map((name) => [name, editDistance(wrong, name)])
    .reduce((a, b) => (b[1] < a[1] ? b : a), ["", Infinity]);
  return distance <= Math.max(1, Math.floor(wrong.length / 3)) ? `; did you mean \`${best}\`?` : "";
}

/** Letters put in, left out, replaced or swapped with their neighbour. */
function editDistance(a, b) {
  let before = [];
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const line = [row];
    for (let column = 1; column <= b.length; column++) {
      const changed = above[column - 1] + (a[row - 1] === b[column - 1] ? 0 : 1);
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      const best = Math.min(changed, above[column] + 1, line[column - 1] + 1);
      line.push(swapped ? Math.min(best, before[column - 2] + 1) : best);
    }
    before = above;
    above = line;
  }
  return above[b.length];
}
