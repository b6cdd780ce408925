// The upper triangle of a symmetric matrix, column by column: (0,0), (0,1), (1,1), (0,2), ...
// Included by kernels: every function is static.
#pragma once

#include <cmath>

#include "core/dispatch.h"

namespace ecgfast {

struct Cell {
  std::int64_t row;
  std::int64_t column;
};

// How many cells the upper triangle of an (edge, edge) matrix has, its diagonal included.
ECGFAST_HD static inline std::int64_t triangle_size(std::int64_t edge) {
  return edge * (edge + 1) / 2;
}

// Cell number `index` of the upper triangle. The root is rounded, so it is set right in integers.
ECGFAST_HD static inline Cell triangle_cell(std::int64_t index) {
  auto column = static_cast<std::int64_t>((sqrt(8.0 * static_cast<double>(index) + 1.0) - 1.0) / 2);
  while (triangle_size(column) > index) --column;
  while (triangle_size(column + 1) <= index) ++column;
  return {index - triangle_size(column), column};
}

}  // namespace ecgfast
