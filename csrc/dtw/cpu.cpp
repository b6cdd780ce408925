// CPU kernels of dtw, compiled once for each instruction set; see contract.h.
//
// A pair is computed in strips of rows of x. A lane owns kHeight neighbouring rows, the last lane
// the first rows; lane after lane stands one column further back, so that what a lane needs from
// the rows above it was made by its neighbour a step ago. The columns of a step then lie side by
// side in y: one load for each lead serves all rows of a strip. The bottom row of a strip goes to
// `above`, in place: its columns there have been read by then.
#include "core/simd.h"
#include "core/triangle.h"
#include "dtw/contract.h"

namespace ecgfast::dtw::ECGFAST_ISA {
namespace {

// Rows a lane, and steps a turn: the sums over the leads of so many cells run side by side, and a
// turn of two steps loads every row once for both. 16 registers have no room for that.
constexpr int kHeight = 4;
constexpr int kSteps = kVectorBytes == 64 ? 2 : 1;
static_assert(kSteps <= 2);

#define ECGFAST_DTW_INLINE __attribute__((always_inline))

template <typename T>
constexpr T kFar = static_cast<T>(__builtin_inf());

template <typename T>
struct Unsigned;
template <>
struct Unsigned<float> {
  using lane = std::uint32_t;
  typedef lane vector __attribute__((vector_size(kVectorBytes)));
};
template <>
struct Unsigned<double> {
  using lane = std::uint64_t;
  typedef lane vector __attribute__((vector_size(kVectorBytes)));
};

template <typename T>
vec_t<T> least(vec_t<T> a, vec_t<T> b) {
  return a < b ? a : b;
}

// By the bits, which any unit compares, where few add or multiply.
template <typename T>
vec_t<T> at_least_0(vec_t<T> v) {
  const auto bits = (bits_t<T>)v;
  return (vec_t<T>)(bits > bits_t<T>{} ? bits : bits_t<T>{});
}

// Two operations that took it from memory would load it twice: loads are what bounds a turn.
template <typename V>
void keep_in_register(V& v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#endif
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

template <typename T>
vec_t<T> root_of(vec_t<T> v) {
  for (int k = 0; k < kLanes<T>; ++k) v[k] = std::sqrt(v[k]);
  return v;
}

// A strip on its way through the columns.
template <typename T, Cost kCost>
struct Strip {
  using V = vec_t<T>;
  using U = typename Unsigned<T>::lane;

  V cost[kHeight];  // D of each lane's rows, in its latest column
  V diagonal;       // what is above the first row of a lane, a column back
  const T* x;       // [lead][row][lane]; leads begin with the norms where there are some
  const T* y;       // column 0, then as many for each lead as `pitch`
  std::int64_t pitch;
  std::int64_t leads;
  T* above;                             // column 0 of the row above
  typename Unsigned<T>::vector offset;  // column - row - lo of each lane's first row, at step 0
  std::int64_t span;                    // hi - lo

  static V add(V sum, V column, V row) {
    if constexpr (kCost == Cost::expanded) return sum + column * row;
    const V apart = column - row;
    return kCost == Cost::l1 ? sum + magnitude<T>(apart) : sum + apart * apart;
  }

  static V first(V column, V row) {
    return kCost == Cost::expanded ? column + row : add(V{}, column, row);
  }

  static V whole(V sum) {
    if constexpr (kCost == Cost::euclidean) return root_of<T>(sum);
    if constexpr (kCost == Cost::expanded) return at_least_0<T>(sum);  // rounding may go below
    return sum;
  }

  // kTurn steps at a time from s on, as often as they end by `end`; the last lane stands on column
  // s. Gives the first step that is left.
  template <bool kBand, int kTurn>
  std::int64_t run(std::int64_t s, std::int64_t end) {
    constexpr int kW = kLanes<T>;
    constexpr auto lanes = std::make_integer_sequence<int, kW>{};
    using Costs = V[kTurn][kHeight];
    V d[kHeight];
    for (int r = 0; r < kHeight; ++r) d[r] = cost[r];
    V corner = diagonal;
    const T* columns;
    const T* rows;

    const auto begin_costs = [&](Costs& c, std::int64_t step) ECGFAST_DTW_INLINE {
      columns = y + step - (kW - 1);
      rows = x;
#pragma GCC unroll 2
      for (int u = 0; u < kTurn; ++u) {
#pragma GCC unroll 4
        for (int r = 0; r < kHeight; ++r) c[u][r] = first(load(columns + u), load(rows + r * kW));
      }
    };
    const auto add_leads = [&](Costs& c, std::int64_t from, std::int64_t to) ECGFAST_DTW_INLINE {
      for (std::int64_t l = from; l < to; ++l) {
        columns += pitch;
        rows += kHeight * kW;
        V column[kTurn];
#pragma GCC unroll 2
        for (int u = 0; u < kTurn; ++u) column[u] = load(columns + u);
#pragma GCC unroll 4
        for (int r = 0; r < kHeight; ++r) {
          V row = load(rows + r * kW);
          if constexpr (kTurn > 1) keep_in_register(row);
#pragma GCC unroll 2
          for (int u = 0; u < kTurn; ++u) c[u][r] = add(c[u][r], column[u], row);
        }
      }
    };
    const auto recur = [&](const V(&c)[kHeight], std::int64_t step) ECGFAST_DTW_INLINE {
      V up = pass_down<T>(d[kHeight - 1], load(above + step), lanes);
      V back = corner;
      corner = up;
#pragma GCC unroll 4
      for (int r = 0; r < kHeight; ++r) {
        V value = whole(c[r]) + least<T>(least<T>(back, d[r]), up);
        if constexpr (kBand) {
          // below lo it wraps round: one comparison for both ends
          const auto inside = offset + static_cast<U>(step - r) <= static_cast<U>(span);
          value = inside ? value : V{} + kFar<T>;
        }
        back = d[r];
        d[r] = value;
        up = value;
      }
      store(above + step - (kW - 1), up);  // lane 0 for good, the others where all has been read
    };

    if constexpr (kTurn == 1) {
      for (; s < end; ++s) {
        Costs c;
        begin_costs(c, s);
        add_leads(c, 1, leads);
        recur(c[0], s);
      }
    } else if (s + kTurn <= end) {
      // The recurrence is a chain, and costs are not: those of the next turn fill its gaps.
      Costs c;
      begin_costs(c, s);
      add_leads(c, 1, leads);
      const std::int64_t half = (leads + 1) / 2;
      for (s += kTurn; s + kTurn <= end; s += kTurn) {
        Costs next;
        begin_costs(next, s);
        recur(c[0], s - 2);
        add_leads(next, 1, half);
        recur(c[1], s - 1);
        add_leads(next, half, leads);
        __builtin_memcpy(c, next, sizeof c);
      }
      recur(c[0], s - 2);
      recur(c[1], s - 1);
    }
    for (int r = 0; r < kHeight; ++r) cost[r] = d[r];
    diagonal = corner;
    return s;
  }

  template <bool kBand>
  void run(std::int64_t s, std::int64_t end) {
    s = run<kBand, kSteps>(s, end);
    if constexpr (kSteps > 1) run<kBand, 1>(s, end);
  }
};

// D of one pair. x and y are packed; `above` is a row of costs, with room on both sides.
template <typename T, Cost kCost>
T warp(const Forward& job, const T* x, std::int64_t n, const T* y, std::int64_t m, T* above) {
  constexpr int kW = kLanes<T>;
  constexpr std::int64_t kRows = kW * kHeight;
  const Band band = band_of(job, n, m);
  const bool banded = band.lo > 1 - n || band.hi < m - 1;
  for (std::int64_t t = -kPad; t < m + 2 * kPad; ++t) above[t] = kFar<T>;

  Strip<T, kCost> strip;
  strip.y = y;
  strip.pitch = job.columns.size[2];
  strip.leads = job.leads + (kCost == Cost::expanded);
  strip.above = above;
  strip.span = band.hi - band.lo;
  for (std::int64_t top = 0;; top += kRows) {
    const bool last = top + kRows >= n;
    const std::int64_t bottom = last ? n - 1 - top : kRows - 1;
    const std::int64_t lag = bottom / kHeight;  // its lane comes so many steps later
    const std::int64_t begin = top + band.lo > 0 ? top + band.lo : 0;
    const std::int64_t right = top + bottom + band.hi;
    const std::int64_t end = (right < m - 1 ? right : m - 1) + lag + 1;
    strip.x = x + top * strip.leads;
    for (int r = 0; r < kHeight; ++r) strip.cost[r] = vec_t<T>{} + kFar<T>;
    strip.diagonal = vec_t<T>{} + kFar<T>;
    strip.diagonal[kW - 1] = begin > 0 ? above[begin - 1] : top == 0 ? T(0) : kFar<T>;
    if (!banded) {
      strip.template run<false>(begin, end);
    } else {
      for (int k = 0; k < kW; ++k) {
        using U = typename Unsigned<T>::lane;
        strip.offset[k] = static_cast<U>(-(kW - 1 - k) * (kHeight + 1) - top - band.lo);
      }
      // All lanes are inside the band only between its ragged ends.
      const auto cut = [&](std::int64_t s, std::int64_t from) {
        return s < from ? from : s < end ? s : end;
      };
      const std::int64_t full = cut(top + (kW - 1) * (kHeight + 1) + kHeight - 1 + band.lo, begin);
      const std::int64_t ragged = cut(top + band.hi + 1, full);
      strip.template run<true>(begin, full);
      strip.template run<false>(full, ragged);
      strip.template run<true>(ragged, end);
    }
    if (last) return strip.cost[bottom % kHeight][kW - 1 - lag];
  }
}

std::int64_t length_of(const View& lengths, std::int64_t n, std::int64_t samples) {
  return lengths.size[0] == 0 ? samples : static_cast<const std::int64_t*>(lengths.data)[n];
}

bool is_finite(const View& finite, std::int64_t n) {
  return static_cast<const std::int32_t*>(finite.data)[n] != 0;
}

template <typename T, Cost kCost>
void forward_pairs(const Forward& job, Range pairs) {
  const std::int64_t width = job.distance.size[1];
  T* const above = static_cast<T*>(job.scratch.data) + pairs.worker * job.scratch.stride[0] + kPad;
  T* const out = static_cast<T*>(job.distance.data);
  for (std::int64_t p = pairs.begin; p < pairs.end; ++p) {
    const Cell cell = job.same ? triangle_cell(p) : Cell{p / width, p % width};
    const std::int64_t i = cell.row;
    const std::int64_t j = cell.column;
    T value = 0;
    if (!is_finite(job.x_finite, i) || !is_finite(job.y_finite, j)) {
      value = static_cast<T>(__builtin_nan(""));
    } else if (!job.same || i != j) {
      const T* const x = static_cast<const T*>(job.rows.data) + i * job.rows.stride[0];
      const T* const y = static_cast<const T*>(job.columns.data) + j * job.columns.stride[0] + kPad;
      value = warp<T, kCost>(job, x, length_of(job.x_length, i, job.x_samples), y,
                             length_of(job.y_length, j, job.y_samples), above);
      if (job.root) value = std::sqrt(value);
    }
    out[i * width + j] = value;
    if (job.same) out[j * width + i] = value;
  }
}

// |x|^2 at a sample, as Cost::expanded adds it up: lead after lead, from 0.
template <typename T>
T norm_at(const View& x, const T* sample) {
  T sum = 0;
  for (std::int64_t l = 0; l < x.size[1]; ++l) {
    const T value = sample[l * x.stride[1]];
    if constexpr (kHasFma) {
      sum = std::fma(value, value, sum);
    } else {
      sum += value * value;
    }
  }
  return sum;
}

// Where it overflows the norm has done so long before: any number will do.
template <typename T>
T minus_twice(T value) {
  const T twice = -2 * value;
  return twice - twice == 0 ? twice : T(0);
}

// rows: strip by strip [lead][row of a lane][lane], zeros behind the end. columns: lead by lead,
// infinities around the record, which make every cell there infinite. With norms, these come before
// the first lead, they alone are infinite, and the columns are times -2.
template <typename T>
void prepare_record(const Prepare& job, std::int64_t n) {
  constexpr int kW = kLanes<T>;
  const std::int64_t leads = job.x.size[1];
  const std::int64_t length = length_of(job.length, n, job.x.size[2]);
  const T* const x = static_cast<const T*>(job.x.data) + n * job.x.stride[0];
  T nothing = 0;
  for (std::int64_t l = 0; l < leads; ++l) {
    const T* const lead = x + l * job.x.stride[1];
#pragma omp simd reduction(+ : nothing)
    for (std::int64_t t = 0; t < length; ++t) nothing += lead[t] - lead[t];  // or NaN
  }
  static_cast<std::int32_t*>(job.finite.data)[n] = nothing == 0;

  if (job.rows.size[0] > 0) {
    T* to = static_cast<T*>(job.rows.data) + n * job.rows.stride[0];
    for (std::int64_t top = 0; top < length; top += kW * kHeight) {
      const auto pack = [&](auto value_at) {
        for (int r = 0; r < kHeight; ++r) {
          for (int k = 0; k < kW; ++k) {
            const std::int64_t t = top + (kW - 1 - k) * kHeight + r;
            *to++ = t < length ? value_at(t) : T(0);
          }
        }
      };
      if (job.expanded) pack([&](std::int64_t t) { return norm_at(job.x, x + t); });
      for (std::int64_t l = 0; l < leads; ++l) {
        pack([&](std::int64_t t) { return x[l * job.x.stride[1] + t]; });
      }
    }
  }
  if (job.columns.size[0] > 0) {
    const std::int64_t pitch = job.columns.size[2];
    T* to = static_cast<T*>(job.columns.data) + n * job.columns.stride[0];
    const auto pack = [&](T outside, auto value_at) {
      for (std::int64_t t = -kPad; t < pitch - kPad; ++t) {
        *to++ = t >= 0 && t < length ? value_at(t) : outside;
      }
    };
    if (job.expanded) pack(kFar<T>, [&](std::int64_t t) { return norm_at(job.x, x + t); });
    for (std::int64_t l = 0; l < leads; ++l) {
      const T* const lead = x + l * job.x.stride[1];
      if (job.expanded) {
        pack(T(0), [&](std::int64_t t) { return minus_twice(lead[t]); });
      } else {
        pack(kFar<T>, [&](std::int64_t t) { return lead[t]; });
      }
    }
  }
}

}  // namespace

void prepare(const Prepare& job, Range records) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t n = records.begin; n < records.end; ++n) {
      prepare_record<T>(job, n);
    }
  });
}

void forward(const Forward& job, Range pairs) {
  dispatch_float(job.distance.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (job.cost == Cost::sqeuclidean) return forward_pairs<T, Cost::sqeuclidean>(job, pairs);
    if (job.cost == Cost::euclidean) return forward_pairs<T, Cost::euclidean>(job, pairs);
    if (job.cost == Cost::l1) return forward_pairs<T, Cost::l1>(job, pairs);
    forward_pairs<T, Cost::expanded>(job, pairs);
  });
}

}  // namespace ecgfast::dtw::ECGFAST_ISA
