// Strips of R, which both directions of soft_dtw compute. Included by its CPU kernels alone, which
// are compiled once for each instruction set; see contract.h.
//
// A pair is computed in strips of kSlots vectors of rows of x, the first row in the last lane of
// the first vector. Row after row stands one column further back, so that what a row needs from
// the one above it was made a step ago: the vectors of a step do not wait for each other, and the
// long chain of a soft minimum is hidden behind three others. The columns of a step lie side by
// side in y. The bottom row of a strip goes to `above`, in place: its columns there have been read.
#pragma once

#include "core/simd.h"
#include "core/subnormals.h"
#include "core/triangle.h"
#include "soft_dtw/contract.h"

namespace ecgfast::soft_dtw::ECGFAST_ISA {
namespace {

constexpr int kSlots = 4;  // vectors of a strip, chains side by side
template <typename T>
constexpr int kRows = kSlots * kLanes<T>;

// Where a vector of the strip lies among its rows, which go from the last to the first.
template <typename T>
constexpr int at(int slot) {
  return (kSlots - 1 - slot) * kLanes<T>;
}

// 2^f on [-1/2, 1/2], and log2(1 + u) / u on [-1/4, 1/2], from the constant on: minimax, by Remez.
template <typename T>
struct Curves;
template <>
struct Curves<float> {
  using Unsigned = std::uint32_t;
  static constexpr int kMantissa = 23;
  static constexpr float kRound = 0x1.8p23f;
  static constexpr float kLeast = -126;
  static constexpr float kExp2[] = {1.0f,           0.693147182f,   0.240226522f,   0.0555032715f,
                                    0.00961799454f, 0.00134004315f, 0.000154780224f};
  static constexpr float kLog2[] = {1.44269502f,  -0.721348405f, 0.480903596f,
                                    -0.36058253f, 0.288139611f,  -0.242505386f,
                                    0.216661394f, -0.176379681f, 0.080215238f};
};
template <>
struct Curves<double> {
  using Unsigned = std::uint64_t;
  static constexpr int kMantissa = 52;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kLeast = -1022;
  static constexpr double kExp2[] = {1.0,
                                     0.69314718055994529,
                                     0.24022650695910072,
                                     0.055504108664821701,
                                     0.009618129107628496,
                                     0.0013333558146390351,
                                     0.00015403530393339536,
                                     1.5252733856295391e-05,
                                     1.3215486833911465e-06,
                                     1.0178051192189612e-07,
                                     7.0548880175973237e-09,
                                     4.4566754533635883e-10,
                                     2.5742060226625325e-11};
  static constexpr double kLog2[] = {
      1.4426950408889634,   -0.72134752044448114,  0.4808983469629976,   -0.36067376022259307,
      0.2885390081753878,   -0.24044917341672728,  0.20609929172795996,  -0.18033688556332017,
      0.16029944825255232,  -0.14426926333482568,  0.13115368774571912,  -0.12023021526594026,
      0.11099550251710034,  -0.10299157914191683,  0.095816635470467093, -0.090081705186358552,
      0.087752108227449777, -0.086487994051109504, 0.073957090518387211, -0.04313026343071065,
      0.011926212190253575};
};

template <typename T>
vec_t<T> least(vec_t<T> a, vec_t<T> b) {
  return a < b ? a : b;
}
template <typename T>
vec_t<T> most(vec_t<T> a, vec_t<T> b) {
  return a > b ? a : b;
}

// kCount polynomials, abreast.
template <typename T, int kCount, int kTerms>
void follow(const T (&terms)[kTerms], const vec_t<T>* x, vec_t<T>* y) {
  for (int r = 0; r < kCount; ++r) y[r] = broadcast(terms[kTerms - 1]);
#pragma GCC unroll 32
  for (int k = kTerms - 2; k >= 0; --k) {
#pragma GCC unroll 16
    for (int r = 0; r < kCount; ++r) y[r] = y[r] * x[r] + terms[k];
  }
}

// 2^x for x <= 0; 0 where that would be no normal number.
template <typename T, int kCount>
void exp2_of(vec_t<T>* x) {
  using C = Curves<T>;
  vec_t<T> whole[kCount];
  vec_t<T> rest[kCount];
  vec_t<T> power[kCount];
#pragma GCC unroll 16
  for (int r = 0; r < kCount; ++r) {
    whole[r] = x[r] + C::kRound;
    rest[r] = x[r] - (whole[r] - C::kRound);
  }
  follow<T, kCount>(C::kExp2, rest, power);
#pragma GCC unroll 16
  for (int r = 0; r < kCount; ++r) {
    const auto scaled = (bits_t<T>)power[r] + ((bits_t<T>)whole[r] << C::kMantissa);
    x[r] = x[r] >= C::kLeast ? (vec_t<T>)scaled : vec_t<T>{};
  }
}

// log2(x) for x in [1, 3].
template <typename T, int kCount>
void log2_of(vec_t<T>* x) {
  vec_t<T> exponent[kCount];
  vec_t<T> u[kCount];
  vec_t<T> ratio[kCount];
#pragma GCC unroll 16
  for (int r = 0; r < kCount; ++r) {
    const auto large = x[r] >= T(1.5);
    exponent[r] = large ? broadcast(T(1)) : vec_t<T>{};
    u[r] = (large ? x[r] * T(0.5) : x[r]) - T(1);
  }
  follow<T, kCount>(Curves<T>::kLog2, u, ratio);
#pragma GCC unroll 16
  for (int r = 0; r < kCount; ++r) x[r] = ratio[r] * u[r] + exponent[r];
}

// Lane k of the result is lane k + 1 of v; the last one is the first of `next`.
template <typename T, int... kLane>
vec_t<T> pass_down(vec_t<T> v, vec_t<T> next, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(v, next, (kLane + 1)...);
#else
  return __builtin_shuffle(v, next, bits_t<T>{(kLane + 1)...});
#endif
}

// Lane k of the result is lane k - 1 of v; the first one is the last of `before`.
template <typename T, int... kLane>
vec_t<T> pass_up(vec_t<T> before, vec_t<T> v, std::integer_sequence<int, kLane...>) {
  constexpr int kW = static_cast<int>(sizeof...(kLane));
#if defined(__clang__)
  return __builtin_shufflevector(before, v, (kW - 1 + kLane)...);
#else
  return __builtin_shuffle(before, v, bits_t<T>{(kW - 1 + kLane)...});
#endif
}

template <typename T>
constexpr auto kAll = std::make_integer_sequence<int, kLanes<T>>{};

// What all strips of a pair share.
template <typename T>
struct Pair {
  const T* x;  // strips of [lead][row]
  const T* y;  // column 0, then as many for each lead as `pitch`
  std::int64_t n, m, leads, pitch;
  Band band;
  bool banded;
  T* above;  // column 0 of the row above
};

// The steps of one strip, in which its first row stands on columns [begin, end).
struct Steps {
  std::int64_t top, begin, end;
};

// As far as its row `bottom` comes.
template <typename T>
Steps steps_of(const Pair<T>& pair, std::int64_t top, std::int64_t bottom) {
  const std::int64_t left = top + pair.band.lo;
  const std::int64_t right = top + bottom + pair.band.hi;
  return {top, left > 0 ? left : 0, (right < pair.m - 1 ? right : pair.m - 1) + bottom + 1};
}

template <typename T>
struct Strip {
  using V = vec_t<T>;
  using U = typename Curves<T>::Unsigned;
  typedef U Lanes __attribute__((vector_size(kVectorBytes)));

