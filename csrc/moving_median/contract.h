// moving_median: the middle value of a window around every sample, as scipy's median_filter has it.
//
// Math      x (N, L, T); y[t] = the value of rank window / 2, counted from 0, of the `window`
// samples
//           from t - window / 2 on; what lies outside of x by Beyond
// Shapes    x (N, L, T), last axis dense, N and L of any stride; y (N, L, T) dense;
//           gaps (N * L, tiles); scratch (threads, bytes)
// Units     y in those of x; the window in samples
// Cost      CPU: a radix sort of a tile's samples, then two bits and about one step a sample in a
// set
//           of ranks: O(N L T) for any window. CUDA: a wavelet matrix, a level a bit of the dtype,
//           built and asked once for each sample
// Traffic   least: x once, y once; a tile stays in L1 or L2, in shared memory on CUDA
// Numbers   no arithmetic: each output is one of the samples, bit for bit; -0 comes before +0
// Edges     window >= 1, also longer than the signal; T >= 1; N L = 0 is a no-op; gaps counts NaN
// and
//           infinite samples, OnGap fills them; kept, a NaN makes the windows that hold it NaN, and
//           an infinite value is in order like any other
// Mirrors   moving_median_reference in ecgfast/ops/moving_median.py
#pragma once

#include "core/beyond.h"
#include "core/isa.h"

namespace ecgfast::moving_median {

// Samples of a tile with its margins that shared memory can hold as a wavelet matrix.
constexpr std::int64_t kMostHeld = 8191;
constexpr std::int64_t kMostHeldWide = 4095;  // in f64

struct Median {
  View x, y, gaps, scratch;
  std::int64_t window, tile;
  Beyond beyond;
  OnGap on_gap;
};

ECGFAST_HD static inline std::int64_t tiles_of(const Median& job) {
  return (job.y.size[2] + job.tile - 1) / job.tile;
}

ECGFAST_HD static inline std::int64_t tile_end(const Median& job, std::int64_t begin) {
  return begin + job.tile < job.y.size[2] ? begin + job.tile : job.y.size[2];
}

ECGFAST_DECLARE(forward, Median)

}  // namespace ecgfast::moving_median
