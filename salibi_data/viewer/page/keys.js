// The keyboard: one table of keys, out of the way where text is typed.

export function listen(actions) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const typing = event.target.matches?.("input:not([type=checkbox]):not([type=radio]), select, textarea");
    const arrow = event.key.startsWith("Arrow");
    const choosing = arrow && event.target.matches?.("input");
    if ((typing || choosing) && event.key !== "Escape") return;
    const action = /^[1-9]$/.test(event.key) ? () => actions.modality(Number(event.key) - 1) : actions[event.key];
    if (action && action() !== false) event.preventDefault();
  }, { capture: true });
}
