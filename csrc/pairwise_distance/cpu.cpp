// CPU kernels of pairwise_distance, compiled once for each instruction set; see contract.h.
#include <cmath>
#include <utility>

#include "core/dispatch.h"
#include "core/triangle.h"
#include "pairwise_distance/metric.h"

namespace ecgfast::pairwise_distance::ECGFAST_ISA {
namespace {

// Vectors as wide as the instruction set, and a tile of pairs that fills its registers.
#if defined(__AVX512F__)
constexpr int kBytes = 64;
constexpr int kTileRows = 4;
constexpr int kTileColumns = 4;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
constexpr int kTileRows = 4;
constexpr int kTileColumns = 2;
#else
constexpr int kBytes = 16;
constexpr int kTileRows = 4;
constexpr int kTileColumns = 2;
#endif

template <typename T>
struct Simd;
template <>
struct Simd<float> {
  typedef float vector __attribute__((vector_size(kBytes)));
  typedef std::int32_t bits __attribute__((vector_size(kBytes)));
  static constexpr std::int32_t kNoSign = INT32_MAX;
};
template <>
struct Simd<double> {
  typedef double vector __attribute__((vector_size(kBytes)));
  typedef std::int64_t bits __attribute__((vector_size(kBytes)));
  static constexpr std::int64_t kNoSign = INT64_MAX;
};
template <typename T>
using vec_t = typename Simd<T>::vector;
template <typename T>
using bits_t = typename Simd<T>::bits;
template <typename T>
constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));

// So many columns are summed at a stretch: 64 terms a lane, and 8 rows of them fit into L1.
template <typename T>
constexpr std::int64_t kStretch = 64 * kLanes<T>;

template <typename T>
vec_t<T> load(const T* p) {
  vec_t<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <typename T>
vec_t<T> magnitude(vec_t<T> v) {
  return (vec_t<T>)((bits_t<T>)v & Simd<T>::kNoSign);
}

// Lanes of one half of a and b, in turn: a b a b ...
template <typename T, int kHalf, int... kLane>
vec_t<T> interleave(vec_t<T> a, vec_t<T> b, std::integer_sequence<int, kLane...>) {
  constexpr int kAll = static_cast<int>(sizeof...(kLane));
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (kHalf * kAll / 2 + kLane / 2 + (kLane % 2 ? kAll : 0))...);
#else
  return __builtin_shuffle(a, b,
                           bits_t<T>{(kHalf * kAll / 2 + kLane / 2 + (kLane % 2 ? kAll : 0))...});
#endif
}

// The sums over the lanes of kCount vectors, in turn along the result: v0 v1 ... v0 v1 ... Every
// vector's lanes are added in the same order, so that a sum does not show its place.
template <typename T, int kCount, int kStep = 1>
vec_t<T> sum_lanes(const vec_t<T>* v) {
  if constexpr (kCount == 1) {
    return v[0];
  } else {
    const vec_t<T> even = sum_lanes<T, kCount / 2, 2 * kStep>(v);
    const vec_t<T> odd = sum_lanes<T, kCount / 2, 2 * kStep>(v + kStep);
    constexpr auto lanes = std::make_integer_sequence<int, kLanes<T>>{};
    return interleave<T, 0>(even, odd, lanes) + interleave<T, 1>(even, odd, lanes);
  }
}

// Adds to sums[kTileRows][kTileColumns] what `length` columns, a multiple of the lanes, contribute.
template <bool kSquares, typename T>
void add_tile(const T* const* a, const T* const* b, std::int64_t length, T* sums, int stride) {
  vec_t<T> sum[kTileRows * kTileColumns] = {};
  for (std::int64_t t = 0; t < length; t += kLanes<T>) {
    vec_t<T> other[kTileColumns];
    for (int c = 0; c < kTileColumns; ++c) other[c] = load(b[c] + t);
    for (int r = 0; r < kTileRows; ++r) {
      const vec_t<T> own = load(a[r] + t);
      for (int c = 0; c < kTileColumns; ++c) {
        const vec_t<T> apart = own - other[c];
        sum[r * kTileColumns + c] += kSquares ? apart * apart : magnitude<T>(apart);
      }
    }
  }
  constexpr int kPairs = kTileRows * kTileColumns;
  T flat[kPairs];
  for (int p = 0; p < kPairs; p += kLanes<T>) {
    const vec_t<T> done = sum_lanes<T, kLanes<T>>(sum + p);
    __builtin_memcpy(flat + p, &done, sizeof done);
  }
  for (int r = 0; r < kTileRows; ++r) {
    for (int c = 0; c < kTileColumns; ++c) sums[r * stride + c] += flat[r * kTileColumns + c];
  }
}

