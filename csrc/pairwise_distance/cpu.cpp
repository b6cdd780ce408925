// CPU kernels of pairwise_distance, compiled once for each instruction set; see contract.h.
#include "core/dispatch.h"
#include "core/simd.h"
#include "core/triangle.h"
#include "pairwise_distance/metric.h"

namespace ecgfast::pairwise_distance::ECGFAST_ISA {
namespace {

// A tile of pairs that fills the registers: 16 sums where there are 32, else 8.
#if defined(__AVX512F__)
constexpr int kTileColumns = 4;
#else
constexpr int kTileColumns = 2;
#endif
constexpr int kTileRows = 4;

// So many columns are summed at a stretch: 64 terms a lane, and 8 rows of them fit into L1.
template <typename T>
constexpr std::int64_t kStretch = 64 * kLanes<T>;

constexpr int kPairs = kTileRows * kTileColumns;

// Adds what columns [begin, end), whole vectors of them, contribute to the sums of a tile. `one` is
// 1, unknown to the compiler: some processors have multiply-adders beside their adders, and where
// the difference keeps the adders busy, the sum is made by the others (22 % for l1 on Zen 4).
template <bool kSquares, typename T>
void add_tile(const T* const* a, const T* const* b, std::int64_t begin, std::int64_t end, T one,
              T* sums) {
  vec_t<T> sum[kPairs] = {};
  for (std::int64_t t = begin; t < end; t += kLanes<T>) {
    vec_t<T> other[kTileColumns];
    for (int c = 0; c < kTileColumns; ++c) other[c] = load(b[c] + t);
    for (int r = 0; r < kTileRows; ++r) {
      const vec_t<T> own = load(a[r] + t);
      for (int c = 0; c < kTileColumns; ++c) {
        const vec_t<T> apart = own - other[c];
        if constexpr (kSquares) {
          sum[r * kTileColumns + c] += apart * apart;
        } else if constexpr (kHasFma) {
          sum[r * kTileColumns + c] += magnitude<T>(apart) * one;
        } else {
          sum[r * kTileColumns + c] += magnitude<T>(apart);
        }
      }
    }
  }
  for (int p = 0; p < kPairs; p += kLanes<T>) {
    store(sums + p, load(sums + p) + sum_lanes<T, kLanes<T>>(sum + p));
  }
}

// Where the sum of a pair in the first column of a tile lies: tile after tile, so that the sums of
// one are whole vectors.
int slot(int edge, int r, int c) {
  return (r - r % kTileRows) * edge + c * kTileRows + r % kTileRows * kTileColumns;
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
  volatile T hidden = 1;
  const T one = hidden;
  const auto add_all = [&](const T* const* a, const T* const* b, std::int64_t begin,
                           std::int64_t end) {
    for (int r = 0; r < job.edge; r += kTileRows) {
      for (int c = 0; c < job.edge; c += kTileColumns) {
        if (job.same && first_column + c + kTileColumns <= first_row + r) continue;  // mirrored
        if (first_row + r >= job.x.size[0] || first_column + c >= job.y.size[0]) continue;
        add_tile<kSquares, T>(a + r, b + c, begin, end, one, sums + slot(job.edge, r, c));
      }
    }
  };
  for (std::int64_t begin = 0; begin < whole; begin += kStretch<T>) {
    const std::int64_t end = begin + kStretch<T> < whole ? begin + kStretch<T> : whole;
    add_all(own.rows, other.rows, begin, end);
  }
  if (whole < columns) add_all(own.tails, other.tails, 0, kLanes<T>);
}

template <typename T>
void forward_block(const Forward& job, std::int64_t first_row, std::int64_t first_column) {
  const int edge = job.edge;
  const std::int64_t width = job.y.size[0];
  const std::int64_t rows = job.x.size[0] - first_row < edge ? job.x.size[0] - first_row : edge;
  const std::int64_t columns = width - first_column < edge ? width - first_column : edge;
  T sums[kMaxEdge * kMaxEdge];
  T values[kMaxEdge][kMaxEdge];
  if (sums_squares(job.metric)) {
    sum_block<true>(job, first_row, first_column, sums);
  } else {
    sum_block<false>(job, first_row, first_column, sums);
  }
  for (int r = 0; r < edge; ++r) {
    for (int c = 0; c < edge; c += kTileColumns) {
      const T* const from = sums + slot(edge, r, c);
      __builtin_memcpy(values[r] + c, from, kTileColumns * sizeof(T));
    }
  }

  double norms[kMaxEdge] = {};
  for (std::int64_t c = 0; c < columns; ++c) norms[c] = norm_of(job.norm_y, first_column + c);
  with_metric(job.metric, [&](auto metric) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const double norm = norm_of(job.norm_x, first_row + r);
      const std::int64_t itself = job.same ? first_row + r - first_column : -1;
      for (std::int64_t c = 0; c < columns; ++c) {
        values[r][c] = finish(metric(), values[r][c], job.x.size[1], norm, norms[c], c == itself);
      }
    }
  });

  T* const out = static_cast<T*>(job.distance.data) + first_row * width + first_column;
  T* const mirrored = static_cast<T*>(job.distance.data) + first_column * width + first_row;
  const bool on_diagonal = job.same && first_row == first_column;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = on_diagonal ? r : 0; c < columns; ++c) out[r * width + c] = values[r][c];
  }
  for (std::int64_t c = 0; job.same && c < columns; ++c) {
    const std::int64_t to = on_diagonal ? c : rows;
    for (std::int64_t r = 0; r < to; ++r) mirrored[c * width + r] = values[r][c];
  }
}

}  // namespace

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

}  // namespace ecgfast::pairwise_distance::ECGFAST_ISA
