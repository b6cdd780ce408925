// pair_hinge: hinges on the distances of all pairs, and of all triplets, of embeddings.
//
// Math      x (N, D) anchors, y (M, D) references, or y = x; s_ij = <x_i, y_j>
//             sqeuclidean  d = |x_i|^2 + |y_j|^2 - 2 s     euclidean  sqrt of that
//             cosine       d = 1 - s, of rows that have length 1 already
//           P_i positives, Q_i negatives of anchor i as core/relation.h says; a_i, b_i thresholds
//             pairs     sum_{p in P_i} max(0, d_ip - a_i),  sum_{q in Q_i} max(0, b_i - d_iq)
//             triplets  sum_{p in P_i} sum_{q in Q_i} max(0, d_ip - d_iq + m)
//           by ranks: t_q = d_iq - m, n_q = how many d_ip > t_q, n_p = how many t_q < d_ip;
//             the sum is sum_p n_p d_ip - sum_q n_q t_q, the active ones number sum_q n_q
//           backward, G_ij = dLoss/dd_ij: for pairs +g, -g or 0, for triplets g_i n_p, -g_i n_q
//             c = 2 G (sqeuclidean), G / d and 0 where d = 0 (euclidean):
//               dx_i += sum_j c_ij (x_i - y_j)    dy_j += sum_i c_ij (y_j - x_i)
//             cosine: dx_i -= sum_j G_ij y_j      dy_j -= sum_i G_ij x_i
// Shapes    a strip (R, M) of s, dense: rows of x, all of y; every job reads it and may write into
//           it; x (R, D), y (M, D) last axis dense; squares of norms (R,), (M,); labels and groups
//           i32 (R,), (M,); places i64 (R,), or (M,) if the columns are the anchors; thresholds,
//           sums, their gradients (2, R), (2, M), counts i64 (4, R), any stride along the first
//           axis: positive, negative (counts: active, then all); of triplets sums (R,), counts
//           (2, R): active, all; dx (R, D), dy (M, D) are added to; coefficients -c (cosine: -G)
//           overwrite the strip, for a product with y or x that the caller adds
// Units     those of x; their square for sqeuclidean; none for cosine
// Cost      pairs: some 20 flops a pair; triplets: P log P + (P + Q) log P a row, never P Q;
//           besides the caller's products, 2 D flops a pair forward and 6 to 8 D backward
// Traffic   the strip once forward, read and written once backward (triplets: and read once more
//           by columns); scratch of triplets: a row of each thread, on a device two strips
// Numbers   d^2 under kNear (|x_i|^2 + |y_j|^2) is summed directly from the rows, and such pairs
//           give their gradient directly, not by products: nothing cancels. Sums over a block of
//           pairs in the dtype of the strip, over blocks in f64; f64 for ranks' sums. Integers
//           are exact. Orders are fixed: threads do not show
// Edges     the corner of a hinge is inactive; no positives, no negatives, N = 0 or M = 0 give 0;
//           equal rows are at 0 with gradient 0; a NaN pair gives NaN sums, is not counted as
//           active, and its gradients are NaN, also for rows that a product takes in with it
// Mirrors   pair_hinge_reference, all_triplets_reference in ecgfast/ops
#pragma once

#include "core/isa.h"

namespace ecgfast::pair_hinge {

// As METRICS in ecgfast/ops/_pair_metric.py numbers them.
enum class Metric : int { euclidean = 0, sqeuclidean = 1, cosine = 2 };

// Beyond it the expanded square keeps all but two digits of a float.
constexpr double kNear = 0.01;

struct Strip {
  View products, x, y, norm_x, norm_y;
  View row_labels, column_labels, row_groups, column_groups, places;
  bool by_column;      // places say for each column which row it is itself
  std::int64_t first;  // number of the strip's first row
  Metric metric;
};

// Items of all but ColumnCoefficients are rows of the strip.
struct PairSums {
  Strip strip;
  View thresholds, sums, counts;
};

// Rows are anchors, columns are, or both.
struct PairCoefficients {
  Strip strip;
  View row_thresholds, row_grads, column_thresholds, column_grads, grad_x;
  bool of_rows, of_columns;
};

struct TripletSums {
  Strip strip;
  View sums, counts, values, numbers;  // the latter two are scratch
  double margin;
};

// Near pairs keep their coefficient with the wrong sign, for ColumnCoefficients to find.
struct TripletCoefficients {
  Strip strip;
  View grads, grad_x, values, numbers;
  double margin;
};

// What the columns get of near pairs and of the sums of their coefficients; then the strip is
// ready for products. Items are columns.
struct ColumnCoefficients {
  Strip strip;
  View grads, grad_y;
};

ECGFAST_DECLARE(pair_sums, PairSums)
ECGFAST_DECLARE(pair_coefficients, PairCoefficients)
ECGFAST_DECLARE(triplet_sums, TripletSums)
ECGFAST_DECLARE(triplet_coefficients, TripletCoefficients)
ECGFAST_DECLARE(column_coefficients, ColumnCoefficients)

}  // namespace ecgfast::pair_hinge
