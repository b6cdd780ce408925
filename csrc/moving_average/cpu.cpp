// CPU kernel of moving_average, compiled once for each instruction set; see contract.h.
#include "core/beyond.h"
#include "core/dispatch.h"
#include "core/gaps_lanes.h"
#include "moving_average/contract.h"

namespace ecgfast::moving_average::ECGFAST_ISA {
namespace {

// x[j * kGroup + lane] becomes the mean of the `window` samples from there on.
template <typename T>
void average_lanes(T* x, std::int64_t outputs, std::int64_t window) {
  double sum[kGroup] = {};
  const double share = 1.0 / static_cast<double>(window);
  for (std::int64_t k = 0; k < window - 1; ++k) {
#pragma omp simd
    for (int lane = 0; lane < kGroup; ++lane)
      sum[lane] += static_cast<double>(x[k * kGroup + lane]);
  }
  for (std::int64_t j = 0; j < outputs; ++j) {
    T* const here = x + j * kGroup;
    const T* const next = here + (window - 1) * kGroup;
#pragma omp simd
    for (int lane = 0; lane < kGroup; ++lane) {
      const double whole = sum[lane] + static_cast<double>(next[lane]);
      sum[lane] = whole - static_cast<double>(here[lane]);
      here[lane] = static_cast<T>(whole * share);
    }
  }
}

// The outputs of one signal whose windows hold gaps that are kept: the sum of these is what they
// are, NaN or infinite.
template <typename T>
void spread_gaps(const Average& job, const Held& held, const T* row, T* y) {
  const std::int64_t samples = job.x.size[2];
  const std::int64_t outputs = held.end - held.begin - (job.window - 1);
  std::int64_t until = 0;  // windows that begin before hold the latest gap
  for (std::int64_t k = 0; k < outputs + job.window - 1; ++k) {
    const std::int64_t at = sample_at(job.beyond, held.begin + k, samples);
    if (at < 0 || !is_gap(row[at])) continue;
    std::int64_t j = k - (job.window - 1) > until ? k - (job.window - 1) : until;
    for (std::int64_t fresh = j; fresh <= k && fresh < outputs; ++fresh) y[fresh] = row[at];
    for (j = k - (job.window - 1) > 0 ? k - (job.window - 1) : 0; j < until && j < outputs; ++j) {
      y[j] += row[at];
    }
    until = k + 1;
  }
}

template <typename T>
void average_group(const Average& job, std::int64_t first_row, int count, std::int64_t tile, T* x) {
  const std::int64_t samples = job.x.size[2];
  const Held held = held_by(job, tile);
  const std::int64_t from = held.begin < 0 ? 0 : held.begin;
  const std::int64_t to = held.end > samples ? samples : held.end;
  const std::int64_t outputs = held.end_output - tile * job.tile;

  const T* in[kGroup];
  T* out[kGroup];
  const T* inside_of[kGroup];
  for (int lane = 0; lane < kGroup; ++lane) {
    const std::int64_t r = first_row + (lane < count ? lane : 0);
    in[lane] = row<T>(job.x, r);
    inside_of[lane] = in[lane] + from;
    out[lane] = row<T>(job.y, r) + tile * job.tile;
  }
  T* const inside = x + (from - held.begin) * kGroup;
  if (to > from) to_lanes(inside_of, to - from, inside);

  std::int32_t own[kGroup] = {};
  std::int32_t all[kGroup] = {};
  if (to > from) count_gaps(inside, to - from, all);
  bool any = false;
  for (int lane = 0; lane < kGroup; ++lane) {
    own[lane] = static_cast<std::int32_t>(
        all[lane] == 0 ? 0 : count_gaps_of_row(in[lane] + held.own, held.own_end - held.own));
    any = any || all[lane] != 0;
  }
  std::int32_t* const gaps = static_cast<std::int32_t*>(job.gaps.data);
  for (int lane = 0; lane < count; ++lane) {
    gaps[(first_row + lane) * job.gaps.size[1] + tile] = own[lane];
  }
  for (int lane = 0; any && lane < count; ++lane) {
    if (all[lane] == 0) continue;
    const OnGap how = job.on_gap == OnGap::keep ? OnGap::zero : job.on_gap;
    fill_gaps(in[lane], samples, how, inside + lane, kGroup, from, to);
  }
  bool kept[kGroup] = {};
  for (int lane = 0; lane < kGroup; ++lane) kept[lane] = all[lane] != 0;
  const auto outside = [&](std::int64_t i) {
    const std::int64_t at = sample_at(job.beyond, i, samples);
    T* const place = x + (i - held.begin) * kGroup;
    for (int lane = 0; lane < kGroup; ++lane) {
      const T value = at < 0 ? T(0) : filled_at<T>(in[lane], at, samples, job.on_gap);
      kept[lane] = kept[lane] || is_gap(value);
      place[lane] = is_gap(value) ? T(0) : value;
    }
  };
  for (std::int64_t i = held.begin; i < held.end && i < 0; ++i) outside(i);
  for (std::int64_t i = held.begin > samples ? held.begin : samples; i < held.end; ++i) outside(i);

  average_lanes(x, outputs, job.window);
  from_lanes(x, outputs, out, count);
  for (int lane = 0; lane < count; ++lane) {
    if (kept[lane] && job.on_gap == OnGap::keep) spread_gaps(job, held, in[lane], out[lane]);
  }
}

}  // namespace

void forward(const Average& job, Range items) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* const scratch = reinterpret_cast<T*>(static_cast<char*>(job.scratch.data) +
                                            items.worker * job.scratch.size[1]);
    const std::int64_t rows = job.x.size[0] * job.x.size[1];
    const std::int64_t tiles = tiles_of(job);
    for (std::int64_t item = items.begin; item < items.end; ++item) {
      const std::int64_t first = item / tiles * kRows;
      const std::int64_t end = first + kRows < rows ? first + kRows : rows;
      for (std::int64_t r = first; r < end; r += kGroup) {
        const std::int64_t left = end - r;
        average_group(job, r, static_cast<int>(left < kGroup ? left : kGroup), item % tiles,
                      scratch);
      }
    }
  });
}

}  // namespace ecgfast::moving_average::ECGFAST_ISA
