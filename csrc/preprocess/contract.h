// preprocess: stored signals to what a model takes, in one pass: fill gaps, resample, filter,
// normalise, crop, in any order.
//
// Math      x (N, L, T); a row is one lead of one record
//             v = x * gain + offset, gaps filled     y = step_k(... step_1(v))
//           resample   v[n] = sum over i of h[n down + offset - i up] v[i]  (core/polyphase.h)
//           filter     v continued at both ends, sections forward, then backward, each from the
//                      steady state of the first sample it meets  (core/biquad.h)
//           normalise  v = low + (v - centre) * scale; by the mean and deviation, the smallest and
//                      the largest, or the root mean square of a row or a record, or as given
//           crop       v = v[start : start + length]
// Shapes    x (N, L, T), last axis dense; gain, offset (N, L) of any strides; y (N, L, T') dense;
//           gaps (N, L) dense; scratch as preprocess_scratch says
// Units     v in mV, gain in mV a unit of x; y in mV or without unit
// Cost      O(N L T): a step of filtering takes 10 flops a sample and section, a resampling two a
//           tap; bound by arithmetic from two sections on
// Traffic   least: x once, y once. On the CPU a few rows side by side stay in the L2 cache from
//           the first step to the last; on a device a row stays in the shared memory of a block.
//           A normalisation over the record meets all its rows twice: in L2, or in the scratch
// Numbers   gain and offset in f64. Between the steps f32, or f64 if x or y is; recursions in f64
//           on the CPU, in chunks of the modal form on a device; means and squares in two passes,
//           in f64 on the CPU. The same bits whatever the batch, its order and the threads
// Edges     T >= 1; a missing sample is the code `missing` or not finite, and is counted in gaps;
//           a row that comes in flat is 0 after a normalisation of its own (`low` of min_max); one
//           of no sample at all has no part in the numbers of its record;
//           NaN in y only where restore asks for it; N = 0 is a no-op
// Mirrors   preprocess_reference in ecgfast/ops/preprocess.py
#pragma once

#include "core/biquad.h"
#include "core/gaps.h"
#include "core/isa.h"
#include "core/polyphase.h"

namespace ecgfast::preprocess {

constexpr int kMostSteps = 12;
constexpr int kMostSections = 32;  // of all filters together
constexpr int kMostGroup = 16;     // signals side by side, at most: see core/lanes.h
constexpr int kStateBytes = 64;    // what the CPU keeps of a row beside its samples, at most

// Numbered as in ecgfast/ops/preprocess.py.
enum class Kind : int { resample = 0, filter = 1, normalise = 2, crop = 3 };
enum class Beyond : int { zeros = 0, line = 1, hold = 2 };  // the ends, for a resampling
enum class By : int { zscore = 0, min_max = 1, rms = 2, fixed = 3 };

struct Resample {
  Polyphase phases;
  Beyond beyond;
};

struct Filter {
  const Sections* sections;  // of the host
  Pad pad;
  std::int64_t edge;
};

struct Normalise {
  By by;
  bool record;
  bool eps_inside;
  double eps, low, high;
  View mean, std;  // of `fixed`: f64 on the place, one element or L of them
};

struct Step {
  Kind kind;
  std::int64_t samples;  // that it makes
  Resample resample;
  Filter filter;
  Normalise normalise;
  std::int64_t start;  // of a crop, or the first output of a resampling
};

// Which sample of x lies nearest to sample k of y: the one at (k * step + first) / parts.
struct Origin {
  std::int64_t step, first, parts;
};

struct Preprocess {
  View x, gain, offset, y, gaps;
  bool wide;       // whether f64 is computed in, else f32
  bool by_record;  // whether a normalisation spans a record
  View scratch;    // CPU: (workers, elements) of the type that is computed in
  View held;       // CUDA: rows on their way, row r from r * held_step on; y itself where it fits
  std::int64_t held_step;
  bool has_missing;
  std::int16_t missing;
  OnGap on_gap;
  bool restore;
  Origin origin;
  std::int64_t front, moments;  // of a buffer: before the first sample, in all
  int buffers;                  // of a row: 2 if it is resampled, else 1
  int steps;
  Step step[kMostSteps];
};

// Items are records if a normalisation spans them, else rows.
ECGFAST_DECLARE(preprocess, Preprocess)

}  // namespace ecgfast::preprocess
