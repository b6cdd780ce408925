// info_nce: losses that set an anchor's positives against all its negatives by a log-sum-exp.
//
// Math      s_ij = x_i . y_j, z = scale s; P(i) the positives of anchor i, Q(i) its negatives
//           (core/relation.h); LSE_A = log sum_{j in A} exp z_ij; of anchor i, with weight w:
//           nt_xent    sum_{p in P} softplus(L - z_ip),  L = LSE_Q
//             dz_ip = -w sigma(L - z_ip)    dz_in = w W exp(z_in - L),  W = sum_p sigma(L - z_ip)
//           sup_con    L - mean_{p in P} z_ip,  L = LSE_{P + Q}; 0 without a positive
//             dz_ij = w (exp(z_ij - L) - [j in P] / |P|)
//           multi_similarity    A / alpha + B / beta,
//             A = log(1 + sum_p exp(-alpha (s_ip - base))),
//             B = log(1 + sum_n exp(beta (s_in - base)))
//             dz_ip = -w exp(-alpha (s_ip - base) - A)    dz_in = w exp(beta (s_in - base) - B)
//           negatives    L = LSE_Q    dz_in = w exp(z_in - L)
//           dx_i = scale sum_j dz_ij y_j and so on;  dscale = sum_ij dz_ij s_ij
// Shapes    products (R, M): a strip of s, dense along M; labels, groups and places of its rows
//           (R,), of its columns (M,); groups without memory: labels stand for them; scale ();
//           loss (R,), first (R,) and second (R,) for backward; counts (R,) i64. Backward
//           overwrites products with dz_ij, plus dz_ji where the columns are anchors, too: then it
//           takes weight, first and second of all of them (M,); dots (R,) f64 gets sum_j dz_ij
//           s_ij; numbers (3,) f64 are alpha, beta and base, for multi_similarity
// Units     none; first is in units of log 2: LSE is shorter so. It holds L (or A), second W,
//           1 / |P| or B (in units of log 2)
// Cost      forward O(R M): a maximum, an exponential a pair; softplus where a vector of columns
//           holds a positive. Backward one exponential a pair and side. The products are 2 D a pair
// Traffic   forward: the strip once; on the CPU a row is read again, 2 or 3 times, from the cache.
//           Backward: the strip read and written once
// Numbers   exponents are shifted by the row's greatest legal one; a pair that is neither positive
//           nor negative is left out by selection. Sums in the dtype of the strip along a tile
//           (CPU) or a thread (CUDA), in f64 beyond; exp to 2.5 units in the last place. No atomics
// Edges     a row without negatives: L = -inf, nt_xent is 0 and dz is 0; without positives: 0 for
//           nt_xent and sup_con; a NaN shows in
//           each anchor that has the pair as positive or negative; M = 0 is as a row without
//           either; scale may be of any sign
// Mirrors   nt_xent_reference and its sisters in ecgfast/ops/info_nce.py
#pragma once

#include "core/isa.h"
#include "core/relation.h"

namespace ecgfast::info_nce {

enum class Kind : int { nt_xent = 0, sup_con = 1, multi_similarity = 2, negatives = 3 };

// What a loss is, besides its pairs.
struct Loss {
  Kind kind;
  View numbers;  // of multi_similarity: alpha, beta, base
};

// One side of the strip: its ids and, for backward, its anchors' numbers; all of one length.
struct Side {
  Identity ids;
  View weight, first, second;
};

// Items are rows of the strip.
struct Forward {
  View products, scale, places, loss, counts, first, second;
  Identity rows, columns;
  Loss of;
};

// Items are rows of the strip. The columns have no weight where they are no anchors.
struct Backward {
  View products, scale, places, dots;
  Side rows, columns;
  Loss of;
};

ECGFAST_DECLARE(forward, Forward)
ECGFAST_DECLARE(backward, Backward)

}  // namespace ecgfast::info_nce
