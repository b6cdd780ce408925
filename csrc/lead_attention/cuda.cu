// CUDA kernels of lead_attention; see contract.h.
//
// The numbers of a row are few: its keys and values are read again and again, from L1. A thread
// owns one query of one head, in backward afterwards one key of one head, and adds in the order of
// tokens, so that there is nothing to reduce between threads.
#include "core/cuda.cuh"
#include "lead_attention/contract.h"

namespace ecgfast::lead_attention::cuda {
namespace {

constexpr int kThreads = 160;  // 8 heads of 19 tokens are 152 queries
constexpr double kLog2E = 1.4426950408889634074;

// Tokens that a thread of backward looks at side by side: as registers allow.
template <int kColumns>
constexpr int kTokens = kColumns == 2 ? 4 : 1;

__device__ inline float exp2_of(float x) { return exp2_approx(x); }
__device__ inline double exp2_of(double x) { return exp2(x); }

// Row r of a view whose first two axes are N and L.
template <typename T>
__device__ Global<T> lead_of(const View& view, std::int64_t r) {
  return record<T>(view, r / view.size[1]) + (r % view.size[1]) * view.stride[1];
}

// Some columns of one token, in registers; kColumns is 2 where there are 2, else 8.
template <typename A, int kColumns>
struct Columns {
  A value[kColumns];
  int count;

  __device__ bool has(int c) const { return kColumns == 2 || c < count; }

  __device__ explicit Columns(int columns) : value{}, count(columns) {}

  template <typename T>
  __device__ Columns(const Global<const T>& from, int columns, A scale) : value{}, count(columns) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (has(c)) value[c] = scale * static_cast<A>(from[c]);
    }
  }

  // With the other scaled, as the constructor scales: a query by a key is the same, bit for bit,
  // whichever of them is in registers.
  template <typename T>
  __device__ A dot(const Global<const T>& other, A scale = A(1)) const {
    A sum = 0;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (has(c)) sum += value[c] * (scale * static_cast<A>(other[c]));
    }
    return sum;
  }

  template <typename T>
  __device__ void add(A weight, const Global<const T>& other) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (has(c)) value[c] += weight * static_cast<A>(other[c]);
    }
  }

  template <typename T>
  __device__ void write(const Global<T>& to, A scale) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (has(c)) to[c] = static_cast<T>(value[c] * scale);
    }
  }
};

// Queries, keys and values of one head of one row.
template <typename T>
struct Head {
  Global<const T> q, k, v;
  std::int64_t stride;
};

template <typename T>
__device__ Head<T> head_of(const View& qkv, std::int64_t r, int first_column) {
  const Global<const T> q = lead_of<const T>(qkv, r) + first_column;
  const std::int64_t width = qkv.size[3] / 3;
  return {q, q + width, q + 2 * width, qkv.stride[2]};
}

template <typename A>
__device__ A scale_of(int columns) {
  return static_cast<A>(1) / sqrt(static_cast<A>(columns));
}

// One block a row, one thread a query of a head. Grid: rows. Reads qkv, writes y and maybe maps.
template <typename T, int kColumns>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward job) {
  using A = acc_t<T>;
  const std::int64_t r = block_index();
  const int tokens = static_cast<int>(job.y.size[2]);
  const int heads = static_cast<int>(job.heads);
  const int columns = static_cast<int>(job.y.size[3]) / heads;
  for (int task = thread_index(); task < heads * tokens; task += kThreads) {
    const int h = task / tokens;
    const int i = task % tokens;
    const Head<T> head = head_of<T>(job.qkv, r, h * columns);
    const Columns<A, kColumns> q(head.q + i * head.stride, columns,
                                 scale_of<A>(columns) * static_cast<A>(kLog2E));
    A most = -static_cast<A>(INFINITY);
    for (int j = 0; j < tokens; ++j) {
      const A score = q.dot(head.k + j * head.stride);
      most = score > most ? score : most;
    }
    A sum = 0;
    Columns<A, kColumns> y(columns);
    for (int j = 0; j < tokens; ++j) {
      const A weight = exp2_of(q.dot(head.k + j * head.stride) - most);
      sum += weight;
      y.add(weight, head.v + j * head.stride);
    }
    const A share = A(1) / sum;
    y.write(lead_of<T>(job.y, r) + i * job.y.stride[2] + h * columns, share);
    if (job.maps.data == nullptr) continue;
    const Global<T> map = lead_of<T>(job.maps, r) + static_cast<std::int64_t>(task) * tokens;
    for (int j = 0; j < tokens; ++j) {
      map[j] = static_cast<T>(exp2_of(q.dot(head.k + j * head.stride) - most) * share);
    }
  }
}

