#!/usr/bin/env bash
# Everything that wants a GPU, in one run of less than ten minutes: build, tests, sanitizers, latencies, and every family
# of operators against torch and cupyx. Needs Python with the packages of pyproject.toml's build and test, CuPy and
# PyTorch, nvcc and compute-sanitizer, and no package index. A short table comes last; everything measured goes to JSON
# files, beside the one that is named.
#
#   benchmarks/gpu.sh [JSON file]
set -uo pipefail

cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=()

# Runs a part for at most so many seconds; what fails is told again at the end, and the rest runs all the same.
part() {
  local name=$1 seconds=$2
  shift 2
  printf '\n== %s\n' "$name"
  local start=$SECONDS
  timeout "$seconds" "$@" || failed+=("$name (exit status $?)")
  printf '   %d s\n' $((SECONDS - start))
}

export FASTLSTM_REQUIRE_EXTENSIONS=1
unset FASTLSTM_CUDA_KERNEL
part "build" 100 python3 -m pip install --quiet --no-build-isolation --no-deps -Ccmake.define.FASTLSTM_CUDA=ON .
if [ ${#failed[@]} -gt 0 ]; then
  echo "the build failed" >&2
  exit 1
fi
part "what runs here" 15 python3 -c 'import fastlstm; fastlstm.show_config()'
part "tests" 100 python3 -m pytest -q tests/test_gpu.py

# Without CuPy's memory pool, so that every array ends where its memory ends.
check=(compute-sanitizer --error-exitcode 9)
part "memcheck" 35 "${check[@]}" --tool memcheck python3 -m benchmarks.gpu_short
part "racecheck" 35 "${check[@]}" --tool racecheck python3 -m benchmarks.gpu_short

latencies() {
  nvcc -std=c++17 -O2 -gencode=arch=compute_90a,code=sm_90a -gencode=arch=compute_80,code=sm_80 \
    -o "$scratch/latencies" benchmarks/gpu_latencies.cu && timeout 20 "$scratch/latencies" | tee "$scratch/latencies.json"
}
printf '\n== latencies\n'
latencies || failed+=("latencies")

part "embedding gradients" 30 python3 -m benchmarks.gpu_embedding --seconds 10 ${1:+--out "${1%.json}-embedding.json"}
part "linear cross entropy" 20 python3 -m benchmarks.gpu_losses --seconds 5 ${1:+--out "${1%.json}-losses.json"}
part "NCE step against torch with sparse gradients" 25 python3 -m benchmarks.gpu_sampling --seconds 8 ${1:+--out "${1%.json}-sampling.json"}
part "optimisers against torch's fused ones" 20 python3 -m benchmarks.gpu_optim --seconds 6 ${1:+--out "${1%.json}-optim.json"}
part "GRU against torch.nn.GRU" 35 python3 -m benchmarks.gpu_gru --seconds 14 ${1:+--out "${1%.json}-gru.json"}
part "whole training steps against torch, eager and in a graph" 70 python3 -m benchmarks.gpu_steps --seconds 20 ${1:+--out "${1%.json}-steps.json"}
part "LSTM against torch.nn.LSTM" 90 python3 -m benchmarks.gpu_lstm --latencies "$scratch/latencies.json" \
  --seconds 70 ${1:+--out "$1"}

if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
