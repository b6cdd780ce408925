// Who is a positive and who a negative of an anchor, for kernels on all pairs of rows; as
// ecgfast/ops/_pairs.py says it. Included by kernels: every function is static.
#pragma once

#include "core/dispatch.h"

namespace ecgfast {

// One side of a strip of pairs: int32 numbers, equal where the user's ids were equal. Without
// groups the labels stand for them.
struct Identity {
  View labels, groups;
};

// The pair is not of an anchor with itself: whoever calls has left that column out.
ECGFAST_HD static inline bool is_positive(std::int32_t row_label, std::int32_t column_label) {
  return row_label == column_label;
}

ECGFAST_HD static inline bool is_negative(std::int32_t row_label, std::int32_t column_label,
                                          std::int32_t row_group, std::int32_t column_group) {
  return (row_label != column_label) & (row_group != column_group);
}

}  // namespace ecgfast
