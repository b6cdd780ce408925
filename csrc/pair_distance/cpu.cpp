// CPU kernels of pair_distance, compiled once for each instruction set; see contract.h.
#include "core/dispatch.h"
#include "core/search.h"
#include "pair_distance/contract.h"
#include "pair_distance/pair.h"

namespace ecgfast::pair_distance::ECGFAST_ISA {
namespace {

template <Metric metric, typename T>
T sum_terms(const T* __restrict__ a, const T* __restrict__ b, std::int64_t length, T s, T t) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t d = 0; d < length; ++d) sum += term<metric>(a[d], b[d], s, t);
  return sum;
}

template <Metric metric, typename T>
T distance_of(const Forward& job, const Pair& pair) {
  const T* const a = record<const T>(job.x, pair.row);
  const T* const b = record<const T>(job.y, pair.column);
  const T s = scale_of<metric, T>(job.norm_x, pair.row);
  const T t = scale_of<metric, T>(job.norm_y, pair.column);
  const std::int64_t length = job.x.size[1];
  return finish<metric>(s <= t ? sum_terms<metric>(a, b, length, s, t)
                               : sum_terms<metric>(b, a, length, t, s));
}

// Adds kCount parts to dx, one after the other: the sum is the same whatever kCount, but dx and a
// are read once for all of them.
template <int kCount, Metric metric, typename T>
void add_parts(const Backward& job, const std::int64_t* slots, T* __restrict__ dx,
               const T* __restrict__ a, T scale) {
  Part<metric, T> parts[kCount];
  const T* b[kCount];
  for (int i = 0; i < kCount; ++i) {
    parts[i] = part_of<metric, T>(job, slots[i], scale);
    b[i] = record<const T>(job.y, parts[i].other);
  }
#pragma omp simd
  for (std::int64_t d = 0; d < job.x.size[1]; ++d) {
    T sum = dx[d];
    for (int i = 0; i < kCount; ++i) sum += pull(parts[i], a[d], b[i][d], scale);
    dx[d] = sum;
  }
}

}  // namespace

void norms(const Norms& job, Range rows) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      const T* const x = record<T>(job.x, r);
      double squares = 0;
#pragma omp simd reduction(+ : squares)
      for (std::int64_t d = 0; d < job.x.size[1]; ++d) {
        squares += static_cast<double>(x[d]) * static_cast<double>(x[d]);
      }
      *record<double>(job.norm, r) = length_of<T>(squares);
    }
  });
}

void forward(const Forward& job, Range pairs) {
  const std::int64_t count = job.rows.size[0];
  std::int32_t* const owners = static_cast<std::int32_t*>(job.owners.data);
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_metric(job.metric, [&](auto constant) {
      constexpr Metric metric = decltype(constant)::value;
      for (std::int64_t k = pairs.begin; k < pairs.end; ++k) {
        T distance = 0;
        bool owned = false;
        const Pair pair = pair_at(job, k);
        if (counts(job, k)) {
          if (!inside(job, pair)) {
            distance = static_cast<T>(__builtin_nan(""));
            if (job.outside.data != nullptr) {
              __atomic_store_n(static_cast<std::int32_t*>(job.outside.data), 1, __ATOMIC_RELAXED);
            }
          } else if (is_undefined<metric>(job, pair)) {
            distance = 1;
          } else {
            distance = distance_of<metric, T>(job, pair);
            owned = metric != Metric::euclidean || distance != 0;
          }
        }
        *record<T>(job.distance, k) = distance;
        owners[k] = owned ? static_cast<std::int32_t>(pair.row) : kNobody;
        owners[count + k] = owned ? static_cast<std::int32_t>(pair.column) : kNobody;
      }
    });
  });
}

void backward(const Backward& job, Range rows) {
  const std::int64_t length = job.x.size[1];
  const std::int64_t count = job.owners.size[0];
  const std::int32_t* const owners = static_cast<const std::int32_t*>(job.owners.data);
  const std::int64_t* const slots = static_cast<const std::int64_t*>(job.slots.data);
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_metric(job.metric, [&](auto constant) {
      constexpr Metric metric = decltype(constant)::value;
      std::int64_t s = first_not_below(owners, count, rows.begin);
      for (std::int64_t r = rows.begin; r < rows.end; ++r) {
        T* const dx = record<T>(job.grad_x, r);
        for (std::int64_t d = 0; d < length; ++d) dx[d] = 0;
        if (s >= count || owners[s] != r) continue;
        const T* const a = record<const T>(job.x, r);
        const T scale = scale_of<metric, T>(job.norm_x, r);
        while (s < count && owners[s] == r) {
          const bool two = s + 1 < count && owners[s + 1] == r;
          const bool four = s + 3 < count && owners[s + 3] == r;
          if (four) {
            add_parts<4, metric>(job, slots + s, dx, a, scale);
          } else if (two) {
            add_parts<2, metric>(job, slots + s, dx, a, scale);
          } else {
            add_parts<1, metric>(job, slots + s, dx, a, scale);
          }
          s += four ? 4 : two ? 2 : 1;
        }
      }
    });
  });
}

}  // namespace ecgfast::pair_distance::ECGFAST_ISA
