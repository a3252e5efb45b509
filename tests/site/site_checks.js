// What is wrong with the page that is open, one sentence each: headings, images, links, width, contrast, what is loaded from elsewhere.
const faults = [];
const shown = e => { const b = e.getBoundingClientRect(); return b.width > 1 && b.height > 1 && getComputedStyle(e).visibility !== "hidden"; };
const named = e => `${e.tagName.toLowerCase()}.${e.className} "${e.textContent.trim().slice(0, 40)}"`;

const root = document.documentElement;
if (!root.lang) faults.push("the page has no language");
if (!document.querySelector("meta[name=viewport][content*=device-width]")) faults.push("a phone would show the page small");
if (!document.title) faults.push("the page has no title");
if (root.scrollWidth > root.clientWidth) faults.push(`the page scrolls sideways: ${root.scrollWidth} > ${root.clientWidth}`);

const scrolls = e => { for (; e && e !== document.body; e = e.parentElement) if (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX)) return true; return false; };
for (const e of document.querySelectorAll(".md-content *"))
  if (shown(e) && e.getBoundingClientRect().right > root.clientWidth + 0.5 && !scrolls(e)) faults.push(`sticks out: ${named(e)}`);

const headings = [...document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")];
const levels = headings.map(h => Number(h.tagName[1]));
if (levels.filter(l => l === 1).length !== 1 || levels[0] !== 1) faults.push(`first-level headings: ${levels}`);
levels.forEach((l, i) => { if (i && l > levels[i - 1] + 1) faults.push(`a heading leaves out a level: ${named(headings[i])}`); });
for (const h of headings) if (!h.textContent.replace("#", "").trim()) faults.push("an empty heading");

for (const i of document.images) {
  if (!i.alt.trim()) faults.push(`no alt text: ${i.src.slice(0, 80)}`);
  if (!i.complete || !i.naturalWidth) faults.push(`an image that does not show: ${i.src.slice(0, 80)}`);
}
for (const a of document.querySelectorAll("a[href], button, input:not([type=hidden]):not(.md-toggle)"))
  if (shown(a) && !(a.textContent.trim() || a.title || a.ariaLabel || a.querySelector("img[alt], svg title"))) faults.push(`has no name: ${a.outerHTML.slice(0, 90)}`);
if (!document.querySelector("input.md-search__input[aria-label]")) faults.push("no search box");

const foreign = performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith(location.origin) && !n.startsWith("data:"));
if (foreign.length) faults.push(`loaded from elsewhere: ${foreign}`);

// Contrast as WCAG 2 has it: 4.5, or 3 for large text; a colour over what shines through it.
const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
const rgba = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const ground = e => { const all = []; for (; e; e = e.parentElement) all.push(rgba(getComputedStyle(e).backgroundColor)); return all.reverse().reduce((below, c) => over(c, below), [255, 255, 255, 1]); };
const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const faint = e => { let o = 1; for (; e; e = e.parentElement) o *= Number(getComputedStyle(e).opacity); return o; };
const pale = new Map();
const texts = document.createTreeWalker(document.querySelector(".md-container"), NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const e = texts.currentNode.parentElement;
  if (!texts.currentNode.textContent.trim() || !shown(e) || e.closest(".headerlink, .md-search, style, script, svg")) continue;
  const style = getComputedStyle(e), size = parseFloat(style.fontSize), below = ground(e), colour = rgba(style.color);
  colour[3] *= faint(e);
  if (colour[3] < 0.01) continue;
  const [a, b] = [light(over(colour, below)), light(below)].sort((x, y) => y - x);
  const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < needed) pale.set(`${style.color} on ${below.slice(0, 3).map(Math.round)}`, `${ratio.toFixed(2)} < ${needed}: ${named(e)}`);
}
for (const [colours, e] of pale) faults.push(`too little contrast, ${colours}, ${e}`);
return faults;
