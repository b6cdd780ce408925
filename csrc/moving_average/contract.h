// moving_average: the mean of a window around every sample, as scipy's uniform_filter1d has it.
//
// Math      x (N, L, T); y[j] = (sum over k < window of x[start + j - left + k]) / window
//           with start = 0 and left = window / 2, what lies outside of x by Beyond. The gradient is
//           the same with zeros outside and left = window - 1 - window / 2, for all that windows
//           reach; what falls outside of x is added to the samples that stood there
// Shapes    x (N, L, T), last axis dense, N and L of any stride; y (N, L, Y) dense;
//           gaps (N * L, tiles); scratch (threads, bytes)
// Units     y in those of x; the window in samples
// Cost      O(N L (T + window)): two additions a sample for any window
// Traffic   least: x once, y once; 16 rows of a tile stay in L2 on the CPU
// Numbers   CPU: sums in f64, begun anew in each tile, so that they do not drift. CUDA: in f32 for
//           f16, bf16, f32 and in f64 for f64, as the end of one stretch of `window` samples and
//           the beginning of the next (van Herk's minimum filter, here of sums): nothing is
//           subtracted. A tile's length depends on the window alone
// Edges     window >= 1, also longer than the signal; T >= 1; N L = 0 is a no-op; gaps counts NaN
//           and infinite samples, OnGap fills them; kept, they reach the windows that hold them
// Mirrors   moving_average_reference in ecgfast/ops/moving_average.py
#pragma once

#include "core/beyond.h"
#include "core/isa.h"

namespace ecgfast::moving_average {

constexpr std::int64_t kRows = 16;              // of an item
constexpr std::int64_t kMostCudaWindow = 8192;  // beside a tile in shared memory

struct Average {
  View x, y, gaps, scratch;
  std::int64_t window, left, start, tile;
  Beyond beyond;
  OnGap on_gap;
};

ECGFAST_HD static inline std::int64_t tiles_of(const Average& job) {
  return (job.y.size[2] + job.tile - 1) / job.tile;
}

// Of a tile of outputs: their end, what they need of x, and which samples it counts gaps of.
struct Held {
  std::int64_t end_output, begin, end, own, own_end;
};

ECGFAST_HD static inline Held held_by(const Average& job, std::int64_t tile) {
  const std::int64_t samples = job.x.size[2];
  const auto inside = [samples](std::int64_t i) { return i < 0 ? 0 : i > samples ? samples : i; };
  const std::int64_t first = tile * job.tile;
  const bool last = first + job.tile >= job.y.size[2];
  Held held = {};
  held.end_output = last ? job.y.size[2] : first + job.tile;
  held.begin = job.start + first - job.left;
  held.end = job.start + held.end_output - job.left + job.window - 1;
  held.own = first == 0 ? 0 : inside(job.start + first);
  held.own_end = last ? samples : inside(job.start + held.end_output);
  return held;
}

ECGFAST_DECLARE(forward, Average)

}  // namespace ecgfast::moving_average
