/* For the keyboard and screen readers: wide tables can be scrolled with the arrow keys, and the copy
   buttons of code blocks and the search have names of their own. */
(() => {
  const mend = () => {
    document.querySelectorAll(".md-typeset__scrollwrap").forEach((table) => {
      if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
      else table.removeAttribute("tabindex");
    });
    document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
    document.querySelectorAll(".md-code__nav").forEach((bar, index) => {
      bar.setAttribute("aria-label", `Code block ${index + 1}`);
    });
  };
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  addEventListener("resize", mend);
  mend();
})();
