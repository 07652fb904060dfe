// Requests to the server that the page came from; to no other.

let key = ""; // in memory alone

/** Send a key with every request from now on. */
export function useKey(value) {
  key = value;
}

/** What the server, or the way to it, said no with. */
export class Refused extends Error {
  constructor(status, text, wait) {
    super(text);
    this.status = status;
    this.wait = wait; // seconds, or 0 where it did not say
  }
}

async function send(path, options) {
  const headers = { Accept: "application/json", ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  try {
    return await fetch(path, { credentials: "same-origin", ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refused(0, "the server cannot be reached; is it still running?", 0);
  }
}

/** Ask for JSON. Throws `Refused` with the server's own words; an `AbortError` where `signal` was pulled. */
export async function ask(path, options = {}) {
  const response = await send(path, options);
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
  }
  if (response.ok && answer !== null) return answer;
  const text = response.ok ? "the server's answer was cut short" : `the server answered with status ${response.status}`;
  throw new Refused(response.status, String(answer?.error ?? text), Number(response.headers.get("Retry-After")) || 0);
}

/** Fetch a picture of the server's own. */
export async function picture(url) {
  const response = await send(url, { headers: { Accept: "image/*" } });
  if (!response.ok) throw new Refused(response.status, `the picture came with status ${response.status}`, 0);
  return response.blob();
}
