// CPU kernels of soft_dtw, compiled once for each instruction set; see contract.h.
//
// A pair is computed in strips of kSlots vectors of rows of x, the first row in the last lane of
// the first vector. Row after row stands one column further back, so that what a row needs from
// the one above it was made a step ago: the vectors of a step do not wait for each other, and the
// long chain of a soft minimum is hidden behind three others. The columns of a step lie side by
// side in y. The bottom row of a strip goes to `above`, in place: its columns there have been read.
//
// Backward takes 64 rows at a time, from the last. It computes their R again, from the row above
// them that forward kept, and the weights of each cell's predecessors; then E against the steps;
// then for each lead the gradients, those of y's columns passing down the rows as R did.
#include <cmath>

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

// R(n-1,m-1) of one pair. `kept` is for the last of every 64 rows, or nullptr.
template <typename T>
T warp(const Pair<T>& pair, T* kept, std::int64_t pitch) {
  constexpr int kW = kLanes<T>;
  for (std::int64_t t = -kPad; t < pair.m + 2 * kPad; ++t) pair.above[t] = static_cast<T>(kFar);
  Strip<T> strip{{}, {}, pair, nullptr, {}, nullptr};
  for (std::int64_t top = 0;; top += kRows<T>) {
    if (kept != nullptr && top > 0 && top % kStrip == 0) {
      T* const to = kept + (top / kStrip - 1) * pitch;
      for (std::int64_t t = 0; t < pair.m; ++t) to[t] = pair.above[t];
    }
    const bool last = top + kRows<T> >= pair.n;
    const std::int64_t bottom = last ? pair.n - 1 - top : kRows<T> - 1;
    compute<T, false>(strip, steps_of(pair, top, bottom));
    if (last) return strip.r[bottom / kW][kW - 1 - bottom % kW];
  }
}

// E of a strip: from its weights, and the flows into its bottom row at each column, to those into
// the row above it. All paths end in row `bottom`, if the strip has it, at the last step.
template <typename T>
void flow_back(const Steps& steps, const T* weights, const T* below, T* flow, T* e,
               std::int64_t bottom) {
  using V = vec_t<T>;
  constexpr int kW = kLanes<T>;
  constexpr int kH = kRows<T>;
  V through[kSlots] = {};  // what a row gave to the one above it: straight up, and from a step ago
  V left[kSlots] = {};
  V diagonal[kSlots] = {};
  if (bottom < kH) left[bottom / kW][kW - 1 - bottom % kW] = 1;
  for (std::int64_t s = steps.end - 1; s >= steps.begin; --s) {
    const T* const weight = weights + (s - steps.begin) * 3 * kH;
    T* const to = e + (s - steps.begin) * kH;
    V into[kSlots];
#pragma GCC unroll 4
    for (int k = 0; k + 1 < kSlots; ++k) {
      into[k] = pass_up<T>(through[k + 1], through[k], kAll<T>);
    }
    into[kSlots - 1] = pass_up<T>(broadcast(below[s - (kH - 1)]), through[kSlots - 1], kAll<T>);
#pragma GCC unroll 4
    for (int k = 0; k < kSlots; ++k) {
      const V here = into[k] + left[k];
      store(to + at<T>(k), here);
      left[k] = here * load(weight + kH + at<T>(k));
      through[k] = here * load(weight + at<T>(k)) + diagonal[k];
      diagonal[k] = here * load(weight + 2 * kH + at<T>(k));
    }
    flow[s] = through[0][kW - 1];
  }
  flow[steps.begin - 1] = diagonal[0][kW - 1];
}

