// Resampling by a rational factor as one small filter for each output: plain data and indices, for
// CPU and CUDA. core/polyphase_lanes.h and core/polyphase.cuh run it.
//
// Between the samples of x stand up - 1 zeros, a filter h of any length runs over them, and every
// down-th sample is kept. Output n is then
//     y[n] = sum over i of h[n * down + offset - i * up] * x[i]
// whose terms are no zeros of the insertion for `per` consecutive inputs alone. Their taps repeat
// every `up` outputs: row n mod up of the table holds them in the order of the inputs.
//     y[n] = sum over k < per of taps[n mod up][k] * x[first_input(n) + k]
// offset = (length of h - 1) / 2 puts y[0] at x[0], as scipy.signal.resample_poly has it. The
// transposed map is of the same form, with up and down exchanged and h reversed.
#pragma once

#include "core/dispatch.h"

namespace ecgfast {

// Taps are summed so many at a stretch, then the stretches: rounding grows with the longer of both.
constexpr std::int64_t kStretchOfTaps = 64;

struct Polyphase {
  View taps;  // (up, per), dense along per, of the type that sums are made in
  std::int64_t up, down;
  std::int64_t offset;  // of any sign
};

// The input that the first tap of output n stands at; the last one stands at per - 1 later. Either
// may lie outside of the signal.
ECGFAST_HD static inline std::int64_t first_input(const Polyphase& p, std::int64_t n) {
  const std::int64_t at = n * p.down + p.offset;
  const std::int64_t last = at >= 0 ? at / p.up : -((p.up - 1 - at) / p.up);
  return last - (p.taps.size[1] - 1);
}

// One past the last input that outputs before `end` need.
ECGFAST_HD static inline std::int64_t end_input(const Polyphase& p, std::int64_t end) {
  return first_input(p, end - 1) + p.taps.size[1];
}

// As many outputs as times k * down / up lie before the end of the signal.
ECGFAST_HD static inline std::int64_t output_length(std::int64_t samples, std::int64_t up,
                                                    std::int64_t down) {
  return (samples * up + down - 1) / down;
}

}  // namespace ecgfast
