// Finding and filling gaps on the CPU, side by side and in rows; see core/gaps.h and core/lanes.h.
#pragma once

#include "core/gaps.h"
#include "core/lanes.h"

namespace ecgfast {
namespace {

// counts[lane] += the gaps among x[t * kGroup + lane], t < samples. True if there is any.
template <typename T>
bool count_gaps(const T* x, std::int64_t samples, std::int32_t* counts) {
  constexpr int kVectors = kGroup / kLanes<T>;
  bits_t<T> gaps[kVectors] = {};
  for (std::int64_t t = 0; t < samples; ++t) {
    for (int v = 0; v < kVectors; ++v) {
      const vec_t<T> value = load(x + t * kGroup + v * kLanes<T>);
      const vec_t<T> none = value - value;  // 0, but NaN in a gap
      gaps[v] -= (bits_t<T>)(none != none);
    }
  }
  bool any = false;
  for (int lane = 0; lane < kGroup; ++lane) {
    const auto found = gaps[lane / kLanes<T>][lane % kLanes<T>];
    counts[lane] += static_cast<std::int32_t>(found);
    any = any || found != 0;
  }
  return any;
}

// The gaps of a dense row.
template <typename T>
std::int64_t count_gaps_of_row(const T* x, std::int64_t samples) {
  std::int64_t gaps = 0;
#pragma omp simd reduction(+ : gaps)
  for (std::int64_t t = 0; t < samples; ++t) gaps += is_gap(x[t]) ? 1 : 0;
  return gaps;
}

// Fills the gaps among samples [begin, end) of a dense row in a copy of them: sample i is at
// x[(i - begin) * step]. Looks for neighbours in the whole row.
template <typename T>
void fill_gaps(const T* row, std::int64_t samples, OnGap how, T* x, std::int64_t step,
               std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    if (!is_gap(row[i])) continue;
    if (how == OnGap::zero) {
      x[(i - begin) * step] = T(0);
      continue;
    }
    std::int64_t before = i - 1;
    while (before >= 0 && is_gap(row[before])) --before;
    std::int64_t after = i + 1;
    while (after < samples && is_gap(row[after])) ++after;
    if (after == samples) after = -1;
    const T left = before < 0 ? T(0) : row[before];
    const T right = after < 0 ? T(0) : row[after];
    for (; i < end && is_gap(row[i]); ++i) {
      x[(i - begin) * step] = across_gap(i, before, left, after, right);
    }
    --i;
  }
}

}  // namespace
}  // namespace ecgfast
