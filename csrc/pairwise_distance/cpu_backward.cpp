// CPU kernels of the gradient of pairwise_distance; see contract.h.
#include "core/dispatch.h"
#include "core/simd.h"
#include "pairwise_distance/metric.h"

namespace ecgfast::pairwise_distance::ECGFAST_ISA {
namespace {

constexpr int kTileRows = 4;
constexpr int kGradDepth = 64;  // rows of y at a stretch: a few vectors of each stay in L1

template <typename T>
using Weights = T[kGradRows][kGradDepth];

// A corner of a matrix of pairs of any strides, read along the shorter one; zeros past its ends.
template <typename T>
void copy_pairs(const View& pairs, std::int64_t first_row, std::int64_t first_column,
                Weights<T>& to) {
  const T* const from = static_cast<const T*>(pairs.data) + first_row * pairs.stride[0] +
                        first_column * pairs.stride[1];
  const std::int64_t rows = pairs.size[0] - first_row;
  const std::int64_t columns = pairs.size[1] - first_column;
  const auto copy = [&](int r, int c) {
    const bool inside = r < rows && c < columns;
    to[r][c] = inside ? from[r * pairs.stride[0] + c * pairs.stride[1]] : T(0);
  };
  if (pairs.stride[0] < pairs.stride[1]) {
    for (int c = 0; c < kGradDepth; ++c) {
      for (int r = 0; r < kGradRows; ++r) copy(r, c);
    }
  } else {
    for (int r = 0; r < kGradRows; ++r) {
      for (int c = 0; c < kGradDepth; ++c) copy(r, c);
    }
  }
}

View transposed(View pairs) {
  const std::int64_t size = pairs.size[0];
  const std::int64_t stride = pairs.stride[0];
  pairs.size[0] = pairs.size[1];
  pairs.stride[0] = pairs.stride[1];
  pairs.size[1] = size;
  pairs.stride[1] = stride;
  return pairs;
}

// What the steps from kGradRows rows of x to kGradDepth rows of y are multiplied with.
template <typename T>
void weigh(const Backward& job, std::int64_t first_row, std::int64_t begin, Weights<T>& weights) {
  copy_pairs<T>(job.grad, first_row, begin, weights);
  if (job.same) {
    Weights<T> back;
    copy_pairs<T>(transposed(job.grad), first_row, begin, back);
    for (int r = 0; r < kGradRows; ++r) {
      for (int j = 0; j < kGradDepth; ++j) weights[r][j] += back[r][j];
    }
  }
  Weights<T> distance = {};
  if (job.metric == Metric::euclidean) copy_pairs<T>(job.distance, first_row, begin, distance);
  double norms[kGradDepth] = {};
  for (std::int64_t j = 0; j < kGradDepth && begin + j < job.y.size[0]; ++j) {
    norms[j] = norm_of(job.norm_y, begin + j);
  }
  with_metric(job.metric, [&](auto metric) {
    for (std::int64_t r = 0; r < kGradRows && first_row + r < job.x.size[0]; ++r) {
      const double norm = norm_of(job.norm_x, first_row + r);
      for (int j = 0; j < kGradDepth; ++j) {
        weights[r][j] =
            coefficient(metric(), weights[r][j], distance[r][j], job.x.size[1], norm, norms[j]);
      }
    }
  });
}

// grad += sum over `depth` rows of y, for 4 rows and kVectors vectors of columns.
template <bool kSigns, int kVectors, typename T>
void add_gradient(const T* const* x, const T* y, std::int64_t y_stride,
                  const T (*weights)[kGradDepth], int depth, T* const* grad) {
  vec_t<T> own[kTileRows][kVectors];
  vec_t<T> sum[kTileRows][kVectors] = {};
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kVectors; ++v) own[r][v] = load(x[r] + v * kLanes<T>);
  }
  for (int j = 0; j < depth; ++j, y += y_stride) {
    vec_t<T> other[kVectors];
    for (int v = 0; v < kVectors; ++v) other[v] = load(y + v * kLanes<T>);
    for (int r = 0; r < kTileRows; ++r) {
      const vec_t<T> weight = broadcast(weights[r][j]);
      for (int v = 0; v < kVectors; ++v) {
        if constexpr (kSigns) {
          sum[r][v] += own[r][v] > other[v] ? weight : vec_t<T>{};
          sum[r][v] -= own[r][v] < other[v] ? weight : vec_t<T>{};
        } else {
          sum[r][v] += weight * (own[r][v] - other[v]);
        }
      }
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      T* const to = grad[r] + v * kLanes<T>;
      store(to, load(to) + sum[r][v]);
    }
  }
}

