#!/usr/bin/env bash
# Everything that wants a GPU, in one run of about ten minutes: build, selftest, tests, sanitizers, latencies, and every
# family of operators against torch and cupyx. Needs Python with the packages of pyproject.toml's build and test, CuPy and
# PyTorch, nvcc and compute-sanitizer, and no package index. A short table comes last; everything measured goes to JSON
# files, beside the one that is named.
#
#   benchmarks/gpu.sh [JSON file [tests|times]]
#
# With "tests" or "times" only those: tests and sanitizers then have more time, as they need where CuPy has yet to compile
# its kernels.
set -uo pipefail

only=${2:-}

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
part "build" 100 python3 -m pip install --quiet --no-build-isolation --no-deps \
  -Cbuild-dir='build/{wheel_tag}' -Ccmake.define.FASTLSTM_CUDA=ON .
if [ ${#failed[@]} -gt 0 ]; then
  echo "the build failed" >&2
  exit 1
fi
# What runs here, and whether it is right: what follows is worth nothing where this fails.
part "selftest" 75 python3 -m fastlstm selftest --device cuda

check() {
  local tests=100 sanitizer=30
  if [ "$only" = tests ]; then
    tests=250 sanitizer=75
  fi
  part "tests" $tests python3 -m pytest -q tests/cuda/test_gpu.py
  # Without CuPy's memory pool, so that every array ends where its memory ends.
  local tool
  for tool in memcheck racecheck synccheck initcheck; do
    part "$tool" $sanitizer compute-sanitizer --error-exitcode 9 --tool "$tool" python3 -m benchmarks.gpu_short
  done
}

latencies() {
  nvcc -std=c++17 -O2 "-gencode=arch=compute_90,code=[sm_90,compute_90]" -gencode=arch=compute_80,code=sm_80 \
    -o "$scratch/latencies" benchmarks/gpu_latencies.cu && timeout 20 "$scratch/latencies" | tee "$scratch/latencies.json"
}

measure() {
  local out=$1
  printf '\n== latencies\n'
  latencies || failed+=("latencies")
  part "embedding gradients" 30 python3 -m benchmarks.gpu_embedding --seconds 10 ${out:+--out "${out%.json}-embedding.json"}
  part "linear cross entropy" 20 python3 -m benchmarks.gpu_losses --seconds 5 ${out:+--out "${out%.json}-losses.json"}
  part "NCE step against torch with sparse gradients" 25 python3 -m benchmarks.gpu_sampling --seconds 8 ${out:+--out "${out%.json}-sampling.json"}
  part "optimisers against torch's fused ones" 20 python3 -m benchmarks.gpu_optim --seconds 6 ${out:+--out "${out%.json}-optim.json"}
  part "GRU against torch.nn.GRU" 35 python3 -m benchmarks.gpu_gru --seconds 14 ${out:+--out "${out%.json}-gru.json"}
  part "whole training steps against torch, eager and in a graph" 70 python3 -m benchmarks.gpu_steps --seconds 20 ${out:+--out "${out%.json}-steps.json"}
  part "LSTM against torch.nn.LSTM" 90 python3 -m benchmarks.gpu_lstm --latencies "$scratch/latencies.json" \
    --seconds 70 ${out:+--out "$out"}
}

[ "$only" = times ] || check
[ "$only" = tests ] || measure "${1:-}"

if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