// Gradients of kCount leads from E: those of the strip's rows, times `factor`, to `dx` of `samples`
// for each lead; those of columns are taken from `columns`, and go back there, `pitch` apart.
template <typename T, int kCount>
void pull(const Pair<T>& pair, const Steps& steps, const T* e, std::int64_t lead, T* columns,
          std::int64_t pitch, T factor, T* dx, std::int64_t samples) {
  using V = vec_t<T>;
  constexpr int kH = kRows<T>;
  V row[kCount][kSlots] = {};
  V column[kCount][kSlots] = {};
  const T* const x = pair.x + steps.top * pair.leads + lead * kH;
  const T* y = pair.y + lead * pair.pitch + steps.begin - (kH - 1);
  T* gradient = columns + lead * pitch + steps.begin;
  for (std::int64_t s = steps.begin; s < steps.end; ++s, ++y, ++gradient, e += kH) {
#pragma GCC unroll 2
    for (int l = 0; l < kCount; ++l) {
#pragma GCC unroll 4
      for (int k = kSlots - 1; k > 0; --k) {
        column[l][k] = pass_down<T>(column[l][k], column[l][k - 1], kAll<T>);
      }
      column[l][0] = pass_down<T>(column[l][0], load(gradient + l * pitch), kAll<T>);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kSlots; ++k) {
      const V here = load(e + at<T>(k));
#pragma GCC unroll 2
      for (int l = 0; l < kCount; ++l) {
        const V apart = load(x + l * kH + at<T>(k)) - load(y + l * pair.pitch + at<T>(k));
        row[l][k] = row[l][k] + here * apart;
        column[l][k] = column[l][k] - here * apart;
      }
    }
    if (s - (kH - 1) < steps.begin) continue;  // columns that none of the rows has come to
    for (int l = 0; l < kCount; ++l) gradient[l * pitch - (kH - 1)] = column[l][kSlots - 1][0];
  }
  const std::int64_t rows = pair.n - steps.top < kH ? pair.n - steps.top : kH;
  for (int l = 0; l < kCount; ++l) {
    T* const to = dx + (lead + l) * samples + steps.top;
    T all[kH];
    for (int k = 0; k < kSlots; ++k) store(all + at<T>(k), row[l][k]);
    for (std::int64_t q = 0; q < rows; ++q) to[q] = factor * all[kH - 1 - q];
  }
}

// The parts of a thread's scratch.
template <typename T>
struct Room {
  T* above;
  T* below;
  T* flow;
  T* columns;  // of each lead
  T* weights;  // of each strip under a row that is kept
  T* e;
  std::int64_t pitch;
};

template <typename T>
Room<T> room_of(const Backward& job, int worker) {
  const std::int64_t pitch = job.scratch.size[2];
  T* const all = static_cast<T*>(job.scratch.data) + worker * job.scratch.stride[0];
  T* const weights = all + (3 + job.leads) * pitch;
  return {all + kPad,
          all + pitch + kPad,
          all + 2 * pitch + kPad,
          all + 3 * pitch + kPad,
          weights,
          weights + 3 * kStrip * pitch,
          pitch};
}

// Gradients of one pair: dx (L, T) and dy (L, U), wholly written.
template <typename T>
void unwarp(const Backward& job, const Pair<T>& pair, const Room<T>& room, const T* kept, T factor,
            T* dx, T* dy) {
  constexpr int kH = kRows<T>;
  const std::int64_t pitch = room.pitch;
  for (std::int64_t t = -kPad; t < pitch * job.leads - kPad; ++t) room.columns[t] = 0;
  for (std::int64_t t = -kPad; t < pitch - kPad; ++t) room.below[t] = 0;
  for (std::int64_t l = 0; l < job.leads; ++l) {
    for (std::int64_t t = pair.n; t < job.x_samples; ++t) dx[l * job.x_samples + t] = 0;
  }
  T* below = room.below;
  T* flow = room.flow;
  Strip<T> strip{{}, {}, pair, nullptr, {}, nullptr};
  for (std::int64_t first = (pair.n - 1) / kStrip * kStrip; first >= 0; first -= kStrip) {
    const std::int64_t rows = pair.n - first < kStrip ? pair.n - first : kStrip;
    const std::int64_t strips = (rows + kH - 1) / kH;
    for (std::int64_t t = -kPad; t < pitch - kPad; ++t) pair.above[t] = static_cast<T>(kFar);
    if (first > 0) {
      const T* const from = kept + (first / kStrip - 1) * job.y_samples;
      for (std::int64_t t = 0; t < pair.m; ++t) pair.above[t] = from[t];
    }
    const auto steps = [&](std::int64_t top) {
      return steps_of(pair, top, top + kH >= pair.n ? pair.n - 1 - top : kH - 1);
    };
    for (std::int64_t k = 0; k < strips; ++k) {
      strip.weights = room.weights + k * 3 * kH * pitch;
      compute<T, true>(strip, steps(first + k * kH));
    }
    for (std::int64_t k = strips - 1; k >= 0; --k) {
      const std::int64_t top = first + k * kH;
      const Steps reached = steps(top);
      const Steps whole = steps_of(pair, top, kH - 1);  // until all columns have left the strip
      for (std::int64_t t = -kPad; t < pitch - kPad; ++t) flow[t] = 0;
      flow_back<T>(reached, room.weights + k * 3 * kH * pitch, below, flow, room.e,
                   pair.n - 1 - top);
      for (std::int64_t t = (reached.end - whole.begin) * kH; t < (whole.end - whole.begin) * kH;
           ++t) {
        room.e[t] = 0;
      }
      T* const swap = below;
      below = flow;
      flow = swap;
      std::int64_t l = 0;
      for (; l + 1 < job.leads; l += 2) {
        pull<T, 2>(pair, whole, room.e, l, room.columns, pitch, factor, dx, job.x_samples);
      }
      if (l < job.leads) {
        pull<T, 1>(pair, whole, room.e, l, room.columns, pitch, factor, dx, job.x_samples);
      }
    }
  }
  for (std::int64_t l = 0; l < job.leads; ++l) {
    T* const to = dy + l * job.y_samples;
    const T* const from = room.columns + l * pitch;
    for (std::int64_t t = 0; t < pair.m; ++t) to[t] = factor * from[t];
    for (std::int64_t t = pair.m; t < job.y_samples; ++t) to[t] = 0;
  }
}

