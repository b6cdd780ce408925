// soft_dtw: dynamic time warping whose minimum is soft, between records, with its gradient.
//
// Math      x_i of n samples, y_j of m samples; c(s,t) = sum (x - y)^2 over the leads
//           R(s,t) = c(s,t) + min'(R(s-1,t), R(s,t-1), R(s-1,t-1)), R(-1,-1) = 0, else none
//           outside, min'(a...) = -gamma log sum exp(-a / gamma) of those that there are; none
//           where t - s < -r - max(0, n - m) or t - s > r + max(0, m - n), r as for dtw
//             v_ij = R(n-1,m-1)
//           backward, E(n-1,m-1) = 1, w = exp((min' - R(predecessor)) / gamma), so that those of
//           a cell add up to 1:
//             E(s,t) = w_up(s+1,t) E(s+1,t) + w_left(s,t+1) E(s,t+1) + w_diag(s+1,t+1) E(s+1,t+1)
//             dx_s = sum_j g_ij sum_t 2 E(s,t) (x_s - y_t), g = dLoss/dv, and dy_t the opposite
// Shapes    x (N, L, T); y (M, L, U), or y = x; lengths n (N,), m (M,) in i64, or none: T and U;
//           v, g (N, M), of aligned records (N,); dx, dy as x, y in C order; packed forms, kept
//           rows, scratch and partial gradients as soft_dtw_shapes says
// Units     v and gamma in the square of x's; kernels compute in units of gamma / log2(e), for
//           which records are packed times sqrt(log2(e) / gamma): only exp2 and log2 are left
// Cost      L subtractions and multiply-adds a cell, and 2 exp2 and a log2; backward all of that
//           again with 3 exp2, and L subtractions and 2 L multiply-adds; bound by arithmetic
// Traffic   x and y are packed once a call; for a gradient the CPU keeps one row of R in 64 (that
//           is T U / 64 a pair), a device nothing: it makes R twice more, of as many pairs at once
//           as scratch has room for; gradients of a batch of pairs are made, then added up
// Numbers   f32 or f64 all through. A cell is the same operations in the same order whatever the
//           batch, the threads, the lanes or the side it is seen from: v_ij = v_ji and a pair alone
//           = in a batch, bit for bit; gradients add over partners by their index. On the CPU
//           subnormal numbers are zeros. f32: v within 4e-6; weights are exponentials of
//           differences of R, so gradients are within about max |R| 2^-24 / gamma
// Edges     N = 0 or M = 0 is a no-op; n, m >= 1; v may be negative, and is not 0 on the diagonal;
//           a record with a NaN, an infinity or a packed sample beyond kMostSample has NaN for all
//           values; a value beyond kFar / 10 units is inf; pairs without a finite value, or with
//           g = 0, add nothing to a gradient, and neither do samples past a length get one
// Mirrors   soft_dtw_reference in ecgfast/ops/soft_dtw.py
#pragma once

#include "core/dispatch.h"
#include "core/isa.h"

namespace ecgfast::soft_dtw {

// Which pairs: number p of `all` is (p / M, p % M), of `same` cell p of the upper triangle with its
// diagonal, of `aligned` (p, p).
enum class Pairs : int { all = 0, same = 1, aligned = 2 };

// Both forms that pairs are made of; one that is not wanted has no records.
struct Prepare {
  View x, length;  // without lengths (0,)
  View rows;       // the side that stands still
  View columns;    // the side that passes by
  View finite;     // (N,) in i32
  double scale;
};

struct Forward {
  View rows, columns, x_length, y_length, x_finite, y_finite;
  View scratch;
  View value;
  View kept;  // (pairs, rows, columns) of R as soft_dtw_kept says, or without a gradient no pairs
  Pairs pairs;
  double unit;  // gamma / log2(e)
  std::int64_t leads, x_samples, y_samples;
  std::int64_t radius;
  double fraction;  // below 0 without
  bool banded;      // some pair may have a band
};

// Gradients of pairs [first, first + count), one after the other, each wholly written.
struct Backward {
  View rows, columns, x_length, y_length;
  View value, grad, kept;
  View scratch;
  View x_partial, y_partial;  // (count, L, T) and (count, L, U)
  Pairs pairs;
  double scale;  // of the packed forms
  std::int64_t leads, x_samples, y_samples;
  std::int64_t radius;
  double fraction;
  bool banded;
  std::int64_t first, count;
};

// Adds those of a batch to the gradients, in the order of the pairs; the first batch begins them.
struct Gather {
  View x_partial, y_partial;
  View grad_x, grad_y;  // of `same` grad_x alone, which both sides go to
  Pairs pairs;
  std::int64_t first, count;
};

constexpr int kStrip = 64;  // on the CPU the last of so many rows of R is kept
constexpr int kPad = 64;    // columns in front of, and behind, a record on the CPU
constexpr int kBefore =
    32;                     // rows in front of a record on a device, as many as lanes of a warp ...
constexpr int kAfter = 64;  // ... and behind it, for copies made ahead
constexpr int kMostDeviceLeads = 24;  // so many leads of two columns fit into registers

constexpr double kFar = 1e30;         // R where there is none: finite, since inf - inf is not
constexpr double kMostSample = 1e13;  // its square, over leads and samples, stays in sight of kFar

// Cells of pair (n, m) have lo <= column - row <= hi.
struct Band {
  std::int64_t lo, hi;
};

template <typename Job>
ECGFAST_HD static inline Band band_of(const Job& job, std::int64_t n, std::int64_t m) {
  const std::int64_t least = n < m ? n : m;
  const std::int64_t radius =
      job.fraction < 0 ? job.radius
                       : static_cast<std::int64_t>(job.fraction * static_cast<double>(least));
  return {-radius - (n > m ? n - m : 0), radius + (m > n ? m - n : 0)};
}

ECGFAST_DECLARE(prepare, Prepare)
ECGFAST_DECLARE(forward, Forward)
ECGFAST_DECLARE(backward, Backward)
ECGFAST_DECLARE(gather, Gather)

}  // namespace ecgfast::soft_dtw
