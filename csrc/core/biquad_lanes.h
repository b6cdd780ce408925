// Second-order sections over signals side by side, [t][kGroup] as core/lanes.h makes them, in
// place: whatever the scratch holds, the arithmetic is in double, two vectors a moment. Included by
// CPU kernels alone.
//
//   FlushSubnormals calm;
//   extend(Pad::odd, edge, rows, samples);      rows point at the first sample in the scratch
//   filter_both_ways(sections, rows - edge * kGroup, samples + 2 * edge);
// or, with states that can travel,
//   States states;  start_at_zero(states);
//   filter(sections, rows, samples, Direction::forward, states);
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "core/biquad.h"
#include "core/lanes.h"

namespace ecgfast {
namespace {

// While it lives, numbers too small to be normal are zeros: a filter that rings out into a flat
// lead would otherwise meet them, and many processors take a hundred cycles for each.
class FlushSubnormals {
 public:
#if defined(__SSE2__)
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#else
  FlushSubnormals() {}
  ~FlushSubnormals() {}
#endif
};

// (s1, s2) of every section and lane.
struct States {
  alignas(kVectorBytes) double of[kMaxSections][2][kGroup];
};

inline void start_at_zero(States& states) { states = States{}; }

// As after endless time at the level of the moment `row`.
template <typename T>
void start_steady(const Sections& sections, const T* row, States& states) {
  for (int k = 0; k < sections.count; ++k) {
    for (int j = 0; j < 2; ++j) {
      for (int lane = 0; lane < kGroup; ++lane) {
        states.of[k][j][lane] = sections.steady[k][j] * static_cast<double>(row[lane]);
      }
    }
  }
}

// All lanes at one time.
struct Moment {
  vec_t<double> low, high;
};

template <typename T>
using half_t __attribute__((vector_size(kVectorBytes / 2))) = T;

inline Moment load_moment(const double* p) { return {load(p), load(p + kLanes<double>)}; }

inline Moment load_moment(const float* p) {
  half_t<float> low, high;
  __builtin_memcpy(&low, p, sizeof low);
  __builtin_memcpy(&high, p + kLanes<double>, sizeof high);
  return {__builtin_convertvector(low, vec_t<double>),
          __builtin_convertvector(high, vec_t<double>)};
}

inline void store_moment(double* p, Moment m) {
  store(p, m.low);
  store(p + kLanes<double>, m.high);
}

inline void store_moment(float* p, Moment m) {
  const auto low = __builtin_convertvector(m.low, half_t<float>);
  const auto high = __builtin_convertvector(m.high, half_t<float>);
  __builtin_memcpy(p, &low, sizeof low);
  __builtin_memcpy(p + kLanes<double>, &high, sizeof high);
}

// kCount sections from number `first` on, over `samples` moments that lie `step` elements apart.
template <int kCount, Form kForm, bool kPlainFirst, typename T>
void run_sections(const Sections& sections, int first, double gain, T* p, std::int64_t samples,
                  std::int64_t step, States& states) {
  using V = vec_t<double>;
  V s1[2][kCount], s2[2][kCount];
  V b0[kCount], b1[kCount], b2[kCount], a1[kCount], a2[kCount];
#pragma GCC unroll 8
  for (int k = 0; k < kCount; ++k) {
    b0[k] = broadcast(sections.b0[first + k]);
    b1[k] = broadcast(sections.b1[first + k]);
    b2[k] = broadcast(sections.b2[first + k]);
    a1[k] = broadcast(sections.a1[first + k]);
    a2[k] = broadcast(sections.a2[first + k]);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      s1[half][k] = load(states.of[first + k][0] + half * kLanes<double>);
      s2[half][k] = load(states.of[first + k][1] + half * kLanes<double>);
    }
  }
  const V scale = broadcast(gain);
  for (; samples > 0; --samples, p += step) {
    Moment m = load_moment(p);
    if constexpr (kForm != Form::full) m = {m.low * scale, m.high * scale};
#pragma GCC unroll 8
    for (int k = 0; k < kCount; ++k) {
      const bool sharp = kForm == Form::sharp && !(kPlainFirst && k == 0);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const V x = half == 0 ? m.low : m.high;
        const V y = (kForm == Form::full ? b0[k] * x : x) + s1[half][k];
        s1[half][k] = (s2[half][k] + b1[k] * x) - a1[k] * y;
        s2[half][k] = (sharp ? x : b2[k] * x) - a2[k] * y;
        (half == 0 ? m.low : m.high) = y;
      }
    }
    store_moment(p, m);
  }
#pragma GCC unroll 8
  for (int k = 0; k < kCount; ++k) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      store(states.of[first + k][0] + half * kLanes<double>, s1[half][k]);
      store(states.of[first + k][1] + half * kLanes<double>, s2[half][k]);
    }
  }
}

