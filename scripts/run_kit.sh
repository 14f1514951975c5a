#!/usr/bin/env bash
# Gives a sweep or a reproduction to the seqbench of this kit, on a machine without a network:
#
#   kit/run.sh FOLDER reproduce tcn2018 --only task=adding --max-time 8m
#
# It goes on from the runs that came with the kit and from those in FOLDER/outputs, which also takes
# the new ones. Let --max-time end some 90 seconds before the machine is taken away: it stops with
# checkpoints. Needs a Python with pip and torch: python3, or what $PYTHON says.
set -euo pipefail
usage="usage: $0 FOLDER sweep|reproduce ..."
folder=${1:?$usage} command=${2:?$usage}
kit=$(cd "$(dirname "$0")" && pwd)
python=$(command -v "${PYTHON:-python3}") || { echo "no ${PYTHON:-python3} here" >&2; exit 2; }
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# No virtual environment: one made from another does not see the torch that is in that.
site=$folder/.packages
"$python" -m pip install --quiet --root-user-action=ignore --no-index --no-deps --no-compile \
  --upgrade --target "$site" "$kit"/wheels/*.whl
# Of two states of a run the newer one counts.
cp -a --update "$kit/outputs" "$folder"
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} SEQBENCH_DATA=$kit/data SEQBENCH_OFFLINE=1
"$python" -c 'import importlib.util as u; u.find_spec("torch") or exit("no torch: set $PYTHON")'
cd "$folder"
exec "$python" -m seqbench "$command" "${@:3}"  # which gets the signals, then
