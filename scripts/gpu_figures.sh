#!/usr/bin/env bash
# Takes every measurement that needs a GPU in one go: tests/gpu, benchmarks/gpu_pretrain.py, a ladder of several seeds.
#
#   scripts/gpu_figures.sh FOLDER
#
# Needs the packages of a slim training image (torch, lightning, timm, torchmetrics, scikit-learn, numba, pyarrow, pydantic-settings, pytest);
# without rasterio, generate the twin elsewhere, `python benchmarks/ladder.py --folder FOLDER --draw-only --places 64`, and copy FOLDER/workspace.
# CACO_REAL names the folder with the real EuroSAT. Logs and tables are in FOLDER; finished parts are not repeated.
set -uo pipefail
failed=0
cd "$(dirname "$0")/.."
folder=${1:?usage: scripts/gpu_figures.sh FOLDER}
mkdir -p "$folder"
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
ladder=(python3 benchmarks/ladder.py --folder "$folder" --places "${PLACES:-24000}" --steps "${STEPS:-1000}" --batch 256 --precision bf16
        --at-once "${AT_ONCE:-4}" --seeds 0 1 2)
# drawing uses the cores while the tests use the GPU
"${ladder[@]}" --draw-only > "$folder/draw.log" 2>&1 &
drawing=$!
python3 -m pytest tests/gpu -n 0 -p no:warnings --durations=8 2>&1 | tee "$folder/tests_gpu.log" || failed=1
wait "$drawing" || { echo "drawing failed: see $folder/draw.log" >&2; exit 1; }
python3 benchmarks/gpu_pretrain.py --quick --kernels "$folder/kernels.txt" 2>&1 | tee "$folder/gpu_pretrain.log" || failed=1
python3 benchmarks/gpu_pretrain.py --quick --compile --kernels "$folder/kernels_compiled.txt" 2>&1 | tee "$folder/gpu_pretrain_compiled.log" || failed=1
"${ladder[@]}" 2> "$folder/ladder.log" | tee "$folder/ladder.txt" || failed=1
exit "$failed"
