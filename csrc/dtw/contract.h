// dtw: dynamic time warping between all pairs of records, over time, all leads warped together.
//
// Math      x_i of n samples, y_j of m samples; the local cost over the leads l of samples s and t
//             sqeuclidean  c(s,t) = sum (x - y)^2      euclidean  sqrt of that      l1  sum |x - y|
//             expanded     c(s,t) = max(0, |x|^2 + |y|^2 - 2 sum x y), which is sqeuclidean
//           D(s,t) = c(s,t) + min(D(s-1,t), D(s,t-1), D(s-1,t-1)), D(-1,-1) = 0, else inf outside,
//           and inf where t - s < -r - max(0, n - m) or t - s > r + max(0, m - n)
//           d_ij = D(n-1,m-1), its square root with `root`
//           r = radius, or trunc(fraction min(n,m)): a band that holds the difference of lengths,
//           so that there always is a path
// Shapes    x (N, L, T), y (M, L, U), or y = x; lengths n (N,), m (M,) in i64, or none: T and U;
//           d (N, M) in C order; packed forms and scratch as dtw_shapes says
// Units     those of x: sqeuclidean without root in their square
// Cost      O(N M T U L), with a band O(N M (2 r + 1) T L), half of it when y = x: on the CPU
//           3 L + 3 operations a cell, less L where a multiply and an add are one; expanded L + 5
//           there; bound by arithmetic
// Traffic   x and y are packed once; a pair keeps one row of costs, never a T x U matrix
// Numbers   f32 or f64 all through. Differences come first: near records lose nothing. expanded
//           alone cancels: a cost is off by (3 L + 1) u (|x|^2 + |y|^2) at most, u half a unit. No
//           offset is taken off: it would have to be one for all records of all batches.
//           Every cell is the same operations in the same order whatever the batch, the threads,
//           the lanes or the side it is seen from, so d_ij = d_ji and a pair alone = in a batch,
//           bit for bit (-2 y is exact). AVX2, AVX-512 and CUDA agree bitwise too but for cost
//           euclidean on CUDA, whose root is approximate; the baseline has no fused multiply-add
//           and agrees for l1. Relative error against f64 under 3e-6 at T = 5000, but of expanded
// Edges     N = 0 or M = 0 is a no-op; n, m >= 1; the diagonal of y = x is 0; a NaN or an infinity
//           makes all distances of its record NaN, past its length it is not looked at; a sum
//           or, of expanded, a norm beyond the dtype is inf; equal records are at 0, but of
//           expanded in the diagonal of y = x alone; r = 0 and n = m is the distance without
//           warping
// Mirrors   dtw_reference in ecgfast/ops/dtw.py
#pragma once

#include "core/dispatch.h"
#include "core/isa.h"

namespace ecgfast::dtw {

// As COSTS in the face numbers them, then sqeuclidean in precision "fast".
enum class Cost : int { sqeuclidean = 0, euclidean = 1, l1 = 2, expanded = 3 };

// Both forms that pairs are made of; one that is not wanted has no records.
struct Prepare {
  View x, length;  // without lengths (0,)
  View rows;       // the side that stands still
  View columns;    // the side that passes by
  View finite;     // (N,) in i32
  bool expanded;   // as Cost::expanded takes them: with norms, and the columns times -2
};

struct Forward {
  View rows, columns, x_length, y_length, x_finite, y_finite;
  View scratch;  // CPU: a row of costs for each thread; device: an edge for each pair of a launch
  View distance;
  Cost cost;
  std::int64_t leads, x_samples, y_samples;
  std::int64_t radius;
  double fraction;  // below 0 without
  bool root;
  bool same;    // y is x: each pair is computed once
  bool banded;  // some pair may have a band
};

constexpr int kPad = 16;    // the most lanes of a vector: columns in front of, and behind, a record
constexpr int kStrip = 64;  // the most rows of a strip, 4 a lane
constexpr int kBefore =
    32;                     // rows in front of a record on a device, as many as lanes of a warp ...
constexpr int kAfter = 64;  // ... and behind it, for copies made ahead
constexpr int kMostColumns = 128;     // of a pass on a device, one of them perhaps begun
constexpr int kMostDeviceLeads = 24;  // so many leads of two columns fit into registers

// Cells of pair (n, m) have lo <= column - row <= hi.
struct Band {
  std::int64_t lo, hi;
};

ECGFAST_HD static inline Band band_of(const Forward& job, std::int64_t n, std::int64_t m) {
  const std::int64_t least = n < m ? n : m;
  const std::int64_t radius =
      job.fraction < 0 ? job.radius
                       : static_cast<std::int64_t>(job.fraction * static_cast<double>(least));
  return {-radius - (n > m ? n - m : 0), radius + (m > n ? m - n : 0)};
}

ECGFAST_DECLARE(prepare, Prepare)
ECGFAST_DECLARE(forward, Forward)

}  // namespace ecgfast::dtw
