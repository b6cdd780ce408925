#!/usr/bin/env bash
# bench/label_efficiency.sh WHAT OUT: the tables of docs/results/label-efficiency-*.md
#
#   store    the SYNTHETIC cohort, 4,000 patients, 100 Hz
#   rates    short pretrainings by each of RATES, scored on the validation part
#   runs     the pretrainings: METHODS x SEEDS, STEPS steps each
#   table    AUROC of mPCWP > 18 mmHg at FRACTIONS of the labels, all starts
#
# Every method has the same encoder, records and steps. In a step the encoder sees 320 s of ECG: a
# quarter of each of 128 records (ssl-dml) or two of each of 64 (simclr, vicreg); or 640 s: 64 whole
# records (pclr, triplet) or both halves of them (cmsc). JOBS pretrainings run at a time, each on
# OMP_NUM_THREADS threads. What is finished is not done again.
set -euo pipefail
what=${1:?usage: bench/label_efficiency.sh store|rates|runs|table OUT}
out=${2:?usage: bench/label_efficiency.sh store|rates|runs|table OUT}
METHODS=${METHODS:-ssl-dml simclr cmsc pclr vicreg triplet}
SEEDS=${SEEDS:-0 1 2 3 4}
STEPS=${STEPS:-2000}
RATES=${RATES:-1e-3 3e-3}
WIDTH=${WIDTH:-16}
FRACTIONS=${FRACTIONS:-0.01 0.05 0.25 1}
JOBS=${JOBS:-2}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
rate_of() { # by `rates`, see the table in docs/results
  case $1 in
    ssl-dml) echo 3e-3 ;;
    *) echo 1e-3 ;;
  esac
}
label=(--label mpcwp --task classification --threshold 18 --data.paths "$out/store")

pretrain() { # METHOD STEPS RATE SEED FOLDER
  [ -f "$5/contract.json" ] && return
  local verb=$1 how=(--fit.batch_size 64)
  case $1 in
    ssl-dml) how=(--config log_ratio --fit.batch_size 128) ;;
    simclr | vicreg) how+=(--augment.crop_s 2.5 --augment.mask_s 0.5 1) ;;
    triplet) verb=ssl-dml how=(--config fixed --mine_fs 50 --fit.batch_size 64) ;;
  esac
  ecgfast pretrain "$verb" "${how[@]}" --data.paths "$out/store" --signal.fs 100 \
    --encoder.width "$WIDTH" --optim.lr "$3" --optim.warmup_steps 50 --fit.steps "$2" \
    --fit.seed "$4" --fit.out "$5" --fit.progress false > "$5.log" 2>&1 || {
    echo "failed: $5.log" >&2
    return 1
  }
}
export -f pretrain
export out WIDTH

mkdir -p "$out"
case $what in
  store)
    [ -f "$out/store/store.json" ] || python - "$out/store" << 'PY'
import sys
from ecgfast.config import Signal
from ecgfast.data.synthetic import write_cohort

write_cohort(sys.argv[1], 4000, signal=Signal(fs=100.0), seed=0)
PY
    ;;
  rates)
    for method in $METHODS; do
      for rate in $RATES; do
        echo "$method ${RATE_STEPS:-400} $rate 99 $out/rate-$method-$rate"
      done
    done | xargs -P "$JOBS" -L 1 bash -c 'pretrain "$@"' pretrain
    inits=()
    for method in $METHODS; do
      for rate in $RATES; do inits+=("$method-$rate=$out/rate-$method-$rate"); done
    done
    ecgfast labeleff --init "${inits[@]}" "${label[@]}" --test val --validation "" \
      --fractions 0.05 0.25 --out "$out/rates"
    ;;
  runs)
    for seed in $SEEDS; do
      for method in $METHODS; do
        echo "$method $STEPS $(rate_of "$method") $seed $out/$method-$seed"
      done
    done | xargs -P "$JOBS" -L 1 bash -c 'pretrain "$@"' pretrain
    ;;
  table)
    inits=("supervised=random@full")
    for method in $METHODS; do inits+=("$method=$out/$method-{seed}"); done
    # shellcheck disable=SC2086 # FRACTIONS are words
    ecgfast labeleff --init "${inits[@]}" ${STARTS:-"ssl-dml-full=$out/ssl-dml-{seed}@full" random dtw-knn beat-knn} \
      "${label[@]}" --fractions $FRACTIONS --full.hidden 0 --full.head_dropout 0 \
      --full.augment.crop_s 5 --full.optim.lr 1e-3 --reference supervised --out "$out/table"
    ;;
esac
