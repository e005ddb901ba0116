#!/bin/bash
# What the recipe `bash` promises: Bash itself, and the text, archive and network tools around it.
set -euo pipefail
declare -A seen
for word in b a b a a; do seen[$word]=$((${seen[$word]:-0} + 1)); done
[ "${seen[a]}${seen[b]}" = 32 ]
[ "$(jq -r '.list | add' <<< '{"list": [20, 22]}')" = 42 ]
cd "$(mktemp -d)"
seq 1000 > numbers
zip -q numbers.zip numbers
mv numbers before
unzip -q numbers.zip
cmp numbers before
xz numbers
curl -sS "file://$PWD/numbers.xz" | xz -dc | cmp - before
[ "$(ps -o pid= -p 1 | tr -d ' ')" = 1 ]
[ -s /etc/ssl/certs/ca-certificates.crt ]
echo "ok: Bash ${BASH_VERSION%%(*}, $(jq --version), $(curl --version | cut -d ' ' -f 1-2 | head -n 1)"
