// A row of a strip on the CPU, in blocks of columns: what its pairs are, and how far apart.
// Included by the room's CPU kernels alone.
#pragma once

#include <cmath>

#include "core/dispatch.h"
#include "pair_hinge/pair.h"

namespace ecgfast::pair_hinge::ECGFAST_ISA {
namespace {

constexpr int kBlock = 256;  // columns at a time: what is known of them stays in L1

template <typename T>
const T* data(const View& view) {
  return static_cast<const T*>(view.data);
}

// Element n of a vector of any stride.
template <typename T>
T& data_at(const View& view, std::int64_t n) {
  return static_cast<T*>(view.data)[n * view.stride[0]];
}

inline void take_kinds(const Strip& s, std::int64_t r, std::int64_t begin, int count,
                       std::int32_t* __restrict__ kind) {
  const std::int32_t label = data<std::int32_t>(s.row_labels)[r];
  const std::int32_t group = data<std::int32_t>(s.row_groups)[r];
  const std::int32_t* const labels = data<std::int32_t>(s.column_labels) + begin;
  const std::int32_t* const groups = data<std::int32_t>(s.column_groups) + begin;
#pragma omp simd
  for (int j = 0; j < count; ++j) {
    const bool other = is_negative(label, labels[j], group, groups[j]);
    kind[j] = is_positive(label, labels[j]) ? kPositive : other ? kNegative : kNeither;
  }
  if (s.by_column) {
    const std::int64_t* const places = data<std::int64_t>(s.places) + begin;
    for (int j = 0; j < count; ++j) kind[j] = places[j] == s.first + r ? kNeither : kind[j];
  } else {
    const std::int64_t itself = data<std::int64_t>(s.places)[r] - begin;
    if (itself >= 0 && itself < count) kind[itself] = kNeither;
  }
}

template <typename T>
T direct_square(const T* __restrict__ x, const T* __restrict__ y, std::int64_t length) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t t = 0; t < length; ++t) sum += (x[t] - y[t]) * (x[t] - y[t]);
  return sum;
}

// dx += weight * (x - y)
template <typename T>
void add_difference(T* __restrict__ dx, const T* __restrict__ x, const T* __restrict__ y,
                    std::int64_t length, T weight) {
#pragma omp simd
  for (std::int64_t t = 0; t < length; ++t) dx[t] += weight * (x[t] - y[t]);
}

// dx += weight * x
template <typename T>
void add_scaled(T* __restrict__ dx, const T* __restrict__ x, std::int64_t length, T weight) {
#pragma omp simd
  for (std::int64_t t = 0; t < length; ++t) dx[t] += weight * x[t];
}

// Distances from products, in place or not; marks what is near, and measures that directly.
template <Metric kMetric, typename T>
void measure(const Strip& s, std::int64_t r, std::int64_t begin, int count, const T* products,
             std::int32_t* __restrict__ kind, T* d) {
  if constexpr (kMetric == Metric::cosine) {
#pragma omp simd
    for (int j = 0; j < count; ++j) d[j] = 1 - products[j];
    return;
  }
  const T own = data<T>(s.norm_x)[r];
  const T* const norms = data<T>(s.norm_y) + begin;
  std::int32_t any = 0;
#pragma omp simd reduction(| : any)
  for (int j = 0; j < count; ++j) {
    const T both = own + norms[j];
    const T square = both - 2 * products[j];
    const std::int32_t near = square < static_cast<T>(kNear) * both ? kClose : 0;
    kind[j] |= near;
    any |= kind[j];
    const T least = square < 0 ? T(0) : square;  // a NaN stays
    d[j] = kMetric == Metric::euclidean ? std::sqrt(least) : least;
  }
  if (any <= kClose) return;
  for (int j = 0; j < count; ++j) {
    if (!close_pair(kind[j])) continue;
    const T square =
        direct_square(record<const T>(s.x, r), record<const T>(s.y, begin + j), s.x.size[1]);
    d[j] = kMetric == Metric::euclidean ? std::sqrt(square) : square;
  }
}

inline int block_at(std::int64_t begin, std::int64_t end) {
  return static_cast<int>(end - begin < kBlock ? end - begin : kBlock);
}

// Calls body with the metric as a constant.
template <typename Body>
void with_metric(Metric metric, const Body& body) {
  switch (metric) {
    case Metric::euclidean:
      return body(std::integral_constant<Metric, Metric::euclidean>{});
    case Metric::sqeuclidean:
      return body(std::integral_constant<Metric, Metric::sqeuclidean>{});
    case Metric::cosine:
      return body(std::integral_constant<Metric, Metric::cosine>{});
  }
}

}  // namespace
}  // namespace ecgfast::pair_hinge::ECGFAST_ISA
