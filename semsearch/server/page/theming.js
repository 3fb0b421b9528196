/** Dark and light: the system's choice until a person makes one. */

const THEME_KEY = "semsearch.theme"; // theme.js reads it before the first paint

/** Let a button switch. */
export function addTheme(button) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem(THEME_KEY, root.dataset.theme);
    } catch {
      // then until the page is left
    }
    tell();
  });
  system.addEventListener("change", tell);
  tell();
}