  V r[kSlots];       // R of each row in its latest column
  V corner[kSlots];  // what is above that, a column back
  const Pair<T>& pair;
  const T* x;
  Lanes offset;  // column - row - lo of the first vector, at step 0
  T* weights;    // of each step [up, left, diagonal][row], if wanted

  // kBand: cells may lie outside the band. kWeigh: for backward.
  template <bool kBand, bool kWeigh>
  void run(std::int64_t s, std::int64_t end) {
    constexpr int kW = kLanes<T>;
    constexpr int kH = kRows<T>;
    V here[kSlots];
    V back[kSlots];
    for (int k = 0; k < kSlots; ++k) here[k] = r[k];
    for (int k = 0; k < kSlots; ++k) back[k] = corner[k];
    const std::int64_t leads = pair.leads;
    const std::int64_t pitch = pair.pitch;
    const std::int64_t span = pair.band.hi - pair.band.lo;
    T* const above = pair.above;
    const T* columns = pair.y + s - (kH - 1);
    for (; s < end; ++s, ++columns) {
      V cost[kSlots];
#pragma GCC unroll 4
      for (int k = 0; k < kSlots; ++k) {
        const V apart = load(columns + at<T>(k)) - load(x + at<T>(k));
        cost[k] = apart * apart;
      }
      for (std::int64_t l = 1; l < leads; ++l) {
#pragma GCC unroll 4
        for (int k = 0; k < kSlots; ++k) {
          const V apart = load(columns + l * pitch + at<T>(k)) - load(x + l * kH + at<T>(k));
          cost[k] = cost[k] + apart * apart;
        }
      }

      V up[kSlots];
      V low[kSlots];
      V sum[kSlots];
      up[0] = pass_down<T>(here[0], load(above + s), kAll<T>);
#pragma GCC unroll 4
      for (int k = 1; k < kSlots; ++k) up[k] = pass_down<T>(here[k], here[k - 1], kAll<T>);
      if constexpr (kWeigh) {
        V weight[3 * kSlots];
#pragma GCC unroll 4
        for (int k = 0; k < kSlots; ++k) {
          low[k] = least<T>(least<T>(back[k], up[k]), here[k]);
          weight[k] = low[k] - up[k];
          weight[kSlots + k] = low[k] - here[k];
          weight[2 * kSlots + k] = low[k] - back[k];
        }
        exp2_of<T, kSlots>(weight);
        exp2_of<T, kSlots>(weight + kSlots);
        exp2_of<T, kSlots>(weight + 2 * kSlots);
#pragma GCC unroll 4
        for (int k = 0; k < kSlots; ++k) {
          sum[k] = weight[2 * kSlots + k] + (weight[k] + weight[kSlots + k]);
          const V share = broadcast(T(1)) / sum[k];
#pragma GCC unroll 4
          for (int w = 0; w < 3; ++w) {
            store(weights + w * kH + at<T>(k), weight[w * kSlots + k] * share);
          }
        }
        weights += 3 * kH;
      } else {
        V less[kSlots];
#pragma GCC unroll 4
        for (int k = 0; k < kSlots; ++k) {
          const V lower = least<T>(back[k], up[k]);
          low[k] = least<T>(lower, here[k]);
          sum[k] = low[k] - most<T>(lower, here[k]);
          less[k] = low[k] - most<T>(back[k], up[k]);
        }
        exp2_of<T, kSlots>(sum);
        exp2_of<T, kSlots>(less);
        for (int k = 0; k < kSlots; ++k) sum[k] = T(1) + (sum[k] + less[k]);
      }
      log2_of<T, kSlots>(sum);
#pragma GCC unroll 4
      for (int k = 0; k < kSlots; ++k) {
        back[k] = up[k];
        here[k] = cost[k] + (low[k] - sum[k]);
        if constexpr (kBand) {
          // below lo it wraps round: one comparison for both ends
          const Lanes column = offset + static_cast<U>(s - 2 * k * kW);
          here[k] = column <= static_cast<U>(span) ? here[k] : broadcast(static_cast<T>(kFar));
        }
      }
      above[s - (kH - 1)] = here[kSlots - 1][0];
    }
    for (int k = 0; k < kSlots; ++k) r[k] = here[k];
    for (int k = 0; k < kSlots; ++k) corner[k] = back[k];
  }
};

// R of a strip; it leaves the last step of each row in `r`.
template <typename T, bool kWeigh>
void compute(Strip<T>& strip, const Steps& steps) {
  constexpr int kW = kLanes<T>;
  using U = typename Curves<T>::Unsigned;
  const Pair<T>& pair = strip.pair;
  const T far = static_cast<T>(kFar);
  strip.x = pair.x + steps.top * pair.leads;
  for (int k = 0; k < kSlots; ++k) strip.r[k] = strip.corner[k] = broadcast(far);
  strip.corner[0][kW - 1] = steps.begin > 0  ? pair.above[steps.begin - 1]
                            : steps.top == 0 ? T(0)
                                             : far;
  if (!pair.banded) {
    strip.template run<false, kWeigh>(steps.begin, steps.end);
    return;
  }
  for (int k = 0; k < kW; ++k) {
    strip.offset[k] = static_cast<U>(-2 * (kW - 1 - k) - steps.top - pair.band.lo);
  }
  // All lanes are inside the band only between its ragged ends.
  const auto cut = [&](std::int64_t s, std::int64_t from) {
    return s < from ? from : s < steps.end ? s : steps.end;
  };
  const std::int64_t full = cut(steps.top + pair.band.lo + 2 * (kRows<T> - 1), steps.begin);
  const std::int64_t ragged = cut(steps.top + pair.band.hi + 1, full);
  strip.template run<true, kWeigh>(steps.begin, full);
  strip.template run<false, kWeigh>(full, ragged);
  strip.template run<true, kWeigh>(ragged, steps.end);
}

inline std::int64_t length_of(const View& lengths, std::int64_t n, std::int64_t samples) {
  return lengths.size[0] == 0 ? samples : static_cast<const std::int64_t*>(lengths.data)[n];
}

inline Cell cell_of(Pairs pairs, std::int64_t p, std::int64_t width) {
  if (pairs == Pairs::aligned) return {p, p};
  return pairs == Pairs::same ? triangle_cell(p) : Cell{p / width, p % width};
}

template <typename T, typename Job>
Pair<T> pair_of(const Job& job, Cell cell, T* above) {
  Pair<T> pair;
  pair.x = static_cast<const T*>(job.rows.data) + cell.row * job.rows.stride[0];
  pair.y = static_cast<const T*>(job.columns.data) + cell.column * job.columns.stride[0] + kPad;
  pair.n = length_of(job.x_length, cell.row, job.x_samples);
  pair.m = length_of(job.y_length, cell.column, job.y_samples);
  pair.leads = job.leads;
  pair.pitch = job.columns.size[2];
  pair.band = band_of(job, pair.n, pair.m);
  pair.banded = job.banded && (pair.band.lo > 1 - pair.n || pair.band.hi < pair.m - 1);
  pair.above = above;
  return pair;
}

}  // namespace
}  // namespace ecgfast::soft_dtw::ECGFAST_ISA