// Rows [first_row, + kGradRows) by columns [first, last) of the gradient of x.
template <bool kSigns, typename T>
void backward_block(const Backward& job, std::int64_t first_row, std::int64_t first,
                    std::int64_t last) {
  constexpr int kWide = 2;
  const std::int64_t depth = job.y.size[0];
  const T* const y = static_cast<const T*>(job.y.data);
  T total[kGradRows][kGradColumns] = {};
  T own_tail[kGradRows][kLanes<T>] = {};
  T other_tail[kGradDepth][kLanes<T>] = {};
  const T* x[kGradRows];
  for (int r = 0; r < kGradRows; ++r) {
    const std::int64_t n = first_row + r < job.x.size[0] ? first_row + r : job.x.size[0] - 1;
    x[r] = static_cast<const T*>(job.x.data) + n * job.x.stride[0] + first;
  }
  const std::int64_t columns = last - first;
  const std::int64_t whole = columns / kLanes<T> * kLanes<T>;
  for (int r = 0; r < kGradRows; ++r) {
    for (std::int64_t t = whole; t < columns; ++t) own_tail[r][t - whole] = x[r][t];
  }

  for (std::int64_t begin = 0; begin < depth; begin += kGradDepth) {
    const int count = static_cast<int>(depth - begin < kGradDepth ? depth - begin : kGradDepth);
    Weights<T> weights;
    weigh(job, first_row, begin, weights);
    for (int j = 0; j < count; ++j) {
      const T* const rest = y + (begin + j) * job.y.stride[0] + first;
      for (std::int64_t t = whole; t < columns; ++t) other_tail[j][t - whole] = rest[t];
    }
    const T* const others = y + begin * job.y.stride[0] + first;
    std::int64_t t = 0;
    while (t < columns) {
      const bool wide = t + kWide * kLanes<T> <= whole;
      const bool tail = t >= whole;
      for (int r = 0; r < kGradRows; r += kTileRows) {
        const T* own[kTileRows];
        T* sums[kTileRows];
        for (int k = 0; k < kTileRows; ++k) {
          own[k] = tail ? own_tail[r + k] : x[r + k] + t;
          sums[k] = total[r + k] + t;
        }
        if (wide) {
          add_gradient<kSigns, kWide>(own, others + t, job.y.stride[0], weights + r, count, sums);
        } else if (!tail) {
          add_gradient<kSigns, 1>(own, others + t, job.y.stride[0], weights + r, count, sums);
        } else {
          add_gradient<kSigns, 1>(own, other_tail[0], kLanes<T>, weights + r, count, sums);
        }
      }
      t += wide ? kWide * kLanes<T> : kLanes<T>;
    }
  }
  for (int r = 0; r < kGradRows && first_row + r < job.x.size[0]; ++r) {
    T* const out = static_cast<T*>(job.grad_x.data) + (first_row + r) * job.x.size[1] + first;
    for (std::int64_t t = 0; t < columns; ++t) out[t] = total[r][t];
  }
}

}  // namespace

void backward(const Backward& job, Range blocks) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t columns = job.x.size[1];
    const std::int64_t height = (job.x.size[0] + kGradRows - 1) / kGradRows;
    for (std::int64_t b = blocks.begin; b < blocks.end; ++b) {
      const std::int64_t row = b % height * kGradRows;  // the same columns of y: still in cache
      const std::int64_t first = b / height * kGradColumns;
      const std::int64_t last = first + kGradColumns < columns ? first + kGradColumns : columns;
      if (sums_squares(job.metric)) {
        backward_block<false, T>(job, row, first, last);
      } else {
        backward_block<true, T>(job, row, first, last);
      }
    }
  });
}

void project(const Project& job, Range rows) {
  dispatch_float(job.unit.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t length = job.unit.size[1];
    for (std::int64_t n = rows.begin; n < rows.end; ++n) {
      const T* const unit = static_cast<const T*>(job.unit.data) + n * length;
      T* const grad = static_cast<T*>(job.grad.data) + n * length;
      const double norm = static_cast<const double*>(job.norm.data)[n];
      const double divisor = norm == 0 ? 1 : norm;
      double along = 0;
#pragma omp simd reduction(+ : along)
      for (std::int64_t t = 0; t < length; ++t) along += static_cast<double>(unit[t]) * grad[t];
#pragma omp simd
      for (std::int64_t t = 0; t < length; ++t) {
        grad[t] = static_cast<T>((grad[t] - unit[t] * along) / divisor);
      }
    }
  });
}

}  // namespace ecgfast::pairwise_distance::ECGFAST_ISA
