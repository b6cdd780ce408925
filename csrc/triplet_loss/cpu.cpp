// CPU kernels of triplet_loss, compiled once for each instruction set; see contract.h.
#include "core/dispatch.h"
#include "core/search.h"
#include "triplet_loss/contract.h"
#include "triplet_loss/triplet.h"

namespace ecgfast::triplet_loss::ECGFAST_ISA {
namespace {

template <typename T>
T hinge(const T* __restrict__ a, const T* __restrict__ p, const T* __restrict__ n,
        std::int64_t length, T margin) {
  T to_positive = 0;
  T to_negative = 0;
#pragma omp simd reduction(+ : to_positive, to_negative)
  for (std::int64_t d = 0; d < length; ++d) {
    to_positive += (a[d] - p[d]) * (a[d] - p[d]);
    to_negative += (a[d] - n[d]) * (a[d] - n[d]);
  }
  const T h = to_positive - to_negative + margin;
  return h <= 0 ? T(0) : h;  // a NaN stays
}

// dx += weight * (x - y)
template <typename T>
void add_difference(T* __restrict__ dx, const T* __restrict__ x, const T* __restrict__ y,
                    std::int64_t length, T weight) {
#pragma omp simd
  for (std::int64_t d = 0; d < length; ++d) dx[d] += weight * (x[d] - y[d]);
}

}  // namespace

void forward(const Forward& job, Range triplets) {
  const std::int64_t rows = job.x.size[0];
  const std::int64_t count = job.hinge.size[0];
  std::int32_t* const owners = static_cast<std::int32_t*>(job.owners.data);
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t k = triplets.begin; k < triplets.end; ++k) {
      const Triplet t = triplet_at(job, k);
      T h = 0;
      std::int64_t nobody = rows + kInvalid;
      if (counts(job, k)) {
        const bool readable = inside(t, rows);
        h = readable
                ? hinge(record<T>(job.x, t.anchor), record<T>(job.x, t.positive),
                        record<T>(job.x, t.negative), job.x.size[1], static_cast<T>(job.margin))
                : static_cast<T>(__builtin_nan(""));
        nobody = rows + (readable ? kInactive : kOutside);
      }
      const bool active = h != 0 && nobody == rows + kInactive;
      *record<T>(job.hinge, k) = h;
      owners[k] = static_cast<std::int32_t>(active ? t.anchor : nobody);
      owners[count + k] = static_cast<std::int32_t>(active ? t.positive : nobody);
      owners[2 * count + k] = static_cast<std::int32_t>(active ? t.negative : nobody);
    }
  });
}

void finish(const Finish& job, Range) {
  const std::int64_t count = job.hinge.size[0];
  const std::int32_t* const owners = static_cast<const std::int32_t*>(job.owners.data);
  dispatch_float(job.hinge.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* const hinge = static_cast<const T*>(job.hinge.data);
    double sum = 0;
    std::int64_t valid = 0;
    std::int64_t outside = 0;
#pragma omp simd reduction(+ : sum, valid, outside)
    for (std::int64_t k = 0; k < count; ++k) {
      sum += static_cast<double>(hinge[k]);
      valid += owners[k] != job.rows + kInvalid;
      outside += owners[k] == job.rows + kOutside;
    }
    const double share = job.mean ? 1.0 / static_cast<double>(valid > 0 ? valid : 1) : 1.0;
    *static_cast<T*>(job.loss.data) = static_cast<T>(sum * share);
    *static_cast<T*>(job.share.data) = static_cast<T>(share);
    *static_cast<std::int64_t*>(job.outside.data) = outside;
  });
}

void backward(const Backward& job, Range rows) {
  const std::int64_t length = job.x.size[1];
  const std::int64_t count = job.anchors.size[0];
  const std::int32_t* const owners = static_cast<const std::int32_t*>(job.owners.data);
  const std::int64_t* const slots = static_cast<const std::int64_t*>(job.slots.data);
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T twice_share = 2 * *static_cast<const T*>(job.share.data);
    std::int64_t s = first_not_below(owners, 3 * count, rows.begin);
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      T* const dx = record<T>(job.grad_x, r);
      for (std::int64_t d = 0; d < length; ++d) dx[d] = 0;
      for (; s < 3 * count && owners[s] == r; ++s) {
        const Part<T> part = part_of(job, slots[s], twice_share);
        add_difference(dx, record<T>(job.x, part.plus), record<T>(job.x, part.minus), length,
                       part.weight);
      }
    }
  });
}

}  // namespace ecgfast::triplet_loss::ECGFAST_ISA
