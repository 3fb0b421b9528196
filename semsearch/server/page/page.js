const box = document.getElementById("q");
const list = document.getElementById("hits");

document.getElementById("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await (await fetch("search?" + new URLSearchParams({ q: box.value }))).json();
  list.replaceChildren(...(answer.hits || []).map((hit) => {
    const item = document.createElement("li");
    const title = document.createElement("strong");
    const text = document.createElement("pre");
    title.textContent = hit.title;
    text.textContent = hit.text;
    item.append(title, text);
    return item;
  }));
});
