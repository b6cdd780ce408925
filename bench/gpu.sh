#!/usr/bin/env bash
# bench/gpu.sh OUTDIR: builds on a machine with a GPU, runs the CUDA tests, the sanitizer and the
# benchmarks, and leaves logs and a table in OUTDIR, all within eight minutes. Downloads nothing:
# torch, numpy, scipy, pytest, pytest-benchmark, hypothesis, scikit-build-core, pybind11, cmake,
# ninja and nvcc must be there.
set -uo pipefail
out=$(mkdir -p "${1:?usage: bench/gpu.sh OUTDIR}" && realpath "$1")
cd "$(dirname "$0")/.."
python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  { echo "bench/gpu.sh: torch sees no GPU here, so there is nothing to measure" >&2; exit 4; }
export PYTHONUNBUFFERED=1 CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-16}
started=$SECONDS
left() { echo $((470 - (SECONDS - started))); }  # seconds of the eight minutes

{
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
  nvcc --version | tail -n 1
  python3 -c 'import platform, numpy, torch
print(f"python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}")'
  git rev-parse HEAD 2> /dev/null
} | tee "$out/machine.txt"

site=$(mktemp -d)  # beside the system's packages, not among them
timeout "$(left)" python3 -m pip install --no-build-isolation --no-deps --no-index \
  --quiet --target "$site" . -Ccmake.define.ECGFAST_CUDA=ON > "$out/build.log" 2>&1
built=$?
echo "build: exit $built after $((SECONDS - started)) s" | tee "$out/summary.txt"
if [ "$built" != 0 ]; then
  tail -n 40 "$out/build.log"
  exit 1
fi
export PYTHONPATH=$site
pytest=(python3 -P -m pytest -q -p no:cacheprovider)

# The rooms: only their tests need nothing but torch, numpy, scipy and pytest.
tests=()
benches=()
for contract in csrc/*/contract.h; do
  room=$(basename "$(dirname "$contract")")
  benches+=("bench/bench_$room.py")
  for file in "python_tests/test_$room"{,_*}.py; do
    case $file in *_properties.py | *'*'*) ;; *) tests+=("$file") ;; esac
  done
done

timeout "$(left)" "${pytest[@]}" -m cuda "${tests[@]}" 2>&1 | tee "$out/tests.log" | tail -n 30
tested=${PIPESTATUS[0]}
echo "pytest -m cuda: exit $tested after $((SECONDS - started)) s" | tee -a "$out/summary.txt"

if command -v compute-sanitizer > /dev/null && [ "$(left)" -gt 240 ]; then
  timeout 90 compute-sanitizer --tool memcheck --error-exitcode 9 \
    "${pytest[@]}" -m cuda -k "matches_reference and not half" "${tests[@]}" \
    > "$out/sanitizer.log" 2>&1
  echo "compute-sanitizer memcheck: exit $? (124 is out of time)" | tee -a "$out/summary.txt"
fi

timeout "$(left)" "${pytest[@]}" "${benches[@]}" -k "cuda" --benchmark-json "$out/bench.json" \
  --benchmark-max-time 0.3 --benchmark-min-rounds 5 2>&1 | tee "$out/bench.log" | tail -n 60
echo "benchmarks: exit ${PIPESTATUS[0]} after $((SECONDS - started)) s" | tee -a "$out/summary.txt"
grep -E ' x floor| ms ' "$out/bench.log" > "$out/table.txt"
exit "$tested"