// A block's rows on one side; what is left of a row after whole vectors, filled up with zeros.
template <typename T>
struct Side {
  const T* rows[kMaxEdge];
  T tail[kMaxEdge][kLanes<T>];
  const T* tails[kMaxEdge];
};

template <typename T>
void take_side(const View& x, std::int64_t first, int edge, Side<T>& side) {
  const std::int64_t whole = x.size[1] / kLanes<T> * kLanes<T>;
  for (int r = 0; r < edge; ++r) {
    // past the end the last row stands in, so that every tile is a full one
    const std::int64_t n = first + r < x.size[0] ? first + r : x.size[0] - 1;
    side.rows[r] = static_cast<const T*>(x.data) + n * x.stride[0];
    side.tails[r] = side.tail[r];
    for (int l = 0; l < kLanes<T>; ++l) {
      side.tail[r][l] = whole + l < x.size[1] ? side.rows[r][whole + l] : T(0);
    }
  }
}

template <bool kSquares, typename T>
void sum_block(const Forward& job, std::int64_t first_row, std::int64_t first_column, T* sums) {
  Side<T> own;
  Side<T> other;
  take_side(job.x, first_row, job.edge, own);
  take_side(job.y, first_column, job.edge, other);
  for (int p = 0; p < job.edge * job.edge; ++p) sums[p] = 0;

  const std::int64_t columns = job.x.size[1];
  const std::int64_t whole = columns / kLanes<T> * kLanes<T>;
  std::int64_t length = 0;
  for (std::int64_t begin = 0; begin < columns; begin += length) {
    const bool tail = begin == whole;
    const std::int64_t rest = tail ? kLanes<T> : whole - begin;
    length = rest < kStretch<T> ? rest : kStretch<T>;
    for (int r = 0; r < job.edge; r += kTileRows) {
      for (int c = 0; c < job.edge; c += kTileColumns) {
        if (job.same && first_column + c + kTileColumns <= first_row + r) continue;  // mirrored
        if (first_row + r >= job.x.size[0] || first_column + c >= job.y.size[0]) continue;
        const T* a[kTileRows];
        const T* b[kTileColumns];
        for (int k = 0; k < kTileRows; ++k)
          a[k] = tail ? own.tails[r + k] : own.rows[r + k] + begin;
        for (int k = 0; k < kTileColumns; ++k) {
          b[k] = tail ? other.tails[c + k] : other.rows[c + k] + begin;
        }
        add_tile<kSquares>(a, b, length, sums + r * job.edge + c, job.edge);
      }
    }
  }
}

// Element n of the norms, which cosine alone has.
double norm_of(const View& norm, std::int64_t n) {
  return norm.size[0] == 0 ? 1 : static_cast<const double*>(norm.data)[n];
}

template <typename T>
void forward_block(const Forward& job, std::int64_t first_row, std::int64_t first_column) {
  T sums[kMaxEdge * kMaxEdge];
  if (sums_squares(job.metric)) {
    sum_block<true>(job, first_row, first_column, sums);
  } else {
    sum_block<false>(job, first_row, first_column, sums);
  }
  const int edge = job.edge;
  const std::int64_t width = job.y.size[0];
  const std::int64_t rows = job.x.size[0] - first_row < edge ? job.x.size[0] - first_row : edge;
  const std::int64_t columns = width - first_column < edge ? width - first_column : edge;
  for (std::int64_t r = 0; r < rows; ++r) {
    const double own = norm_of(job.norm_x, first_row + r);
    for (std::int64_t c = 0; c < columns; ++c) {
      const double other = norm_of(job.norm_y, first_column + c);
      const bool diagonal = job.same && first_row + r == first_column + c;
      T* const sum = sums + r * edge + c;
      *sum = finish(job.metric, *sum, job.x.size[1], own, other, diagonal);
    }
  }

  T* const out = static_cast<T*>(job.distance.data) + first_row * width + first_column;
  T* const mirrored = static_cast<T*>(job.distance.data) + first_column * width + first_row;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t from = job.same && first_row == first_column ? r : 0;
    for (std::int64_t c = from; c < columns; ++c) out[r * width + c] = sums[r * edge + c];
  }
  for (std::int64_t c = 0; job.same && c < columns; ++c) {
    const std::int64_t to = first_row == first_column ? c : rows;
    for (std::int64_t r = 0; r < to; ++r) mirrored[c * width + r] = sums[r * edge + c];
  }
}

