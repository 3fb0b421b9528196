// Runs before the first paint, so that a remembered theme does not flash.
"use strict";
try {
  const theme = localStorage.getItem("semsearch.theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // without storage the system decides
}
