// CPU kernels of soft_dtw, forward: packs records, computes R; see strip.h and contract.h.
#include <cmath>

#include "soft_dtw/strip.h"

namespace ecgfast::soft_dtw::ECGFAST_ISA {
namespace {

// R(n-1,m-1) of one pair. `kept` is for the last of every 64 rows, or nullptr.
template <typename T>
T warp(const Pair<T>& pair, T* kept, std::int64_t pitch) {
  constexpr int kW = kLanes<T>;
  for (std::int64_t t = -kPad; t < pair.m + 2 * kPad; ++t) pair.above[t] = static_cast<T>(kFar);
  Strip<T> strip{{}, {}, pair, nullptr, {}, nullptr};
  for (std::int64_t top = 0;; top += kRows<T>) {
    if (kept != nullptr && top > 0 && top % kStrip == 0) {
      T* const to = kept + (top / kStrip - 1) * pitch;
      for (std::int64_t t = 0; t < pair.m; ++t) to[t] = pair.above[t];
    }
    const bool last = top + kRows<T> >= pair.n;
    const std::int64_t bottom = last ? pair.n - 1 - top : kRows<T> - 1;
    compute<T, false>(strip, steps_of(pair, top, bottom));
    if (last) return strip.r[bottom / kW][kW - 1 - bottom % kW];
  }
}

bool is_finite(const View& finite, std::int64_t n) {
  return static_cast<const std::int32_t*>(finite.data)[n] != 0;
}

template <typename T>
void forward_pairs(const Forward& job, Range pairs) {
  const std::int64_t width = job.columns.size[0];
  T* const above = static_cast<T*>(job.scratch.data) + pairs.worker * job.scratch.stride[0] + kPad;
  T* const out = static_cast<T*>(job.value.data);
  for (std::int64_t p = pairs.begin; p < pairs.end; ++p) {
    const Cell cell = cell_of(job.pairs, p, width);
    T* kept = nullptr;
    if (job.kept.size[0] != 0) {
      kept = static_cast<T*>(job.kept.data) + p * job.kept.stride[0];
      for (std::int64_t t = 0; t < job.kept.size[1] * job.kept.size[2]; ++t) kept[t] = 0;
    }
    T value = static_cast<T>(__builtin_nan(""));
    if (is_finite(job.x_finite, cell.row) && is_finite(job.y_finite, cell.column)) {
      value = warp(pair_of<T>(job, cell, above), kept, job.y_samples);
      value = value < static_cast<T>(kFar / 10) ? value * static_cast<T>(job.unit)
                                                : static_cast<T>(__builtin_inf());
    }
    if (job.pairs == Pairs::aligned) {
      out[p] = value;
      continue;
    }
    out[cell.row * width + cell.column] = value;
    if (job.pairs == Pairs::same) out[cell.column * width + cell.row] = value;
  }
}

// rows: strip by strip [lead][row], the last row first, zeros behind the end. columns: lead by
// lead, zeros around the record: cells there have R by the far values that they begin with.
template <typename T>
void prepare_record(const Prepare& job, std::int64_t n) {
  constexpr int kH = kRows<T>;
  const std::int64_t leads = job.x.size[1];
  const std::int64_t length = length_of(job.length, n, job.x.size[2]);
  const T scale = static_cast<T>(job.scale);
  const T* const x = static_cast<const T*>(job.x.data) + n * job.x.stride[0];
  std::int64_t beyond = 0;
  for (std::int64_t l = 0; l < leads; ++l) {
    const T* const lead = x + l * job.x.stride[1];
#pragma omp simd reduction(+ : beyond)
    for (std::int64_t t = 0; t < length; ++t) {
      beyond += !(std::fabs(scale * lead[t]) <= static_cast<T>(kMostSample));  // or NaN
    }
  }
  static_cast<std::int32_t*>(job.finite.data)[n] = beyond == 0;

  if (job.rows.size[0] > 0) {
    T* to = static_cast<T*>(job.rows.data) + n * job.rows.stride[0];
    for (std::int64_t top = 0; top < length; top += kH) {
      for (std::int64_t l = 0; l < leads; ++l) {
        const T* const lead = x + l * job.x.stride[1];
        for (std::int64_t t = top + kH - 1; t >= top; --t) {
          *to++ = t < length ? scale * lead[t] : T(0);
        }
      }
    }
  }
  if (job.columns.size[0] > 0) {
    const std::int64_t pitch = job.columns.size[2];
    T* const to = static_cast<T*>(job.columns.data) + n * job.columns.stride[0];
    for (std::int64_t l = 0; l < leads; ++l) {
      const T* const lead = x + l * job.x.stride[1];
      for (std::int64_t t = 0; t < pitch; ++t) {
        const bool inside = t >= kPad && t < length + kPad;
        to[l * pitch + t] = inside ? scale * lead[t - kPad] : T(0);
      }
    }
  }
}

}  // namespace

void prepare(const Prepare& job, Range records) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    for (std::int64_t n = records.begin; n < records.end; ++n) {
      prepare_record<decltype(zero)>(job, n);
    }
  });
}

void forward(const Forward& job, Range pairs) {
  const FlushSubnormals calm;  // weights of paths that do not count
  dispatch_float(job.value.dtype, [&](auto zero) { forward_pairs<decltype(zero)>(job, pairs); });
}

}  // namespace ecgfast::soft_dtw::ECGFAST_ISA
