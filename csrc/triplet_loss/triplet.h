// What CPU and CUDA kernels of triplet_loss say alike; included after core/dispatch.h or cuda.cuh.
#pragma once

#include "triplet_loss/contract.h"

namespace ecgfast::triplet_loss {

struct Triplet {
  std::int64_t anchor, positive, negative;
};

template <typename Job>
ECGFAST_HD static inline Triplet triplet_at(const Job& job, std::int64_t k) {
  return {record<const std::int64_t>(job.anchors, k)[0],
          record<const std::int64_t>(job.positives, k)[0],
          record<const std::int64_t>(job.negatives, k)[0]};
}

ECGFAST_HD static inline bool counts(const Forward& job, std::int64_t k) {
  return job.valid.data == nullptr || record<const std::uint8_t>(job.valid, k)[0] != 0;
}

ECGFAST_HD static inline bool inside(const Triplet& t, std::int64_t rows) {
  return t.anchor >= 0 && t.anchor < rows && t.positive >= 0 && t.positive < rows &&
         t.negative >= 0 && t.negative < rows;
}

// What a slot adds to the gradient of the row that owns it: weight * (x[plus] - x[minus]).
template <typename A>
struct Part {
  int plus, minus;
  A weight;
};

// Nothing, if an index has changed since forward.
template <typename A>
ECGFAST_HD static inline Part<A> part_of(const Backward& job, std::int64_t slot, A twice_share) {
  const std::int64_t count = job.anchors.size[0];
  if (slot < 0 || slot >= 3 * count) return {0, 0, A(0)};
  const std::int64_t k = slot % count;
  const Triplet t = triplet_at(job, k);
  if (!inside(t, job.x.size[0])) return {0, 0, A(0)};
  const int a = static_cast<int>(t.anchor);
  const int p = static_cast<int>(t.positive);
  const int n = static_cast<int>(t.negative);
  const A weight = twice_share * record<const A>(job.grad, k)[0];
  if (slot < count) return {n, p, weight};
  if (slot < 2 * count) return {p, a, weight};
  return {a, n, weight};
}

}  // namespace ecgfast::triplet_loss
