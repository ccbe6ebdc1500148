"use strict";
// Names of files come from elsewhere: they become text nodes, never markup.

const at = (id) => document.getElementById(id);
let photo = null; // the Blob that is searched by
let asked = 0; // number of the newest search: answers to earlier ones are dropped
let mostBytes = Infinity;

function made(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function complain(sentence) {
  at("error").textContent = sentence;
  at("error").hidden = !sentence;
  if (sentence) at("status").textContent = "";
}

async function answer(response) {
  let body = {};
  try { body = await response.json(); } catch { /* not ours: the status says it */ }
  if (!response.ok) throw new Error(body.error || `The service answered ${response.status}.`);
  return body;
}

function take(blob) {
  if (!blob) return;
  if (blob.size > mostBytes) {
    complain(`The file has ${Math.round(blob.size / 1e6)} MB, and the service takes ${Math.round(mostBytes / 1e6)} MB.`);
    return;
  }
  photo = blob;
  if (at("query").src) URL.revokeObjectURL(at("query").src);
  at("query").src = URL.createObjectURL(blob);
  at("query").hidden = false;
  at("again").disabled = false;
  search();
}

async function search() {
  if (!photo) return;
  if (!at("k").reportValidity()) return;
  const mine = ++asked;
  const wanted = new URLSearchParams({ k: at("k").value || "20" });
  for (const box of document.querySelectorAll("#choices input:checked")) wanted.append("camera", box.value);
  complain("");
  at("status").textContent = "Searching ...";
  try {
    const found = await answer(await fetch(`/search?${wanted}`, {
      method: "POST", body: photo, headers: { "Content-Type": photo.type || "application/octet-stream" },
    }));
    if (mine !== asked) return;
    show(found.results);
  } catch (error) {
    if (mine !== asked) return;
    at("results").replaceChildren();
    complain(error instanceof TypeError ? "The service cannot be reached: is it still running?" : error.message);
  }
}

function show(results) {
  const count = results.length;
  at("status").textContent = count ? `${count} most similar ${count === 1 ? "image" : "images"}` : "No image of these cameras.";
  at("results").replaceChildren(...results.map(card));
}

function card(result) {
  const item = made("li");
  const picture = made("div", "picture");
  const image = made("img");
  image.alt = `Result ${result.rank}`;
  image.loading = "lazy";
  image.addEventListener("error", () => picture.replaceChildren("The image is not where it was"));
  image.src = result.image;
  picture.append(image);
  const line = made("div", "line");
  line.append(made("b", "", result.similarity.toFixed(3)), made("span", "", `#${result.rank}`));
  const meter = made("meter");
  meter.min = 0; meter.max = 1; meter.value = Math.max(0, result.similarity);
  meter.setAttribute("aria-label", `Similarity ${result.similarity.toFixed(3)}`);
  const name = made("bdi", "name", result.name);
  name.dir = "auto";
  const again = made("button", "", "Search by this");
  again.type = "button";
  again.setAttribute("aria-label", `Search by result ${result.rank}`);
  again.addEventListener("click", async () => {
    try {
      const response = await fetch(result.image);
      if (!response.ok) await answer(response);
      take(await response.blob());
      window.scrollTo(0, 0);
    } catch (error) { complain(error.message); }
  });
  item.append(picture, line, meter);
  if (result.camera !== null) {
    const camera = made("span", "camera", "camera ");
    camera.append(made("bdi", "", result.camera));
    item.append(camera);
  }
  item.append(name, again);
  return item;
}

async function begin() {
  try {
    const about = await answer(await fetch("/about"));
    mostBytes = about.most_bytes;
    at("k").max = about.most_k;
    at("about").textContent = `${about.gallery}: ${about.images.toLocaleString("en")} images, embedded by ${about.method}`;
    document.title = `Search ${about.gallery}`;
    for (const one of about.cameras) {
      const label = made("label");
      const box = made("input");
      box.type = "checkbox";
      box.value = one.camera;
      box.addEventListener("change", search);
      label.append(box, made("bdi", "", one.camera), made("small", "", `(${one.images.toLocaleString("en")})`));
      at("choices").append(label);
    }
    at("cameras").hidden = about.cameras.length < 2;
  } catch (error) { complain(error.message); }
}

at("file").addEventListener("change", () => take(at("file").files[0]));
at("k").addEventListener("change", search);
at("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
for (const kind of ["dragover", "dragenter"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); at("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) take(file);
});
begin();
