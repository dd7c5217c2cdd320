// The report of one or more runs.
verdict();
overview();
images();
training();
gates();
heads();
nonlocality();
attention();
features();
attribution();
provenance();
chooseRun(Math.min(state.get("run", 0), RUNS.length - 1));
startTheme();
addSaveButtons();
new MutationObserver(addSaveButtons).observe(document.getElementById("main"), { childList: true, subtree: true });

if (DATA.refresh_seconds) {
  const again = () => (document.hidden ? setTimeout(again, 1000) : location.reload());
  setTimeout(again, DATA.refresh_seconds * 1000);
}
