// A row of a strip on a device: what a pair is, how far apart, and the direct part of a gradient.
#pragma once

#include "core/cuda.cuh"
#include "pair_hinge/pair.h"

namespace ecgfast::pair_hinge::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// What all pairs of a row share.
template <typename A>
struct Row {
  Global<const A> x;
  Global<const std::int32_t> labels, groups;  // of the columns
  Global<const std::int64_t> places;
  std::int64_t r, number, itself, width;
  std::int32_t label, group;
  A norm;
};

template <typename A>
__device__ Row<A> row_of(const Strip& s, std::int64_t r) {
  Row<A> row{};
  row.x = record<const A>(s.x, r);
  row.labels = global<const std::int32_t>(s.column_labels);
  row.groups = global<const std::int32_t>(s.column_groups);
  row.places = global<const std::int64_t>(s.places);
  row.r = r;
  row.number = s.first + r;
  row.itself = s.by_column ? -1 : row.places[r];
  row.width = s.products.size[1];
  row.label = global<const std::int32_t>(s.row_labels)[r];
  row.group = global<const std::int32_t>(s.row_groups)[r];
  row.norm = s.metric == Metric::cosine ? A(0) : global<const A>(s.norm_x)[r];
  return row;
}

template <typename A>
__device__ std::int32_t kind_of(const Strip& s, const Row<A>& row, std::int64_t j) {
  if (s.by_column ? row.places[j] == row.number : j == row.itself) return kNeither;
  const std::int32_t label = row.labels[j];
  if (is_positive(row.label, label)) return kPositive;
  return is_negative(row.label, label, row.group, row.groups[j]) ? kNegative : kNeither;
}

// The distance of a pair from its product; marks in kind that it is near, and measures it directly.
template <typename A>
__device__ A measure(const Strip& s, const Row<A>& row, std::int64_t j, A product,
                     std::int32_t& kind) {
  if (s.metric == Metric::cosine) return 1 - product;
  const A both = row.norm + global<const A>(s.norm_y)[j];
  A square = both - 2 * product;
  if (square < static_cast<A>(kNear) * both) {
    kind |= kClose;
    if (close_pair(kind)) {
      const Global<const A> y = record<const A>(s.y, j);
      square = 0;
#pragma unroll 1  // few pairs come here; registers are for the others
      for (std::int64_t t = 0; t < s.x.size[1]; ++t)
        square += (row.x[t] - y[t]) * (row.x[t] - y[t]);
    }
  }
  square = square < 0 ? A(0) : square;  // a NaN stays
  return s.metric == Metric::euclidean ? sqrt(square) : square;
}

// dx += c_j (x - y_j) over kThreads columns from `begin` on, each thread bringing the c of its own,
// 0 if that pair is not near. All threads of the block come here.
template <typename A>
__device__ void add_near(const Strip& s, const Row<A>& row, std::int64_t begin, A own,
                         Global<A> dx) {
  ECGFAST_SHARED(A, near, kThreads);
  ECGFAST_SHARED(unsigned, votes, kWarps);
  const unsigned vote = ballot(own != 0);
  near[thread_index()] = own;
  if (lane_index() == 0) votes[warp_index()] = vote;
  sync_block();
#pragma unroll 1
  for (int warp = 0; warp < kWarps; ++warp) {
#pragma unroll 1
    for (int lane = 0; lane < 32 && votes[warp] >> lane != 0; ++lane) {
      if ((votes[warp] >> lane & 1) == 0) continue;
      const A c = near[32 * warp + lane];
      const Global<const A> y = record<const A>(s.y, begin + 32 * warp + lane);
      for (std::int64_t t = thread_index(); t < s.x.size[1]; t += kThreads) {
        dx[t] += c * (row.x[t] - y[t]);
      }
    }
  }
  sync_block();
}

// dx += total x
template <typename A>
__device__ void add_scaled(const View& x, std::int64_t r, A total, Global<A> dx) {
  const Global<const A> own = record<const A>(x, r);
  for (std::int64_t t = thread_index(); t < x.size[1]; t += kThreads) dx[t] += total * own[t];
}

template <typename A>
__device__ Global<A> updated_row(const View& view, std::int64_t r) {
  return update<A>(view) + r * view.stride[0];
}

}  // namespace
}  // namespace ecgfast::pair_hinge::cuda
