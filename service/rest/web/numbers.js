// Numbers as the page says them.

/** The 95 % interval (Wilson) of a rate, of which k in n were counted. */
export function interval(k, n) {
  const z = 1.959964;
  const middle = (k + z * z / 2) / (n + z * z);
  const half = (z / (n + z * z)) * Math.sqrt(k * (n - k) / n + z * z / 4);
  return [k ? Math.max(0, middle - half) : 0, Math.min(1, middle + half)];
}

/** "2 failures in 100 shots (0.55 to 7 %)" */
export function failures(k, n) {
  const [low, high] = interval(k, n).map((value) => Number((100 * value).toPrecision(2)));
  return `${k} failure${k === 1 ? "" : "s"} in ${n} shot${n === 1 ? "" : "s"} (${low} to ${high} %)`;
}

/** Four digits, or the power of ten where they would all be 0 or 9. */
export function probability(value) {
  if (value > 0 && value < 0.00005) return value.toExponential(0).replace("e-", "e−");
  return value < 1 && value >= 0.99995 ? "> 0.9999" : value.toFixed(4);
}

export function duration(ms, digits) {
  const [value, unit] = ms >= 999.5 ? [ms / 1e3, "s"] : ms >= 0.9995 ? [ms, "ms"] : [ms * 1e3, "µs"];
  return `${digits > 1 ? value.toPrecision(digits) : Math.round(value)} ${unit}`;
}

/** The numbers of the observables that are wrong. */
export const wrong = (prediction, truth) => truth.flatMap((bit, j) => (bit === prediction[j] ? [] : [j]));
