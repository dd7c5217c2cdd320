#!/usr/bin/env bash
# The offline plugin of Material for MkDocs adds a script from the network to every page.
# Expected: a site built with plugins search and offline, and without web fonts, loads nothing from outside.
# Happens: each page asks unpkg.com for a script (a stand-in for workers on file:// pages, which search needs). A
#   site built without the plugin has no such address.
# Matters: documentation that must work on machines without a network waits for the address, and search fails
#   there, which is what the plugin is for; a privacy rule "no third party" is broken by turning it on. The
#   privacy plugin beside it downloads the script at build time.
# Run 2026-11-30 with mkdocs-material 9.8.2, mkdocs 1.6.1, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install -q --disable-pip-version-check --no-input \
  mkdocs-material==9.8.2 mkdocs==1.6.1 || exit 2

mkdir docs
echo "# A page" >docs/index.md
found=()
for plugins in "[search]" "[search, offline]"; do
  printf 'site_name: Site\ntheme: {name: material, font: false}\nplugins: %s\n' "$plugins" >mkdocs.yml
  NO_MKDOCS_2_WARNING=1 venv/bin/python -m mkdocs build -q --clean
  outside=$(grep -Eo '<(script|link|img)[^>]*(src|href)="(https?:)?//[^"]*"' site/index.html | grep -v canonical || true)
  echo "plugins $plugins: ${outside:-nothing from outside}"
  found+=("$outside")
done
[ -z "${found[0]}" ] && [[ ${found[1]} == *unpkg.com* ]] || { echo "CHANGED"; exit 1; }
