// CUDA kernels of pairwise_distance; see contract.h.
#include "core/cuda.cuh"
#include "core/triangle.h"
#include "pairwise_distance/metric.h"

namespace ecgfast::pairwise_distance::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;          // rows and columns of a block's tile of results
constexpr int kOwn = 4;            // a thread's share of it: 4 x 4
constexpr int kDepth = 32;         // columns, or rows of y, in shared memory at a time
constexpr int kPitch = kTile + 4;  // keeps vectors of 4 aligned and stores off one bank
constexpr int kWarps = kThreads / 32;
static_assert(kTile / kOwn * (kTile / kOwn) == kThreads && kSegment % kDepth == 0);

__host__ __device__ std::int64_t parts(std::int64_t count, std::int64_t size) {
  return (count + size - 1) / size;
}

// Element n of the norms, which cosine alone has.
__device__ double norm_of(const View& norm, std::int64_t n) {
  return norm.size[0] == 0 ? 1 : global<const double>(norm)[n];
}

// The first row and column of a block's tile.
__device__ Cell tile_of(const Forward& job, std::int64_t block) {
  const std::int64_t width = parts(job.y.size[0], kTile);
  const Cell tile = job.same ? triangle_cell(block) : Cell{block / width, block % width};
  return {tile.row * kTile, tile.column * kTile};
}

template <typename A>
__device__ void write_pair(const Forward& job, std::int64_t i, std::int64_t j, A sum) {
  const std::int64_t width = job.y.size[0];
  const A value = finish(job.metric, sum, job.x.size[1], norm_of(job.norm_x, i),
                         norm_of(job.norm_y, j), job.same && i == j);
  const auto distance = global<A>(job.distance);
  distance[i * width + j] = value;
  if (job.same) distance[j * width + i] = value;
}

// 64 rows by 32 columns of x, turned so that a column lies in one piece; zeros past its ends.
template <typename T, typename A>
__device__ void stage(const View& x, std::int64_t first_row, std::int64_t first, Shared<A> to) {
  const std::int64_t t = first + lane_index();
  for (int r = warp_index(); r < kTile; r += kWarps) {
    const std::int64_t n = first_row + r;
    const bool inside = n < x.size[0] && t < x.size[1];
    to[lane_index() * kPitch + r] = inside ? static_cast<A>(record<const T>(x, n)[t]) : A(0);
  }
}

// Four neighbours in shared memory: one load for floats.
template <typename A>
__device__ void load_own(Shared<const A> from, A (&to)[kOwn]) {
  if constexpr (sizeof(A) == sizeof(float)) {
    const float4 four = load_as<float4>(from);
    to[0] = four.x;
    to[1] = four.y;
    to[2] = four.z;
    to[3] = four.w;
  } else {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) to[k] = from[k];
  }
}

// A block computes a tile of 64 x 64 pairs, a thread 4 x 4 of them. Grid: tiles (the upper
// triangle when y is x), segments of columns or 1. Reads x and y, writes distance or partial.
template <bool kSquares, typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward job) {
  using A = acc_t<T>;
  ECGFAST_SHARED(A, own, kDepth * kPitch);
  ECGFAST_SHARED(A, other, kDepth * kPitch);
  const Cell tile = tile_of(job, block_index());
  const int r0 = thread_index() / (kTile / kOwn) * kOwn;
  const int c0 = thread_index() % (kTile / kOwn) * kOwn;
  const bool split = job.partial.size[0] != 0;
  const std::int64_t columns = job.x.size[1];
  const std::int64_t begin = split ? static_cast<std::int64_t>(block_index_y()) * kSegment : 0;
  const std::int64_t end = split && begin + kSegment < columns ? begin + kSegment : columns;

  // Sums of 32 columns, of a segment, of all: every level is short, so that roundings stay few.
  A total[kOwn][kOwn] = {};
  A segment[kOwn][kOwn] = {};
  for (std::int64_t first = begin; first < end; first += kDepth) {
    sync_block();  // the former columns may still be read
    stage<T>(job.x, tile.row, first, own);
    stage<T>(job.y, tile.column, first, other);
    sync_block();
    A part[kOwn][kOwn] = {};
    for (int t = 0; t < kDepth; ++t) {
      A a[kOwn];
      A b[kOwn];
      load_own<A>(own + t * kPitch + r0, a);
      load_own<A>(other + t * kPitch + c0, b);
#pragma unroll
      for (int r = 0; r < kOwn; ++r) {
#pragma unroll
        for (int c = 0; c < kOwn; ++c) {
          const A apart = a[r] - b[c];
          part[r][c] += kSquares ? apart * apart : fabs(apart);
        }
      }
    }
    const bool full = first + kDepth >= end || (first + kDepth - begin) % kSegment == 0;
#pragma unroll
    for (int r = 0; r < kOwn; ++r) {
#pragma unroll
      for (int c = 0; c < kOwn; ++c) {
        segment[r][c] += part[r][c];
        if (!full) continue;
        total[r][c] += segment[r][c];
        segment[r][c] = 0;
      }
    }
  }

#pragma unroll
  for (int r = 0; r < kOwn; ++r) {
#pragma unroll
    for (int c = 0; c < kOwn; ++c) {
      const std::int64_t i = tile.row + r0 + r;
      const std::int64_t j = tile.column + c0 + c;
      if (i >= job.x.size[0] || j >= job.y.size[0] || (job.same && j < i)) continue;
      if (split) {
        update<A>(job.partial)[block_index_y() * job.partial.stride[0] + i * job.y.size[0] + j] =
            total[r][c];
      } else {
        write_pair(job, i, j, total[r][c]);
      }
    }
  }
}

