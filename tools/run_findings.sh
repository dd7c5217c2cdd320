#!/usr/bin/env bash
# run_findings.sh [NAME...]: run findings/NAME.sh (all of them without arguments) and print one line
# for each: same, CHANGED with the script's last line, or not run (no package, no time).
# Exit status 1 if one changed. FINDINGS_SECONDS bounds each script (default 600).
set -uo pipefail
cd "$(dirname "$0")/../findings" || exit 2
names=("$@")
[ ${#names[@]} -gt 0 ] || for script in *.sh; do names+=("${script%.sh}"); done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
same=0 changed=0 unknown=0
for name in "${names[@]}"; do
  timeout --kill-after=10 "${FINDINGS_SECONDS:-600}" bash "$name.sh" > "$log" 2>&1 < /dev/null
  case $? in
    0) same=$((same + 1)); echo "same     $name" ;;
    1) changed=$((changed + 1)); echo "CHANGED  $name: $(tail -n 1 "$log")" ;;
    *) unknown=$((unknown + 1)); echo "not run  $name: $(tail -n 1 "$log")" ;;
  esac
done
echo "$same as stated, $changed changed, $unknown not run"
[ "$changed" -eq 0 ]