std::int64_t length_of(const View& lengths, std::int64_t n, std::int64_t samples) {
  return lengths.size[0] == 0 ? samples : static_cast<const std::int64_t*>(lengths.data)[n];
}

bool is_finite(const View& finite, std::int64_t n) {
  return static_cast<const std::int32_t*>(finite.data)[n] != 0;
}

Cell cell_of(Pairs pairs, std::int64_t p, std::int64_t width) {
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

template <typename T>
void forward_pairs(const Forward& job, Range pairs) {
  const std::int64_t width = job.columns.size[0];
  T* const above = static_cast<T*>(job.scratch.data) + pairs.worker * job.scratch.stride[0] + kPad;
  T* const out = static_cast<T*>(job.value.data);
  for (std::int64_t p = pairs.begin; p < pairs.end; ++p) {
    const Cell cell = cell_of(job.pairs, p, width);
    T* kept = nullptr;
    if (job.kept.size[0] != 0) {
      kept = static_cast<T*>(job.kept.data) + p * job.kept.stride[0];
      for (std::int64_t t = 0; t < job.kept.size[1] * job.kept.size[2]; ++t) kept[t] = 0;
    }
    T value = static_cast<T>(__builtin_nan(""));
    if (is_finite(job.x_finite, cell.row) && is_finite(job.y_finite, cell.column)) {
      value = warp(pair_of<T>(job, cell, above), kept, job.y_samples);
      value = value < static_cast<T>(kFar / 10) ? value * static_cast<T>(job.unit)
                                                : static_cast<T>(__builtin_inf());
    }
    if (job.pairs == Pairs::aligned) {
      out[p] = value;
      continue;
    }
    out[cell.row * width + cell.column] = value;
    if (job.pairs == Pairs::same) out[cell.column * width + cell.row] = value;
  }
}

template <typename T>
void backward_pairs(const Backward& job, Range pairs) {
  const std::int64_t width = job.columns.size[0];
  const Room<T> room = room_of<T>(job, pairs.worker);
  const T* const values = static_cast<const T*>(job.value.data);
  const T* const grads = static_cast<const T*>(job.grad.data);
  for (std::int64_t p = pairs.begin; p < pairs.end; ++p) {
    const Cell cell = cell_of(job.pairs, job.first + p, width);
    const std::int64_t at_cell =
        job.pairs == Pairs::aligned ? cell.row : cell.row * width + cell.column;
    T grad = grads[at_cell];
    if (job.pairs == Pairs::same && cell.row != cell.column) {
      grad += grads[cell.column * width + cell.row];
    }
    T* const dx = static_cast<T*>(job.x_partial.data) + p * job.x_partial.stride[0];
    T* const dy = static_cast<T*>(job.y_partial.data) + p * job.y_partial.stride[0];
    if (values[at_cell] - values[at_cell] != 0 || grad == 0) {
      for (std::int64_t t = 0; t < job.leads * job.x_samples; ++t) dx[t] = 0;
      for (std::int64_t t = 0; t < job.leads * job.y_samples; ++t) dy[t] = 0;
      continue;
    }
    const T* const kept =
        static_cast<const T*>(job.kept.data) + (job.first + p) * job.kept.stride[0];
    unwarp(job, pair_of<T>(job, cell, room.above), room, kept, grad * static_cast<T>(2 / job.scale),
           dx, dy);
  }
}

template <typename T>
void add_to(T* sum, const View& partial, std::int64_t p, std::int64_t lead) {
  const T* const from = row<const T>(partial, p * partial.size[1] + lead);
  for (std::int64_t t = 0; t < partial.size[2]; ++t) sum[t] += from[t];
}

// One lead of one record a time, those of x first.
template <typename T>
void gather_leads(const Gather& job, Range items) {
  const std::int64_t leads = job.grad_x.size[1];
  const std::int64_t n = job.grad_x.size[0];
  const std::int64_t width = job.pairs == Pairs::same ? n : job.grad_y.size[0];
  const std::int64_t end = job.first + job.count;
  for (std::int64_t item = items.begin; item < items.end; ++item) {
    const std::int64_t lead = item % leads;
    const bool of_x = item / leads < n;
    const std::int64_t i = of_x ? item / leads : item / leads - n;
    const View& grad = of_x ? job.grad_x : job.grad_y;
    T* const sum = row<T>(grad, i * leads + lead);
    if (job.first == 0) {
      for (std::int64_t t = 0; t < grad.size[2]; ++t) sum[t] = 0;
    }
    const auto add = [&](const View& partial, std::int64_t p) {
      if (p >= job.first && p < end) add_to(sum, partial, p - job.first, lead);
    };
    if (job.pairs == Pairs::same) {
      for (std::int64_t j = 0; j <= i; ++j) add(job.y_partial, triangle_size(i) + j);
      for (std::int64_t j = i; j < n; ++j) add(job.x_partial, triangle_size(j) + i);
    } else if (of_x) {
      for (std::int64_t j = 0; j < width; ++j) add(job.x_partial, i * width + j);
    } else {
      for (std::int64_t j = 0; j < n; ++j) add(job.y_partial, j * width + i);
    }
  }
}

// rows: strip by strip [lead][row], the last row first, zeros behind the end. columns: lead by
// lead, zeros around the record: cells there have R by the far values that they begin with.
template <typename T>
void prepare_record(const Prepare& job, std::int64_t n) {
  constexpr int kH = kRows<T>;
  const std::int64_t leads = job.x.size[1];
  const std::int64_t length = length_of(job.length, n, job.x.size[2]);
  const T scale = static_cast<T>(job.scale);
  const T* const x = static_cast<const T*>(job.x.data) + n * job.x.stride[0];
  std::int64_t beyond = 0;
  for (std::int64_t l = 0; l < leads; ++l) {
    const T* const lead = x + l * job.x.stride[1];
#pragma omp simd reduction(+ : beyond)
    for (std::int64_t t = 0; t < length; ++t) {
      beyond += !(std::fabs(scale * lead[t]) <= static_cast<T>(kMostSample));  // or NaN
    }
  }
  static_cast<std::int32_t*>(job.finite.data)[n] = beyond == 0;

  if (job.rows.size[0] > 0) {
    T* to = static_cast<T*>(job.rows.data) + n * job.rows.stride[0];
    for (std::int64_t top = 0; top < length; top += kH) {
      for (std::int64_t l = 0; l < leads; ++l) {
        const T* const lead = x + l * job.x.stride[1];
        for (std::int64_t t = top + kH - 1; t >= top; --t) {
          *to++ = t < length ? scale * lead[t] : T(0);
        }
      }
    }
  }
  if (job.columns.size[0] > 0) {
    const std::int64_t pitch = job.columns.size[2];
    T* const to = static_cast<T*>(job.columns.data) + n * job.columns.stride[0];
    for (std::int64_t l = 0; l < leads; ++l) {
      const T* const lead = x + l * job.x.stride[1];
      for (std::int64_t t = 0; t < pitch; ++t) {
        const bool inside = t >= kPad && t < length + kPad;
        to[l * pitch + t] = inside ? scale * lead[t - kPad] : T(0);
      }
    }
  }
}

}  // namespace

void prepare(const Prepare& job, Range records) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    for (std::int64_t n = records.begin; n < records.end; ++n) {
      prepare_record<decltype(zero)>(job, n);
    }
  });
}

void forward(const Forward& job, Range pairs) {
  const FlushSubnormals calm;  // weights of paths that do not count
  dispatch_float(job.value.dtype, [&](auto zero) { forward_pairs<decltype(zero)>(job, pairs); });
}

void backward(const Backward& job, Range pairs) {
  const FlushSubnormals calm;
  dispatch_float(job.value.dtype, [&](auto zero) { backward_pairs<decltype(zero)>(job, pairs); });
}

void gather(const Gather& job, Range items) {
  dispatch_float(job.grad_x.dtype, [&](auto zero) { gather_leads<decltype(zero)>(job, items); });
}

}  // namespace ecgfast::soft_dtw::ECGFAST_ISA
