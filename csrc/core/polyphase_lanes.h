// Resampling of kGroup signals side by side; see core/polyphase.h and core/lanes.h.
#pragma once

#include "core/lanes.h"
#include "core/polyphase.h"

namespace ecgfast {
namespace {

// Outputs that are made together: those of one row of taps, so that a tap is fetched once. Eight
// sums in flight hide the latency of a multiply-add.
template <typename T>
constexpr int kTogether = 8 * kLanes<T> / kGroup;

template <typename T, int kOutputs>
void resample_some(const T* taps, std::int64_t per, const T* x, std::int64_t x_step, T* y,
                   std::int64_t y_step) {
  constexpr int kVectors = kGroup / kLanes<T>;
  for (std::int64_t begin = 0; begin < per; begin += kStretchOfTaps) {
    const std::int64_t end = begin + kStretchOfTaps < per ? begin + kStretchOfTaps : per;
    vec_t<T> sum[kOutputs][kVectors] = {};
    for (std::int64_t k = begin; k < end; ++k) {
      const vec_t<T> tap = broadcast(taps[k]);
#pragma GCC unroll 8
      for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          sum[o][v] += tap * load(x + o * x_step + k * kGroup + v * kLanes<T>);
        }
      }
    }
#pragma GCC unroll 8
    for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        T* const out = y + o * y_step + v * kLanes<T>;
        store(out, begin == 0 ? sum[o][v] : load(out) + sum[o][v]);
      }
    }
  }
}

// Any number of outputs, in groups of kOutputs, half of it, and so on: each output's sum is made
// in the same order in all of them.
template <typename T, int kOutputs>
void resample_phase(const T* taps, std::int64_t per, const T* x, std::int64_t x_step, T* y,
                    std::int64_t y_step, std::int64_t count) {
  for (; count >= kOutputs; count -= kOutputs) {
    resample_some<T, kOutputs>(taps, per, x, x_step, y, y_step);
    x += kOutputs * x_step;
    y += kOutputs * y_step;
  }
  if constexpr (kOutputs > 1) {
    if (count > 0) resample_phase<T, kOutputs / 2>(taps, per, x, x_step, y, y_step, count);
  }
}

// y[(n - begin) * kGroup + lane] for the outputs n of [begin, end). x[(i - held) * kGroup + lane]
// is input i, there from first_input(begin) to end_input(end): what lies outside of the signals is
// up to the caller, see extend.
template <typename T>
void resample_lanes(const Polyphase& p, const T* x, std::int64_t held, std::int64_t begin,
                    std::int64_t end, T* y) {
  const std::int64_t strip = kTogether<T> * p.up;
  for (std::int64_t start = begin; start < end; start += strip) {
    const std::int64_t stop = start + strip < end ? start + strip : end;
    for (std::int64_t n = start; n < stop && n < start + p.up; ++n) {
      const T* const taps = static_cast<const T*>(p.taps.data) + (n % p.up) * p.taps.stride[0];
      resample_phase<T, kTogether<T>>(taps, p.taps.size[1], x + (first_input(p, n) - held) * kGroup,
                                      p.down * kGroup, y + (n - begin) * kGroup, p.up * kGroup,
                                      (stop - n + p.up - 1) / p.up);
    }
  }
}

// What stands beside the signals: left + i * slope before them, right + (i - (T - 1)) * slope
// behind.
template <typename T>
struct Edges {
  T left[kGroup], right[kGroup], slope[kGroup];
};

// Of x, as resample_lanes takes it for the inputs [held, end), those outside of [0, samples).
template <typename T>
void extend(const Edges<T>& edges, std::int64_t samples, T* x, std::int64_t held,
            std::int64_t end) {
  for (std::int64_t i = held; i < end && i < 0; ++i) {
    T* const out = x + (i - held) * kGroup;
    for (int lane = 0; lane < kGroup; ++lane) {
      out[lane] = edges.left[lane] + static_cast<T>(i) * edges.slope[lane];
    }
  }
  for (std::int64_t i = held > samples ? held : samples; i < end; ++i) {
    T* const out = x + (i - held) * kGroup;
    const T beyond = static_cast<T>(i - (samples - 1));
    for (int lane = 0; lane < kGroup; ++lane) {
      out[lane] = edges.right[lane] + beyond * edges.slope[lane];
    }
  }
}

}  // namespace
}  // namespace ecgfast
