// mine_extreme: the nearest and the farthest partners of rows, by products, labels or distances.
//
// Math      pairs: s_ij = <x_i, y_j> from a matrix product, h = |.|^2 / 2, so
//           d_ij^2 / 2 = h_i + v_ij with v_ij = h_j - s_ij; e_ij bounds what rounding did to
//           v_ij and to direct distances
//             bound_i = min v_ij + e_ij          over legal j (max v - e where the farthest is
//             sought) result  = argmin sum (x_i - y_j)^2 over legal j with v_ij - e_ij <= bound_i
//           so the product only rules out; what it cannot tell apart is told by differences
//             semihard: legal j are farther than the chosen positive, by differences too
//           labels: nearest = argmin |t_i - t_j|, farthest = argmax; rows: argmin d_ij, k argmax
//           d_ij
// Shapes    products (R, M) dense; rows (R, D), columns (M, D), last axis dense; halves (R,), (M,)
//           NaN for who takes no part; labels, groups (R,), (M,) i32; places (R,) i64, the column
//           that is the row itself or -1; positives, negatives (R,) i64, valid (R,) u8; distances
//           (R, M), last axis dense; eligible (M,) u8; nearest (R,), farthest (R, K) i64
// Units     x and y in any; labels in theirs, max_gap too
// Cost      four looks at a row of products of M columns, 4 flops each, and D flops a contender;
//           labels O(R M); rows O(R M K)
// Traffic   least: products once; a row stays in cache for its other looks. Nothing of size R x M
//           is written
// Numbers   e = 3 c h_j + 2 c h_i, c = (D + 16) eps (more where products are rounded to less than
//           f32), holds the errors of product, norm and direct sum: any order of the product's
//           sums, any height of strip and number of threads, gives the same index. Ties go to the
//           lowest index; equal rows tie. No atomics
// Edges     M = 0 or no legal partner: not valid, positive and negative are the place, 0 without
//           one; rows: -1. A NaN in halves, labels or distances takes its pair out, infinite
//           distances are ordinary ones; labels: not valid either where the negative's label is not
//           strictly farther than the positive's. M under 2^31
// Mirrors   *_reference in ecgfast/ops/_extremes.py
#pragma once

#include "core/isa.h"
#include "core/relation.h"

namespace ecgfast::mine_extreme {

// As POSITIVES and NEGATIVES in the face number them.
enum class Positive : int { hardest = 0, easiest = 1 };
enum class Negative : int { hardest = 0, easiest = 1, semihard = 2 };

// Items of all three are rows.
struct Pairs {
  View products, rows, columns, row_halves, column_halves;
  Identity row, column;
  View places, positives, negatives, valid;
  double slack;  // c
  Positive positive;
  Negative negative;
};

struct Labels {
  View row_values, column_values, row_groups, column_groups;
  View places, positives, negatives, valid;
  double max_gap;
  bool groups_apart;  // rows of a group are not positives of each other either
};

struct Rows {
  View distances, eligible, places, nearest, farthest;
};

ECGFAST_DECLARE(pairs, Pairs)
ECGFAST_DECLARE(labels, Labels)
ECGFAST_DECLARE(rows, Rows)

}  // namespace ecgfast::mine_extreme
