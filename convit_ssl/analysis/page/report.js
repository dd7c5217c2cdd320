// The locality report.
overview();
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

if (DATA.refresh_seconds) {
  const again = () => (document.hidden ? setTimeout(again, 1000) : location.reload());
  setTimeout(again, DATA.refresh_seconds * 1000);
}
