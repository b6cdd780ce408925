// Second-order sections over signals side by side, [t][kGroup] as core/lanes.h makes them, in
// place: whatever the scratch holds, the arithmetic is in double, two vectors a moment. Included by
// CPU kernels alone.
//
//   FlushSubnormals calm;                     else a filter that rings out meets them
//   extend(Pad::odd, edge, rows, samples);      rows point at the first sample in the scratch
//   filter_both_ways(sections, rows - edge * kGroup, samples + 2 * edge);
// or, with states that can travel,
//   States states;  start_at_zero(states);
//   filter(sections, rows, samples, Direction::forward, states);
#pragma once

#include "core/biquad.h"
#include "core/lanes.h"
#include "core/subnormals.h"

namespace ecgfast {
namespace {

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

// row += the sum of all outputs after the input is over.
template <typename T>
void add_rest(const Sections& sections, const States& states, T* row) {
  for (int lane = 0; lane < kGroup; ++lane) {
    double sum = 0;
    for (int k = 0; k < sections.count; ++k) {
      sum += sections.rest[k] * (states.of[k][0][lane] + states.of[k][1][lane]);
    }
    row[lane] = static_cast<T>(static_cast<double>(row[lane]) + sum);
  }
}

// Runs the transposed cascade, the map from the gradient of the output to that of the input, over
// all moments from the last back, in place. `states` are gradients too: in that of the states after
// the last moment, out that of those before the first.
template <int kCount, typename T>
void run_transposed(const Sections& sections, int first, double gain, T* p, std::int64_t samples,
                    States& states) {
  using V = vec_t<double>;
  V s1[2][kCount], s2[2][kCount];
#pragma GCC unroll 8
  for (int k = 0; k < kCount; ++k) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      s1[half][k] = load(states.of[first + k][0] + half * kLanes<double>);
      s2[half][k] = load(states.of[first + k][1] + half * kLanes<double>);
    }
  }
  for (p += (samples - 1) * kGroup; samples > 0; --samples, p -= kGroup) {
    Moment m = load_moment(p);
#pragma GCC unroll 8
    for (int k = kCount - 1; k >= 0; --k) {
      const int s = first + k;
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        V& value = half == 0 ? m.low : m.high;
        const V inner = (value - sections.a1[s] * s1[half][k]) - sections.a2[s] * s2[half][k];
        value =
            (sections.b0[s] * inner + sections.b1[s] * s1[half][k]) + sections.b2[s] * s2[half][k];
        s2[half][k] = s1[half][k];
        s1[half][k] = inner;
      }
    }
    store_moment(p, {m.low * gain, m.high * gain});
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

template <int kCount, typename T>
void transposed_count(const Sections& s, int first, int count, T* p, std::int64_t samples,
                      States& states) {
  if constexpr (kCount < kMostAtOnce) {
    if (count > kCount) return transposed_count<kCount + 1>(s, first, count, p, samples, states);
  }
  run_transposed<kCount>(s, first, first == 0 ? s.gain : 1, p, samples, states);
}

template <typename T>
void filter_transposed(const Sections& sections, T* rows, std::int64_t samples, States& states) {
  if (sections.count <= kMostAtOnce) {
    return transposed_count<1>(sections, 0, sections.count, rows, samples, states);
  }
  constexpr std::int64_t kPart = 32;
  alignas(kVectorBytes) double part[kPart * kGroup];
  for (std::int64_t end = samples; end > 0; end -= kPart) {
    const std::int64_t begin = end > kPart ? end - kPart : 0;
    for (std::int64_t t = begin; t < end; ++t) {
      store_moment(part + (t - begin) * kGroup, load_moment(rows + t * kGroup));
    }
    for (int last = sections.count; last > 0;) {
      const int first = (last - 1) / kMostAtOnce * kMostAtOnce;
      transposed_count<1>(sections, first, last - first, part, end - begin, states);
      last = first;
    }
    for (std::int64_t t = begin; t < end; ++t) {
      store_moment(rows + t * kGroup, load_moment(part + (t - begin) * kGroup));
    }
  }
}

// Writes the `edge` moments that lie before the first of rows to where `rows` point, and before.
template <typename T>
void extend_before(Pad pad, std::int64_t edge, T* rows) {
  for (std::int64_t j = 1; j <= edge; ++j) {
    const T* const x = rows + j * kGroup;
    T* const out = rows - j * kGroup;
    for (int lane = 0; lane < kGroup; ++lane) {
      out[lane] = pad == Pad::odd    ? 2 * rows[lane] - x[lane]
                  : pad == Pad::even ? x[lane]
                                     : rows[lane];
    }
  }
}

// Writes the `edge` moments that come after the moment `last` to `out`.
template <typename T>
void extend_after(Pad pad, std::int64_t edge, const T* last, T* out) {
  for (std::int64_t j = 1; j <= edge; ++j, out += kGroup) {
    const T* const x = last - j * kGroup;
    for (int lane = 0; lane < kGroup; ++lane) {
      out[lane] = pad == Pad::odd    ? 2 * last[lane] - x[lane]
                  : pad == Pad::even ? x[lane]
                                     : last[lane];
    }
  }
}

// Both, next to the `samples` moments of `rows`; edge < samples.
template <typename T>
void extend(Pad pad, std::int64_t edge, T* rows, std::int64_t samples) {
  extend_before(pad, edge, rows);
  extend_after(pad, edge, rows + (samples - 1) * kGroup, rows + samples * kGroup);
}

// The transpose of an extension: adds what the `edge` moments of `out` have to the moments that
// they came from. `step` leads from one moment to the next away from the signal, kGroup at its end
// and -kGroup at its start, and `last` is the moment that they stand beside.
template <typename T>
void fold(Pad pad, std::int64_t edge, const T* out, std::int64_t step, T* last) {
  for (int lane = 0; lane < kGroup; ++lane) {
    double own = 0;
    for (std::int64_t j = 0; j < edge; ++j) {
      const T value = out[j * step + lane];
      if (pad == Pad::odd) last[lane - (j + 1) * step] -= value;
      if (pad == Pad::even) last[lane - (j + 1) * step] += value;
      if (pad == Pad::odd) own += 2 * static_cast<double>(value);
      if (pad == Pad::constant) own += static_cast<double>(value);
    }
    last[lane] = static_cast<T>(static_cast<double>(last[lane]) + own);
  }
}

}  // namespace
}  // namespace ecgfast
