// How R of a pair is made by lanes of a warp, forward and once more backward.
//
// A block is a warp. kLanes of it share a pair: each holds kColumns columns of y with all their
// leads in registers, and the rows of x pass by, a lane one row behind its left neighbour, whose
// last column comes by a shuffle. That is a pass; the next one takes the next kWidth columns, and
// what stands at the seam is kept in a column of R that the last lane of the pair alone writes and
// reads. Rows of x are staged for kSteps steps at a time. In front of a record R stays kOutside,
// whatever is added to it, and nothing inside depends on what lies behind; so packed forms hold
// zeros there.
#pragma once

#include "core/cuda.cuh"
#include "core/triangle.h"
#include "soft_dtw/device.h"

namespace ecgfast::soft_dtw::cuda {

constexpr float kOutside = static_cast<float>(kFar);

template <int kLeadsPadded, bool kIsBanded>
struct Shape {
  static constexpr int kLeads = kLeadsPadded;
  static constexpr bool kBanded = kIsBanded;
  static constexpr int kLanes = lanes_of(kBanded);
  static constexpr int kPairs = 32 / kLanes;
  static constexpr int kColumns = columns_of(kLeads);
  static constexpr int kWidth = kLanes * kColumns;
  static constexpr int kSlot = kWidth + kLanes;  // of device.h
  static constexpr int kSteps = steps_of(kBanded);
  static constexpr int kRows = kSteps + kLanes;  // of x that they need
  static constexpr std::size_t kShared = kPairs * kRows * kLeads * sizeof(float);
};

// Calls body(Shape{}) with what a job needs.
template <typename Job, typename Body>
void with_shape(const Job& job, const Body& body) {
  switch (job.rows.size[2]) {
    case 4:
      return job.banded ? body(Shape<4, true>{}) : body(Shape<4, false>{});
    case 8:
      return job.banded ? body(Shape<8, true>{}) : body(Shape<8, false>{});
    case 12:
      return job.banded ? body(Shape<12, true>{}) : body(Shape<12, false>{});
    default:
      return job.banded ? body(Shape<24, true>{}) : body(Shape<24, false>{});
  }
}

__device__ static inline int length_of(const View& lengths, std::int64_t n, std::int64_t samples) {
  return static_cast<int>(lengths.size[0] == 0 ? samples : global<const std::int64_t>(lengths)[n]);
}

__host__ __device__ static inline std::int64_t pairs_of(Pairs pairs, const View& value) {
  if (pairs == Pairs::aligned) return value.size[0];
  return pairs == Pairs::same ? triangle_size(value.size[0]) : value.size[0] * value.size[1];
}

// A pair, and what all pairs of its warp need together.
struct Pair {
  std::int64_t i, j;
  int n, m, lo, hi;
  int rows, columns, lowest, highest;
};

__device__ static inline int most_of_warp(int value) {
  for (int step = 16; step > 0; step /= 2) value = max(value, shuffle_xor(value, step));
  return value;
}

template <typename Job>
__device__ __forceinline__ Pair pair_of(const Job& job, std::int64_t number) {
  Pair pair{};
  if (job.pairs == Pairs::same) {
    const Cell cell = triangle_cell(number);
    pair.i = cell.row;
    pair.j = cell.column;
  } else {
    const bool aligned = job.pairs == Pairs::aligned;
    pair.i = aligned ? number : number / job.value.size[1];
    pair.j = aligned ? number : number % job.value.size[1];
  }
  pair.n = length_of(job.x_length, pair.i, job.x_samples);
  pair.m = length_of(job.y_length, pair.j, job.y_samples);
  const Band band = band_of(job, pair.n, pair.m);
  pair.lo = static_cast<int>(band.lo);
  pair.hi = static_cast<int>(band.hi);
  pair.rows = most_of_warp(pair.n);
  pair.columns = most_of_warp(pair.m);
  pair.lowest = -most_of_warp(-pair.lo);
  pair.highest = most_of_warp(pair.hi);
  return pair;
}

// A pass: its first column, and the steps at which some lane has a row that matters, a multiple of
// 4. At step s lane k stands on row s - k.
struct Pass {
  int left, first, steps;
};

template <typename S>
__device__ __forceinline__ Pass pass_of(const Pair& pair, int number) {
  const int left = number * S::kWidth;
  const int first = S::kBanded ? max(0, left - pair.highest) & ~3 : 0;
  const int end = pair.rows - 1;
  const int last = S::kBanded ? min(end, left + S::kWidth - 1 - pair.lowest) : end;
  return {left, first, (last - first + S::kLanes + 3) & ~3};
}

// The rows of x that `steps` steps from `begin` on need. Row r lies at r - begin + kLanes - 1.
template <typename S>
__device__ __forceinline__ void stage(Global<const float> x, int begin, int steps,
                                      Shared<float> rows, int lane) {
  const int count = (steps + S::kLanes - 1) * S::kLeads;
  const auto from = x + static_cast<std::int64_t>(kBefore + begin - (S::kLanes - 1)) * S::kLeads;
  sync_warp();  // those before may still be read
  for (int t = lane * 4; t < count; t += S::kLanes * 4) copy_async<16>(rows + t, from + t);
  copy_commit();
  copy_wait<0>();
  sync_warp();
}

template <int kLeads, typename P>
__device__ __forceinline__ void load_leads(P from, float (&to)[kLeads]) {
#pragma unroll
  for (int l = 0; l < kLeads; l += 4) {
    const float4 four = load_as<float4>(from + l);
    to[l] = four.x;
    to[l + 1] = four.y;
    to[l + 2] = four.z;
    to[l + 3] = four.w;
  }
}

template <typename P>
__device__ __forceinline__ void load_columns(P from, float (&to)[4]) {
  load_leads<4>(from, to);
}
template <typename P>
__device__ __forceinline__ void load_columns(P from, float (&to)[2]) {
  const float2 two = load_as<float2>(from);
  to[0] = two.x;
  to[1] = two.y;
}
template <typename P>
__device__ __forceinline__ void store_columns(P to, const float (&from)[4]) {
  store_as(to, make_float4(from[0], from[1], from[2], from[3]));
}
template <typename P>
__device__ __forceinline__ void store_columns(P to, const float (&from)[2]) {
  store_as(to, make_float2(from[0], from[1]));
}

// -log2(2^-a + 2^-b + 2^-c), the same whatever their order.
__device__ __forceinline__ float soft_least(float a, float b, float c) {
  const float low = fminf(a, b);
  const float high = fmaxf(a, b);
  const float least = fminf(low, c);
  const float middle = fmaxf(low, c);
  return least - log2_approx(1.0f + (exp2_approx(least - middle) + exp2_approx(least - high)));
}

// What a lane holds in a pass.
template <typename S>
struct Wave {
  float column[S::kColumns][S::kLeads];  // of y
  float value[S::kColumns];              // R of its latest row
  float diagonal;                        // R to the left of that row
  float shown;  // to the lane on the right: R of the last column; by the last lane to the first one
                // the seam
};

template <typename S>
__device__ __forceinline__ void load_y(Global<const float> y, int left, int lane, Wave<S>& wave) {
#pragma unroll
  for (int c = 0; c < S::kColumns; ++c) {
    const int column = left + lane * S::kColumns + c;
    load_leads<S::kLeads>(y + static_cast<std::int64_t>(column) * S::kLeads, wave.column[c]);
  }
}

// Before the first step of a pass. Row r of a seam lies at seam[r + 3], so that four rows read
// ahead and four written are both aligned.
template <typename S, typename P>
__device__ __forceinline__ void begin_pass(const Pass& pass, P seam, int lane, Wave<S>& wave) {
  const bool tail = lane == S::kLanes - 1;
  const float corner = tail && pass.first > 0 ? static_cast<float>(seam[pass.first + 2]) : kOutside;
  const float above = shuffle(corner, S::kLanes - 1, S::kLanes);
#pragma unroll
  for (int c = 0; c < S::kColumns; ++c) wave.value[c] = kOutside;
  wave.diagonal = lane > 0 ? kOutside : pass.left == 0 ? 0.0f : above;
  wave.shown = tail ? static_cast<float>(seam[pass.first + 3]) : kOutside;
}

// One step; `offset` is column less row of its first cell. Gives R to the left of the row.
template <typename S, bool kMasked>
__device__ __forceinline__ float step(Shared<const float> row, float inject, int offset,
                                      const Pair& pair, int lane, Wave<S>& wave) {
  float x[S::kLeads];
  load_leads<S::kLeads>(row, x);
  const float beside = shuffle(wave.shown, (lane + S::kLanes - 1) % S::kLanes, S::kLanes);
  float back = wave.diagonal;
  float before = beside;
#pragma unroll
  for (int c = 0; c < S::kColumns; ++c) {
    float cost = 0;
#pragma unroll
    for (int l = 0; l < S::kLeads; ++l) {
      const float apart = x[l] - wave.column[c][l];
      cost = fmaf(apart, apart, cost);
    }
    float value = cost + soft_least(wave.value[c], before, back);
    if (kMasked && (offset + c < pair.lo || offset + c > pair.hi)) value = kOutside;
    back = wave.value[c];
    wave.value[c] = value;
    before = value;
  }
  wave.diagonal = beside;
  wave.shown = lane == S::kLanes - 1 ? inject : wave.value[S::kColumns - 1];
  return beside;
}

// Four steps from s on, a multiple of 4. Reads the seam on the left, of the rows that come after,
// and writes that on the right.
template <typename S, typename P, typename Each>
__device__ __forceinline__ void four_steps(Shared<const float> row, int s, const Pass& pass,
                                           const Pair& pair, P seam, P right, int lane,
                                           Wave<S>& wave, bool plain, const Each& each) {
  constexpr int kLast = S::kColumns - 1;
  const bool tail = lane == S::kLanes - 1;
  const int offset = pass.left + lane * (S::kColumns + 1) - s;
  const bool inside =
      !S::kBanded || (pass.left + (S::kLanes - 1) * (S::kColumns + 1) + kLast - s <= pair.hi &&
                      pass.left - (s + 3) >= pair.lo);
  if (all_lanes(plain && inside)) {
    float4 in = make_float4(0, 0, 0, 0);
    float4 out;
    if (tail) in = load_as<float4>(seam + (s + 4));
    step<S, false>(row, in.x, 0, pair, lane, wave);
    out.x = wave.value[kLast];
    step<S, false>(row + S::kLeads, in.y, 0, pair, lane, wave);
    out.y = wave.value[kLast];
    step<S, false>(row + 2 * S::kLeads, in.z, 0, pair, lane, wave);
    out.z = wave.value[kLast];
    step<S, false>(row + 3 * S::kLeads, in.w, 0, pair, lane, wave);
    out.w = wave.value[kLast];
    if (tail && s + 3 >= lane) store_as(right + (s - lane + 3), out);
  } else {
#pragma unroll 1
    for (int k = 0; k < 4; ++k) {
      const float in = tail ? static_cast<float>(seam[s + k + 4]) : 0.0f;
      step<S, S::kBanded>(row + k * S::kLeads, in, offset - k, pair, lane, wave);
      if (tail && s + k >= lane) right[s + k - lane + 3] = wave.value[kLast];
      each(s + k);
    }
  }
}

}  // namespace ecgfast::soft_dtw::cuda