// What row i's step towards row j is multiplied with.
template <typename T>
T weight_of(const Backward& job, std::int64_t i, std::int64_t j) {
  const T* const grad = static_cast<const T*>(job.grad.data);
  T g = grad[i * job.grad.stride[0] + j * job.grad.stride[1]];
  if (job.same) g += grad[j * job.grad.stride[0] + i * job.grad.stride[1]];
  const T d = static_cast<const T*>(
      job.distance.data)[i * job.distance.stride[0] + j * job.distance.stride[1]];
  return coefficient(job.metric, g, d, job.x.size[1], norm_of(job.norm_x, i),
                     norm_of(job.norm_y, j));
}

constexpr int kGradDepth = 64;  // rows of y at a stretch: a few vectors of each stay in L1

// grad += sum over `depth` rows of y, for 4 rows and kVectors vectors of columns.
template <bool kSigns, int kVectors, typename T>
void add_gradient(const T* const* x, const T* y, std::int64_t y_stride, const T* c, int depth,
                  T* const* grad) {
  vec_t<T> own[kTileRows][kVectors];
  vec_t<T> sum[kTileRows][kVectors] = {};
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kVectors; ++v) own[r][v] = load(x[r] + v * kLanes<T>);
  }
  for (int j = 0; j < depth; ++j, y += y_stride, c += kGradRows) {
    vec_t<T> other[kVectors];
    for (int v = 0; v < kVectors; ++v) other[v] = load(y + v * kLanes<T>);
    for (int r = 0; r < kTileRows; ++r) {
      const vec_t<T> weight = c[r] - vec_t<T>{};
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
      const vec_t<T> total = load(grad[r] + v * kLanes<T>) + sum[r][v];
      __builtin_memcpy(grad[r] + v * kLanes<T>, &total, sizeof total);
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
    T c[kGradDepth * kGradRows];
    for (int j = 0; j < count; ++j) {
      for (int r = 0; r < kGradRows; ++r) {
        const bool inside = first_row + r < job.x.size[0];
        c[j * kGradRows + r] = inside ? weight_of<T>(job, first_row + r, begin + j) : T(0);
      }
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
          add_gradient<kSigns, kWide>(own, others + t, job.y.stride[0], c + r, count, sums);
        } else if (!tail) {
          add_gradient<kSigns, 1>(own, others + t, job.y.stride[0], c + r, count, sums);
        } else {
          add_gradient<kSigns, 1>(own, other_tail[0], kLanes<T>, c + r, count, sums);
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

void unit_rows(const UnitRows& job, Range rows) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t length = job.x.size[1];
    for (std::int64_t n = rows.begin; n < rows.end; ++n) {
      const T* const x = static_cast<const T*>(job.x.data) + n * job.x.stride[0];
      T* const unit = static_cast<T*>(job.unit.data) + n * length;
      double squares = 0;
#pragma omp simd reduction(+ : squares)
      for (std::int64_t t = 0; t < length; ++t) squares += static_cast<double>(x[t]) * x[t];
      // a row without end has no direction: inf - inf makes its norm NaN
      const double norm = std::sqrt(squares) + (squares - squares);
      const double divisor = norm == 0 ? 1 : norm;
#pragma omp simd
      for (std::int64_t t = 0; t < length; ++t) unit[t] = static_cast<T>(x[t] / divisor);
      static_cast<double*>(job.norm.data)[n] = norm;
    }
  });
}

void forward(const Forward& job, Range blocks) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t width = (job.y.size[0] + job.edge - 1) / job.edge;
    for (std::int64_t b = blocks.begin; b < blocks.end; ++b) {
      const Cell cell = job.same ? triangle_cell(b) : Cell{b / width, b % width};
      forward_block<T>(job, cell.row * job.edge, cell.column * job.edge);
    }
  });
}

void backward(const Backward& job, Range blocks) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t columns = job.x.size[1];
    const std::int64_t width = (columns + kGradColumns - 1) / kGradColumns;
    for (std::int64_t b = blocks.begin; b < blocks.end; ++b) {
      const std::int64_t row = b / width * kGradRows;
      const std::int64_t first = b % width * kGradColumns;
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