// One thread a pair. Grid: pairs. Reads partial, adds its segments in order, writes distance.
template <typename A>
__global__ void __launch_bounds__(kThreads) combine_kernel(Forward job) {
  const std::int64_t width = job.y.size[0];
  const std::int64_t pair = static_cast<std::int64_t>(block_index()) * kThreads + thread_index();
  const std::int64_t i = pair / width;
  const std::int64_t j = pair % width;
  if (i >= job.x.size[0] || (job.same && j < i)) return;
  A sum = 0;
  for (std::int64_t s = 0; s < job.partial.size[0]; ++s) {
    sum += update<A>(job.partial)[s * job.partial.stride[0] + pair];
  }
  write_pair(job, i, j, sum);
}

// A block computes 64 rows by 64 columns of the gradient, a thread 4 x 4. Grid: row tiles by column
// tiles, the latter the faster. Reads x, y, distance and its gradient, writes grad_x.
template <bool kSigns, typename T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 1 : 2) backward_kernel(Backward job) {
  using A = acc_t<T>;
  ECGFAST_SHARED(A, weights, kDepth * kPitch);
  ECGFAST_SHARED(A, others, kDepth * kPitch);
  const std::int64_t columns = job.x.size[1];
  const std::int64_t width = parts(columns, kTile);
  const std::int64_t first_row = block_index() / width * kTile;
  const std::int64_t first = block_index() % width * kTile;
  const int r0 = thread_index() / (kTile / kOwn) * kOwn;
  const int c0 = thread_index() % (kTile / kOwn) * kOwn;
  const auto grad = global<const A>(job.grad);
  const auto distance = global<const A>(job.distance);

  A own[kOwn][kOwn] = {};
#pragma unroll
  for (int r = 0; r < kOwn; ++r) {
    const std::int64_t i = first_row + r0 + r;
#pragma unroll
    for (int c = 0; c < kOwn; ++c) {
      const std::int64_t t = first + c0 + c;
      if (i < job.x.size[0] && t < columns) {
        own[r][c] = static_cast<A>(record<const T>(job.x, i)[t]);
      }
    }
  }

  A total[kOwn][kOwn] = {};
  for (std::int64_t begin = 0; begin < job.y.size[0]; begin += kDepth) {
    sync_block();  // the former rows may still be read
    for (int r = warp_index(); r < kTile; r += kWarps) {
      const std::int64_t i = first_row + r;
      const std::int64_t j = begin + lane_index();
      A weight = 0;
      if (i < job.x.size[0] && j < job.y.size[0]) {
        A g = grad[i * job.grad.stride[0] + j * job.grad.stride[1]];
        if (job.same) g += grad[j * job.grad.stride[0] + i * job.grad.stride[1]];
        const A d = distance[i * job.distance.stride[0] + j * job.distance.stride[1]];
        weight =
            coefficient(job.metric, g, d, columns, norm_of(job.norm_x, i), norm_of(job.norm_y, j));
      }
      weights[lane_index() * kPitch + r] = weight;
    }
    for (int k = warp_index(); k < kDepth; k += kWarps) {
      const std::int64_t j = begin + k;
      for (int c = lane_index(); c < kTile; c += 32) {
        const bool inside = j < job.y.size[0] && first + c < columns;
        others[k * kPitch + c] =
            inside ? static_cast<A>(record<const T>(job.y, j)[first + c]) : A(0);
      }
    }
    sync_block();

    A part[kOwn][kOwn] = {};
    for (int k = 0; k < kDepth && begin + k < job.y.size[0]; ++k) {
      A weight[kOwn];
      A b[kOwn];
      load_own<A>(weights + k * kPitch + r0, weight);
      load_own<A>(others + k * kPitch + c0, b);
#pragma unroll
      for (int r = 0; r < kOwn; ++r) {
#pragma unroll
        for (int c = 0; c < kOwn; ++c) {
          if constexpr (kSigns) {
            part[r][c] += own[r][c] > b[c] ? weight[r] : own[r][c] < b[c] ? -weight[r] : A(0);
          } else {
            part[r][c] += weight[r] * (own[r][c] - b[c]);
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kOwn; ++r) {
#pragma unroll
      for (int c = 0; c < kOwn; ++c) total[r][c] += part[r][c];
    }
  }

#pragma unroll
  for (int r = 0; r < kOwn; ++r) {
    const std::int64_t i = first_row + r0 + r;
#pragma unroll
    for (int c = 0; c < kOwn; ++c) {
      const std::int64_t t = first + c0 + c;
      if (i < job.x.size[0] && t < columns) global<A>(job.grad_x)[i * columns + t] = total[r][c];
    }
  }
}

// One block a row. Grid: rows. Reads x, writes the unit row and one norm.
template <typename T>
__global__ void __launch_bounds__(kThreads) unit_rows_kernel(UnitRows job) {
  using A = acc_t<T>;
  const std::int64_t length = job.x.size[1];
  const auto x = record<const T>(job.x, block_index());
  const auto unit = record<A>(job.unit, block_index());
  double squares = 0;
  for (std::int64_t t = thread_index(); t < length; t += kThreads) {
    const double value = static_cast<double>(static_cast<A>(x[t]));
    squares += value * value;
  }
  squares = block_sum<kThreads>(squares);
  // a row without end has no direction: inf - inf makes its norm NaN
  const double norm = sqrt(squares) + (squares - squares);
  const double divisor = norm == 0 ? 1 : norm;
  for (std::int64_t t = thread_index(); t < length; t += kThreads) {
    unit[t] = static_cast<A>(static_cast<double>(static_cast<A>(x[t])) / divisor);
  }
  if (thread_index() == 0) global<double>(job.norm)[block_index()] = norm;
}

// One block a row. Grid: rows. Reads the unit row, changes the gradient in place.
template <typename A>
__global__ void __launch_bounds__(kThreads) project_kernel(Project job) {
  const std::int64_t length = job.unit.size[1];
  const auto unit = record<const A>(job.unit, block_index());
  const auto grad = update<A>(job.grad) + block_index() * length;
  const double norm = global<const double>(job.norm)[block_index()];
  const double divisor = norm == 0 ? 1 : norm;
  double along = 0;
  for (std::int64_t t = thread_index(); t < length; t += kThreads) {
    along += static_cast<double>(unit[t]) * static_cast<double>(grad[t]);
  }
  along = block_sum<kThreads>(along);
  for (std::int64_t t = thread_index(); t < length; t += kThreads) {
    grad[t] = static_cast<A>((grad[t] - unit[t] * along) / divisor);
  }
}

}  // namespace

void unit_rows(const UnitRows& job, std::uint64_t stream) {
  const Grid grid{static_cast<unsigned>(job.x.size[0])};
  dispatch_float(job.x.dtype, [&](auto zero) {
    launch<unit_rows_kernel<decltype(zero)>>(grid, kThreads, 0, stream, job);
  });
}

void forward(const Forward& job, std::uint64_t stream) {
  const std::int64_t height = parts(job.x.size[0], kTile);
  const std::int64_t tiles =
      job.same ? triangle_size(height) : height * parts(job.y.size[0], kTile);
  const std::int64_t segments = job.partial.size[0];
  const Grid grid{static_cast<unsigned>(tiles), static_cast<unsigned>(segments ? segments : 1)};
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (sums_squares(job.metric)) {
      launch<forward_kernel<true, T>>(grid, kThreads, 0, stream, job);
    } else {
      launch<forward_kernel<false, T>>(grid, kThreads, 0, stream, job);
    }
    if (segments == 0) return;
    const Grid pairs{static_cast<unsigned>(parts(job.x.size[0] * job.y.size[0], kThreads))};
    launch<combine_kernel<acc_t<T>>>(pairs, kThreads, 0, stream, job);
  });
}

void backward(const Backward& job, std::uint64_t stream) {
  const std::int64_t tiles = parts(job.x.size[0], kTile) * parts(job.x.size[1], kTile);
  const Grid grid{static_cast<unsigned>(tiles)};
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (sums_squares(job.metric)) {
      launch<backward_kernel<false, T>>(grid, kThreads, 0, stream, job);
    } else {
      launch<backward_kernel<true, T>>(grid, kThreads, 0, stream, job);
    }
  });
}

void project(const Project& job, std::uint64_t stream) {
  const Grid grid{static_cast<unsigned>(job.unit.size[0])};
  if (job.unit.dtype == DType::f64) {
    launch<project_kernel<double>>(grid, kThreads, 0, stream, job);
  } else {
    launch<project_kernel<float>>(grid, kThreads, 0, stream, job);
  }
}

}  // namespace ecgfast::pairwise_distance::cuda