// One block a row; one thread a query of a head, then one a key of a head. Grid: rows. Reads qkv
// and grad_y, writes grad_qkv.
template <typename T, int kColumns>
__global__ void __launch_bounds__(kThreads, 1) backward_kernel(Backward job) {
  using A = acc_t<T>;
  const std::int64_t r = block_index();
  const int tokens = static_cast<int>(job.grad_y.size[2]);
  const int width = static_cast<int>(job.grad_y.size[3]);
  const int heads = static_cast<int>(job.heads);
  const int columns = width / heads;
  const int queries = heads * tokens;
  const A scale = scale_of<A>(columns);
  const A scale2 = scale * static_cast<A>(kLog2E);
  const std::int64_t g_stride = job.grad_y.stride[2];
  const std::int64_t out_stride = job.grad_qkv.stride[2];
  const Shared<A> greatest = dynamic_shared<A>();  // of a query: its score
  const Shared<A> shares = greatest + queries;     // 1 / the sum of its weights
  const Shared<A> means = greatest + 2 * queries;  // of what pulls at them

  for (int task = thread_index(); task < queries; task += kThreads) {
    const int first = task / tokens * columns;
    const int i = task % tokens;
    const Head<T> head = head_of<T>(job.qkv, r, first);
    const Columns<A, kColumns> q(head.q + i * head.stride, columns, scale2);
    const Columns<A, kColumns> g(lead_of<const T>(job.grad_y, r) + i * g_stride + first, columns,
                                 A(1));
    A most = -static_cast<A>(INFINITY);
#pragma unroll kTokens < kColumns>
    for (int j = 0; j < tokens; ++j) {
      const A score = q.dot(head.k + j * head.stride);
      most = score > most ? score : most;
    }
    A sum = 0;
    A pulled = 0;
#pragma unroll kTokens < kColumns>
    for (int j = 0; j < tokens; ++j) {
      const A weight = exp2_of(q.dot(head.k + j * head.stride) - most);
      sum += weight;
      pulled += weight * g.dot(head.v + j * head.stride);
    }
    const A share = A(1) / sum;
    const A mean = pulled * share;
    Columns<A, kColumns> dq(columns);
#pragma unroll kTokens < kColumns>
    for (int j = 0; j < tokens; ++j) {
      const A weight = exp2_of(q.dot(head.k + j * head.stride) - most) * share;
      dq.add(weight * (g.dot(head.v + j * head.stride) - mean), head.k + j * head.stride);
    }
    dq.write(lead_of<T>(job.grad_qkv, r) + i * out_stride + first, scale);
    greatest[task] = most;
    shares[task] = share;
    means[task] = mean;
  }
  sync_block();

  for (int task = thread_index(); task < queries; task += kThreads) {
    const int first = task / tokens * columns;
    const int j = task % tokens;
    const Head<T> head = head_of<T>(job.qkv, r, first);
    const Global<const T> g = lead_of<const T>(job.grad_y, r) + first;
    const Columns<A, kColumns> k(head.k + j * head.stride, columns, A(1));
    const Columns<A, kColumns> v(head.v + j * head.stride, columns, A(1));
    Columns<A, kColumns> dk(columns);
    Columns<A, kColumns> dv(columns);
#pragma unroll kTokens < kColumns>
    for (int i = 0; i < tokens; ++i) {
      const int query = task - j + i;
      const A score = k.dot(head.q + i * head.stride, scale2);
      const A weight = exp2_of(score - greatest[query]) * shares[query];
      dk.add(weight * (v.dot(g + i * g_stride) - means[query]), head.q + i * head.stride);
      dv.add(weight, g + i * g_stride);
    }
    const Global<T> out = lead_of<T>(job.grad_qkv, r) + j * out_stride + first;
    dk.write(out + width, scale);
    dv.write(out + 2 * width, A(1));
  }
}

unsigned rows(const View& qkv) { return static_cast<unsigned>(qkv.size[0] * qkv.size[1]); }

}  // namespace

void forward(const Forward& job, std::uint64_t stream) {
  dispatch_float(job.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Grid grid{rows(job.qkv)};
    if (job.y.size[3] == 2 * job.heads) {
      launch<forward_kernel<T, 2>>(grid, kThreads, 0, stream, job);
    } else {
      launch<forward_kernel<T, kMostColumns>>(grid, kThreads, 0, stream, job);
    }
  });
}

void backward(const Backward& job, std::uint64_t stream) {
  dispatch_float(job.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Grid grid{rows(job.qkv)};
    const std::int64_t queries = job.heads * job.qkv.size[2];
    const std::size_t shared = 3 * static_cast<std::size_t>(queries) * sizeof(acc_t<T>);
    if (job.grad_y.size[3] == 2 * job.heads) {
      launch<backward_kernel<T, 2>>(grid, kThreads, shared, stream, job);
    } else {
      launch<backward_kernel<T, kMostColumns>>(grid, kThreads, shared, stream, job);
    }
  });
}

}  // namespace ecgfast::lead_attention::cuda