constexpr int kMostAtOnce = 8;  // sections in registers and, the last of them, on the stack

template <int kCount, typename T>
void run_count(const Sections& s, int first, int count, T* p, std::int64_t samples,
               std::int64_t step, States& states) {
  if constexpr (kCount < kMostAtOnce) {
    if (count > kCount) return run_count<kCount + 1>(s, first, count, p, samples, step, states);
  }
  const double gain = first == 0 ? s.gain : 1;
  if (s.form == Form::full) {
    run_sections<kCount, Form::full, false>(s, first, gain, p, samples, step, states);
  } else if (s.form == Form::unit) {
    run_sections<kCount, Form::unit, false>(s, first, gain, p, samples, step, states);
  } else if (s.plain != 0 && first == 0) {
    run_sections<kCount, Form::sharp, true>(s, first, gain, p, samples, step, states);
  } else {
    run_sections<kCount, Form::sharp, false>(s, first, gain, p, samples, step, states);
  }
}

enum class Direction { forward, backward };

// Runs the cascade over all moments, in place: from the first on, or from the last back. `states`
// go in and out, so that a signal may come in parts.
template <typename T>
void filter(const Sections& sections, T* rows, std::int64_t samples, Direction direction,
            States& states) {
  const bool forward = direction == Direction::forward;
  const std::int64_t step = forward ? kGroup : -kGroup;
  T* p = forward ? rows : rows + (samples - 1) * kGroup;
  if (sections.count <= kMostAtOnce) {
    return run_count<1>(sections, 0, sections.count, p, samples, step, states);
  }
  constexpr std::int64_t kPart = 32;  // moments; what is between the sections stays in double
  alignas(kVectorBytes) double part[kPart * kGroup];
  for (std::int64_t left = samples; left > 0; left -= kPart) {
    const std::int64_t moments = left < kPart ? left : kPart;
    for (std::int64_t t = 0; t < moments; ++t) {
      store_moment(part + t * kGroup, load_moment(p + t * step));
    }
    for (int first = 0; first < sections.count; first += kMostAtOnce) {
      const int rest = sections.count - first;
      run_count<1>(sections, first, rest < kMostAtOnce ? rest : kMostAtOnce, part, moments, kGroup,
                   states);
    }
    for (std::int64_t t = 0; t < moments; ++t, p += step) {
      store_moment(p, load_moment(part + t * kGroup));
    }
  }
}

// Forward from the steady state of the first moment, then back from that of the last.
template <typename T>
void filter_both_ways(const Sections& sections, T* rows, std::int64_t samples) {
  States states;
  start_steady(sections, rows, states);
  filter(sections, rows, samples, Direction::forward, states);
  start_steady(sections, rows + (samples - 1) * kGroup, states);
  filter(sections, rows, samples, Direction::backward, states);
}

// Writes `edge` moments before `rows` and after the last of them; edge < samples.
template <typename T>
void extend(Pad pad, std::int64_t edge, T* rows, std::int64_t samples) {
  T* const last = rows + (samples - 1) * kGroup;
  for (std::int64_t j = 1; j <= edge; ++j) {
    const std::int64_t away = j * kGroup;
    for (int lane = 0; lane < kGroup; ++lane) {
      const T before = rows[away + lane];
      const T after = last[lane - away];
      rows[lane - away] = pad == Pad::odd    ? 2 * rows[lane] - before
                          : pad == Pad::even ? before
                                             : rows[lane];
      last[lane + away] = pad == Pad::odd    ? 2 * last[lane] - after
                          : pad == Pad::even ? after
                                             : last[lane];
    }
  }
}

}  // namespace
}  // namespace ecgfast
