// pair_distance: how far the two rows of every listed pair lie from each other.
//
// Math      x (N, D), y (M, D), or y = x; pair k names a = x[rows_k] and b = y[columns_k];
//           v_k in {0, 1} is valid; s = 1 / |a|, t = 1 / |b|; d_k = v_k times
//             sqeuclidean  sum (a - b)^2              euclidean  sqrt of that
//             cosine       1 - <a, b> s t, computed as sum (s a - t b)^2 / 2,
//                          for s <= t by s a - t b = s (a - b) + (s - t) b
//             dot          <a, b>: a product, the larger the nearer
//           backward, g_k = dLoss/dd_k; b gets the same with a and b, s and t swapped:
//             sqeuclidean  da += 2 g (a - b)          euclidean  da += g / d (a - b), 0 at d = 0
//             cosine       da += g s ((s a - t b) - d s a)
//             dot          da += g b
// Shapes    x, y last axis dense; rows, columns (K,) i64, valid (K,) u8 or without memory (all are
//           valid), of any stride; d (K,); norms (N,), (M,) f64, kept for backward, with cosine
//           alone; owners (2, K) i32, kept for backward: the row of x and the row of y that pair k
//           gives its gradient to, kNobody if it gives none; the caller of backward writes kNobody
//           where g is 0, too. Backward is of one side, which it calls x: owners (S,) ascending,
//           stably sorted by the caller, in slots (S,) i64 where each stood; S = K, or 2 K if y is
//           x: a slot from K on is the second row of its pair
// Units     those of x: sqeuclidean and dot in their square, cosine without
// Cost      forward 3 flops a pair and dimension (2 dot, 5 cosine), backward 3 for each end (2 dot,
//           7 cosine) where g is not 0; the sort O(K). A row of x is one item of backward, however
//           many pairs share it
// Traffic   forward gathers 2 rows a pair, cosine reads all rows once more before; backward 1 row
//           for each end of a pair, besides its own row an owner; dx written once. Least: x (and y)
//           once forward; x and dx once backward, when x stays in cache; 8 bytes of owners a pair.
//           Nothing of size K x D or N x M exists
// Numbers   differences first, then squares: near rows do not cancel, equal rows are at 0 exactly,
//           and the distance is the same bits either way round; sums in f32 for f16, bf16, f32 and
//           in f64 for f64, squares of norms in f64; a row sums its parts in the order of slots
//           (CUDA: four interleaved orders, then those), so that neither threads nor runs show; no
//           atomics on floats
// Edges     K = 0 is a no-op; an invalid pair gives d = 0 and no gradient, and its indices are not
//           looked at; euclidean at d = 0 gives none either; a row shorter than the least normal
//           number is a zero row: cosine 1 from every row, itself too, without gradient; a NaN
//           shows in the pairs that use it, in no other, and a row without end has no cosine (NaN);
//           a pair with g = 0 adds nothing, whatever its rows hold; a valid pair with an index
//           outside reads no row, gives d = NaN without gradient and sets outside; N, M and 2 K
//           under 2^31 - 1
// Mirrors   pair_distance_reference in ecgfast/ops/pair_distance.py
#pragma once

#include "core/isa.h"

namespace ecgfast::pair_distance {

// As METRICS in the face numbers them.
enum class Metric : int { sqeuclidean = 0, euclidean = 1, cosine = 2, dot = 3 };

constexpr std::int32_t kNobody = INT32_MAX;  // owns the pairs without gradient

// Items are rows: how long they are, 0 for what counts as zero.
struct Norms {
  View x, norm;
};

// Items are pairs.
struct Forward {
  View x, y, rows, columns, valid, norm_x, norm_y, distance, owners;
  View outside;  // (), i32, 0 before; without memory nobody wants to know
  Metric metric;
};

// Items are rows of x, the side whose gradient it is.
struct Backward {
  View x, y, rows, columns, norm_x, norm_y, distance, owners, slots, grad, grad_x;
  Metric metric;
};

ECGFAST_DECLARE(norms, Norms)
ECGFAST_DECLARE(forward, Forward)
ECGFAST_DECLARE(backward, Backward)

}  // namespace ecgfast::pair_distance
