#!/usr/bin/env bash
# bench/pages.sh synthetic|real|ecg-id OUT stores|runs|table|recall [SHARED]
# The tables of docs/results/bcl.md: BCL against SimCLR on pages and random weights, these with the
# statistics of their norms taken from 60 batches.
#
#   stores   synthetic: the SYNTHETIC cohort, 4,000 patients, 5 s at 100 Hz; real: every real 12-lead
#            record, 7 s at 100 Hz, by bench/real_ecgs.sh from SHARED; ecg-id: lead I of its 90 persons,
#            2.5 s at 100 Hz, half of the persons to train on
#   runs     the pretrainings: METHODS x SEEDS, STEPS steps of PAGES pages each
#   table    a logistic regression on the embeddings: synthetic: AF, sex, LVEF < 40 %; real: sex on
#            PTB-XL folds 9-10 with the labels of folds 1-8
#   recall   re-identification on the test part, in layouts that were seen and others: whether the
#            nearest other record is of the same patient
#
# A patient CPU can train half of the smallest net on pages of SIZE pixels; that is far from the
# published one (EfficientNet-B3, 300 pixels). BCL's pairs are of a patient, SimCLR's of a record; both see as
# many pages a step. Few real patients have two records, so BCL draws those with one twice there.
set -euo pipefail
usage='usage: bench/pages.sh synthetic|real|ecg-id OUT stores|runs|table|recall [SHARED]'
what=${1:?$usage} out=${2:?$usage} stage=${3:?$usage}
here=$(dirname "$0")
METHODS=${METHODS:-bcl simclr random}
SEEDS=${SEEDS-0 1 2}
STEPS=${STEPS:-600}
PAGES=${PAGES:-64}
NET=${NET:-efficientnet-b0-half}
SIZE=${SIZE:-128}
JOBS=${JOBS:-2}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
signal=(--signal.fs 100)
layouts=(3x4 3x4+1) others=(3x4+3 6x2 12x1 3x4-shuffled:7)
case $what in
  synthetic)
    stores=("$out/store") labelled=$out/store FRACTIONS=${FRACTIONS:-0.001 0.01 0.1 1}
    signal+=(--signal.seconds 5)
    ;;
  real)
    stores=("$out/stores"/{ptb-xl,challenge,code15,code15-followup,cinc2011})
    labelled=$out/stores/ptb-xl FRACTIONS=${FRACTIONS:-0.1 0.25 1}
    signal+=(--signal.seconds 7)
    ;;
  ecg-id)
    stores=("$out/store") labelled=$out/store layouts=(rows:I) others=()
    signal+=(--signal.leads "[I]" --signal.seconds 2.5)
    ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
# Looks and faults make the task harder, and these runs are short: pages differ by their layout alone.
views=(--views.looks 1 --views.perspective 0)
for fault in rotation_degrees blur_px light noise brightness; do views+=("--views.$fault" "[0, 0]"); done
for fault in contrast gamma colour; do views+=("--views.$fault" "[1, 1]"); done

pretrain() { # METHOD SEED FOLDER
  [ -f "$3/contract.json" ] && return
  local how=(--min_gap 0 --fit.batch_size "$PAGES")
  [ "$what" != real ] || how+=(--lone augment)
  [ "$1" != simclr ] || how=(--config simclr --fit.batch_size $((PAGES / 2)))
  local steps=(--optim.lr 2e-3 --optim.warmup_steps 50 --fit.steps "$STEPS")
  [ "$1" != random ] || steps=(--optim.lr 1e-12 --optim.warmup_steps 0 --fit.steps 60)
  ecgfast pretrain bcl "${how[@]}" --data.paths "${stores[@]}" --data.splits all "${signal[@]}" \
    --encoder.net "$NET" --encoder.size "$SIZE" --encoder.layout "${layouts[-1]}" \
    "${views[@]}" --views.layouts "[$(IFS=,; echo "${layouts[*]}")]" "${steps[@]}" \
    --fit.micro_batch 0 --fit.seed "$2" --fit.progress false \
    --fit.out "$3" > "$3.log" 2>&1 || {
    echo "failed: $3.log" >&2
    return 1
  }
}

table() { # FOLDER, then what `ecgfast labeleff` is told: the label
  local method inits=()
  for method in $METHODS; do inits+=("$method=$out/$method-{seed}"); done
  # shellcheck disable=SC2086 # FRACTIONS are words
  ecgfast labeleff --init "${inits[@]}" --data.paths "$labelled" "${@:2}" "${signal[@]}" \
    --task classification --fractions $FRACTIONS --seeds "$(wc -w <<< "$SEEDS")" \
    --reference random --keep "$out/kept" --out "$1"
}

mkdir -p "$out"
case $what-$stage in
  synthetic-stores)
    [ -f "$out/store/store.json" ] || python - "$out/store" << 'PY'
import sys

from ecgfast.config import Signal
from ecgfast.data.synthetic import write_cohort

write_cohort(sys.argv[1], 4000, signal=Signal(fs=100.0, seconds=5.0), seed=0)
PY
    ;;
  real-stores)
    SEEDS="" "$here/real_ecgs.sh" "${4:?$usage}" "$out/stores"
    ;;
  ecg-id-stores)
    data=${4:?$usage}/data/ecg-id
    find "$data" -name '*.hea' -printf '%P\n' | sort | awk -F/ \
      'BEGIN { print "record_id,patient_id" } { sub(/.hea/, ""); print $0 "," $1 }' > "$out/ids.csv"
    ecgfast convert "$data" "$out/store" --leads I --fs 100 --seconds 2.5 --labels "$out/ids.csv" \
      --patient-column patient_id --policy checksum_mismatch=keep
    ecgfast split "$out/store" --fractions 0.5,0,0.5
    ;;
  *-runs)
    for seed in $SEEDS; do
      for method in $METHODS; do
        while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
        pretrain "$method" "$seed" "$out/$method-$seed" &
      done
    done
    while [ -n "$(jobs -rp)" ]; do wait -n; done
    ;;
  synthetic-table)
    table "$out/af" --label af
    table "$out/sex" --label sex
    table "$out/lvef" --label lvef --threshold 40
    ;;
  real-table) table "$out/sex" --data.splits train val --validation "" --label sex ;;
  *-recall)
    for seed in $SEEDS; do
      for method in $METHODS; do
        ecgfast evaluate "$out/$method-$seed" --store "$labelled" \
          --layouts "${layouts[@]}" "${others[@]}"
      done
    done
    ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
