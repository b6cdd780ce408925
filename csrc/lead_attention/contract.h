// lead_attention: softmax attention of several heads among the tokens of each lead, by itself.
//
// Math      a row is one lead of one record: S tokens of queries, keys and values, h = D / heads
//           columns of each a head; for every row and head, i and j tokens
//             s_ij = q_i . k_j / sqrt(h)     p_ij = exp(s_ij) / sum_j exp(s_ij)
//             y_i = sum_j p_ij v_j
//           backward, g = dLoss/dy:
//             w_ij = p_ij (g_i . v_j - sum_j p_ij g_i . v_j)
//             dq_i = sum_j w_ij k_j / sqrt(h)     dk_j = sum_i w_ij q_i / sqrt(h)
//             dv_j = sum_i p_ij g_i
// Shapes    qkv, grad_qkv (N, L, S, 3 D): queries, keys, values, each with its heads one after the
//           other; y, grad_y (N, L, S, D); maps, that is p, (N, L, heads, S, S) or without memory;
//           inputs have a dense last axis and any other stride, outputs are dense; scratch (W, B)
//           u8, a row a worker, used on the CPU alone
// Units     none
// Cost      O(N L S^2 D): a pair of tokens costs a head 4 h flops and an exponential forward, 12 h
//           and an exponential backward; bound by arithmetic
// Traffic   least: 4 D numbers a token forward (qkv, y), 7 D backward (qkv, g, dqkv); S^2 numbers a
//           head more where maps are asked for. Scores and weights stay on the chip, and nothing is
//           kept for backward but qkv
// Numbers   scores are shifted by the greatest of their query; sums in f32 for f16, bf16, f32 and
//           in f64 for f64, always in the order of tokens: the same for any batch and thread count.
//           On the CPU rows lie side by side in the lanes of a vector, so that none sees another
// Edges     S >= 1, h from 1 to 8, heads S at most 4096; one token gives y = v and dq = dk = 0;
//           N = 0 and L = 0 are no-ops; a NaN or an infinity stays in its row and its head
// Mirrors   lead_attention_reference in ecgfast/ops/lead_attention.py
#pragma once

#include "core/isa.h"

namespace ecgfast::lead_attention {

constexpr int kMostColumns = 8;       // of a head: its queries and sums fit in registers
constexpr int kMostQueries = 4096;    // of a row: what backward knows of them fits in shared memory
constexpr int kMostVectorBytes = 64;  // of any instruction set

// Items are rows.
struct Forward {
  View qkv, y, maps, scratch;
  std::int64_t heads;
};

// Items are rows.
struct Backward {
  View qkv, grad_y, grad_qkv, scratch;
  std::int64_t heads;
};

ECGFAST_DECLARE(forward, Forward)
ECGFAST_DECLARE(backward, Backward)

}  // namespace ecgfast::lead_attention
