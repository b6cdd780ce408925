// CPU kernels of min-max normalisation, compiled once for each instruction set; see contract.h.
#include <limits>

#include "core/dispatch.h"
#include "core/simd.h"
#include "lead_norm/group.h"

namespace ecgfast::lead_norm::ECGFAST_ISA {
namespace {

// The least and the largest of what has been seen, and whether a NaN has.
template <typename T>
struct Extremes {
  T least = std::numeric_limits<T>::infinity();
  T largest = -std::numeric_limits<T>::infinity();
  bool nan = false;

  void see(T x) {
    least = x < least ? x : least;
    largest = x > largest ? x : largest;
    nan |= x != x;
  }
};

// By vectors: the compiler keeps a minimum of floats in order, for the sake of NaN and -0.
template <typename T>
void see_row(Extremes<T>& all, const T* x, std::int64_t length) {
  vec_t<T> least = broadcast(all.least);
  vec_t<T> largest = broadcast(all.largest);
  bits_t<T> nan{};
  std::int64_t t = 0;
  for (; t + kLanes<T> <= length; t += kLanes<T>) {
    const vec_t<T> v = load(x + t);
    least = v < least ? v : least;
    largest = v > largest ? v : largest;
    nan |= v != v;
  }
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    all.least = least[lane] < all.least ? least[lane] : all.least;
    all.largest = largest[lane] > all.largest ? largest[lane] : all.largest;
    all.nan |= nan[lane] != 0;
  }
  for (; t < length; ++t) all.see(x[t]);
}

// Where the group first holds the value, a NaN if `nan`; -1 if nowhere.
template <typename T>
std::int64_t find(const View& x, const Group& group, T value, bool nan) {
  const std::int64_t length = x.size[2];
  for (std::int64_t r = 0; r < group.count; ++r) {
    const T* const here = row<T>(x, group.first + r);
    for (std::int64_t t = 0; t < length; ++t) {
      if (nan ? here[t] != here[t] : here[t] == value) return r * length + t;
    }
  }
  return -1;
}

template <typename T>
T& sample(const View& view, const Group& group, std::int64_t index) {
  const std::int64_t length = view.size[2];
  return row<T>(view, group.first + index / length)[index % length];
}

template <typename T>
void min_max_row(const T* __restrict__ x, T* __restrict__ y, std::int64_t length, Scale<T> scale) {
#pragma omp simd
  for (std::int64_t t = 0; t < length; ++t) y[t] = scale.value(scale.share(x[t]));
}

template <typename T>
void backward_row(const T* __restrict__ x, const T* __restrict__ g, T* __restrict__ dx,
                  std::int64_t length, Scale<T> scale, T slope, T& total_g, T& total_gu) {
  T sum_g = 0;
  T sum_gu = 0;
#pragma omp simd reduction(+ : sum_g, sum_gu)
  for (std::int64_t t = 0; t < length; ++t) {
    sum_g += g[t];
    sum_gu += g[t] * scale.share(x[t]);
    dx[t] = slope * g[t];
  }
  total_g += sum_g;
  total_gu += sum_gu;
}

}  // namespace

void min_max(const MinMax& job, Range groups) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t i = groups.begin; i < groups.end; ++i) {
      const Group group = group_at(job.x, job.extremes, i);
      const std::int64_t end = group.first + group.count;
      Extremes<T> seen;
      for (std::int64_t r = group.first; r < end; ++r) {
        see_row(seen, row<T>(job.x, r), job.x.size[2]);
      }
      std::int64_t* const at = static_cast<std::int64_t*>(job.extremes.data) + 2 * i;
      at[0] = find(job.x, group, seen.least, seen.nan);
      at[1] = find(job.x, group, seen.largest, seen.nan);
      const auto scale = scale_of(sample<T>(job.x, group, at[0]), sample<T>(job.x, group, at[1]),
                                  static_cast<T>(job.low), static_cast<T>(job.high));
      for (std::int64_t r = group.first; r < end; ++r) {
        min_max_row(row<T>(job.x, r), row<T>(job.y, r), job.x.size[2], scale);
      }
    }
  });
}

void min_max_backward(const MinMaxBackward& job, Range groups) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t i = groups.begin; i < groups.end; ++i) {
      const Group group = group_at(job.x, job.extremes, i);
      const std::int64_t samples = group.count * job.x.size[2];
      const std::int64_t* const kept = static_cast<const std::int64_t*>(job.extremes.data) + 2 * i;
      const std::int64_t at[] = {safe_index(kept[0], samples), safe_index(kept[1], samples)};
      const auto scale = scale_of(sample<T>(job.x, group, at[0]), sample<T>(job.x, group, at[1]),
                                  static_cast<T>(job.low), static_cast<T>(job.high));
      const T slope = at[0] == at[1] ? scale.range * T(0) : (scale.high - scale.low) / scale.range;
      T sum_g = 0;
      T sum_gu = 0;
      for (std::int64_t r = group.first; r < group.first + group.count; ++r) {
        backward_row(row<T>(job.x, r), row<T>(job.grad_y, r), row<T>(job.grad_x, r), job.x.size[2],
                     scale, slope, sum_g, sum_gu);
      }
      sample<T>(job.grad_x, group, at[0]) += slope * (sum_gu - sum_g);
      sample<T>(job.grad_x, group, at[1]) -= slope * sum_gu;
    }
  });
}

}  // namespace ecgfast::lead_norm::ECGFAST_ISA
