// cox_loss: the negative partial log-likelihood of proportional hazards, and its gradient.
//
// Math      x log hazards; rows in order of falling time, so that the risk set of a time, all rows
//           of that time or later, is a prefix. A group is the rows of one time; d of them have
//           events; S = sum of exp(x) over the risk set, E over the events of the group
//             loss = 1/D sum over groups, over k = 0 .. d - 1 of  log(S - q_k E) - sum of x_event
//             q_k = k / d (Efron), 0 (Breslow);  D = sum of d
//             a = sum over k of S / (S - q_k E)   b = sum over k of q_k S / (S - q_k E)
//             dx_j = 1/D (exp(x_j) sum of a / S over groups of x_j's time or before
//                         - event_j (1 + exp(x_j) b / S of its group))
// Shapes    x, event, dx (N,), order (N,) i64, time (N,) f64 in that order, all dense; event f64;
//           scratch (4, N) f64; loss ()
// Units     x without unit (log of a ratio of hazards), time in any one unit
// Cost      O(N): one exp a row each way, one log and one exp a group, for Efron an exp and a log
//           more an event that is tied with another; the sort is the caller's
// Traffic   least: reads x, order, time, event, writes dx: 8 N + 24 N bytes in f32
// Numbers   everything in f64, whatever x is: sums as a maximum and a sum of exp(x - maximum), so
//           that no x is too large, no risk set vanishes beside a later, larger one, and only
//           differences of x round; the same bits for any thread count
// Edges     no event gives 0 and dx = 0, N = 0 too; an x that is not finite, a time that is not
//           finite or is negative, an event that is not 0 or 1 and an order that names a row that
//           is not there give a NaN loss and dx
// Mirrors   cox_loss_reference in ecgfast/ops/cox_loss.py
#pragma once

#include "core/isa.h"

namespace ecgfast::cox_loss {

// One item: a scan.
struct Forward {
  View x, order, time, event, scratch, loss, grad_x;
  bool efron;
};

ECGFAST_DECLARE(forward, Forward)

}  // namespace ecgfast::cox_loss
