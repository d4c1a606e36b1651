// The little that every page needs of the document.

/** The element with this id. */
export const at = (id) => document.getElementById(id);

/** Makes an element; text is only ever set as text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Lets a button copy the text of an element, and say that it did. */
export function copyOnClick(button, source) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    const text = source.value ?? source.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Without a secure context there is no clipboard; the text can still be copied by hand.
      if (source.select) source.select();
      else getSelection().selectAllChildren(source);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  });
}

/** The token this tab was given, if any. It is kept for the tab only. */
export const token = {
  get: () => sessionStorage.getItem("token") ?? "",
  set: (value) => sessionStorage.setItem("token", value),
};

// One that came in the address must not stay there: addresses are passed on, and remembered.
const address = new URL(location.href);
if (address.searchParams.has("token")) {
  token.set(address.searchParams.get("token"));
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

/** A number of bits per second as a person reads it. */
export function bitrate(bitsPerSecond) {
  const units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"];
  let value = bitsPerSecond;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}
