// What CPU and CUDA kernels of pair_distance say alike; included after core/dispatch.h or cuda.cuh.
#pragma once

#include <cmath>
#include <type_traits>

#include "pair_distance/contract.h"

namespace ecgfast::pair_distance {

struct Pair {
  std::int64_t row, column;
};

template <typename Job>
ECGFAST_HD static inline Pair pair_at(const Job& job, std::int64_t k) {
  return {record<const std::int64_t>(job.rows, k)[0],
          record<const std::int64_t>(job.columns, k)[0]};
}

ECGFAST_HD static inline bool counts(const Forward& job, std::int64_t k) {
  return job.valid.data == nullptr || record<const std::uint8_t>(job.valid, k)[0] != 0;
}

template <typename Job>
ECGFAST_HD static inline bool inside(const Job& job, const Pair& pair) {
  return pair.row >= 0 && pair.row < job.x.size[0] && pair.column >= 0 &&
         pair.column < job.y.size[0];
}

// From the sum of squares of a row, in f64, to its length as this room takes it. A row without end
// has no direction: inf - inf makes its norm NaN.
template <typename A>
ECGFAST_HD static inline double length_of(double squares) {
  constexpr double kLeast = sizeof(A) == 8 ? 0x1p-1022 : 0x1p-126;
  const double norm = sqrt(squares) + (squares - squares);
  return norm < kLeast ? 0 : norm;
}

// One over the length of row n, 1 where lengths play no part.
template <Metric metric, typename A>
ECGFAST_HD static inline A scale_of(const View& norm, std::int64_t n) {
  if constexpr (metric == Metric::cosine) {
    return static_cast<A>(1 / record<const double>(norm, n)[0]);
  } else {
    return A(1);
  }
}

// A column of s a - t b, where a is the longer row: s <= t. Two products subtracted may be rounded
// differently, one of them inside a multiply-adder: equal rows would not be at 0. So the step is
// taken first; from the shorter row on nothing cancels.
template <typename A>
ECGFAST_HD static inline A unit_apart(A a, A b, A s, A t) {
  return s * (a - b) + (s - t) * b;
}

// What a column adds to the sum of its pair; with cosine a is the longer row.
template <Metric metric, typename A>
ECGFAST_HD static inline A term(A a, A b, A s, A t) {
  if constexpr (metric == Metric::dot) {
    return a * b;
  } else {
    const A apart = metric == Metric::cosine ? unit_apart(a, b, s, t) : a - b;
    return apart * apart;
  }
}

// From the sum over the columns to the distance.
template <Metric metric, typename A>
ECGFAST_HD static inline A finish(A sum) {
  if constexpr (metric == Metric::euclidean) return sqrt(sum);
  if constexpr (metric == Metric::cosine) return sum / 2;
  return sum;
}

// Whether cosine says 1 without looking: a row is zero, and neither holds a NaN.
template <Metric metric>
ECGFAST_HD static inline bool is_undefined(const Forward& job, const Pair& pair) {
  if constexpr (metric == Metric::cosine) {
    const double a = record<const double>(job.norm_x, pair.row)[0];
    const double b = record<const double>(job.norm_y, pair.column)[0];
    return (a == 0 || b == 0) && a == a && b == b;
  } else {
    return false;
  }
}

// What a slot adds to the gradient of the row a that owns it, b being row `other` of y.
template <Metric metric, typename A>
struct Part {
  int other;
  A weight;
};
template <typename A>
struct Part<Metric::cosine, A> {
  int other;
  A weight;
  A scale;  // 1 / |b|
  A distance;
};

// Weight 0, if an index has changed since forward: row 0 of y is there, as a pair was read.
template <Metric metric, typename A>
ECGFAST_HD static inline Part<metric, A> part_of(const Backward& job, std::int64_t slot, A scale) {
  const std::int64_t count = job.rows.size[0];
  if (slot < 0 || slot >= job.slots.size[0]) return {};
  const bool second = slot >= count;  // y is x then
  const std::int64_t k = second ? slot - count : slot;
  const Pair pair = pair_at(job, k);
  if (!inside(job, pair)) return {};
  const int other = static_cast<int>(second ? pair.row : pair.column);
  const A g = record<const A>(job.grad, k)[0];
  if constexpr (metric == Metric::sqeuclidean) {
    return {other, 2 * g};
  } else if constexpr (metric == Metric::euclidean) {
    return {other, g / record<const A>(job.distance, k)[0]};
  } else if constexpr (metric == Metric::cosine) {
    return {other, g * scale, scale_of<metric, A>(job.norm_y, other),
            record<const A>(job.distance, k)[0]};
  } else {
    return {other, g};
  }
}

// One column of it, for a, b and 1 / |a|.
template <Metric metric, typename A>
ECGFAST_HD static inline A pull(const Part<metric, A>& part, A a, A b, A scale) {
  if constexpr (metric == Metric::dot) {
    return part.weight * b;
  } else if constexpr (metric == Metric::cosine) {
    const A apart = scale <= part.scale ? unit_apart(a, b, scale, part.scale)
                                        : -unit_apart(b, a, part.scale, scale);
    return part.weight * (apart - part.distance * (scale * a));
  } else {
    return part.weight * (a - b);
  }
}

// Calls body with the metric as a constant, so that the loops inside are of one metric.
template <typename Body>
static inline void with_metric(Metric metric, const Body& body) {
  switch (metric) {
    case Metric::sqeuclidean:
      return body(std::integral_constant<Metric, Metric::sqeuclidean>{});
    case Metric::euclidean:
      return body(std::integral_constant<Metric, Metric::euclidean>{});
    case Metric::cosine:
      return body(std::integral_constant<Metric, Metric::cosine>{});
    case Metric::dot:
      return body(std::integral_constant<Metric, Metric::dot>{});
  }
}

}  // namespace ecgfast::pair_distance
