// pairwise_distance: how far every row of x lies from every row of y.
//
// Math      x (N, D), y (M, D), or y = x; a = x_i, b = y_j; u = a / |a|, v = b / |b|
//             sqeuclidean  sum (a - b)^2              euclidean  sqrt of that
//             cosine       1 - <u, v>, computed as sum (u - v)^2 / 2
//             l1           sum |a - b|                mean_l1    sum |a - b| / D
//           backward, g = dLoss/dd, one side at a time (the other is the same with x and y
//           swapped):
//             dx_i = sum_j c_ij f(a - b);  y = x: c_ij = c(g_ij + g_ji)
//             sqeuclidean  c = 2 g, f(t) = t          euclidean  c = g / d, 0 where d = 0, f(t) = t
//             l1  c = g, mean_l1  c = g / D,  f = sign, with 0 at ties
//             cosine       c = g, f(t) = t gives du of the unit rows; dx = (du - u <u, du>) / |a|
// Shapes    x (N, D), y (M, D), unit rows alike, last axis dense; d, g (N, M), d dense, g of any
//           strides; norms (N,), (M,) in f64; dx (N, D) dense
// Units     those of x: sqeuclidean in their square, cosine without
// Cost      O(N M D): 3 flops a pair and column (subtract, multiply or abs, add), half the pairs
// when
//           y = x; backward the same again for each side, never by symmetry; bound by arithmetic
//           from about 32 rows on
// Traffic   least: x and y once, d once; blocks of rows and columns keep what is read twice in
//           cache; never anything of size N M D
// Numbers   differences are taken first and then summed, so near rows lose nothing; nothing is
//           expanded into norms and products. Sums in f32 for f16, bf16, f32 and in f64 for f64, in
//           an order that D alone fixes: a pair gives the same bits in any batch, on any number of
//           threads, and either way round. Norms of cosine are summed in f64
// Edges     D >= 1; N = 0 or M = 0 is a no-op; equal rows are at 0 exactly, with gradient 0; a zero
//           row is at cosine distance 1 from every other (its diagonal at y = x is 0), gradient 0;
//           a NaN stays in its row and column; a square beyond the dtype is inf, as in torch
// Mirrors   pairwise_distance_reference in ecgfast/ops/pairwise_distance.py
#pragma once

#include "core/isa.h"

namespace ecgfast::pairwise_distance {

// As METRICS in the face numbers them.
enum class Metric : int { sqeuclidean = 0, euclidean = 1, cosine = 2, l1 = 3, mean_l1 = 4 };

// The rows at length 1, in the dtype of sums, and what length they had; a zero row stays one.
struct UnitRows {
  View x, unit, norm;
};

// With cosine x and y are unit rows; without it norm_x and norm_y are empty.
struct Forward {
  View x, y, norm_x, norm_y, distance;
  View partial;  // scratch of a device, (S, N, M): sums of kSegment columns each; S = 0 without
  Metric metric;
  bool same;  // y is x: only the upper triangle is computed
  int edge;   // of a block of pairs, the item of work on the CPU
};

struct Backward {
  View x, y, norm_x, norm_y, distance, grad, grad_x;
  Metric metric;
  bool same;
};

// From the gradient of unit rows to that of the rows, in place.
struct Project {
  View unit, norm, grad;
};

constexpr int kMaxEdge = 32;       // of a block of pairs in Forward, a multiple of 4
constexpr int kGradRows = 16;      // an item of Backward: so many rows ...
constexpr int kGradColumns = 512;  // ... by so many columns of x
constexpr int kSegment = 1024;     // columns that a device sums before it adds them to a total

ECGFAST_DECLARE(unit_rows, UnitRows)
ECGFAST_DECLARE(forward, Forward)
ECGFAST_DECLARE(backward, Backward)
ECGFAST_DECLARE(project, Project)

}  // namespace ecgfast::pairwise_distance
